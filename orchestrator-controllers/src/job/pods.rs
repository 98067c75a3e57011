//! The pods of a job: how they are made, and what they tell of themselves.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{
    batch::v1::{Job, JobSpec},
    core::v1::{Container, ContainerStatus, EnvVar, EnvVarSource, ObjectFieldSelector, Pod},
};
use orchestrator_core::meta::{self, owner_reference};

use super::policies;
use crate::{
    limits::{JOB_PAUSE, JOB_PAUSE_LONGEST, POD_PREFIX_CHARACTERS},
    pods::{is_deleting, phase, pod_from_template, pod_name_prefix},
};

/// Keeps a pod of a job until it is counted.
pub(crate) const TRACKING: &str = "batch.kubernetes.io/job-tracking";
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
const IGNORED_FAILURES: &str = "batch.kubernetes.io/job-index-ignored-failure-count";
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";

/// Whether the job's pods have indexes.
pub(crate) fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

/// Whether a pod is replaced only once it has really failed, not when it is merely going.
pub(crate) fn replaces_failed_only(spec: &JobSpec) -> bool {
    spec.pod_replacement_policy.as_deref() == Some("Failed") || spec.pod_failure_policy.is_some()
}

/// Whether a pod is still to be counted.
pub(crate) fn is_tracked(pod: &Pod) -> bool {
    meta::has_finalizer(&pod.metadata, TRACKING)
}

/// Whether a pod has failed, or counts as failed because it goes before it has ended.
pub(crate) fn has_failed(spec: &JobSpec, pod: &Pod) -> bool {
    match phase(pod) {
        "Failed" => true,
        "Succeeded" => false,
        _ => is_deleting(pod) && !replaces_failed_only(spec),
    }
}

/// The completion index of a pod.
pub(crate) fn index_of(pod: &Pod) -> Option<i32> {
    meta::annotation(&pod.metadata, INDEX)?.parse().ok().filter(|index| *index >= 0)
}

/// How often an index has failed before a pod of it: failures that count, and those that do not.
pub(crate) fn failures_before(pod: &Pod) -> (i32, i32) {
    let number = |name: &str| meta::annotation(&pod.metadata, name).and_then(|text| text.parse().ok()).unwrap_or(0);
    (number(FAILURES), number(IGNORED_FAILURES))
}

/// The pod that a job gets next; for an index, after the failure of an earlier one where each index has its own limit.
pub(crate) fn make(job: &Job, index: Option<i32>, failed: Option<&Pod>) -> Pod {
    let spec = job.spec.clone().unwrap_or_default();
    let mut pod = pod_from_template(&spec.template, meta::namespace(&job.metadata), owner_reference(job, true));
    meta::add_finalizer(&mut pod.metadata, TRACKING);
    let name = meta::name(&job.metadata);
    pod.metadata.generate_name = Some(pod_name_prefix(name));
    let Some(index) = index else { return pod };
    pod.metadata.generate_name = Some(prefix_with_index(name, index));
    pod.metadata.labels.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(INDEX.to_owned(), index.to_string());
    if spec.backoff_limit_per_index.is_some() {
        let (counted, ignored) = failed.map_or((0, 0), |failed| failures_with(&spec, failed));
        annotations.insert(FAILURES.to_owned(), counted.to_string());
        if ignored > 0 {
            annotations.insert(IGNORED_FAILURES.to_owned(), ignored.to_string());
        }
    }
    let pod_spec = pod.spec.get_or_insert_default();
    pod_spec.hostname = Some(format!("{name}-{index}"));
    pod_spec.containers.iter_mut().chain(pod_spec.init_containers.iter_mut().flatten()).for_each(add_index_variable);
    pod
}

fn failures_with(spec: &JobSpec, failed: &Pod) -> (i32, i32) {
    let (counted, ignored) = failures_before(failed);
    if policies::failure(spec, failed).counts() {
        (counted.saturating_add(1), ignored)
    } else {
        (counted, ignored.saturating_add(1))
    }
}

fn prefix_with_index(name: &str, index: i32) -> String {
    let end = format!("-{index}-");
    let kept: String = name.chars().take(POD_PREFIX_CHARACTERS.saturating_sub(end.len())).collect();
    kept + &end
}

fn add_index_variable(container: &mut Container) {
    let variables = container.env.get_or_insert_default();
    if variables.iter().any(|known| known.name == INDEX_VARIABLE) {
        return;
    }
    let field_ref = ObjectFieldSelector { field_path: format!("metadata.labels['{INDEX}']"), ..Default::default() };
    variables.push(EnvVar {
        name: INDEX_VARIABLE.to_owned(),
        value_from: Some(EnvVarSource { field_ref: Some(field_ref), ..Default::default() }),
        ..Default::default()
    });
}

/// When a pod has ended: as its containers say, or as early as is known.
pub(crate) fn ended_at(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref();
    let ended =
        |container: &ContainerStatus| Some(container.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0);
    let containers = status.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    let by_containers: Option<Vec<Timestamp>> = containers.iter().map(ended).collect();
    let unready = || {
        let conditions = status?.conditions.as_ref()?;
        let condition =
            conditions.iter().find(|condition| condition.type_ == "Ready" && condition.status == "False")?;
        Some(condition.last_transition_time.as_ref()?.0)
    };
    by_containers
        .and_then(|times| times.into_iter().max())
        .or_else(unready)
        .or_else(|| deletion_requested_at(pod))
        .or_else(|| Some(pod.metadata.creation_timestamp.as_ref()?.0))
}

