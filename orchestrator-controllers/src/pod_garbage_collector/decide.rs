//! Which pods nobody cares for any more.
//!
//! Upstream: `pkg/controller/podgc`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use orchestrator_core::meta;

use crate::pods::{disruption_target, is_deleting, is_finished, phase};

const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// Why a pod is collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Garbage {
    /// Too many pods have ended; it is one of the oldest.
    Terminated,
    /// Its node is gone.
    Orphaned,
    /// It is being deleted and never ran anywhere.
    Unscheduled,
    /// It is being deleted on a node that was declared out of service.
    OutOfService,
}

/// Since when nodes that pods name are missing.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Missing(BTreeMap<String, Duration>);

impl Missing {
    /// Takes in the pods and nodes of now; gives the nodes that have been missing for long enough.
    pub(super) fn observe<'a>(
        &mut self,
        pods: &'a [Arc<Pod>],
        nodes: &BTreeMap<String, Arc<Node>>,
        quarantine: Duration,
        now: Duration,
    ) -> BTreeSet<&'a str> {
        let named: BTreeSet<&str> = pods.iter().filter_map(|pod| node_name(pod)).collect();
        self.0.retain(|name, _| named.contains(name.as_str()) && !nodes.contains_key(name));
        for name in named.iter().filter(|name| !nodes.contains_key(**name)) {
            self.0.entry((*name).to_owned()).or_insert(now);
        }
        let gone = |name: &&str| self.0.get(*name).is_some_and(|since| now.saturating_sub(*since) >= quarantine);
        named.into_iter().filter(gone).collect()
    }
}

fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

/// The pods to collect, each for one reason. `gone` are nodes that do not exist.
pub(super) fn decide(
    pods: &[Arc<Pod>],
    nodes: &BTreeMap<String, Arc<Node>>,
    gone: &BTreeSet<&str>,
    kept: usize,
) -> Vec<(Arc<Pod>, Garbage)> {
    let mut ended: Vec<&Arc<Pod>> = pods.iter().filter(|pod| is_finished(pod) && !is_deleting(pod)).collect();
    ended.sort_by_key(|pod| {
        let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (!is_evicted(pod), created, pod.metadata.name.clone())
    });
    let excess = ended.len().saturating_sub(kept);
    let excess: BTreeSet<&str> = ended.into_iter().take(excess).map(|pod| meta::uid(&pod.metadata)).collect();
    let reason = |pod: &Arc<Pod>| match node_name(pod) {
        Some(name) if gone.contains(name) => Some(Garbage::Orphaned),
        Some(name) if is_deleting(pod) && nodes.get(name).is_some_and(|node| is_out_of_service(node)) => {
            Some(Garbage::OutOfService)
        }
        None if is_deleting(pod) => Some(Garbage::Unscheduled),
        _ => excess.contains(meta::uid(&pod.metadata)).then_some(Garbage::Terminated),
    };
    pods.iter().filter_map(|pod| Some((pod.clone(), reason(pod)?))).collect()
}

/// Pods that a node has evicted tell nobody anything.
fn is_evicted(pod: &Pod) -> bool {
    let reason = pod.status.as_ref().and_then(|status| status.reason.as_deref());
    phase(pod) == "Failed" && reason == Some("Evicted")
}

/// The pod as it is told to have failed before it goes: nobody else would say so, and whoever waits for its end would wait for
/// ever. Nothing where it has ended already.
pub(super) fn failed(pod: &Pod, garbage: Garbage, now: Timestamp) -> Option<Pod> {
    if is_finished(pod) {
        return None;
    }
    let mut new = pod.clone();
    let status = new.status.get_or_insert_default();
    status.phase = Some("Failed".to_owned());
    status.observed_generation = pod.metadata.generation;
    let why = match garbage {
        Garbage::Terminated | Garbage::Unscheduled => None,
        Garbage::Orphaned => Some("PodGC: node no longer exists"),
        Garbage::OutOfService => Some("PodGC: node is out of service"),
    };
    if let Some(why) = why {
        let target = disruption_target(pod, "DeletionByPodGC", why, now);
        meta::set_condition(status.conditions.get_or_insert_default(), target);
    }
    Some(new)
}

