//! Schedules in the notation of cron.
//!
//! As upstream reads them with `github.com/robfig/cron`: five fields, descriptors that begin with `@`, and a zone in front.

use std::{str::FromStr, time::Duration};

use jiff::{SignedDuration, Timestamp, Zoned, civil::Date, tz::TimeZone};

const FIELDS: [Field; 5] = [
    Field { name: "minute", low: 0, high: 59 },
    Field { name: "hour", low: 0, high: 23 },
    Field { name: "day of month", low: 1, high: 31 },
    Field { name: "month", low: 1, high: 12 },
    Field { name: "day of week", low: 0, high: 6 },
];
const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const DESCRIPTORS: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// How many years ahead a time is looked for.
const YEARS_AHEAD: i16 = 5;

/// When something is to happen, again and again.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    zone: Option<TimeZone>,
    times: Times,
}

#[derive(Clone, Debug, PartialEq)]
enum Times {
    Every(Duration),
    At([Set; 5]),
}

/// The values that a field allows, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Set {
    bits: u64,
    /// It was written as a star, and restricts nothing.
    any: bool,
}

/// What is wrong with a schedule, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ScheduleError(String);

impl Schedule {
    /// The first time after `after`, in a zone unless the schedule names one itself. `None` when there is none for years.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let whole = Timestamp::from_second(after.as_second()).ok()?;
        match &self.times {
            Times::Every(pause) => whole.checked_add(*pause).ok(),
            Times::At(sets) => next_at(sets, whole, self.zone.as_ref().unwrap_or(zone)),
        }
    }
}

fn next_at(sets: &[Set; 5], after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let [minutes, hours, days, months, weekdays] = sets;
    let mut time = after.checked_add(SignedDuration::from_secs(1)).ok()?.to_zoned(zone.clone());
    let last_year = time.year() + YEARS_AHEAD;
    let later = |time: &Zoned, seconds: i8| time.checked_add(SignedDuration::from_secs(seconds.into())).ok();
    let day_begins = |date: Date| date.to_zoned(zone.clone()).ok();
    while time.year() <= last_year {
        let date = time.date();
        let (day, weekday) = (days.has(date.day()), weekdays.has(date.weekday().to_sunday_zero_offset()));
        // As cron has always had it: of two restrictions on days, either is enough.
        let day_matches = if days.any || weekdays.any { day && weekday } else { day || weekday };
        time = if !months.has(date.month()) {
            day_begins(date.last_of_month().tomorrow().ok()?)?
        } else if !day_matches {
            day_begins(date.tomorrow().ok()?)?
        } else if !hours.has(time.hour()) {
            let passed = i64::from(time.minute()) * 60 + i64::from(time.second());
            time.checked_add(SignedDuration::from_secs(3600 - passed)).ok()?
        } else if !minutes.has(time.minute()) || time.second() != 0 {
            later(&time, 60 - time.second())?
        } else {
            return Some(time.timestamp());
        };
    }
    None
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let (zone, text) = zone_of(text)?;
        if text.is_empty() {
            return Err(ScheduleError("empty spec string".to_owned()));
        }
        let times = if let Some(every) = text.strip_prefix("@every ") {
            let pause = duration(every).ok_or_else(|| {
                ScheduleError(format!("failed to parse duration {text}: time: invalid duration {every:?}"))
            })?;
            Times::Every(Duration::from_secs(pause.as_secs().max(1)))
        } else if text.starts_with('@') {
            let known = DESCRIPTORS.iter().find(|(name, _)| *name == text);
            let (_, fields) = known.ok_or_else(|| ScheduleError(format!("unrecognized descriptor: {text}")))?;
            Times::At(parse_fields(fields)?)
        } else {
            Times::At(parse_fields(text)?)
        };
        Ok(Self { zone, times })
    }
}

/// The zone that a schedule may begin with, and the rest.
fn zone_of(schedule: &str) -> Result<(Option<TimeZone>, &str), ScheduleError> {
    let Some(named) = ["TZ=", "CRON_TZ="].iter().find_map(|prefix| schedule.strip_prefix(prefix)) else {
        return Ok((None, schedule.trim()));
    };
    let (name, rest) = named.split_once(' ').unwrap_or((named, ""));
    let zone = TimeZone::get(name)
        .map_err(|_| ScheduleError(format!("provided bad location {name}: unknown time zone {name}")))?;
    Ok((Some(zone), rest.trim()))
}

/// A duration as Go writes it: `1h30m`.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let number = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let (value, after) = rest.split_at(number);
        let unit = after.find(|letter: char| letter.is_ascii_digit() || letter == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" | "μs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        let value: f64 = value.parse().ok()?;
        total = total.checked_add(Duration::try_from_secs_f64(value * seconds).ok()?)?;
        rest = after;
    }
    Some(total)
}

fn parse_fields(text: &str) -> Result<[Set; 5], ScheduleError> {
    let parts: Vec<&str> = text.split_whitespace().collect();
    if parts.len() != FIELDS.len() {
        let found = parts.join(" ");
        return Err(ScheduleError(format!("expected exactly 5 fields, found {}: [{found}]", parts.len())));
    }
    let mut sets = [Set::default(); 5];
    for ((part, field), set) in parts.iter().zip(&FIELDS).zip(&mut sets) {
        for range in part.split(',') {
            field.read(range, set).map_err(ScheduleError)?;
        }
    }
    Ok(sets)
}

