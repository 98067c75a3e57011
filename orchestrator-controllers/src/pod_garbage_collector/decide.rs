//! Which pods nobody cares for any more.
//!
//! Upstream: `pkg/controller/podgc`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::{Node, Pod};
use orchestrator_core::meta;

use crate::pods::{is_deleting, is_finished};

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
    ended.sort_by_key(|pod| (pod.metadata.creation_timestamp.clone().map(|time| time.0), pod.metadata.name.clone()));
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
}
