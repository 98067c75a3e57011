//! Times as upstream reads and writes them: RFC 3339, kept in UTC, and what is no time is refused in Go's words.
//!
//! Upstream: Go's `time.Parse`, `metav1.Time` and `metav1.MicroTime`.

use jiff::{SignedDuration, civil};

/// How a time is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeForm {
    /// With whole seconds; fractions are read and let go.
    Seconds,
    /// With exactly six digits of a fraction.
    Micros,
}

impl TimeForm {
    /// As Go writes down the form.
    fn layout(self) -> &'static str {
        match self {
            Self::Seconds => "2006-01-02T15:04:05Z07:00",
            Self::Micros => "2006-01-02T15:04:05.000000Z07:00",
        }
    }
}

/// A number of a time: what stands before it, as Go's layout has it, its range, and what it is called.
type Element = (&'static str, &'static str, i16, i16, &'static str);

/// Whether there is such a day in the month is known only when all is read.
const ELEMENTS: [Element; 6] = [
    ("", "2006", 0, 9999, "year"),
    ("-", "01", 1, 12, "month"),
    ("-", "02", 0, 99, "day"),
    ("T", "15", 0, 23, "hour"),
    (":", "04", 0, 59, "minute"),
    (":", "05", 0, 59, "second"),
];

const FRACTION: &str = ".000000";
const ZONE: &str = "Z07:00";

/// A time in its canonical form; `None` for the time that Go takes for none.
pub(crate) fn canonical(text: &str, form: TimeForm) -> Result<Option<String>, String> {
    let mut reader = Reader { text, form, rest: text.as_bytes() };
    let [year, month, day, hour, minute, second] = reader.numbers()?;
    let micros = reader.fraction()?;
    let offset = reader.zone()?;
    if !reader.rest.is_empty() {
        return Err(reader.complaint(&format!(": extra text: {}", quoted(reader.rest))));
    }
    let small = |number: i16| i8::try_from(number).unwrap_or_default();
    let date = civil::Date::new(year, small(month), small(day));
    let date = date.map_err(|_| reader.complaint(": day out of range"))?;
    let time = date.at(small(hour), small(minute), small(second), 0);
    // What lies beyond all calendars stays as it was given.
    let Ok(time) = time.checked_sub(SignedDuration::from_secs(offset)) else { return Ok(Some(text.to_owned())) };
    let is_zero = time == civil::date(1, 1, 1).at(0, 0, 0, 0) && micros == 0;
    let fraction = if form == TimeForm::Micros { format!(".{micros:06}") } else { String::new() };
    Ok((!is_zero).then(|| format!("{}{fraction}Z", time.strftime("%Y-%m-%dT%H:%M:%S"))))
}

struct Reader<'a> {
    text: &'a str,
    form: TimeForm,
    rest: &'a [u8],
}

impl Reader<'_> {
    fn numbers(&mut self) -> Result<[i16; 6], String> {
        let mut numbers = [0; 6];
        for (number, (before, element, low, high, name)) in numbers.iter_mut().zip(ELEMENTS) {
            self.skip(before)?;
            let here = self.rest;
            let digits = if element == "2006" { 4 } else { 2 };
            *number = self.digits(digits, element == "15").ok_or_else(|| self.cannot(here, element))?;
            if *number < low || *number > high {
                return Err(self.complaint(&format!(": {name} out of range")));
            }
        }
        Ok(numbers)
    }

    /// Microseconds.
    fn fraction(&mut self) -> Result<u32, String> {
        let is_fraction = matches!(self.rest, [b'.' | b',', digit, ..] if digit.is_ascii_digit());
        let digits = self.rest.iter().skip(1).take_while(|byte| byte.is_ascii_digit()).count();
        match self.form {
            TimeForm::Seconds if is_fraction => {
                self.rest = self.rest.get(1 + digits..).unwrap_or_default();
                Ok(0)
            }
            TimeForm::Seconds => Ok(0),
            TimeForm::Micros if is_fraction && digits >= 6 => {
                let (fraction, rest) = self.rest.split_at(7);
                self.rest = rest;
                Ok(fraction.iter().skip(1).fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0')))
            }
            TimeForm::Micros => Err(self.cannot(self.rest, FRACTION)),
        }
    }

    /// The distance from UTC in seconds.
    fn zone(&mut self) -> Result<i64, String> {
        let here = self.rest;
        if let [b'Z', rest @ ..] = here {
            self.rest = rest;
            return Ok(0);
        }
        let [sign, hour @ .., b':', _, _] = here.get(..6).unwrap_or_default() else {
            return Err(self.cannot(here, ZONE));
        };
        let minute = here.get(4..6).unwrap_or_default();
        self.rest = here.get(6..).unwrap_or_default();
        let (Some(hours), Some(minutes)) = (two_digits(hour), two_digits(minute)) else {
            return Err(self.cannot(here, ZONE));
        };
        for (number, most, name) in [(hours, 24, "hour"), (minutes, 60, "minute")] {
            if number > most {
                return Err(self.complaint(&format!(": time zone offset {name} out of range")));
            }
        }
        let seconds = i64::from(hours) * 3600 + i64::from(minutes) * 60;
        match sign {
            b'+' => Ok(seconds),
            b'-' => Ok(-seconds),
            _ => Err(self.cannot(here, ZONE)),
        }
    }

    fn skip(&mut self, expected: &str) -> Result<(), String> {
        match self.rest.strip_prefix(expected.as_bytes()) {
            Some(rest) => {
                self.rest = rest;
                Ok(())
            }
            None => Err(self.cannot(self.rest, expected)),
        }
    }

    /// A number of so many digits, or of one where fewer will do.
    fn digits(&mut self, count: usize, fewer: bool) -> Option<i16> {
        let there = self.rest.iter().take(count).take_while(|byte| byte.is_ascii_digit()).count();
        if there == 0 || (there < count && !fewer) {
            return None;
        }
        let (digits, rest) = self.rest.split_at(there);
        self.rest = rest;
        std::str::from_utf8(digits).ok()?.parse().ok()
    }

    fn cannot(&self, here: &[u8], element: &str) -> String {
        let layout = self.form.layout();
        self.complaint(&format!(" as \"{layout}\": cannot parse {} as \"{element}\"", quoted(here)))
    }

    fn complaint(&self, why: &str) -> String {
        format!("parsing time {}{why}", quoted(self.text.as_bytes()))
    }
}

