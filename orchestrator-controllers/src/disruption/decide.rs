//! How many pods of a budget may be disrupted now.
//!
//! Upstream: `pkg/controller/disruption/disruption.go`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{
        core::v1::Pod,
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus},
    },
    apimachinery::pkg::{
        apis::meta::v1::{Condition, Time},
        util::intstr::IntOrString,
    },
};
use orchestrator_core::{events::Event, meta, object::time};

use crate::{
    limits::DISRUPTION_TIME,
    pods::{count, is_deleting, is_finished, is_ready, scaled},
};

const ALLOWED: &str = "DisruptionAllowed";
const DISRUPTION_TARGET: &str = "DisruptionTarget";
/// Why a node ends a pod.
const BY_KUBELET: &str = "TerminationByKubelet";

/// What is known when a budget is decided on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observed<'a> {
    /// The budget.
    pub budget: &'a PodDisruptionBudget,
    /// The pods that it selects.
    pub pods: &'a [Arc<Pod>],
    /// How many pods the owners of these want to have; it counts only where [`needs_scale`].
    pub scale: i32,
    /// The time.
    pub now: Timestamp,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Decision {
    /// The status.
    pub status: PodDisruptionBudgetStatus,
    /// Pods that should have been deleted by now and were not.
    pub not_deleted: Vec<Arc<Pod>>,
    /// When time alone may change the decision.
    pub look_again: Option<Duration>,
}

/// Whether a budget depends on how many pods there are to be.
pub(crate) fn needs_scale(spec: &PodDisruptionBudgetSpec) -> bool {
    spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
}

/// Decides on one run.
pub(crate) fn decide(observed: Observed<'_>) -> Decision {
    let Observed { budget, pods, now, .. } = observed;
    let (expected, desired) = expectation(observed);
    let known = budget.status.clone().unwrap_or_default();
    let (mut disrupted, mut not_deleted, mut look_again) = (BTreeMap::new(), Vec::new(), None::<Duration>);
    for pod in pods.iter().filter(|pod| !is_deleting(pod)) {
        let name = meta::name(&pod.metadata);
        let Some(since) = known.disrupted_pods.as_ref().and_then(|known| known.get(name)) else { continue };
        match left(since.0, now) {
            Some(left) => {
                look_again = look_again.into_iter().chain([left]).min();
                disrupted.insert(name.to_owned(), since.clone());
            }
            None => not_deleted.push(pod.clone()),
        }
    }
    let is_healthy =
        |pod: &&Arc<Pod>| !is_deleting(pod) && is_ready(pod) && !disrupted.contains_key(meta::name(&pod.metadata));
    let healthy = count(pods.iter().filter(is_healthy).count());
    let allowed = if expected <= 0 { 0 } else { (healthy - desired).max(0) };
    let (status, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let generation = budget.metadata.generation;
    let status = PodDisruptionBudgetStatus {
        conditions: conditions(&known, status, reason, "", generation, now),
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        disrupted_pods: Some(disrupted).filter(|disrupted| !disrupted.is_empty()),
        disruptions_allowed: Some(allowed),
        expected_pods: Some(expected),
        observed_generation: generation,
    };
    Decision { status, not_deleted, look_again }
}

/// The status of a budget that could not be decided on: nothing may be disrupted.
pub(crate) fn unknown(budget: &PodDisruptionBudget, why: &str, now: Timestamp) -> PodDisruptionBudgetStatus {
    let mut status = budget.status.clone().unwrap_or_default();
    status.disruptions_allowed = Some(0);
    status.conditions = conditions(&status, "False", "SyncFailed", why, status.observed_generation, now);
    status
}

fn conditions(
    known: &PodDisruptionBudgetStatus,
    status: &str,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) -> Option<Vec<Condition>> {
    let mut conditions = known.conditions.clone().unwrap_or_default();
    let place = conditions.iter().position(|condition| condition.type_ == ALLOWED);
    let before = place.map(|place| conditions.remove(place)).filter(|before| before.status == status);
    let condition = Condition {
        type_: ALLOWED.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: generation,
        last_transition_time: before.map_or_else(|| time(now), |before| before.last_transition_time),
    };
    conditions.insert(place.unwrap_or(conditions.len()), condition);
    Some(conditions)
}

/// How many pods there are to be, and how many of them must be healthy.
fn expectation(observed: Observed<'_>) -> (i32, i32) {
    let spec = observed.budget.spec.clone().unwrap_or_default();
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => (observed.scale, (observed.scale - scaled(most, observed.scale, true)).max(0)),
        (None, Some(IntOrString::Int(least))) => (count(observed.pods.len()), *least),
        (None, Some(share)) => (observed.scale, scaled(share, observed.scale, true)),
        (None, None) => (0, 0),
    }
}