impl Set {
    fn has(self, value: i8) -> bool {
        u32::try_from(value).is_ok_and(|value| self.bits >> value & 1 == 1)
    }
}

/// One of the five fields.
struct Field {
    name: &'static str,
    low: u32,
    high: u32,
}

impl Field {
    /// Adds a range, such as `1-5/2`, to the values that are allowed.
    fn read(&self, range: &str, set: &mut Set) -> Result<(), String> {
        let (low, high) = (self.low, self.high);
        let (span, step) = range.split_once('/').map_or((range, None), |(span, step)| (span, Some(step)));
        let (first, last) = span.split_once('-').map_or((span, None), |(first, last)| (first, Some(last)));
        let any = matches!(first, "*" | "?");
        let (first, mut last) = match (first, last) {
            _ if any => (low, high),
            (_, None) => {
                let only = self.number(first)?;
                (only, only)
            }
            (_, Some(last)) if last.contains('-') => return Err(format!("too many hyphens: {range}")),
            (_, Some(last)) => (self.number(first)?, self.number(last)?),
        };
        let step = match step {
            None => 1,
            Some(step) if step.contains('/') => return Err(format!("too many slashes: {range}")),
            Some(step) => {
                if !span.contains('-') {
                    last = high;
                }
                integer(step)?
            }
        };
        if first < low {
            return Err(format!("beginning of range ({first}) below minimum ({low}): {range}"));
        }
        if last > high {
            return Err(format!("end of range ({last}) above maximum ({high}): {range}"));
        }
        if first > last {
            return Err(format!("beginning of range ({first}) beyond end of range ({last}): {range}"));
        }
        if step == 0 {
            return Err(format!("step of range should be a positive number: {range}"));
        }
        set.any |= any && step == 1;
        set.bits |= (first..=last).step_by(step as usize).fold(0, |bits, value| bits | 1 << value);
        Ok(())
    }

    fn number(&self, text: &str) -> Result<u32, String> {
        let lower = text.to_lowercase();
        let position = |names: &[&str]| names.iter().position(|known| *known == lower);
        let named = match self.name {
            "month" => position(&MONTHS).map(|index| index + 1),
            "day of week" => position(&DAYS),
            _ => None,
        };
        match named.and_then(|number| u32::try_from(number).ok()) {
            Some(number) => Ok(number),
            None => integer(text),
        }
    }
}

fn integer(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_told_from_nonsense() {
        for good in [
            "*/5 * * * *",
            "TZ=UTC 0 0 1 jan sun-fri",
            "5/10 * * * *",
            "@daily",
            "@every 1h",
            "@every 1h30m1.5s",
            "1,2,3 0-4/2 ? * *",
        ] {
            assert!(good.parse::<Schedule>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "* * * *",
            "60 * * * *",
            "* * 0 * *",
            "a * * * *",
            "*/0 * * * *",
            "@often",
            "@every h",
            "@every 5",
            "5-1 * * * *",
            "1-2-3 * * * *",
            "TZ=Nowhere * * * * *",
        ] {
            assert!(bad.parse::<Schedule>().is_err(), "{bad}");
        }
        let words = "* * *".parse::<Schedule>().unwrap_err().to_string();
        assert_eq!(words, "expected exactly 5 fields, found 3: [* * *]");
    }

    fn next(schedule: &str, after: &str, zone: &str) -> Option<String> {
        let schedule: Schedule = schedule.parse().unwrap();
        let next = schedule.next(after.parse().unwrap(), &TimeZone::get(zone).unwrap());
        next.map(|time| time.to_string())
    }

    #[test]
    fn the_next_time_is_the_first_that_matches() {
        for (schedule, after, expected) in [
            ("* * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"),
            ("* * * * *", "2026-01-01T00:00:59.5Z", "2026-01-01T00:01:00Z"),
            ("30 6-16/4 * * 1-5", "2026-01-02T14:30:00Z", "2026-01-05T06:30:00Z"),
            ("0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("0 0 13 * 5", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
            ("0 0 */2 * 5", "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"),
            ("@every 90s", "2026-01-01T00:00:00.7Z", "2026-01-01T00:01:30Z"),
            ("59 23 31 12 *", "2026-12-31T23:59:00Z", "2027-12-31T23:59:00Z"),
        ] {
            assert_eq!(next(schedule, after, "UTC").as_deref(), Some(expected), "{schedule}");
        }
        assert_eq!(next("59 23 31 2 *", "2026-01-01T00:00:00Z", "UTC"), None);
    }

    #[test]
    fn zones_shift_times_and_leave_out_what_does_not_exist() {
        let zone = "America/New_York";
        assert_eq!(next("0 9 * * *", "2026-01-01T00:00:00Z", zone).as_deref(), Some("2026-01-01T14:00:00Z"));
        assert_eq!(next("0 9 * * *", "2026-07-01T00:00:00Z", zone).as_deref(), Some("2026-07-01T13:00:00Z"));
        assert_eq!(next("30 2 * * *", "2026-03-08T05:00:00Z", zone).as_deref(), Some("2026-03-09T06:30:00Z"));
        assert_eq!(
            next("TZ=Asia/Tokyo 0 9 * * *", "2026-01-01T00:00:00Z", zone).as_deref(),
            Some("2026-01-02T00:00:00Z")
        );
        assert_eq!(next("30 1 * * *", "2026-11-01T05:30:00Z", zone).as_deref(), Some("2026-11-01T06:30:00Z"));
    }
}
