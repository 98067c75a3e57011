//! Which pods go first when there are too many.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/#scaling-down-a-replicaset>.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{ContainerStatus, Pod},
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::{is_active, is_ready, phase, ready_since};

/// Lower values are deleted first. Its value is a decimal 32-bit integer.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Orders pods so that the first ones are those to delete first.
///
/// `related` are the pods that share the load with them (those of all replica sets of the same deployment): of a
/// node that has many of these, pods go first. Ages count in powers of two, so that a pod's age beats another's
/// only when it is clearly different; names, which are random, break ties.
pub(crate) fn rank_for_deletion(pods: &[Arc<Pod>], related: &[Arc<Pod>], now: Timestamp) -> Vec<Arc<Pod>> {
    let mut on_node = BTreeMap::<&str, usize>::new();
    for pod in related.iter().filter(|pod| is_active(pod)) {
        if let Some(node) = node(pod) {
            *on_node.entry(node).or_default() += 1;
        }
    }
    let mut ranked = pods.to_vec();
    ranked.sort_by_cached_key(|pod| {
        let crowd = node(pod).and_then(|node| on_node.get(node)).copied().unwrap_or_default();
        (
            (node(pod).is_some(), phase_rank(pod), is_ready(pod), deletion_cost(pod)),
            (Reverse(crowd), age_rank(ready_since(pod), now), Reverse(restarts(pod))),
            age_rank(pod.metadata.creation_timestamp.as_ref().map(|Time(time)| *time), now),
            pod.metadata.name.clone(),
        )
    });
    ranked
}

/// As [`rank_for_deletion`] for pods that no others share a load with, and nobody has set a cost for: ages count exactly, the
/// youngest goes first. As upstream's `ActivePods`.
pub(crate) fn rank_alone(pods: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
    let mut ranked = pods.to_vec();
    ranked.sort_by_cached_key(|pod| {
        let created = pod.metadata.creation_timestamp.as_ref().map(|Time(time)| Reverse(*time));
        (
            (node(pod).is_some(), phase_rank(pod), is_ready(pod), ready_since(pod).map(Reverse)),
            (Reverse(restarts(pod)), created, pod.metadata.name.clone()),
        )
    });
    ranked
}

fn node(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

fn phase_rank(pod: &Pod) -> u8 {
    match phase(pod) {
        "Pending" | "" => 0,
        "Unknown" => 1,
        _ => 2,
    }
}

fn deletion_cost(pod: &Pod) -> i32 {
    let annotation = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(DELETION_COST));
    annotation.and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

/// The binary logarithm of an age in nanoseconds; no age is the youngest of all.
fn age_rank(since: Option<Timestamp>, now: Timestamp) -> Option<u32> {
    let age = now.as_nanosecond().saturating_sub(since?.as_nanosecond());
    Some(u128::try_from(age).ok().and_then(u128::checked_ilog2).unwrap_or(0))
}

/// The most restarts of a container, then of a sidecar.
fn restarts(pod: &Pod) -> (i32, i32) {
    let Some(status) = &pod.status else { return (0, 0) };
    let most = |statuses: &Option<Vec<ContainerStatus>>, counts: &dyn Fn(&ContainerStatus) -> bool| {
        statuses.iter().flatten().filter(|status| counts(status)).map(|status| status.restart_count).max().unwrap_or(0)
    };
    let is_sidecar = |status: &ContainerStatus| {
        let mut containers = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
        containers.any(|known| known.name == status.name && known.restart_policy.as_deref() == Some("Always"))
    };
    (most(&status.container_statuses, &|_| true), most(&status.init_container_statuses, &is_sidecar))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Container;
    use proptest::prelude::*;

    use super::{
        super::fixtures::{at, running},
        *,
    };

    fn on(name: &str, node: &str, ready_since: Option<i64>) -> Pod {
        let mut pod = running(name, ready_since);
        pod.spec.get_or_insert_default().node_name = Some(node.to_owned());
        pod
    }

    fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
        pods.iter().map(|pod| pod.metadata.name.as_deref().unwrap()).collect()
    }

    #[test]
    fn each_criterion_outweighs_the_next() {
        let unassigned = running("h", Some(0));
        let mut pending = on("g", "n1", None);
        pending.status.as_mut().unwrap().phase = Some("Pending".to_owned());
        let unready = on("f", "n2", None);
        let mut cheap = on("e", "n3", Some(0));
        cheap.metadata.annotations = Some([(DELETION_COST.to_owned(), "-1".to_owned())].into());
        let crowded = [on("c", "n4", Some(0)), on("d", "n4", Some(90))];
        let mut restarted = on("b", "n5", Some(0));
        restarted.status.as_mut().unwrap().container_statuses =
            Some(vec![ContainerStatus { restart_count: 3, ..Default::default() }]);
        let best = on("a", "n6", Some(0));
        let [old, young] = crowded;
        let pods: Vec<Arc<Pod>> =
            [best, restarted, old, young, cheap, unready, pending, unassigned].into_iter().map(Arc::new).collect();
        assert_eq!(names(&rank_for_deletion(&pods, &pods, at(100))), ["h", "g", "f", "e", "d", "c", "b", "a"]);
    }

    #[test]
    fn alone_the_youngest_goes_first_whatever_it_costs() {
        let mut old = on("old", "n1", Some(100));
        old.metadata.annotations = Some([(DELETION_COST.to_owned(), "-9".to_owned())].into());
        let young = on("young", "n1", Some(101));
        let pods: Vec<Arc<Pod>> = [old, young, on("unready", "n1", None)].into_iter().map(Arc::new).collect();
        assert_eq!(names(&rank_alone(&pods)), ["unready", "young", "old"]);
    }

    #[test]
    fn of_init_containers_only_sidecars_have_restarts() {
        let mut pod = running("p", Some(0));
        let container = |name: &str, policy: Option<&str>| Container {
            name: name.to_owned(),
            restart_policy: policy.map(str::to_owned),
            ..Default::default()
        };
        pod.spec.get_or_insert_default().init_containers =
            Some(vec![container("first", None), container("sidecar", Some("Always"))]);
        let status =
            |name: &str, restart_count| ContainerStatus { name: name.to_owned(), restart_count, ..Default::default() };
        pod.status.as_mut().unwrap().init_container_statuses = Some(vec![status("first", 5), status("sidecar", 2)]);
        assert_eq!(restarts(&pod), (0, 2));
    }

    #[test]
    fn equal_pods_go_in_order_of_their_names() {
        let pods: Vec<Arc<Pod>> = ["p3", "p1", "p2"].iter().map(|name| Arc::new(running(name, Some(0)))).collect();
        assert_eq!(names(&rank_for_deletion(&pods, &pods, at(9))), ["p1", "p2", "p3"]);
    }

    proptest! {
        #[test]
        fn the_order_does_not_depend_on_the_order_of_the_input(
            ready in proptest::collection::vec(proptest::option::of(0..100_i64), 1..8), rotate in 0..8_usize,
        ) {
            let pods: Vec<Arc<Pod>> = ready.iter().enumerate()
                .map(|(index, since)| Arc::new(on(&format!("p{index}"), &format!("n{}", index % 3), *since))).collect();
            let mut turned = pods.clone();
            turned.rotate_left(rotate % pods.len());
            let (first, second) =
                (rank_for_deletion(&pods, &pods, at(100)), rank_for_deletion(&turned, &turned, at(100)));
            prop_assert_eq!(names(&first), names(&second));
        }
    }
}