fn two_digits(text: &[u8]) -> Option<u8> {
    match text {
        [tens @ b'0'..=b'9', ones @ b'0'..=b'9'] => Some((tens - b'0') * 10 + (ones - b'0')),
        _ => None,
    }
}

/// As Go's package of times shows what it was given.
fn quoted(text: &[u8]) -> String {
    let letter = |byte: &u8| match byte {
        b'"' | b'\\' => format!("\\{}", char::from(*byte)),
        b' '..=b'~' | 0x7f => char::from(*byte).to_string(),
        _ => format!("\\x{byte:02x}"),
    };
    format!("\"{}\"", text.iter().map(letter).collect::<String>())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_become_canonical() {
        for (text, form, expected) in [
            ("2026-01-01T02:00:00+02:00", TimeForm::Seconds, Some("2026-01-01T00:00:00Z")),
            ("2026-01-01T00:00:00.999Z", TimeForm::Seconds, Some("2026-01-01T00:00:00Z")),
            ("2026-01-01T5:00:00Z", TimeForm::Seconds, Some("2026-01-01T05:00:00Z")),
            ("2024-02-29T23:30:00-00:45", TimeForm::Seconds, Some("2024-03-01T00:15:00Z")),
            ("0001-01-01T00:00:00Z", TimeForm::Seconds, None),
            ("2026-01-01T00:00:00.000001-24:00", TimeForm::Micros, Some("2026-01-02T00:00:00.000001Z")),
            ("0001-01-01T00:00:00.000000Z", TimeForm::Micros, None),
            ("0001-01-01T00:00:00.000001Z", TimeForm::Micros, Some("0001-01-01T00:00:00.000001Z")),
        ] {
            assert_eq!(canonical(text, form), Ok(expected.map(str::to_owned)), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused_in_the_words_of_go() {
        let layout = "2006-01-02T15:04:05Z07:00";
        for (text, expected) in [
            ("x", format!("parsing time \"x\" as \"{layout}\": cannot parse \"x\" as \"2006\"")),
            ("", format!("parsing time \"\" as \"{layout}\": cannot parse \"\" as \"2006\"")),
            ("2026/01", format!("parsing time \"2026/01\" as \"{layout}\": cannot parse \"/01\" as \"-\"")),
            ("2026-1-1", format!("parsing time \"2026-1-1\" as \"{layout}\": cannot parse \"1-1\" as \"01\"")),
            ("é", format!("parsing time \"\\xc3\\xa9\" as \"{layout}\": cannot parse \"\\xc3\\xa9\" as \"2006\"")),
            ("2026-13-01T00:00:00Z", "parsing time \"2026-13-01T00:00:00Z\": month out of range".to_owned()),
            ("2026-02-30T00:00:00Z", "parsing time \"2026-02-30T00:00:00Z\": day out of range".to_owned()),
            ("2026-01-01T24:00:00Z", "parsing time \"2026-01-01T24:00:00Z\": hour out of range".to_owned()),
            ("2026-01-01T00:00:00Z!", "parsing time \"2026-01-01T00:00:00Z!\": extra text: \"!\"".to_owned()),
            (
                "2026-01-01T00:00:00+25:00",
                "parsing time \"2026-01-01T00:00:00+25:00\": time zone offset hour out of range".to_owned(),
            ),
            (
                "2026-01-01T00:00:00",
                format!("parsing time \"2026-01-01T00:00:00\" as \"{layout}\": cannot parse \"\" as \"Z07:00\""),
            ),
        ] {
            assert_eq!(canonical(text, TimeForm::Seconds), Err(expected));
        }
        assert_eq!(
            canonical("2026-01-01T00:00:00Z", TimeForm::Micros).unwrap_err(),
            "parsing time \"2026-01-01T00:00:00Z\" as \"2006-01-02T15:04:05.000000Z07:00\": cannot parse \"Z\" as \
             \".000000\""
        );
    }

    proptest! {
        #[test]
        fn every_instant_comes_back(seconds in -60_000_000_000_i64..250_000_000_000, micros in 0_i32..1_000_000) {
            let instant = jiff::Timestamp::new(seconds, 0).unwrap();
            let whole = instant.strftime("%Y-%m-%dT%H:%M:%S").to_string();
            for (text, form) in
                [(format!("{whole}Z"), TimeForm::Seconds), (format!("{whole}.{micros:06}Z"), TimeForm::Micros)]
            {
                prop_assert_eq!(canonical(&text, form), Ok(Some(text.clone())));
            }
        }

        #[test]
        fn nothing_panics(text in "[0-9TZ:.,+-]{0,30}|\\PC{0,12}") {
            for form in [TimeForm::Seconds, TimeForm::Micros] {
                if let Ok(Some(once)) = canonical(&text, form) {
                    prop_assert_eq!(canonical(&once, form), Ok(Some(once)));
                }
            }
        }
    }
}
