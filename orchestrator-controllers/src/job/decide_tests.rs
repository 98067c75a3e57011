//! Runs of a job against a model of its pods and of a server that keeps finalizers.

use k8s_openapi::api::{
    batch::v1::{JobStatus, SuccessPolicy},
    core::v1::ContainerStatus,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    super::{
        pods::{TRACKING, make},
        tracking::Done,
    },
    *,
};
use crate::pods::fixtures::{at, set_running};

struct Model {
    job: Job,
    pods: Vec<Arc<Pod>>,
    failures: Failures,
    made: usize,
    second: i64,
    events: Vec<String>,
    /// UIDs of the pods that were counted, and whether they had succeeded.
    ended: Vec<(String, bool)>,
}

impl Model {
    fn new(spec: Value) -> Self {
        let mut job = Job::default();
        job.metadata.name = Some("j".to_owned());
        job.metadata.uid = Some("uid-j".to_owned());
        job.spec = Some(serde_json::from_value(spec).unwrap());
        job.spec.as_mut().unwrap().template = Default::default();
        let failures = Failures::default();
        Self { job, pods: Vec::new(), failures, made: 0, second: 0, events: Vec::new(), ended: Vec::new() }
    }

    fn decide(&self) -> Decision<'_> {
        decide(Observed { job: &self.job, pods: &self.pods, failures: self.failures, now: at(self.second) })
    }

    /// One run, with all of its writes; `false` when there was nothing to do.
    fn step(&mut self) -> bool {
        if is_finished(&self.job) {
            return false;
        }
        let decision = self.decide();
        let (actions, failures) = (decision.actions.clone(), decision.failures);
        let gone = actions.delete.iter().filter(|_| actions.uncounted);
        let released = gone.map(|pod| meta::uid(&pod.metadata).to_owned()).collect();
        let done = Done { deleted: actions.delete.clone(), released, created: actions.create.len() };
        let tracked = decision.track(&done);
        self.failures = failures;
        for (index, failed) in &actions.create {
            self.made += 1;
            let mut pod = make(&self.job, *index, failed.as_deref());
            pod.metadata.name = Some(format!("p{}", self.made));
            pod.metadata.uid = pod.metadata.name.clone();
            pod.metadata.creation_timestamp = Some(time(at(self.second)));
            self.pods.push(Arc::new(pod));
        }
        for gone in &actions.delete {
            let pod = self.pods.iter_mut().find(|pod| pod.metadata.uid == gone.metadata.uid).unwrap();
            Arc::make_mut(pod).metadata.deletion_timestamp = Some(time(at(self.second)));
            if actions.uncounted {
                meta::remove_finalizer(&mut Arc::make_mut(pod).metadata, TRACKING);
            }
        }
        let before = self.job.status.replace(tracked.status.clone());
        let mut released = BTreeSet::new();
        for pod in &tracked.release {
            let known = self.pods.iter_mut().find(|known| known.metadata.uid == pod.metadata.uid).unwrap();
            assert!(meta::remove_finalizer(&mut Arc::make_mut(known).metadata, TRACKING), "each is counted once");
            self.ended.push((meta::uid(&pod.metadata).to_owned(), phase(pod) == "Succeeded"));
            released.insert(meta::uid(&pod.metadata).to_owned());
        }
        self.events.extend(tracked.events.iter().map(|event| event.reason.clone()));
        let (status, events) = tracked.finish(&released, self.job.spec.as_ref().unwrap().completions);
        self.events.extend(events.iter().map(|event| event.reason.clone()));
        self.job.status = Some(status);
        self.vanish();
        before != self.job.status || !actions.create.is_empty() || !actions.delete.is_empty() || !released.is_empty()
    }

    /// Pods that were deleted, and that nothing keeps, are gone.
    fn vanish(&mut self) {
        self.pods.retain(|pod| pod.metadata.deletion_timestamp.is_none() || is_tracked(pod));
    }

    fn settle(&mut self) {
        for _ in 0..60 {
            if !self.step() {
                return;
            }
        }
        panic!("it never settles: {:?}", self.job.status);
    }

    /// All pods that run end.
    fn end_all(&mut self, exit_code: i32) {
        for number in 0..self.pods.len() {
            self.end(number, exit_code);
        }
    }

    fn end(&mut self, number: usize, exit_code: i32) {
        let Some(pod) = self.pods.get_mut(number).filter(|pod| matches!(phase(pod), "" | "Running")) else { return };
        let terminated = json!({"exitCode": exit_code, "finishedAt": time(at(self.second))});
        let container: ContainerStatus = serde_json::from_value(json!({
            "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": terminated},
        }))
        .unwrap();
        let status = Arc::make_mut(pod).status.get_or_insert_default();
        status.phase = Some(if exit_code == 0 { "Succeeded" } else { "Failed" }.to_owned());
        status.container_statuses = Some(vec![container]);
        status.conditions = None;
        self.vanish();
    }

    fn status(&self) -> JobStatus {
        self.job.status.clone().unwrap_or_default()
    }

    fn conditions(&self) -> Vec<(String, String)> {
        let conditions = self.status().conditions.unwrap_or_default();
        conditions.into_iter().map(|known| (known.type_, known.reason.unwrap_or_default())).collect()
    }

    fn numbers(&self) -> (i32, i32, i32) {
        let status = self.status();
        (status.active.unwrap_or(0), status.succeeded.unwrap_or(0), status.failed.unwrap_or(0))
    }
}

