//! `NodePorts`: ports of the node that others have taken.

use orchestrator_core::scheduler::{ClusterChange, PodInfo, Rejection, Snapshot};

use crate::framework::{Lasting, Plugin, PreFilter, Prepared};

/// Refuses nodes whose ports that the pod wants are taken.
#[derive(Clone, Copy, Debug)]
pub struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn may_help(&self, change: &ClusterChange<'_>, pod: &PodInfo) -> bool {
        match change {
            ClusterChange::Node { new: Some(_), old: None } => true,
            ClusterChange::AssignedPod { old: Some(gone), new: None } => {
                let gone = PodInfo::from((*gone).clone());
                gone.host_ports().iter().any(|taken| pod.host_ports().iter().any(|port| port.conflicts(taken)))
            }
            _ => false,
        }
    }

    fn waits_for(&self) -> &'static [&'static str] {
        &["AssignedPod/Delete", "Node/Add"]
    }

    fn lasting(&self, _pod: &PodInfo, _cluster: &Snapshot) -> Option<&dyn Lasting> {
        Some(self)
    }
}

impl Lasting for NodePorts {
    fn alike(&self, a: &PodInfo, b: &PodInfo) -> bool {
        a.host_ports() == b.host_ports()
    }
}

impl PreFilter for NodePorts {
    fn pre_filter<'a>(&'a self, pod: &'a PodInfo, _cluster: &'a Snapshot) -> Prepared<'a> {
        if pod.host_ports().is_empty() {
            return Prepared::Skip;
        }
        Prepared::per_node(|node| {
            let taken = node.used_ports().any(|used| pod.host_ports().iter().any(|port| port.conflicts(used)));
            taken.then(|| Rejection::new(self.name(), "node(s) didn't have free ports for the requested pod ports"))
        })
    }
}