/// When a pod's deletion was asked for, from which it has had its grace period.
fn deletion_requested_at(pod: &Pod) -> Option<Timestamp> {
    let grace = SignedDuration::from_secs(pod.metadata.deletion_grace_period_seconds.unwrap_or(0));
    pod.metadata.deletion_timestamp.as_ref()?.0.checked_sub(grace).ok()
}

/// How often the containers of a pod have started again.
pub(crate) fn restarts(pod: &Pod) -> i32 {
    let Some(status) = &pod.status else { return 0 };
    let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    all.map(|container| container.restart_count).fold(0, i32::saturating_add)
}

/// How long until the pod after so many failures in a row may come, the last of them at a time.
pub(crate) fn pause_after(failures: i32, last: Option<Timestamp>, now: Timestamp) -> Duration {
    let (Some(last), 1..) = (last, failures) else { return Duration::ZERO };
    let doublings = u32::try_from(failures - 1).unwrap_or(0);
    let pause = 2_u32.checked_pow(doublings).map_or(JOB_PAUSE_LONGEST, |factor| JOB_PAUSE.saturating_mul(factor));
    let passed = Duration::try_from(now.duration_since(last)).unwrap_or(Duration::ZERO);
    pause.min(JOB_PAUSE_LONGEST).saturating_sub(passed)
}

/// How long until an index may be tried again after its pod failed.
pub(crate) fn pause_of_index(failed: Option<&Arc<Pod>>, now: Timestamp) -> Duration {
    let Some(failed) = failed else { return Duration::ZERO };
    let (counted, ignored) = failures_before(failed);
    pause_after(counted.saturating_add(ignored).saturating_add(1), ended_at(failed), now)
}

/// Failures of a job's pods since one succeeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Failures {
    /// How many.
    pub count: i32,
    /// When the last of them was.
    pub last: Option<Timestamp>,
}

impl Failures {
    /// After more pods have ended.
    pub(crate) fn after(self, succeeded: &[&Arc<Pod>], failed: &[&Arc<Pod>]) -> Self {
        let last_success = succeeded.iter().filter_map(|pod| ended_at(pod)).max();
        let mut times: Vec<Timestamp> = failed.iter().filter_map(|pod| ended_at(pod)).collect();
        times.retain(|time| last_success.is_none_or(|success| *time > success));
        let before = if succeeded.is_empty() { self } else { Self::default() };
        let count = i32::try_from(times.len()).unwrap_or(i32::MAX);
        Self { count: before.count.saturating_add(count), last: times.into_iter().max().max(before.last) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::fixtures::{at, running};

    #[test]
    fn pauses_double_and_end() {
        let pause = |failures, now| pause_after(failures, Some(at(0)), at(now)).as_secs();
        assert_eq!((pause(0, 0), pause(1, 0), pause(2, 0), pause(3, 5), pause(3, 99)), (0, 10, 20, 35, 0));
        assert_eq!((pause(7, 0), pause(70, 0)), (600, 600));
        assert_eq!(pause_after(3, None, at(0)), Duration::ZERO);
    }

    #[test]
    fn a_pod_that_goes_has_ended_when_that_was_asked_for() {
        let mut pod = running("p", Some(0));
        pod.metadata.deletion_timestamp = Some(orchestrator_core::object::time(at(40)));
        pod.metadata.deletion_grace_period_seconds = Some(30);
        assert_eq!(ended_at(&pod), Some(at(10)));
    }

    #[test]
    fn a_success_forgets_earlier_failures() {
        let pod = |second: i64| {
            let mut pod = running("p", None);
            let conditions = pod.status.as_mut().unwrap().conditions.as_mut().unwrap();
            conditions[0].last_transition_time = Some(orchestrator_core::object::time(at(second)));
            Arc::new(pod)
        };
        let (early, success, late) = (pod(1), pod(5), pod(9));
        let first = Failures::default().after(&[], &[&early]);
        assert_eq!(first, Failures { count: 1, last: Some(at(1)) });
        assert_eq!(first.after(&[&success], &[&late]), Failures { count: 1, last: Some(at(9)) });
        assert_eq!(first.after(&[&success], &[]), Failures::default());
        assert_eq!(first.after(&[], &[&late]), Failures { count: 2, last: Some(at(9)) });
    }

    #[test]
    fn an_indexed_pod_tells_its_index_everywhere() {
        let mut job = Job::default();
        job.metadata.name = Some("j".repeat(60));
        let spec = job.spec.get_or_insert_default();
        spec.template.spec.get_or_insert_default().containers = vec![Container::default()];
        spec.backoff_limit_per_index = Some(3);
        let pod = make(&job, Some(7), None);
        let prefix = pod.metadata.generate_name.as_deref().unwrap();
        assert!(prefix.ends_with("j-7-") && prefix.len() == POD_PREFIX_CHARACTERS);
        assert_eq!((index_of(&pod), failures_before(&pod)), (Some(7), (0, 0)));
        assert_eq!(pod.spec.as_ref().unwrap().containers[0].env.as_ref().unwrap()[0].name, INDEX_VARIABLE);
        let again = make(&job, Some(7), Some(&pod));
        assert_eq!(failures_before(&again), (1, 0));
        assert!(is_tracked(&pod) && make(&job, None, None).spec.unwrap().hostname.is_none());
    }
}