/// How long a pod that is being disrupted may still take; `None` when it took too long.
fn left(since: Timestamp, now: Timestamp) -> Option<Duration> {
    let patience = SignedDuration::try_from(DISRUPTION_TIME).unwrap_or(SignedDuration::MAX);
    Duration::try_from(patience.saturating_sub(now.duration_since(since))).ok()
}

/// What is told of a pod that several budgets select, of which this is the first.
pub(crate) fn ambiguity(pod: &Pod, first: &PodDisruptionBudget) -> Event {
    let (namespace, name) = (meta::namespace(&pod.metadata), meta::name(&pod.metadata));
    let chosen = meta::name(&first.metadata);
    let message =
        format!("Pod {namespace:?}/{name:?} matches multiple PodDisruptionBudgets.  Chose {chosen:?} arbitrarily.");
    Event::warning("MultiplePodDisruptionBudgets", message)
}

/// How long until a pod that was to be disrupted counts as spared; `None` when nobody disrupts it.
pub(crate) fn until_spared(pod: &Pod, now: Timestamp) -> Option<Duration> {
    let conditions = pod.status.as_ref()?.conditions.iter().flatten();
    let mut targets = conditions.into_iter().filter(|condition| condition.type_ == DISRUPTION_TARGET);
    let target = targets.next().filter(|target| target.status == "True" && !is_deleting(pod) && !is_finished(pod))?;
    // A node may take as long as it likes.
    if target.reason.as_deref() == Some(BY_KUBELET) {
        return None;
    }
    let since = target.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |Time(since)| *since);
    Some(left(since, now).unwrap_or(Duration::ZERO))
}

