//! Schedules in the notation of cron, as far as their form goes.
//!
//! Upstream uses `github.com/robfig/cron` with five fields and the descriptors that begin with `@`.

const FIELDS: [(&str, u32, u32); 5] =
    [("minute", 0, 59), ("hour", 0, 23), ("day of month", 1, 31), ("month", 1, 12), ("day of week", 0, 6)];
const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const DESCRIPTORS: [&str; 7] = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

/// Whether a schedule has the right form.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(schedule: &str) -> Result<(), String> {
    let text = without_zone(schedule);
    if text.is_empty() {
        return Err("empty spec string".to_owned());
    }
    if let Some(every) = text.strip_prefix("@every ") {
        let good = every.ends_with(['s', 'm', 'h']) && every.starts_with(|first: char| first.is_ascii_digit());
        return if good {
            Ok(())
        } else {
            Err(format!("failed to parse duration {text}: time: invalid duration {every:?}"))
        };
    }
    if text.starts_with('@') {
        return if DESCRIPTORS.contains(&text) { Ok(()) } else { Err(format!("unrecognized descriptor: {text}")) };
    }
    let parts: Vec<&str> = text.split_whitespace().collect();
    if parts.len() != FIELDS.len() {
        return Err(format!("expected exactly 5 fields, found {}: {parts:?}", parts.len())
            .replace("\", \"", " ")
            .replace("[\"", "[")
            .replace("\"]", "]"));
    }
    for (part, (name, low, high)) in parts.iter().zip(FIELDS) {
        for range in part.split(',') {
            check_range(range, name, low, high)?;
        }
    }
    Ok(())
}

/// A schedule may begin with a time zone, which the kind refuses by a rule of its own.
fn without_zone(schedule: &str) -> &str {
    let zoned = ["TZ=", "CRON_TZ="].iter().any(|prefix| schedule.starts_with(prefix));
    let rest = if zoned { schedule.split_once(' ').map_or("", |(_, rest)| rest) } else { schedule };
    rest.trim()
}

fn check_range(range: &str, name: &str, low: u32, high: u32) -> Result<(), String> {
    let (span, step) = range.split_once('/').map_or((range, None), |(span, step)| (span, Some(step)));
    let (first, last) = span.split_once('-').map_or((span, None), |(first, last)| (first, Some(last)));
    let (first, mut last) = match (first, last) {
        ("*" | "?", _) => (low, high),
        (_, None) => {
            let only = number(first, name)?;
            (only, only)
        }
        (_, Some(last)) if last.contains('-') => return Err(format!("too many hyphens: {range}")),
        (_, Some(last)) => (number(first, name)?, number(last, name)?),
    };
    let step = match step {
        None => 1,
        Some(step) if step.contains('/') => return Err(format!("too many slashes: {range}")),
        Some(step) => {
            if !span.contains('-') {
                last = high;
            }
            number(step, "")?
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
    Ok(())
}

fn number(text: &str, name: &str) -> Result<u32, String> {
    let lower = text.to_lowercase();
    let position = |names: &[&str]| names.iter().position(|known| *known == lower);
    let named = match name {
        "month" => position(&MONTHS).map(|index| index + 1),
        "day of week" => position(&DAYS),
        _ => None,
    };
    if let Some(number) = named.and_then(|number| u32::try_from(number).ok()) {
        return Ok(number);
    }
    text.parse().map_err(|_| format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_told_from_nonsense() {
        for good in
            ["*/5 * * * *", "TZ=UTC 0 0 1 jan sun-fri", "5/10 * * * *", "@daily", "@every 1h", "1,2,3 0-4/2 ? * *"]
        {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "* * * *",
            "60 * * * *",
            "* * 0 * *",
            "a * * * *",
            "*/0 * * * *",
            "@often",
            "5-1 * * * *",
            "1-2-3 * * * *",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
