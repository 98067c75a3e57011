//! A pod's phase, and whether its life on this node is over.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-phase>.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodStatus};

use super::{
    Role,
    backoff::after,
    containers::{LOST_EXIT_CODE, Stage, restarts, stage},
    memory::Memory,
    observed::Observed,
    spec,
};

/// What a pod has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// `Pending`, `Running`, `Succeeded` or `Failed`.
    pub(crate) phase: &'static str,
    pub(crate) reason: Option<String>,
    pub(crate) message: Option<String>,
}

impl Outcome {
    fn plain(phase: &'static str) -> Self {
        Self { phase, reason: None, message: None }
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.phase, "Succeeded" | "Failed")
    }
}

/// When a pod has been active for too long, if it may not be active forever.
pub(crate) fn deadline(pod: &Pod, previous: &PodStatus) -> Option<Timestamp> {
    let seconds = u64::try_from(spec(pod).active_deadline_seconds?).ok()?;
    Some(after(previous.start_time.as_ref()?.0, std::time::Duration::from_secs(seconds)))
}

/// What the pod's containers and limits say, no matter what still runs. `ending` is that the pod is being stopped.
pub(crate) fn outcome(
    pod: &Pod,
    previous: &PodStatus,
    observed: &Observed,
    memory: &Memory,
    ending: bool,
    now: Timestamp,
) -> Outcome {
    let failed = |reason: &str, message: &str| Outcome {
        phase: "Failed",
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
    };
    if let Some((reason, message)) = &memory.rejection {
        return failed(reason, message);
    }
    if super::is_terminal(previous.phase.as_deref()) {
        let phase = if previous.phase.as_deref() == Some("Succeeded") { "Succeeded" } else { "Failed" };
        return Outcome { phase, reason: previous.reason.clone(), message: previous.message.clone() };
    }
    if deadline(pod, previous).is_some_and(|deadline| deadline <= now) {
        return failed("DeadlineExceeded", "Pod was active on the node longer than the specified deadline");
    }
    let phase = of_containers(pod, previous, observed);
    if ending && !matches!(phase, "Succeeded" | "Failed") {
        return Outcome::plain(if all_succeeded(pod, previous, observed) { "Succeeded" } else { "Failed" });
    }
    Outcome::plain(phase)
}

fn of_containers(pod: &Pod, previous: &PodStatus, observed: &Observed) -> &'static str {
    let spec = spec(pod);
    let stage_of = |role, container: &Container| stage(observed, previous, role, &container.name, None);
    let started =
        spec.containers.iter().any(|it| !matches!(stage_of(Role::Regular, it), Stage::Absent | Stage::Created(_)));
    for container in spec.init_containers.iter().flatten().filter(|it| !super::is_sidecar(it)) {
        match stage_of(Role::Init, container) {
            Stage::Exited { code: 0, .. } => {}
            Stage::Exited { code, .. } if !started && !restarts(pod, Role::Init, container, code) => return "Failed",
            Stage::Lost if !started && !restarts(pod, Role::Init, container, LOST_EXIT_CODE) => return "Failed",
            _ if !started => return "Pending",
            _ => {}
        }
    }
    let (mut waiting, mut running, mut comes_back, mut failed) = (false, false, false, false);
    for container in &spec.containers {
        match stage_of(Role::Regular, container) {
            Stage::Absent | Stage::Created(_) => waiting = true,
            Stage::Running(..) | Stage::Unknown(_) => running = true,
            Stage::Exited { code, .. } => {
                comes_back |= restarts(pod, Role::Regular, container, code);
                failed |= code != 0;
            }
            Stage::Lost => {
                comes_back |= restarts(pod, Role::Regular, container, LOST_EXIT_CODE);
                failed = true;
            }
        }
    }
    match () {
        () if waiting => "Pending",
        () if running || comes_back => "Running",
        () if failed => "Failed",
        () => "Succeeded",
    }
}

fn all_succeeded(pod: &Pod, previous: &PodStatus, observed: &Observed) -> bool {
    spec(pod).containers.iter().all(|container| {
        matches!(stage(observed, previous, Role::Regular, &container.name, None), Stage::Exited { code: 0, .. })
    })
}