fn is_out_of_service(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    taints.iter().any(|taint| taint.key == OUT_OF_SERVICE) && !meta::is_condition_true(conditions, "Ready")
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::pods::fixtures::{at, running};

    fn pod(name: &str, node: Option<&str>) -> Pod {
        let mut pod = running(name, None);
        pod.spec.get_or_insert_default().node_name = node.map(str::to_owned);
        pod
    }

    #[test]
    fn a_missing_node_is_gone_after_its_quarantine() {
        let pods = [Arc::new(pod("a", Some("n1")))];
        let (none, seconds) = (BTreeMap::new(), Duration::from_secs);
        let mut missing = Missing::default();
        assert!(missing.observe(&pods, &none, seconds(40), seconds(1)).is_empty());
        assert!(missing.observe(&pods, &none, seconds(40), seconds(40)).is_empty());
        assert_eq!(missing.observe(&pods, &none, seconds(40), seconds(41)), ["n1"].into());
        let back = [("n1".to_owned(), Arc::new(Node::default()))].into();
        assert!(missing.observe(&pods, &back, seconds(40), seconds(50)).is_empty());
        assert!(missing.observe(&pods, &none, seconds(40), seconds(60)).is_empty());
    }

    #[test]
    fn each_garbage_has_its_reason() {
        let mut unscheduled = pod("unscheduled", None);
        unscheduled.metadata.deletion_timestamp = Some(Time(at(1)));
        let mut pods = vec![pod("orphan", Some("gone")), unscheduled, pod("fine", Some("n1")), pod("pending", None)];
        for number in 0..3 {
            let mut ended = pod(&format!("ended{number}"), Some("n1"));
            ended.metadata.creation_timestamp = Some(Time(at(number)));
            ended.status.get_or_insert_default().phase = Some("Succeeded".to_owned());
            pods.push(ended);
        }
        let pods: Vec<_> = pods.into_iter().map(Arc::new).collect();
        let found = decide(&pods, &BTreeMap::new(), &["gone"].into(), 1);
        let found: Vec<_> =
            found.iter().map(|(pod, garbage)| (pod.metadata.name.as_deref().unwrap(), *garbage)).collect();
        let expected = [
            ("orphan", Garbage::Orphaned),
            ("unscheduled", Garbage::Unscheduled),
            ("ended0", Garbage::Terminated),
            ("ended1", Garbage::Terminated),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn evicted_pods_go_before_others_that_have_ended() {
        let ended = |name: &str, second: i64, reason: Option<&str>| {
            let mut pod = pod(name, Some("n1"));
            pod.metadata.creation_timestamp = Some(Time(at(second)));
            let status = pod.status.get_or_insert_default();
            (status.phase, status.reason) = (Some("Failed".to_owned()), reason.map(str::to_owned));
            Arc::new(pod)
        };
        let pods = [ended("old", 0, None), ended("evicted", 9, Some("Evicted")), ended("young", 5, None)];
        let found = decide(&pods, &BTreeMap::new(), &BTreeSet::new(), 2);
        assert_eq!(found.iter().map(|(pod, _)| meta::name(&pod.metadata)).collect::<Vec<_>>(), ["evicted"]);
    }

    #[test]
    fn what_goes_before_its_end_has_failed() {
        let conditions = |pod: &Pod| {
            let conditions = pod.status.as_ref().unwrap().conditions.as_ref().unwrap();
            conditions.iter().map(|condition| condition.type_.clone()).collect::<Vec<_>>()
        };
        let mut unscheduled = pod("a", None);
        unscheduled.metadata.generation = Some(2);
        let unscheduled = failed(&unscheduled, Garbage::Unscheduled, at(9)).unwrap();
        assert_eq!(unscheduled.status.as_ref().unwrap().observed_generation, Some(2));
        assert_eq!((phase(&unscheduled), conditions(&unscheduled)), ("Failed", vec!["Ready".to_owned()]));
        let orphan = failed(&pod("a", Some("gone")), Garbage::Orphaned, at(9)).unwrap();
        assert_eq!(conditions(&orphan), ["Ready", "DisruptionTarget"]);
        assert_eq!(failed(&orphan, Garbage::Orphaned, at(10)), None);
    }
}