/// A pod that nobody disrupts any longer.
pub(crate) fn spared(pod: &Pod, now: Timestamp) -> Pod {
    let mut pod = pod.clone();
    let generation = pod.metadata.generation;
    for condition in pod.status.get_or_insert_default().conditions.iter_mut().flatten() {
        if condition.type_ == DISRUPTION_TARGET {
            condition.status = "False".to_owned();
            (condition.reason, condition.message) = (None, None);
            condition.last_transition_time = Some(time(now));
            condition.observed_generation = generation;
        }
    }
    pod
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodCondition;
    use proptest::prelude::*;

    use super::*;
    use crate::pods::fixtures::{at, running};

    fn budget(least: Option<&str>, most: Option<&str>) -> PodDisruptionBudget {
        let value = |text: &str| text.parse().map_or_else(|_| IntOrString::String(text.to_owned()), IntOrString::Int);
        let mut budget = PodDisruptionBudget::default();
        budget.metadata.generation = Some(2);
        let spec = budget.spec.get_or_insert_default();
        (spec.min_available, spec.max_unavailable) = (least.map(value), most.map(value));
        budget
    }

    fn pods(ready: usize, unready: usize) -> Vec<Arc<Pod>> {
        (0..ready + unready).map(|n| Arc::new(running(&format!("p{n}"), (n < ready).then_some(0)))).collect()
    }

    fn decided(budget: &PodDisruptionBudget, pods: &[Arc<Pod>], scale: i32) -> PodDisruptionBudgetStatus {
        decide(Observed { budget, pods, scale, now: at(5) }).status
    }

    #[test]
    fn budgets_are_numbers_or_shares_of_what_is_wanted() {
        for (least, most, scale, expected) in [
            (Some("2"), None, 0, (4, 2, 1)),
            (Some("50%"), None, 5, (5, 3, 0)),
            (None, Some("1"), 4, (4, 3, 0)),
            (None, Some("30%"), 4, (4, 2, 1)),
            (None, Some("9"), 4, (4, 0, 3)),
            (None, Some("1"), 0, (0, 0, 0)),
        ] {
            let budget = budget(least, most);
            let status = decided(&budget, &pods(3, 1), scale);
            let found = [status.expected_pods, status.desired_healthy, status.disruptions_allowed].map(Option::unwrap);
            assert_eq!((found, status.current_healthy), (expected.into(), Some(3)), "{least:?} {most:?}");
            let condition = &status.conditions.unwrap()[0];
            let told = if expected.2 > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
            assert_eq!(
                (&*condition.status, &*condition.reason, condition.observed_generation),
                (told.0, told.1, Some(2))
            );
        }
    }

    #[test]
    fn a_pod_that_is_being_disrupted_is_not_healthy_for_a_while() {
        let mut budget = budget(Some("1"), None);
        budget.status.get_or_insert_default().disrupted_pods = Some([("p0".to_owned(), time(at(0)))].into());
        let pods = pods(2, 0);
        let soon = decide(Observed { budget: &budget, pods: &pods, scale: 0, now: at(20) });
        assert_eq!((soon.status.current_healthy, soon.look_again), (Some(1), Some(Duration::from_secs(100))));
        let late = decide(Observed { budget: &budget, pods: &pods, scale: 0, now: at(121) });
        assert_eq!((late.status.current_healthy, late.not_deleted.len(), late.look_again), (Some(2), 1, None));
        assert_eq!(late.status.disrupted_pods, None);
    }

    #[test]
    fn an_ambiguous_pod_is_told_in_upstreams_words() {
        let mut first = budget(Some("1"), None);
        first.metadata.name = Some("b".to_owned());
        let told = ambiguity(&running("p", None), &first);
        let expected = "Pod \"default\"/\"p\" matches multiple PodDisruptionBudgets.  Chose \"b\" arbitrarily.";
        assert_eq!((&*told.reason, &*told.message), ("MultiplePodDisruptionBudgets", expected));
    }

    #[test]
    fn what_cannot_be_decided_allows_nothing() {
        let mut budget = budget(Some("1"), None);
        budget.status = Some(decided(&budget, &pods(3, 0), 0));
        let status = unknown(&budget, "no", at(9));
        let condition = &status.conditions.as_ref().unwrap()[0];
        assert_eq!((status.disruptions_allowed, status.current_healthy), (Some(0), Some(3)));
        assert_eq!((&*condition.reason, &*condition.message), ("SyncFailed", "no"));
    }

    #[test]
    fn a_target_that_nobody_deletes_is_spared() {
        let mut pod = running("p", Some(0));
        assert_eq!(until_spared(&pod, at(500)), None);
        pod.status.as_mut().unwrap().conditions.as_mut().unwrap().push(PodCondition {
            type_: DISRUPTION_TARGET.to_owned(),
            status: "True".to_owned(),
            last_transition_time: Some(time(at(0))),
            ..Default::default()
        });
        assert_eq!(until_spared(&pod, at(20)), Some(Duration::from_secs(100)));
        assert_eq!(until_spared(&pod, at(500)), Some(Duration::ZERO));
        pod.metadata.generation = Some(3);
        let spared = spared(&pod, at(500));
        assert_eq!(until_spared(&spared, at(501)), None);
        let conditions = spared.status.unwrap().conditions.unwrap();
        assert_eq!((&*conditions[1].status, conditions[1].observed_generation), ("False", Some(3)));
        pod.status.as_mut().unwrap().conditions.as_mut().unwrap()[1].reason = Some(BY_KUBELET.to_owned());
        assert_eq!(until_spared(&pod, at(500)), None, "a node takes its time");
    }

    proptest! {
        #[test]
        fn disrupting_what_is_allowed_leaves_what_is_desired(
            ready in 0..12_usize, unready in 0..5_usize, bound in 0..12_i32, share in any::<bool>(), most in any::<bool>(),
        ) {
            let text = if share { format!("{}%", bound * 8) } else { bound.to_string() };
            let budget = budget((!most).then_some(&*text), most.then_some(&*text));
            let pods = pods(ready, unready);
            let status = decided(&budget, &pods, count(pods.len()));
            let (allowed, healthy) = (status.disruptions_allowed.unwrap(), status.current_healthy.unwrap());
            prop_assert!(allowed == 0 || allowed > 0 && healthy - allowed >= status.desired_healthy.unwrap());
            let mut settled = budget.clone();
            settled.status = Some(status.clone());
            prop_assert_eq!(decide(Observed { budget: &settled, pods: &pods, scale: count(pods.len()), now: at(99) }).status, status);
        }
    }
}
