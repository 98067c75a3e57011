//! What the controllers of pods share: readiness, activity, deletion order, ownership and templates.

mod backoff;
mod claim;
mod control;
mod owned;
mod ranking;
mod revisions;
mod template;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Pod, PodCondition},
    apimachinery::pkg::util::intstr::IntOrString,
};
use orchestrator_core::object::time;

pub(crate) use backoff::Backoff;
pub(crate) use claim::{claim_all, claim_all_with};
pub(crate) use control::PodControl;
pub(crate) use owned::{
    candidates, controlled_by, index_by_controller, is_namespace_terminating, only, possible_owners, selects,
};
pub(crate) use ranking::{rank_alone, rank_for_deletion};
#[cfg(test)]
pub(crate) use revisions::Update;
pub(crate) use revisions::{Keeper, REVISION_LABEL, sorted};
pub(crate) use template::{pod_from_template, pod_name_prefix, short_hash};

/// The pod's phase; empty before it has one.
pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// Whether all its containers have ended for good.
pub(crate) fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether somebody asked for its deletion.
pub(crate) fn is_deleting(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Whether it counts as a replica: neither finished nor being deleted.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && !is_deleting(pod)
}

/// Whether it still holds resources while it goes away.
pub(crate) fn is_terminating(pod: &Pod) -> bool {
    !is_finished(pod) && is_deleting(pod)
}

fn ready_condition(pod: &Pod) -> Option<&PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_deref()?;
    conditions.iter().find(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Whether its `Ready` condition is true.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    ready_condition(pod).is_some()
}

/// Since when it is ready, if it is and says so.
pub(crate) fn ready_since(pod: &Pod) -> Option<Timestamp> {
    ready_condition(pod)?.last_transition_time.as_ref().map(|time| time.0)
}

/// When it became ready, or ceased to be, if it says so.
pub(crate) fn readiness_changed(pod: &Pod) -> Option<Timestamp> {
    let mut conditions = pod.status.as_ref()?.conditions.iter().flatten();
    let ready = conditions.find(|condition| condition.type_ == "Ready")?;
    ready.last_transition_time.as_ref().map(|time| time.0)
}

/// Whether it has been ready for `minReadySeconds`.
pub(crate) fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    is_ready(pod) && (min_ready_seconds <= 0 || available_after(pod, min_ready_seconds, now) == Some(Duration::ZERO))
}

/// How long until it will be available if it stays ready; zero when it is. `None` when it is not ready.
pub(crate) fn available_after(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Option<Duration> {
    let wanted = Duration::from_secs(u64::try_from(min_ready_seconds).unwrap_or(0));
    let ready_for = Duration::try_from(now.duration_since(ready_since(pod)?)).unwrap_or(Duration::ZERO);
    Some(wanted.saturating_sub(ready_for))
}

/// When the next of these pods becomes available, if one is on its way.
pub(crate) fn next_available<'a>(
    pods: impl IntoIterator<Item = &'a Pod>,
    min_ready_seconds: i32,
    now: Timestamp,
) -> Option<Duration> {
    let waits = pods.into_iter().filter_map(|pod| available_after(pod, min_ready_seconds, now));
    waits.filter(|wait| !wait.is_zero()).min()
}

/// The condition of a pod that is going to be disrupted.
pub(crate) fn disruption_target(pod: &Pod, reason: &str, message: &str, now: Timestamp) -> PodCondition {
    PodCondition {
        type_: "DisruptionTarget".to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: Some(time(now)),
        observed_generation: pod.metadata.generation,
        ..Default::default()
    }
}

/// A number, or a percentage of `total`; what cannot be read counts as 0.
pub(crate) fn scaled(value: &IntOrString, total: i32, round_up: bool) -> i32 {
    let percent = match value {
        IntOrString::Int(number) => return (*number).max(0),
        IntOrString::String(text) => text.strip_suffix('%').and_then(|text| text.parse().ok()).unwrap_or(0_i64),
    };
    let hundredfold = i64::from(total).saturating_mul(percent);
    let whole = if round_up { hundredfold.saturating_add(99).div_euclid(100) } else { hundredfold.div_euclid(100) };
    i32::try_from(whole).unwrap_or(i32::MAX).max(0)
}

/// `None` for zero, as upstream omits counters.
pub(crate) fn nonzero(count: i32) -> Option<i32> {
    (count != 0).then_some(count)
}

/// A count as Kubernetes has it.
pub(crate) fn count(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

#[cfg(test)]
pub(crate) mod fixtures {
    use k8s_openapi::{api::core::v1::PodStatus, apimachinery::pkg::apis::meta::v1::Time};

    use super::*;

    /// A second of 2026.
    pub(crate) fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_767_225_600 + second).unwrap()
    }

    /// A pod that is running, and ready since a second when given.
    pub(crate) fn running(name: &str, ready_since: Option<i64>) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.name = Some(name.to_owned());
        pod.metadata.namespace = Some("default".to_owned());
        pod.metadata.uid = Some(format!("uid-{name}"));
        pod.metadata.creation_timestamp = Some(Time(at(0)));
        set_running(&mut pod, ready_since);
        pod
    }

    /// Makes a pod running, and ready since a second when given.
    pub(crate) fn set_running(pod: &mut Pod, ready_since: Option<i64>) {
        let ready = PodCondition {
            type_: "Ready".to_owned(),
            status: if ready_since.is_some() { "True" } else { "False" }.to_owned(),
            last_transition_time: ready_since.map(|second| Time(at(second))),
            ..Default::default()
        };
        pod.status =
            Some(PodStatus { phase: Some("Running".to_owned()), conditions: Some(vec![ready]), ..Default::default() });
    }
}

#[cfg(test)]
mod tests {
    use super::{fixtures::*, *};

    #[test]
    fn a_pod_is_available_once_it_was_ready_long_enough() {
        let pod = running("a", Some(10));
        assert!(is_available(&pod, 0, at(10)));
        assert!(!is_available(&pod, 5, at(14)));
        assert!(is_available(&pod, 5, at(15)));
        assert_eq!(next_available([&pod], 5, at(12)), Some(Duration::from_secs(3)));
        assert_eq!(next_available([&pod], 5, at(15)), None);
        assert!(!is_available(&running("b", None), 0, at(99)));
    }

    #[test]
    fn finished_and_deleted_pods_are_not_active() {
        let mut pod = running("a", None);
        assert!(is_active(&pod));
        pod.metadata.deletion_timestamp = pod.metadata.creation_timestamp.clone();
        assert!(!is_active(&pod) && is_terminating(&pod));
        pod.status.as_mut().unwrap().phase = Some("Failed".to_owned());
        assert!(!is_terminating(&pod));
    }
}
