//! When a job that has ended is to be deleted.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;

/// How long until a job goes; zero when it is time, and `None` when it stays.
pub(crate) fn decide(job: &Job, now: Timestamp) -> Option<Duration> {
    let kept = job.spec.as_ref()?.ttl_seconds_after_finished?;
    if job.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let mut conditions = job.status.as_ref()?.conditions.iter().flatten();
    let ended = conditions.find(|known| matches!(&*known.type_, "Complete" | "Failed") && known.status == "True")?;
    let expires = ended.last_transition_time.as_ref()?.0.saturating_add(SignedDuration::from_secs(kept.into())).ok()?;
    Some(Duration::try_from(expires.duration_since(now)).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::batch::v1::JobCondition;
    use orchestrator_core::object::time;

    use super::*;
    use crate::pods::fixtures::at;

    fn job(kept: Option<i32>, condition: &str) -> Job {
        let mut job = Job::default();
        job.spec.get_or_insert_default().ttl_seconds_after_finished = kept;
        job.status.get_or_insert_default().conditions = Some(vec![JobCondition {
            type_: condition.to_owned(),
            status: "True".to_owned(),
            last_transition_time: Some(time(at(10))),
            ..Default::default()
        }]);
        job
    }

    #[test]
    fn only_ended_jobs_with_a_time_to_live_go() {
        for (job, expected) in [
            (job(Some(5), "Complete"), Some(3)),
            (job(Some(0), "Failed"), Some(0)),
            (job(Some(1), "Complete"), Some(0)),
            (job(Some(5), "FailureTarget"), None),
            (job(None, "Complete"), None),
        ] {
            assert_eq!(decide(&job, at(12)).map(|left| left.as_secs()), expected);
        }
        let mut going = job(Some(5), "Complete");
        going.metadata.deletion_timestamp = Some(time(at(11)));
        assert_eq!(decide(&going, at(12)), None);
    }
}
