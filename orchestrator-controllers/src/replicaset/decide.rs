//! What a replica set wants done: how many pods to create, which to delete, and what its status says.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus},
    core::v1::Pod,
};
use orchestrator_core::{object::time, status::ApiError};

use crate::{
    limits::PODS_PER_RUN,
    pods::{count, is_active, is_available, is_ready, is_terminating, next_available, nonzero, rank_for_deletion},
};

/// Pods to create and to delete; at most one of the two.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// How many pods to create.
    pub create: usize,
    /// Which pods to delete.
    pub delete: Vec<Arc<Pod>>,
}

/// Why pods could not be created or deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// `FailedCreate` or `FailedDelete`.
    pub reason: &'static str,
    /// What went wrong.
    pub message: String,
}

impl Failure {
    pub(crate) fn to_create(error: &ApiError) -> Self {
        Self { reason: "FailedCreate", message: error.message().to_owned() }
    }

    pub(crate) fn to_delete(error: &ApiError) -> Self {
        Self { reason: "FailedDelete", message: format!("unable to delete pods: {}", error.message()) }
    }
}

/// How many replicas are wanted.
pub(crate) fn wanted(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

fn min_ready_seconds(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
}

/// What to do. `owned` are the set's own pods; `related` those of all sets that belong to the same owner.
pub(crate) fn decide(set: &ReplicaSet, owned: &[Arc<Pod>], related: &[Arc<Pod>], now: Timestamp) -> Plan {
    if set.metadata.deletion_timestamp.is_some() {
        return Plan::default();
    }
    let active: Vec<Arc<Pod>> = owned.iter().filter(|pod| is_active(pod)).cloned().collect();
    let wanted = usize::try_from(wanted(set)).unwrap_or(0);
    if active.len() <= wanted {
        return Plan { create: (wanted - active.len()).min(PODS_PER_RUN), delete: Vec::new() };
    }
    let excess = (active.len() - wanted).min(PODS_PER_RUN);
    let mut delete = rank_for_deletion(&active, related, now);
    delete.truncate(excess);
    Plan { create: 0, delete }
}

/// The status of what is observed, after an attempt that failed or not.
pub(crate) fn status(
    set: &ReplicaSet,
    owned: &[Arc<Pod>],
    failure: Option<&Failure>,
    now: Timestamp,
) -> ReplicaSetStatus {
    let active: Vec<&Pod> = owned.iter().map(Arc::as_ref).filter(|pod| is_active(pod)).collect();
    let labels = template_labels(set);
    let of = |counts: &dyn Fn(&Pod) -> bool| count(active.iter().filter(|pod| counts(pod)).count());
    let fully_labeled = of(&|pod| {
        let own = pod.metadata.labels.as_ref();
        labels.iter().all(|(key, value)| own.and_then(|own| own.get(key)) == Some(value))
    });
    ReplicaSetStatus {
        replicas: count(active.len()),
        fully_labeled_replicas: nonzero(fully_labeled),
        ready_replicas: nonzero(of(&is_ready)),
        available_replicas: nonzero(of(&|pod| is_available(pod, min_ready_seconds(set), now))),
        terminating_replicas: Some(count(owned.iter().filter(|pod| is_terminating(pod)).count())),
        observed_generation: set.metadata.generation,
        conditions: conditions(set, failure, now),
    }
}

fn template_labels(set: &ReplicaSet) -> BTreeMap<String, String> {
    let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
    template.and_then(|template| template.metadata.as_ref()?.labels.clone()).unwrap_or_default()
}

/// The first failure stays in the condition until an attempt succeeds.
fn conditions(set: &ReplicaSet, failure: Option<&Failure>, now: Timestamp) -> Option<Vec<ReplicaSetCondition>> {
    const FAILURE: &str = "ReplicaFailure";
    let mut conditions = set.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    match failure {
        None => conditions.retain(|condition| condition.type_ != FAILURE),
        Some(failure) if conditions.iter().all(|condition| condition.type_ != FAILURE) => {
            conditions.push(ReplicaSetCondition {
                type_: FAILURE.to_owned(),
                status: "True".to_owned(),
                reason: Some(failure.reason.to_owned()),
                message: Some(failure.message.clone()),
                last_transition_time: Some(time(now)),
            });
        }
        Some(_) => {}
    }
    (!conditions.is_empty()).then_some(conditions)
}

/// When the count of available pods will change by time alone.
pub(crate) fn look_again(set: &ReplicaSet, owned: &[Arc<Pod>], now: Timestamp) -> Option<Duration> {
    next_available(owned.iter().map(Arc::as_ref).filter(|pod| is_active(pod)), min_ready_seconds(set), now)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{
        api::{apps::v1::ReplicaSetSpec, core::v1::PodTemplateSpec},
        apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    };
    use proptest::prelude::*;

    use super::*;
    use crate::pods::fixtures::{at, running, set_running};

    fn set(replicas: i32) -> ReplicaSet {
        let labels = Some([("app".to_owned(), "a".to_owned())].into());
        ReplicaSet {
            metadata: ObjectMeta { generation: Some(3), ..Default::default() },
            spec: Some(ReplicaSetSpec {
                replicas: Some(replicas),
                template: Some(PodTemplateSpec {
                    metadata: Some(ObjectMeta { labels, ..Default::default() }),
                    spec: None,
                }),
                ..Default::default()
            }),
            status: None,
        }
    }

    fn pods(names: &[&str]) -> Vec<Arc<Pod>> {
        names.iter().map(|name| Arc::new(running(name, Some(0)))).collect()
    }

    #[test]
    fn missing_pods_are_created_within_bounds() {
        assert_eq!(decide(&set(3), &pods(&["a"]), &[], at(9)), Plan { create: 2, delete: vec![] });
        assert_eq!(decide(&set(9_999), &[], &[], at(9)).create, PODS_PER_RUN);
    }

    #[test]
    fn a_set_that_goes_leaves_its_pods_to_the_garbage_collector() {
        let mut set = set(3);
        set.metadata.deletion_timestamp = Some(Time(at(1)));
        assert_eq!(decide(&set, &[], &[], at(9)), Plan::default());
    }

    #[test]
    fn the_status_counts_as_upstream() {
        let mut owned = pods(&["a", "b", "c"]);
        Arc::make_mut(&mut owned[0]).metadata.labels = Some([("app".to_owned(), "a".to_owned())].into());
        Arc::make_mut(&mut owned[1]).metadata.deletion_timestamp = Some(Time(at(1)));
        set_running(Arc::make_mut(&mut owned[2]), None);
        let status = status(&set(3), &owned, None, at(9));
        let json = serde_json::to_value(&status).unwrap();
        let expected = serde_json::json!({
            "replicas": 2, "fullyLabeledReplicas": 1, "readyReplicas": 1, "availableReplicas": 1,
            "terminatingReplicas": 1, "observedGeneration": 3,
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn a_failure_is_told_in_upstreams_words() {
        let error = ApiError::internal("no");
        assert_eq!(Failure::to_create(&error).message, error.message());
        let told = Failure::to_delete(&error);
        assert_eq!(
            (told.reason, told.message),
            ("FailedDelete", format!("unable to delete pods: {}", error.message()))
        );
    }

    #[test]
    fn the_first_failure_stays_until_success() {
        let mut set = set(1);
        let first = Failure { reason: "FailedCreate", message: "no".to_owned() };
        set.status = Some(status(&set, &[], Some(&first), at(1)));
        let second = Failure { reason: "FailedCreate", message: "still no".to_owned() };
        let kept = status(&set, &[], Some(&second), at(2)).conditions.unwrap();
        assert_eq!((kept.len(), kept[0].message.as_deref()), (1, Some("no")));
        assert_eq!(status(&set, &[], None, at(3)).conditions, None);
    }

    /// What happens to the pods between two runs.
    #[derive(Clone, Debug)]
    enum Happening {
        Starts(usize),
        Fails(usize),
        IsDeleted(usize),
        Vanishes(usize),
    }

    fn happening() -> impl Strategy<Value = Happening> {
        prop_oneof![
            (0..20_usize).prop_map(Happening::Starts),
            (0..20_usize).prop_map(Happening::Fails),
            (0..20_usize).prop_map(Happening::IsDeleted),
            (0..20_usize).prop_map(Happening::Vanishes),
        ]
    }

    fn happens(pods: &mut Vec<Arc<Pod>>, happening: &Happening, second: i64) {
        let (Happening::Starts(at_index)
        | Happening::Fails(at_index)
        | Happening::IsDeleted(at_index)
        | Happening::Vanishes(at_index)) = happening;
        let Some(index) = (!pods.is_empty()).then(|| at_index % pods.len()) else { return };
        match happening {
            Happening::Starts(_) => set_running(Arc::make_mut(&mut pods[index]), Some(second)),
            Happening::Fails(_) => {
                Arc::make_mut(&mut pods[index]).status.get_or_insert_default().phase = Some("Failed".to_owned());
            }
            Happening::IsDeleted(_) => {
                Arc::make_mut(&mut pods[index]).metadata.deletion_timestamp = Some(Time(at(second)));
            }
            Happening::Vanishes(_) => drop(pods.remove(index)),
        }
    }

    fn apply(pods: &mut Vec<Arc<Pod>>, plan: &Plan, made: &mut usize, second: i64) {
        for _ in 0..plan.create {
            *made += 1;
            let mut pod = running(&format!("p{made}"), None);
            pod.status = None;
            pods.push(Arc::new(pod));
        }
        for gone in &plan.delete {
            let pod = pods.iter_mut().find(|pod| pod.metadata.uid == gone.metadata.uid).unwrap();
            Arc::make_mut(pod).metadata.deletion_timestamp = Some(Time(at(second)));
        }
    }

    proptest! {
        #[test]
        fn it_converges_in_one_run_and_is_then_silent(
            rounds in proptest::collection::vec(
                (0..12_i32, proptest::collection::vec(happening(), 0..6)), 1..12),
        ) {
            let (mut pods, mut made) = (Vec::new(), 0);
            for (second, (replicas, happenings)) in rounds.iter().enumerate() {
                let second = second as i64;
                for one in happenings {
                    happens(&mut pods, one, second);
                }
                let set = set(*replicas);
                let plan = decide(&set, &pods, &pods, at(second));
                prop_assert!(plan.create == 0 || plan.delete.is_empty());
                prop_assert!(plan.delete.iter().all(|pod| is_active(pod)));
                apply(&mut pods, &plan, &mut made, second);
                prop_assert_eq!(pods.iter().filter(|pod| is_active(pod)).count(), *replicas as usize);
                prop_assert_eq!(decide(&set, &pods, &pods, at(second)), Plan::default());
                prop_assert_eq!(status(&set, &pods, None, at(second)).replicas, *replicas);
            }
        }
    }
}
