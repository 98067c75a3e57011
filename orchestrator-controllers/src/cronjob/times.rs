//! Which of the times of a schedule is due.
//!
//! Upstream: `mostRecentScheduleTime` in `pkg/controller/cronjob/utils.go`.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use k8s_openapi::api::batch::v1::CronJob;
use orchestrator_core::cron::Schedule;

use crate::limits::{CRON_DELAY, MANY_MISSED_TIMES};

/// What a schedule says of the present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Due {
    /// The last time that has come and was not served.
    pub time: Option<Timestamp>,
    /// There were more of them than anyone will want to hear of.
    pub missed_many: bool,
}

/// Times of a schedule come less than a second after each other, or never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("time difference between two schedules is less than 1 second")]
pub(super) struct NoTimes;

/// The times of one cron job.
pub(super) struct Times<'a> {
    pub cron: &'a CronJob,
    pub schedule: &'a Schedule,
    pub zone: &'a TimeZone,
    pub now: Timestamp,
}

/// The last time that has come, since the one that counted before.
struct Recent {
    earliest: Timestamp,
    time: Option<Timestamp>,
    missed: i64,
}

impl Times<'_> {
    /// The time that is due.
    pub(super) fn due(&self) -> Result<Due, NoTimes> {
        let deadline = self.cron.spec.starting_deadline_seconds;
        let not_before = deadline.and_then(|seconds| self.now.checked_sub(SignedDuration::from_secs(seconds)).ok());
        let recent = self.recent(not_before)?;
        Ok(Due { time: recent.time, missed_many: recent.time.is_some() && recent.missed > MANY_MISSED_TIMES })
    }

    /// How long until the next time comes; `None` when none will.
    pub(super) fn until_next(&self) -> Option<Duration> {
        let after = match self.recent(None) {
            Ok(Recent { time: Some(time), .. }) => time,
            Ok(Recent { earliest, missed: 0, .. }) => earliest,
            _ => self.now,
        };
        let next = self.next(after)?;
        Some(Duration::try_from(next.duration_since(self.now)).unwrap_or(Duration::ZERO) + CRON_DELAY)
    }

    fn next(&self, after: Timestamp) -> Option<Timestamp> {
        self.schedule.next(after, self.zone)
    }

    fn recent(&self, not_before: Option<Timestamp>) -> Result<Recent, NoTimes> {
        let now = self.now;
        let last = self.cron.status.as_ref().and_then(|status| status.last_schedule_time.as_ref());
        let since = last.or(self.cron.metadata.creation_timestamp.as_ref()).map_or(now, |time| time.0);
        let earliest = not_before.map_or(since, |bound| bound.max(since));
        let first = self.next(earliest).ok_or(NoTimes)?;
        if now < first {
            return Ok(Recent { earliest, time: None, missed: 0 });
        }
        let second = self.next(first);
        let Some(second) = second.filter(|second| *second <= now) else {
            return Ok(Recent { earliest, time: Some(first), missed: 0 });
        };
        // From one interval it is estimated how many there were; the last of them is then looked for from close by.
        let interval = second.duration_since(first).as_secs();
        if interval < 1 {
            return Err(NoTimes);
        }
        let missed = now.duration_since(first).as_secs() / interval + 1;
        let close = SignedDuration::from_secs((missed - 2).saturating_mul(interval));
        let close = first.checked_add(close).unwrap_or(first);
        let mut time = self.next(close).filter(|at| *at <= now).or_else(|| self.last_between(first, close));
        while let Some(at) = time.and_then(|at| self.next(at)).filter(|at| *at <= now) {
            time = Some(at);
        }
        Ok(Recent { earliest, time, missed })
    }

    /// The last time until now, where some come after `some`, and none after `none`.
    fn last_between(&self, some: Timestamp, none: Timestamp) -> Option<Timestamp> {
        let (mut some, mut none) = (some.as_second(), none.as_second());
        let next = |second: i64| self.next(Timestamp::from_second(second).ok()?).filter(|at| *at <= self.now);
        while none - some > 1 {
            let middle = some + (none - some) / 2;
            if next(middle).is_some() { some = middle } else { none = middle }
        }
        next(some)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use proptest::prelude::*;

    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn cron(created: &str, last: Option<&str>, deadline: Option<i64>) -> CronJob {
        let mut cron = CronJob::default();
        cron.metadata.creation_timestamp = Some(Time(time(created)));
        cron.spec.starting_deadline_seconds = deadline;
        cron.status.get_or_insert_default().last_schedule_time = last.map(|last| Time(time(last)));
        cron
    }

    fn due(cron: &CronJob, schedule: &str, now: &str) -> Result<Due, NoTimes> {
        Times { cron, schedule: &schedule.parse().unwrap(), zone: &TimeZone::UTC, now: time(now) }.due()
    }

    #[test]
    fn the_last_time_that_has_come_is_due() {
        let created = cron("2026-01-01T00:00:30Z", None, None);
        for (now, expected) in [
            ("2026-01-01T00:00:59Z", None),
            ("2026-01-01T00:01:00Z", Some("2026-01-01T00:01:00Z")),
            ("2026-01-01T00:05:10Z", Some("2026-01-01T00:05:00Z")),
        ] {
            assert_eq!(due(&created, "* * * * *", now).unwrap().time, expected.map(time), "{now}");
        }
        let many = due(&created, "* * * * *", "2026-01-01T04:00:00Z").unwrap();
        assert_eq!(many, Due { time: Some(time("2026-01-01T04:00:00Z")), missed_many: true });
        let bounded = cron("2026-01-01T00:00:30Z", None, Some(90));
        assert!(!due(&bounded, "* * * * *", "2026-01-01T04:00:00Z").unwrap().missed_many);
        let due_on_workdays = due(&created, "30 6-16/4 * * 1-5", "2026-01-06T18:30:00Z").unwrap();
        assert_eq!(due_on_workdays.time, Some(time("2026-01-06T14:30:00Z")));
        let served = cron("2026-01-01T00:00:30Z", Some("2026-01-01T00:05:00Z"), None);
        assert_eq!(due(&served, "* * * * *", "2026-01-01T00:05:10Z").unwrap().time, None);
        assert_eq!(due(&created, "59 23 31 2 *", "2026-01-01T04:00:00Z"), Err(NoTimes));
    }

    proptest! {
        #[test]
        fn nothing_between_what_is_due_and_now_is_left_out(
            schedule in prop::sample::select(vec![
                "* * * * *", "*/7 * * * *", "30 6-16/4 * * 1-5", "0 0 1 * *", "@hourly", "@every 7m",
            ]),
            passed in 0..3_000_000_i64,
        ) {
            let cron = cron("2026-01-01T00:00:30Z", None, None);
            let schedule: Schedule = schedule.parse().unwrap();
            let created = time("2026-01-01T00:00:30Z");
            let now = created.checked_add(SignedDuration::from_secs(passed)).unwrap();
            let times = Times { cron: &cron, schedule: &schedule, zone: &TimeZone::UTC, now };
            match times.due().unwrap().time {
                None => prop_assert!(schedule.next(created, &TimeZone::UTC).unwrap() > now),
                Some(due) => {
                    prop_assert!(due <= now);
                    prop_assert!(schedule.next(due, &TimeZone::UTC).unwrap() > now);
                }
            }
            prop_assert!(times.until_next().is_some());
        }
    }
}