fn pair(type_: &str, reason: &str) -> (String, String) {
    (type_.to_owned(), reason.to_owned())
}

#[test]
fn enough_successes_complete_a_job() {
    let mut model = Model::new(json!({"completions": 3, "parallelism": 2, "backoffLimit": 6}));
    model.settle();
    assert_eq!(model.numbers(), (2, 0, 0));
    model.end_all(0);
    model.settle();
    assert_eq!((model.numbers(), model.made), ((1, 2, 0), 3));
    model.end_all(0);
    model.settle();
    let reason = "CompletionsReached";
    assert_eq!(model.conditions(), [pair("SuccessCriteriaMet", reason), pair("Complete", reason)]);
    assert_eq!((model.numbers(), model.events.as_slice()), ((0, 3, 0), &["Completed".to_owned()][..]));
    let status = serde_json::to_value(model.status()).unwrap();
    assert_eq!((&status["ready"], &status["terminating"]), (&json!(0), &json!(0)));
    assert_eq!(status["uncountedTerminatedPods"], json!({}));
    assert_eq!((status.get("active"), status["completionTime"].is_string()), (None, true));
}

#[test]
fn a_work_queue_ends_with_its_first_success_and_its_last_pod() {
    let mut model = Model::new(json!({"parallelism": 3, "backoffLimit": 6}));
    model.settle();
    model.end(0, 0);
    model.settle();
    assert_eq!((model.numbers(), model.conditions().len()), ((2, 1, 0), 0));
    model.end_all(1);
    model.settle();
    assert_eq!((model.numbers(), model.made), ((0, 1, 2), 3));
    assert_eq!(model.conditions()[1].0, "Complete");
}

#[test]
fn failures_pause_the_job_and_too_many_end_it() {
    let mut model = Model::new(json!({"completions": 1, "parallelism": 1, "backoffLimit": 1}));
    model.settle();
    model.end_all(1);
    model.settle();
    assert_eq!((model.numbers(), model.made), ((0, 0, 1), 1));
    assert_eq!(model.decide().actions.look_again, Some(Duration::from_secs(10)));
    model.second += 10;
    model.settle();
    assert_eq!((model.numbers(), model.made), ((1, 0, 1), 2));
    model.end_all(1);
    model.settle();
    let reason = "BackoffLimitExceeded";
    assert_eq!(model.conditions(), [pair("FailureTarget", reason), pair("Failed", reason)]);
    assert_eq!((model.numbers(), model.events.as_slice()), ((0, 0, 2), &[reason.to_owned()][..]));
}

#[test]
fn a_job_that_ends_early_waits_for_its_pods() {
    let mut model =
        Model::new(json!({"completions": 2, "parallelism": 2, "backoffLimit": 6, "activeDeadlineSeconds": 5}));
    model.settle();
    assert_eq!(model.decide().actions.look_again, Some(Duration::from_secs(5)));
    for pod in &mut model.pods {
        set_running(Arc::make_mut(pod), Some(0));
    }
    model.second = 5;
    model.step();
    assert_eq!(model.conditions(), [pair("FailureTarget", "DeadlineExceeded")]);
    assert_eq!(model.status().terminating, Some(2));
    model.settle();
    assert_eq!(model.conditions()[1], pair("Failed", "DeadlineExceeded"));
    assert_eq!(model.numbers(), (0, 0, 2));
}

