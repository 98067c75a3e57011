//! Durations as Go writes them, such as `1h30m`.
//!
//! Upstream: Go's `time.ParseDuration`.

const UNITS: [(&str, f64); 8] = [
    ("ns", 1.0),
    ("us", 1e3),
    ("\u{b5}s", 1e3),
    ("\u{3bc}s", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 60e9),
    ("h", 3600e9),
];

/// What is wrong with a duration, in Go's words.
pub(crate) fn duration_problem(text: &str) -> Option<String> {
    let shown = format!("{text:?}");
    let invalid = || Some(format!("time: invalid duration {shown}"));
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return None;
    }
    if rest.is_empty() {
        return invalid();
    }
    let mut nanoseconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| letter != '.' && !letter.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        if number.matches('.').count() > 1 || !number.contains(|letter: char| letter.is_ascii_digit()) {
            return invalid();
        }
        let letters = after.find(|letter: char| letter == '.' || letter.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        if unit.is_empty() {
            return Some(format!("time: missing unit in duration {shown}"));
        }
        let Some((_, length)) = UNITS.iter().find(|(known, _)| *known == unit) else {
            return Some(format!("time: unknown unit {unit:?} in duration {shown}"));
        };
        nanoseconds += number.parse::<f64>().unwrap_or(f64::INFINITY) * length;
        rest = after;
    }
    // Go keeps them in 63 bits.
    if nanoseconds >= 9_223_372_036_854_775_808.0 { invalid() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for good in ["0", "-0", "+5s", "1h30m", "1.5h", ".5s", "1.s", "100\u{b5}s", "2562047h"] {
            assert_eq!(duration_problem(good), None, "{good}");
        }
        for (bad, problem) in [
            ("", "time: invalid duration \"\""),
            ("x", "time: invalid duration \"x\""),
            ("-", "time: invalid duration \"-\""),
            (".s", "time: invalid duration \".s\""),
            ("1.2.3s", "time: invalid duration \"1.2.3s\""),
            ("5", "time: missing unit in duration \"5\""),
            ("5d", "time: unknown unit \"d\" in duration \"5d\""),
            ("2562048h", "time: invalid duration \"2562048h\""),
        ] {
            assert_eq!(duration_problem(bad).as_deref(), Some(problem));
        }
    }
}
