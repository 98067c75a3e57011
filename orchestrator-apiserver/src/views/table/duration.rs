//! How long ago, as people read it: `5s`, `3m20s`, `5h10m`, `2d3h`, `3y10d`.
//!
//! Upstream: `HumanDuration` of `k8s.io/apimachinery/pkg/util/duration`: two units at most, and the smaller
//! the time, the finer.

use jiff::SignedDuration;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// The text of a duration. Clocks that are apart by up to two seconds are forgiven.
pub(super) fn human(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1..0 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => two(seconds, MINUTE, "m", 1, "s"),
        600..10_800 => one(seconds, MINUTE, "m"),
        10_800..28_800 => two(seconds, HOUR, "h", MINUTE, "m"),
        28_800..172_800 => one(seconds, HOUR, "h"),
        172_800..691_200 => two(seconds, DAY, "d", HOUR, "h"),
        _ if seconds < 2 * YEAR => one(seconds, DAY, "d"),
        _ if seconds < 8 * YEAR => two(seconds, YEAR, "y", DAY, "d"),
        _ => one(seconds, YEAR, "y"),
    }
}

fn one(seconds: i64, unit: i64, name: &str) -> String {
    format!("{}{name}", seconds / unit)
}

fn two(seconds: i64, unit: i64, name: &str, lesser: i64, lesser_name: &str) -> String {
    match seconds % unit / lesser {
        0 => one(seconds, unit, name),
        rest => format!("{}{name}{rest}{lesser_name}", seconds / unit),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(seconds: i64) -> String {
        human(SignedDuration::from_secs(seconds))
    }

    #[test]
    fn the_longer_the_coarser() {
        let cases = [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (200, "3m20s"),
            (10 * MINUTE, "10m"),
            (179 * MINUTE + 59, "179m"),
            (3 * HOUR, "3h"),
            (5 * HOUR + 10 * MINUTE, "5h10m"),
            (8 * HOUR + MINUTE, "8h"),
            (47 * HOUR, "47h"),
            (2 * DAY, "2d"),
            (2 * DAY + 3 * HOUR, "2d3h"),
            (8 * DAY + HOUR, "8d"),
            (729 * DAY, "729d"),
            (2 * YEAR, "2y"),
            (3 * YEAR + 10 * DAY, "3y10d"),
            (8 * YEAR + DAY, "8y"),
        ];
        for (seconds, text) in cases {
            assert_eq!(of(seconds), text, "{seconds} seconds");
        }
    }

    proptest! {
        #[test]
        fn it_is_short_and_never_empty(seconds in 0..200 * YEAR) {
            let text = of(seconds);
            prop_assert!((2..=6).contains(&text.len()), "{text}");
            prop_assert!(text.starts_with(|first: char| first.is_ascii_digit()));
        }
    }
}
