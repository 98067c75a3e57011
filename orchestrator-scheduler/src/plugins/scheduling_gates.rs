//! `SchedulingGates`: pods that others hold back until they are ready.

use orchestrator_core::scheduler::{ClusterChange, PodInfo, Rejection, Snapshot};

use crate::framework::{Plugin, PreEnqueue};

/// Keeps pods with scheduling gates out of the queue.
#[derive(Clone, Copy, Debug)]
pub struct SchedulingGates;

impl Plugin for SchedulingGates {
    fn name(&self) -> &'static str {
        "SchedulingGates"
    }

    fn may_help(&self, change: &ClusterChange<'_>, pod: &PodInfo) -> bool {
        matches!(change, ClusterChange::WaitingPod { .. }) && closed_gates(pod).is_empty()
    }
}

impl PreEnqueue for SchedulingGates {
    fn pre_enqueue(&self, pod: &PodInfo, _cluster: &Snapshot) -> Option<Rejection> {
        let names = closed_gates(pod);
        (!names.is_empty()).then(|| {
            Rejection::unresolvable(self.name(), format!("waiting for scheduling gates: [{}]", names.join(" ")))
        })
    }
}

/// The names of a pod's gates.
fn closed_gates(pod: &PodInfo) -> Vec<&str> {
    let gates = pod.spec.as_ref().and_then(|spec| spec.scheduling_gates.as_deref()).unwrap_or_default();
    gates.iter().map(|gate| gate.name.as_str()).collect()
}
