//! `NodeResourcesFit`: nodes with enough room, and how much is left of it.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Node, Pod};
use orchestrator_core::scheduler::{ClusterChange, NodeState, PodInfo, Rejection, Resources, Snapshot, pod_requests};

use super::{ScoredResource, Strategy, use_of};
use crate::framework::{Lasting, Plugin, PreFilter, PreScore, Prepared, Scaling, Score};

const NAME: &str = "NodeResourcesFit";

/// Refuses nodes without enough room; among the others, its strategy says which are better.
#[derive(Clone, Debug)]
pub struct NodeResourcesFit {
    /// Which nodes are better.
    pub strategy: Strategy,
    /// By which resources.
    pub resources: Vec<ScoredResource>,
    /// Devices that others look after, by name.
    pub ignored: BTreeSet<String>,
    /// The same, by what stands before the slash.
    pub ignored_groups: BTreeSet<String>,
}

impl NodeResourcesFit {
    /// With a preference among nodes that have enough, by CPU and memory.
    pub fn new(strategy: Strategy) -> Self {
        Self { strategy, resources: ScoredResource::usual(), ignored: BTreeSet::new(), ignored_groups: BTreeSet::new() }
    }

    fn ignores(&self, name: &str) -> bool {
        let group = name.split_once('/').map_or(name, |(group, _)| group);
        is_extended(name) && (self.ignored.contains(name) || self.ignored_groups.contains(group))
    }

    /// What a node lacks for these requests.
    fn lacking(&self, wanted: &Resources, node: &NodeState) -> Option<Rejection> {
        let (has, used) = (node.allocatable(), node.requested());
        let mut rejection = Rejection { plugin: NAME, ..Rejection::default() };
        if node.pods().len() as i64 + 1 > has.pods {
            rejection.reasons.push("Too many pods".to_owned());
        }
        let mut check = |name: &str, wanted: i64, has: i64, used: i64| {
            if wanted > 0 && wanted > has.saturating_sub(used) {
                rejection.reasons.push(format!("Insufficient {name}"));
                rejection.unresolvable |= wanted > has;
            }
        };
        check("cpu", wanted.milli_cpu, has.milli_cpu, used.milli_cpu);
        check("memory", wanted.memory, has.memory, used.memory);
        check("ephemeral-storage", wanted.ephemeral_storage, has.ephemeral_storage, used.ephemeral_storage);
        for (name, wanted) in wanted.scalar.iter().filter(|(name, _)| !self.ignores(name)) {
            check(name, *wanted, has.get(name), used.get(name));
        }
        (!rejection.reasons.is_empty()).then_some(rejection)
    }

    /// Whether a node that came or changed has room for the pod when it is empty, and more than it had.
    fn gained(&self, old: Option<&Node>, new: &Node, pod: &PodInfo) -> bool {
        let empty = |node: &Node| NodeState::new(String::new(), node.clone().into());
        let (old, new) = (old.map(empty), empty(new));
        let more = |old: NodeState| {
            let (was, is) = (old.allocatable(), new.allocatable());
            let wanted = pod.requests();
            let grown = |name: &str| wanted.get(name) > 0 && is.get(name) > was.get(name);
            is.pods > was.pods
                || ["cpu", "memory", "ephemeral-storage"].into_iter().any(grown)
                || wanted.scalar.keys().any(|name| grown(name))
        };
        self.lacking(pod.requests(), &new).is_none() && old.is_none_or(more)
    }
}

/// Devices and the like: whatever has a domain that is not Kubernetes' own.
fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.")
}

/// Whether a pod takes less than it did of anything that another wants.
fn shrank(old: &Pod, new: &Pod, pod: &PodInfo) -> bool {
    let (was, is, wanted) = (pod_requests(old), pod_requests(new), pod.requests());
    let less = |name: &str| wanted.get(name) > 0 && is.get(name) < was.get(name);
    ["cpu", "memory", "ephemeral-storage"].into_iter().any(less) || wanted.scalar.keys().any(|name| less(name))
}

impl Plugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        NAME
    }

    fn may_help(&self, change: &ClusterChange<'_>, pod: &PodInfo) -> bool {
        match change {
            ClusterChange::Node { old, new: Some(new) } => self.gained(*old, new, pod),
            ClusterChange::AssignedPod { old: Some(_), new: None } => true,
            ClusterChange::AssignedPod { old: Some(old), new: Some(new) } => shrank(old, new, pod),
            ClusterChange::WaitingPod { old, new } => {
                let (was, is) = (pod_requests(old), pod_requests(new));
                let mut larger = is.clone();
                larger.maximum(&was);
                larger == was && is != was
            }
            _ => false,
        }
    }

    fn waits_for(&self) -> &'static [&'static str] {
        &[
            "AssignedPod/Delete",
            "AssignedPod/UpdatePodScaleDown",
            "Node/Add",
            "Node/UpdateNodeAllocatable",
            "Pod/UpdatePodScaleDown",
        ]
    }

    fn lasting(&self, _pod: &PodInfo, _cluster: &Snapshot) -> Option<&dyn Lasting> {
        Some(self)
    }
}

impl Lasting for NodeResourcesFit {
    fn alike(&self, a: &PodInfo, b: &PodInfo) -> bool {
        a.requests() == b.requests() && a.usual_requests() == b.usual_requests()
    }
}

impl PreFilter for NodeResourcesFit {
    fn pre_filter<'a>(&'a self, pod: &'a PodInfo, _cluster: &'a Snapshot) -> Prepared<'a> {
        Prepared::per_node(|node| self.lacking(pod.requests(), node))
    }
}

impl PreScore for NodeResourcesFit {
    fn pre_score<'a>(&'a self, pod: &'a PodInfo, _: &'a Snapshot, _: &[&'a NodeState]) -> Option<Box<dyn Score + 'a>> {
        Some(Box::new(Room { plugin: self, pod }))
    }
}

struct Room<'a> {
    plugin: &'a NodeResourcesFit,
    pod: &'a PodInfo,
}

impl Score for Room<'_> {
    fn score(&self, node: &NodeState) -> i64 {
        let resources = self.plugin.resources.iter();
        let uses =
            resources.filter_map(|resource| Some((use_of(&resource.name, node, self.pod, true)?, resource.weight)));
        self.plugin.strategy.score(uses)
    }

    fn scaling(&self) -> Scaling {
        Scaling::None
    }
}
