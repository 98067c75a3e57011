//! One container of a pod as a decision sees it: its newest run, and whether it is to run again.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStatus as ApiStatus, Pod, PodStatus};
use orchestrator_core::runtime::{ContainerState, ContainerStatus, SandboxId};

use super::{Role, memory::Memory, observed::Observed, operation::ProbeKind, probe, spec};

/// Where a container is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Stage<'a> {
    /// It never ran in this sandbox.
    Absent,
    /// It was made and not started.
    Created(&'a ContainerStatus),
    /// It runs.
    Running(&'a ContainerStatus, Timestamp),
    /// It has ended.
    Exited {
        /// Its exit code.
        code: i32,
        /// When it ended.
        at: Timestamp,
    },
    /// The runtime cannot say.
    Unknown(&'a ContainerStatus),
    /// The API says that it ran; the runtime knows nothing of it.
    Lost,
}

/// The exit code of a container that was lost, as upstream reports it.
pub(crate) const LOST_EXIT_CODE: i32 = 137;

/// Where a container is, in this sandbox or, without one, anywhere.
pub(crate) fn stage<'a>(
    observed: &'a Observed,
    previous: &PodStatus,
    role: Role,
    name: &str,
    sandbox: Option<&SandboxId>,
) -> Stage<'a> {
    let Some(run) = observed.newest_run(name) else {
        return if was_running(previous, role, name) { Stage::Lost } else { Stage::Absent };
    };
    let elsewhere = sandbox.is_some_and(|sandbox| *sandbox != run.sandbox);
    match &run.state {
        ContainerState::Exited { exit_code, finished_at, .. } => Stage::Exited { code: *exit_code, at: *finished_at },
        _ if elsewhere => Stage::Lost,
        ContainerState::Created => Stage::Created(run),
        ContainerState::Running { started_at } => Stage::Running(run, *started_at),
        ContainerState::Unknown => Stage::Unknown(run),
    }
}

fn was_running(previous: &PodStatus, role: Role, name: &str) -> bool {
    api_status(previous, role, name)
        .and_then(|status| status.state.as_ref())
        .is_some_and(|state| state.running.is_some())
}

/// What the API says of a container.
pub(crate) fn api_status<'a>(status: &'a PodStatus, role: Role, name: &str) -> Option<&'a ApiStatus> {
    let list = match role {
        Role::Init | Role::Sidecar => &status.init_container_statuses,
        Role::Regular => &status.container_statuses,
        Role::Ephemeral => &status.ephemeral_container_statuses,
    };
    list.iter().flatten().find(|status| status.name == name)
}

/// The number of the next run: one more than the last that is known of.
pub(crate) fn next_attempt(observed: &Observed, previous: &PodStatus, role: Role, name: &str) -> u32 {
    if let Some(run) = observed.newest_run(name) {
        return run.key.attempt.saturating_add(1);
    }
    let Some(status) = api_status(previous, role, name) else { return 0 };
    let ran = |state: &Option<k8s_openapi::api::core::v1::ContainerState>| {
        state.as_ref().is_some_and(|state| state.running.is_some() || state.terminated.is_some())
    };
    let count = u32::try_from(status.restart_count).unwrap_or(0);
    if ran(&status.state) || ran(&status.last_state) { count.saturating_add(1) } else { count }
}

/// Whether a container that ended with this code is to run again.
///
/// Upstream: <https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#restart-policy>, and KEP-5307 for a
/// container's own policy and rules.
pub(crate) fn restarts(pod: &Pod, role: Role, container: &Container, exit_code: i32) -> bool {
    if role == Role::Ephemeral {
        return false;
    }
    if role == Role::Sidecar {
        return true;
    }
    for rule in container.restart_policy_rules.iter().flatten() {
        let Some(codes) = &rule.exit_codes else { continue };
        let listed = codes.values.iter().flatten().any(|code| *code == exit_code);
        if rule.action == "Restart" && (codes.operator == "In") == listed {
            return true;
        }
    }
    let pod_policy = spec(pod).restart_policy.as_deref().unwrap_or("Always");
    match container.restart_policy.as_deref().unwrap_or(pod_policy) {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        _ if role == Role::Init => exit_code != 0,
        _ => true,
    }
}

/// Whether a running container has passed its startup probe and its `postStart` hook.
pub(crate) fn is_started(container: &Container, attempt: u32, memory: &Memory) -> bool {
    let probed = probe::of(container, ProbeKind::Startup).is_none()
        || memory.verdict(&container.name, attempt, ProbeKind::Startup) == Some(true);
    probed && memory.hook_done(&container.name, attempt)
}

/// Whether a running container can serve.
pub(crate) fn is_ready(container: &Container, attempt: u32, memory: &Memory) -> bool {
    is_started(container, attempt, memory)
        && (probe::of(container, ProbeKind::Readiness).is_none()
            || memory.verdict(&container.name, attempt, ProbeKind::Readiness) == Some(true))
}