#[test]
fn a_suspended_job_has_no_pods_and_a_resumed_one_starts_anew() {
    let mut model = Model::new(json!({"completions": 1, "parallelism": 1, "backoffLimit": 6, "suspend": true}));
    model.settle();
    assert_eq!((model.conditions(), model.made), (vec![pair("Suspended", "JobSuspended")], 0));
    assert_eq!(model.status().start_time, None);
    model.second = 7;
    model.job.spec.as_mut().unwrap().suspend = Some(false);
    model.settle();
    assert_eq!((model.conditions(), model.made), (vec![pair("Suspended", "JobResumed")], 1));
    assert_eq!(model.status().start_time, Some(time(at(7))));
    model.job.spec.as_mut().unwrap().suspend = Some(true);
    model.step();
    assert_eq!((model.numbers().0, model.status().terminating), (0, Some(1)));
    assert_eq!(model.status().start_time, None, "what waits has not started");
    assert_eq!(model.events, ["Suspended", "Resumed", "Suspended"]);
    model.settle();
    assert_eq!((model.numbers(), model.pods.len()), ((0, 0, 0), 0), "that the job waits is no failure of its pods");
}

#[test]
fn pods_that_are_too_many_are_no_failures_and_are_waited_for() {
    let mut model = Model::new(json!({"completions": 3, "parallelism": 3, "backoffLimit": 0}));
    model.settle();
    model.job.spec.as_mut().unwrap().parallelism = Some(1);
    model.settle();
    assert_eq!((model.numbers(), model.conditions().len()), ((1, 0, 0), 0));
    model.end_all(0);
    model.job.spec.as_mut().unwrap().completions = Some(1);
    let decision = model.decide();
    let created = decision.track(&Done { created: 1, ..Done::default() });
    assert_eq!(created.status.conditions, None, "not complete while a pod runs");
}

#[test]
fn each_index_has_its_own_limit() {
    let mut model = Model::new(json!({
        "completionMode": "Indexed", "completions": 3, "parallelism": 3,
        "backoffLimit": i32::MAX, "backoffLimitPerIndex": 1, "maxFailedIndexes": 2,
    }));
    model.settle();
    let number = |model: &Model, index| model.pods.iter().rposition(|pod| index_of(pod) == Some(index)).unwrap();
    model.end(number(&model, 1), 1);
    model.settle();
    assert_eq!((model.made, model.status().failed_indexes.as_deref()), (3, Some("")));
    model.second += 10;
    model.settle();
    assert_eq!(failures_before(&model.pods[number(&model, 1)]), (1, 0));
    model.end_all(0);
    model.settle();
    assert_eq!(model.status().completed_indexes.as_deref(), Some("0-2"));
    assert_eq!(model.conditions()[1].0, "Complete");
    assert_eq!(model.numbers(), (0, 3, 1));
}

#[test]
fn indexes_that_fail_for_good_fail_the_job_in_the_end() {
    let mut model = Model::new(json!({
        "completionMode": "Indexed", "completions": 2, "parallelism": 2,
        "backoffLimit": i32::MAX, "backoffLimitPerIndex": 0, "maxFailedIndexes": 2,
    }));
    model.settle();
    model.end(0, 1);
    model.end(1, 0);
    model.settle();
    assert_eq!(model.conditions()[1], pair("Failed", "FailedIndexes"));
    let status = model.status();
    assert_eq!((status.failed_indexes.as_deref(), status.completed_indexes.as_deref()), (Some("0"), Some("1")));
}

#[test]
fn a_success_policy_ends_the_rest() {
    let mut model =
        Model::new(json!({"completionMode": "Indexed", "completions": 5, "parallelism": 5, "backoffLimit": 6}));
    let policy: SuccessPolicy = serde_json::from_value(json!({"rules": [{"succeededIndexes": "2"}]})).unwrap();
    model.job.spec.as_mut().unwrap().success_policy = Some(policy);
    model.settle();
    model.end(2, 0);
    model.settle();
    let reason = "SuccessPolicy";
    assert_eq!(model.conditions(), [pair("SuccessCriteriaMet", reason), pair("Complete", reason)]);
    assert_eq!((model.numbers(), model.status().completed_indexes.as_deref()), ((0, 1, 0), Some("2")));
}

#[test]
fn a_failure_policy_ignores_counts_and_fails() {
    let spec = json!({
        "completions": 1, "parallelism": 1, "backoffLimit": 0,
        "podFailurePolicy": {"rules": [
            {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [3]}},
            {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}},
        ]},
    });
    let mut model = Model::new(spec);
    model.settle();
    model.end_all(3);
    model.settle();
    assert_eq!((model.numbers(), model.conditions().len()), ((0, 0, 0), 0));
    model.second += 10;
    model.settle();
    model.end_all(42);
    model.settle();
    assert_eq!(model.conditions()[1], pair("Failed", "PodFailurePolicy"));
}

