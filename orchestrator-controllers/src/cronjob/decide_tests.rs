//! Runs of a cron job at chosen times.

use k8s_openapi::{
    api::batch::v1::{JobCondition, JobStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};
use proptest::prelude::*;

use super::*;
use crate::pods::fixtures::at;

fn cron(policy: &str) -> CronJob {
    let mut cron = CronJob::default();
    cron.metadata.name = Some("c".to_owned());
    cron.metadata.uid = Some("uid-c".to_owned());
    cron.metadata.creation_timestamp = Some(Time(at(0)));
    cron.spec = CronJobSpec {
        schedule: "* * * * *".to_owned(),
        concurrency_policy: Some(policy.to_owned()),
        successful_jobs_history_limit: Some(1),
        failed_jobs_history_limit: Some(0),
        ..Default::default()
    };
    cron
}

fn finish(job: &mut Job, condition: &str, second: i64) {
    let condition = JobCondition { type_: condition.to_owned(), status: "True".to_owned(), ..Default::default() };
    job.status = Some(JobStatus {
        conditions: Some(vec![condition]),
        start_time: Some(Time(at(second))),
        completion_time: Some(Time(at(second))),
        ..Default::default()
    });
}

fn reasons(decision: &Decision) -> Vec<&str> {
    decision.events.iter().map(|event| &*event.reason).collect()
}

/// A cron job, and the jobs that it made.
struct Model {
    cron: CronJob,
    jobs: Vec<Arc<Job>>,
}

impl Model {
    fn step(&mut self, second: i64) -> Decision {
        let missing = BTreeSet::new();
        let observed = Observed { cron: &self.cron, jobs: &self.jobs, missing: &missing, now: at(second) };
        let mut decision = decide(observed);
        let result = decision.clone();
        for old in std::mem::take(&mut decision.replace) {
            let uid = old.uid.unwrap();
            self.jobs.retain(|job| meta::uid(&job.metadata) != uid);
            decision.deleted(&uid);
        }
        if let Some((due, mut job)) = decision.start.take() {
            job.metadata.uid = job.metadata.name.clone();
            assert!(self.jobs.iter().all(|known| known.metadata.name != job.metadata.name), "no name comes twice");
            decision.started(due, &job);
            self.jobs.push(Arc::new(*job));
        }
        for old in &decision.forget {
            self.jobs.retain(|job| job.metadata.uid != old.metadata.uid);
        }
        self.cron.status = Some(decision.status);
        result
    }

    fn active(&self) -> usize {
        self.cron.status.as_ref().and_then(|status| status.active.as_ref()).map_or(0, Vec::len)
    }
}

fn model(policy: &str) -> Model {
    Model { cron: cron(policy), jobs: Vec::new() }
}

#[test]
fn each_time_is_served_once_and_named_by_its_minute() {
    let mut model = model("Allow");
    assert_eq!(model.step(59).look_again, Some(Duration::from_millis(1100)));
    let (due, job) = model.step(61).start.unwrap();
    assert_eq!(due, at(60));
    assert_eq!(job.metadata.name, Some(format!("c-{}", at(60).as_second() / 60)));
    assert_eq!(meta::annotation(&job.metadata, SCHEDULED), Some("2026-01-01T00:01:00Z"));
    assert_eq!(model.step(62).start, None);
    assert!(model.step(121).start.is_some());
    assert_eq!(model.active(), 2);
}

#[test]
fn concurrency_is_allowed_forbidden_or_ended() {
    for (policy, active, reason) in [("Allow", 2, None), ("Forbid", 1, Some("JobAlreadyActive")), ("Replace", 1, None)]
    {
        let mut model = model(policy);
        model.step(61);
        let decision = model.step(121);
        assert_eq!((model.active(), reasons(&decision).first().copied()), (active, reason), "{policy}");
    }
}

#[test]
fn what_ended_leaves_the_status_and_then_the_cluster() {
    let mut model = model("Allow");
    for (second, condition) in [(61, "Complete"), (121, "Complete"), (181, "Failed")] {
        model.step(second);
        finish(Arc::make_mut(model.jobs.last_mut().unwrap()), condition, second);
    }
    let decision = model.step(182);
    assert_eq!(reasons(&decision), [""; 0], "it is forgotten before it is seen to have ended");
    assert_eq!((model.jobs.len(), model.active()), (1, 0));
    assert_eq!(model.cron.status.as_ref().unwrap().last_successful_time, Some(Time(at(121))));
    assert_eq!(model.step(183).events, []);
}

#[test]
fn what_is_missed_strange_or_unreadable_is_told() {
    let mut late = model("Allow");
    late.cron.spec.starting_deadline_seconds = Some(5);
    assert_eq!(late.step(70).start, None, "the time lies before the deadline");
    let mut many = model("Allow");
    assert_eq!(reasons(&many.step(60 * 200)), ["TooManyMissedTimes"]);
    let mut stranger = model("Allow");
    stranger.jobs.push(Arc::new(Job::default()));
    assert_eq!(reasons(&stranger.step(1)), ["UnexpectedJob"]);
    let mut bad = model("Allow");
    bad.cron.spec.schedule = "TZ=UTC nonsense".to_owned();
    assert_eq!(reasons(&bad.step(1)), ["UnsupportedSchedule", "UnparseableSchedule"]);
    let mut nowhere = model("Allow");
    nowhere.cron.spec.time_zone = Some("Nowhere".to_owned());
    let told = nowhere.step(1);
    assert_eq!(reasons(&told), ["UnknownTimeZone"]);
    assert_eq!(told.events[0].message, "invalid timeZone: \"Nowhere\": unknown time zone Nowhere");
    let mut suspended = model("Allow");
    suspended.cron.spec.suspend = Some(true);
    assert_eq!(suspended.step(600), Decision { status: CronJobStatus::default(), ..Decision::default() });
}

#[test]
fn a_missing_job_is_active_no_longer() {
    let mut model = model("Allow");
    model.step(61);
    let missing = [meta::uid(&model.jobs.pop().unwrap().metadata).to_owned()].into();
    let decision = decide(Observed { cron: &model.cron, jobs: &[], missing: &missing, now: at(62) });
    assert_eq!((reasons(&decision), decision.status.active.as_ref()), (vec!["MissingJob"], None));
}

proptest! {
    #[test]
    fn no_time_is_served_twice_and_policies_hold(
        steps in prop::collection::vec((1..200_i64, any::<bool>()), 1..20), policy in 0..3_usize,
    ) {
        let mut model = model(["Allow", "Forbid", "Replace"][policy]);
        let mut second = 0;
        for (pause, ends) in steps {
            second += pause;
            if ends && let Some(job) = model.jobs.last_mut() {
                finish(Arc::make_mut(job), "Complete", second);
            }
            model.step(second);
            prop_assert!(policy == 0 || model.active() <= 1);
            let again = model.step(second);
            prop_assert_eq!(again.start, None);
            prop_assert_eq!(again.forget, vec![]);
        }
    }
}
