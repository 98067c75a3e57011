//! `TaintToleration`: nodes whose taints keep a pod off, and taints that only make a node worse.

use k8s_openapi::api::core::v1::{Node, Toleration};
use orchestrator_core::scheduler::{
    ClusterChange, NodeState, PodInfo, Rejection, Snapshot,
    matching::{taints, tolerates, tolerations, untolerated_taint},
};

use super::node::gained_tolerations;
use crate::framework::{Lasting, Plugin, PreFilter, PreScore, Prepared, Scaling, Score};

/// Refuses nodes with taints that the pod does not tolerate; prefers nodes with few that ask it to stay away.
#[derive(Clone, Copy, Debug)]
pub struct TaintToleration;

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn may_help(&self, change: &ClusterChange<'_>, pod: &PodInfo) -> bool {
        let tolerations = pod.spec.as_ref().map(tolerations).unwrap_or_default();
        let refused = |node: &Node| untolerated_taint(tolerations, node).is_some();
        match change {
            ClusterChange::Node { old, new: Some(new) } => !refused(new) && old.is_none_or(refused),
            ClusterChange::WaitingPod { old, new } => gained_tolerations(old, new),
            _ => false,
        }
    }

    fn waits_for(&self) -> &'static [&'static str] {
        &["Node/Add", "Node/UpdateNodeTaint", "Pod/UpdatePodToleration"]
    }

    fn lasting(&self, _pod: &PodInfo, _cluster: &Snapshot) -> Option<&dyn Lasting> {
        Some(self)
    }
}

impl Lasting for TaintToleration {
    fn alike(&self, a: &PodInfo, b: &PodInfo) -> bool {
        a.spec.as_ref().map(tolerations) == b.spec.as_ref().map(tolerations)
    }
}

impl PreFilter for TaintToleration {
    fn pre_filter<'a>(&'a self, pod: &'a PodInfo, _cluster: &'a Snapshot) -> Prepared<'a> {
        let tolerations = pod.spec.as_ref().map(tolerations).unwrap_or_default();
        Prepared::per_node(move |node| {
            untolerated_taint(tolerations, node.node())
                .map(|_| Rejection::unresolvable(self.name(), "node(s) had untolerated taint(s)"))
        })
    }
}

impl PreScore for TaintToleration {
    fn pre_score<'a>(&'a self, pod: &'a PodInfo, _: &'a Snapshot, _: &[&'a NodeState]) -> Option<Box<dyn Score + 'a>> {
        const SOFT: [&str; 2] = ["", "PreferNoSchedule"];
        let tolerations = pod.spec.as_ref().map(tolerations).unwrap_or_default().iter();
        let soft = |toleration: &&Toleration| SOFT.contains(&toleration.effect.as_deref().unwrap_or_default());
        Some(Box::new(FewTaints(tolerations.filter(soft).cloned().collect())))
    }
}

struct FewTaints(Vec<Toleration>);

impl Score for FewTaints {
    fn score(&self, node: &NodeState) -> i64 {
        let soft = taints(node.node()).iter().filter(|taint| taint.effect == "PreferNoSchedule");
        soft.filter(|taint| !tolerates(&self.0, taint)).count() as i64
    }

    fn scaling(&self) -> Scaling {
        Scaling::ToLargest { reverse: true }
    }
}