#[test]
fn failed_only_waits_for_pods_that_are_going() {
    let mut model =
        Model::new(json!({"completions": 1, "parallelism": 1, "backoffLimit": 6, "podReplacementPolicy": "Failed"}));
    model.settle();
    set_running(Arc::make_mut(&mut model.pods[0]), Some(0));
    Arc::make_mut(&mut model.pods[0]).metadata.deletion_timestamp = Some(time(at(1)));
    model.settle();
    assert_eq!((model.made, model.status().terminating), (1, Some(1)));
    model.end(0, 1);
    model.second = 60;
    model.settle();
    assert_eq!((model.made, model.numbers()), (2, (1, 0, 1)));
}

#[test]
fn a_job_that_goes_lets_its_pods_go() {
    let mut model = Model::new(json!({"completions": 2, "parallelism": 2, "backoffLimit": 6}));
    model.settle();
    model.job.metadata.deletion_timestamp = Some(time(at(1)));
    model.settle();
    assert!(model.pods.iter().all(|pod| !is_tracked(pod)));
    assert_eq!((model.made, model.numbers()), (2, (2, 0, 0)));
}

#[test]
fn pods_of_one_index_are_reduced_to_one() {
    let mut model =
        Model::new(json!({"completionMode": "Indexed", "completions": 2, "parallelism": 2, "backoffLimit": 6}));
    model.settle();
    for index in [Some(0), Some(7), None] {
        let mut pod = make(&model.job, index, None);
        pod.metadata.uid = Some(format!("extra-{index:?}"));
        model.pods.push(Arc::new(pod));
    }
    assert_eq!(model.decide().actions.delete.len(), 3);
}

/// What happens between two runs.
#[derive(Clone, Debug)]
enum Happening {
    Ends(usize, i32),
    Deleted(usize),
    Passes(i64),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        3 => (0..8_usize, prop_oneof![2 => Just(0), 1 => Just(1)]).prop_map(|(pod, code)| Happening::Ends(pod, code)),
        1 => (0..8_usize).prop_map(Happening::Deleted),
        1 => (1..700_i64).prop_map(Happening::Passes),
    ]
}

proptest! {
    #[test]
    fn every_pod_and_every_index_counts_once(
        indexed in any::<bool>(), per_index in any::<bool>(), completions in 1..6_i32, parallelism in 1..4_i32,
        happenings in prop::collection::vec((happening(), any::<bool>()), 0..40),
    ) {
        let mut spec = json!({"completions": completions, "parallelism": parallelism, "backoffLimit": 9});
        if indexed {
            spec["completionMode"] = json!("Indexed");
            if per_index {
                spec["backoffLimitPerIndex"] = json!(1);
            }
        }
        let mut model = Model::new(spec);
        model.settle();
        for (happening, runs) in happenings {
            match happening {
                Happening::Ends(pod, code) => model.end(pod, code),
                Happening::Deleted(pod) => {
                    let pod = model.pods.get_mut(pod).filter(|pod| is_active(pod));
                    pod.into_iter().for_each(|pod| Arc::make_mut(pod).metadata.deletion_timestamp = Some(time(at(0))));
                }
                Happening::Passes(seconds) => model.second += seconds,
            }
            if runs {
                model.settle();
                let active: Vec<_> = model.pods.iter().filter(|pod| is_active(pod)).collect();
                prop_assert!(active.len() <= parallelism as usize);
                let mut indexes: Vec<_> = active.iter().filter_map(|pod| index_of(pod)).collect();
                let all = indexes.len();
                indexes.sort_unstable();
                indexes.dedup();
                prop_assert_eq!(indexes.len(), all, "no index has two active pods");
            }
        }
        model.settle();
        let counted: BTreeSet<_> = model.ended.iter().map(|(uid, _)| uid).collect();
        prop_assert_eq!(counted.len(), model.ended.len(), "each pod was released once");
        let succeeded = model.ended.iter().filter(|(_, succeeded)| *succeeded).count();
        let (_, in_status, failed) = model.numbers();
        prop_assert_eq!(in_status as usize, succeeded);
        prop_assert_eq!(failed as usize, model.ended.len() - succeeded);
        prop_assert!(in_status <= completions);
        if indexed {
            let done = Indexes::parse(model.status().completed_indexes.as_deref().unwrap_or_default(), completions);
            prop_assert_eq!(done.count(), in_status);
        }
        prop_assert!(!model.step(), "settled");
    }
}
