//! Waits that double: upstream's `flowcontrol.Backoff` with the kubelet's numbers.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::limits::{BACKOFF_FIRST, BACKOFF_MAX, BACKOFF_RESET};

/// How long to wait before the next try of something that failed before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Backoff {
    /// The wait.
    pub(crate) delay: Duration,
    /// When the last try began.
    pub(crate) last_try: Timestamp,
}

impl Backoff {
    /// After another failure at `failed_at`, tried again at `now`.
    pub(crate) fn next(previous: Option<Self>, failed_at: Timestamp, now: Timestamp) -> Self {
        let delay = match previous {
            Some(previous) if !previous.expired(failed_at) => (previous.delay * 2).min(BACKOFF_MAX),
            _ => BACKOFF_FIRST,
        };
        Self { delay, last_try: now }
    }

    /// The time went so well that the count starts anew.
    fn expired(&self, failed_at: Timestamp) -> bool {
        failed_at.duration_since(self.last_try) > SignedDuration::try_from(BACKOFF_RESET).unwrap_or(SignedDuration::MAX)
    }

    /// Until when to wait after a failure at this time; `None` when there is no need to.
    pub(crate) fn until(&self, failed_at: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let end = after(failed_at, self.delay);
        (!self.expired(failed_at) && now < end).then_some(end)
    }
}

/// A time after a time, as far as times go.
pub(crate) fn after(time: Timestamp, wait: Duration) -> Timestamp {
    let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
    time.saturating_add(wait).unwrap_or(Timestamp::MAX)
}

/// A wait in whole seconds as Go prints it: `10s`, `1m20s`, `5m0s`.
pub(crate) fn go_seconds(wait: Duration) -> String {
    let seconds = wait.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (hours, minutes, seconds) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[test]
    fn doubles_up_to_five_minutes() {
        let mut backoff = None;
        let mut waits = vec![];
        let mut now = 0;
        for _ in 0..8 {
            let next = Backoff::next(backoff, at(now), at(now));
            waits.push(next.delay.as_secs());
            now += 300;
            backoff = Some(next);
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300, 300]);
    }

    #[test]
    fn ten_good_minutes_start_anew() {
        let long = Backoff { delay: Duration::from_secs(160), last_try: at(0) };
        assert_eq!(Backoff::next(Some(long), at(601), at(601)).delay.as_secs(), 10);
        assert_eq!(Backoff::next(Some(long), at(600), at(600)).delay.as_secs(), 300);
        assert_eq!(long.until(at(601), at(602)), None);
        assert_eq!(long.until(at(5), at(6)), Some(at(165)));
        assert_eq!(long.until(at(5), at(165)), None);
    }

    #[test]
    fn waits_are_written_as_in_go() {
        let text = |seconds| go_seconds(Duration::from_secs(seconds));
        assert_eq!([text(10), text(80), text(300), text(3600)], ["10s", "1m20s", "5m0s", "1h0m0s"]);
    }
}
