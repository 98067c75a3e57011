//! `NodeUnschedulable` and `NodeName`: nodes that are closed, and pods that ask for one node.

use k8s_openapi::api::core::v1::Pod;
use orchestrator_core::scheduler::{
    ClusterChange, PodInfo, Rejection, Snapshot,
    matching::{is_closed, tolerations},
};

use crate::framework::{Lasting, Plugin, PreFilter, Prepared};

/// Refuses nodes that are closed to new pods.
#[derive(Clone, Copy, Debug)]
pub struct NodeUnschedulable;

/// Refuses all nodes but the one that the pod names.
#[derive(Clone, Copy, Debug)]
pub struct NodeName;

/// Whether a waiting pod tolerates other taints than it did.
pub(super) fn gained_tolerations(old: &Pod, new: &Pod) -> bool {
    let tolerations = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.tolerations.clone());
    tolerations(old) != tolerations(new)
}

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn may_help(&self, change: &ClusterChange<'_>, pod: &PodInfo) -> bool {
        let tolerations = pod.spec.as_ref().map(tolerations).unwrap_or_default();
        match change {
            ClusterChange::Node { old, new: Some(new) } => {
                !is_closed(tolerations, new) && old.is_none_or(|old| is_closed(tolerations, old))
            }
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

impl Lasting for NodeUnschedulable {
    fn alike(&self, a: &PodInfo, b: &PodInfo) -> bool {
        a.spec.as_ref().map(tolerations) == b.spec.as_ref().map(tolerations)
    }
}

impl PreFilter for NodeUnschedulable {
    fn pre_filter<'a>(&'a self, pod: &'a PodInfo, _cluster: &'a Snapshot) -> Prepared<'a> {
        Prepared::per_node(|node| {
            let tolerations = pod.spec.as_ref().map(tolerations).unwrap_or_default();
            is_closed(tolerations, node.node())
                .then(|| Rejection::unresolvable(self.name(), "node(s) were unschedulable"))
        })
    }
}

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn may_help(&self, change: &ClusterChange<'_>, pod: &PodInfo) -> bool {
        let ClusterChange::Node { old: None, new: Some(new) } = change else { return false };
        pod.node_name().is_none_or(|name| new.metadata.name.as_deref() == Some(name))
    }

    fn waits_for(&self) -> &'static [&'static str] {
        &["Node/Add"]
    }

    fn lasting(&self, _pod: &PodInfo, _cluster: &Snapshot) -> Option<&dyn Lasting> {
        Some(self)
    }
}

impl Lasting for NodeName {
    fn alike(&self, a: &PodInfo, b: &PodInfo) -> bool {
        a.node_name() == b.node_name()
    }
}

impl PreFilter for NodeName {
    fn pre_filter<'a>(&'a self, pod: &'a PodInfo, _cluster: &'a Snapshot) -> Prepared<'a> {
        let Some(name) = pod.node_name() else { return Prepared::Skip };
        Prepared::per_node(move |node| {
            (node.name() != name)
                .then(|| Rejection::unresolvable(self.name(), "node(s) didn't match the requested node name"))
        })
    }
}
