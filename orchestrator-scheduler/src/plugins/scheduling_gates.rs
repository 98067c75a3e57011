//! `SchedulingGates`: pods that others hold back until they are ready.

use orchestrator_core::scheduler::{ClusterChange, PodInfo, Rejection};

use crate::framework::{Plugin, PreEnqueue};

/// Keeps pods with scheduling gates out of the queue.
#[derive(Clone, Copy, Debug)]
pub struct SchedulingGates;

impl Plugin for SchedulingGates {
    fn name(&self) -> &'static str {
        "SchedulingGates"
    }

    fn may_help(&self, change: &ClusterChange<'_>, pod: &PodInfo) -> bool {
        matches!(change, ClusterChange::WaitingPod { .. }) && self.pre_enqueue(pod).is_none()
    }
}

impl PreEnqueue for SchedulingGates {
    fn pre_enqueue(&self, pod: &PodInfo) -> Option<Rejection> {
        let gates = pod.spec.as_ref().and_then(|spec| spec.scheduling_gates.as_deref()).unwrap_or_default();
        let names: Vec<_> = gates.iter().map(|gate| gate.name.as_str()).collect();
        (!names.is_empty()).then(|| {
            Rejection::unresolvable(self.name(), format!("waiting for scheduling gates: [{}]", names.join(" ")))
        })
    }
}
