//! What the API shows of a pod: a pure function of what it asks for, what is there, and the time.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/>.

pub(crate) mod patch;

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState as ApiState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus as ApiStatus, HostIP, Pod, PodCondition, PodIP, PodStatus, VolumeMountStatus,
};
use orchestrator_core::{
    object::time,
    runtime::{ContainerState, ContainerStatus},
};

use super::{
    Role, backoff,
    containers::{LOST_EXIT_CODE, api_status, is_ready, is_started, restarts},
    memory::{Memory, Volumes},
    observed::Observed,
    phase, spec,
};
use crate::limits::PULL_ERROR_SHOWN;

/// What a status depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    pub(crate) pod: &'a Pod,
    /// The newest status that is known.
    pub(crate) previous: &'a PodStatus,
    pub(crate) observed: &'a Observed,
    pub(crate) memory: &'a Memory,
    pub(crate) node: &'a NodeFacts,
    /// The pod is being stopped.
    pub(crate) ending: bool,
    pub(crate) now: Timestamp,
}

/// What a pod's status says of its node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeFacts {
    /// The runtime's name, as in container IDs.
    pub(crate) runtime: String,
    /// The node's addresses.
    pub(crate) addresses: Vec<IpAddr>,
}

/// The status to show.
pub(crate) fn compute(view: &View<'_>) -> PodStatus {
    let View { pod, previous, memory, now, .. } = *view;
    let mut status = PodStatus {
        start_time: previous.start_time.clone().or_else(|| Some(time(now))),
        qos_class: previous.qos_class.clone(),
        observed_generation: pod.metadata.generation,
        nominated_node_name: previous.nominated_node_name.clone(),
        resource_claim_statuses: previous.resource_claim_statuses.clone(),
        ..PodStatus::default()
    };
    let statuses = |wanted: fn(Role) -> bool| {
        let list: Vec<ApiStatus> = super::containers(pod)
            .filter(|(role, _)| wanted(*role))
            .map(|(role, container)| container_status(view, role, &container))
            .collect();
        (!list.is_empty() && memory.rejection.is_none()).then_some(list)
    };
    status.init_container_statuses = statuses(|role| matches!(role, Role::Init | Role::Sidecar));
    status.container_statuses = statuses(|role| role == Role::Regular);
    status.ephemeral_container_statuses = statuses(|role| role == Role::Ephemeral);
    set_phase(view, &mut status);
    set_addresses(view, &mut status);
    set_conditions(view, &mut status);
    status
}

/// A phase that is final is shown once nothing runs any more.
fn set_phase(view: &View<'_>, status: &mut PodStatus) {
    let View { pod, previous, observed, memory, ending, now, .. } = *view;
    let runs = observed.containers().iter().any(|run| run.state.is_running());
    let outcome = phase::outcome(pod, previous, observed, memory, ending && !runs, now);
    if outcome.is_over() && runs {
        status.phase = Some(previous.phase.clone().unwrap_or_else(|| "Running".to_owned()));
        status.reason.clone_from(&previous.reason);
        status.message.clone_from(&previous.message);
        return;
    }
    status.phase = Some(outcome.phase.to_owned());
    status.reason = outcome.reason;
    status.message = outcome.message;
}

fn set_addresses(view: &View<'_>, status: &mut PodStatus) {
    if view.memory.rejection.is_some() {
        return;
    }
    let node: Vec<String> = view.node.addresses.iter().map(ToString::to_string).collect();
    status.host_ip = node.first().cloned();
    status.host_ips = (!node.is_empty()).then(|| node.iter().map(|ip| HostIP { ip: ip.clone() }).collect());
    let host_network = spec(view.pod).host_network == Some(true);
    let own: Vec<String> = match view.observed.ready_sandbox() {
        _ if host_network => node,
        Some(sandbox) => sandbox.addresses.iter().map(ToString::to_string).collect(),
        // The address of an ended pod stays in its status.
        None => view.previous.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect(),
    };
    status.pod_ip = own.first().cloned();
    status.pod_ips = (!own.is_empty()).then(|| own.into_iter().map(|ip| PodIP { ip }).collect());
}

// Containers.

fn container_status(view: &View<'_>, role: Role, container: &Container) -> ApiStatus {
    let mut runs = view.observed.runs(&container.name);
    let (newest, before) = (runs.next(), runs.next());
    let Some(run) = newest else { return unseen(view, role, container) };
    let api = api_status(view.previous, role, &container.name);
    let mut status = ApiStatus {
        name: container.name.clone(),
        image: run.image.clone(),
        image_id: run.image_id.clone(),
        container_id: Some(format!("{}://{}", view.node.runtime, run.id)),
        restart_count: i32::try_from(run.key.attempt).unwrap_or(i32::MAX),
        state: Some(state(view, role, container, run)),
        last_state: before
            .map(|before| state(view, role, container, before))
            .filter(|state| state.terminated.is_some()),
        ..blank(container)
    };
    if status.last_state.is_none() {
        status.last_state = api.and_then(|api| kept_last_state(api, &status));
    }
    match &run.state {
        ContainerState::Running { .. } => {
            status.started = Some(is_started(container, run.key.attempt, view.memory));
            status.ready = role != Role::Init && is_ready(container, run.key.attempt, view.memory);
            if role == Role::Ephemeral {
                (status.started, status.ready) = (None, false);
            }
        }
        ContainerState::Exited { exit_code, .. } => {
            status.ready = role == Role::Init && *exit_code == 0;
            show_waiting(view, role, container, &mut status, run);
        }
        ContainerState::Created | ContainerState::Unknown => {}
    }
    if run.state.is_running() {
        status.resources = container.resources.clone();
        status.allocated_resources = container.resources.as_ref().and_then(|resources| resources.requests.clone());
    }
    status
}

/// Keeps what the API says of the run before, when the runtime has forgotten it.
fn kept_last_state(api: &ApiStatus, status: &ApiStatus) -> Option<ApiState> {
    if api.container_id == status.container_id {
        return api.last_state.clone();
    }
    api.state.clone().filter(|state| state.terminated.is_some()).or_else(|| api.last_state.clone())
}

fn blank(container: &Container) -> ApiStatus {
    let mounts = container.volume_mounts.iter().flatten().map(|mount| VolumeMountStatus {
        mount_path: mount.mount_path.clone(),
        name: mount.name.clone(),
        read_only: mount.read_only.filter(|read_only| *read_only),
        recursive_read_only: mount.read_only.filter(|read_only| *read_only).map(|_| {
            let policy = mount.recursive_read_only.as_deref();
            if policy == Some("Enabled") { "Enabled" } else { "Disabled" }.to_owned()
        }),
        ..Default::default()
    });
    let mounts: Vec<_> = mounts.collect();
    ApiStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        started: Some(false),
        state: Some(ApiState::default()),
        last_state: Some(ApiState::default()),
        volume_mounts: (!mounts.is_empty()).then_some(mounts),
        ..ApiStatus::default()
    }
}

fn state(view: &View<'_>, role: Role, container: &Container, run: &ContainerStatus) -> ApiState {
    match &run.state {
        ContainerState::Running { started_at } => ApiState {
            running: Some(ContainerStateRunning { started_at: Some(time(*started_at)) }),
            ..ApiState::default()
        },
        ContainerState::Exited { started_at, finished_at, exit_code, signal, reason, message } => {
            let words = view.memory.last_words.get(&(run.key.name.clone(), run.key.attempt));
            let message = words.unwrap_or(message);
            ApiState {
                terminated: Some(ContainerStateTerminated {
                    container_id: Some(format!("{}://{}", view.node.runtime, run.id)),
                    exit_code: *exit_code,
                    finished_at: Some(time(*finished_at)),
                    message: Some(message.clone()).filter(|message| !message.is_empty()),
                    reason: Some(reason.clone()),
                    // Upstream leaves the signal to the exit code.
                    signal: signal.filter(|_| false),
                    started_at: Some(time(started_at.unwrap_or(Timestamp::UNIX_EPOCH))),
                }),
                ..ApiState::default()
            }
        }
        ContainerState::Created | ContainerState::Unknown => {
            // Between two runs the reason for the wait stays.
            let shown = api_status(view.previous, role, &container.name).and_then(|status| status.state.clone());
            let shown = shown.filter(|state| run.key.attempt > 0 && state.waiting.is_some());
            shown.unwrap_or_else(|| waiting(view, role, container))
        }
    }
}

/// Shows why an ended container that is to run again does not run yet.
fn show_waiting(view: &View<'_>, role: Role, container: &Container, status: &mut ApiStatus, run: &ContainerStatus) {
    let Some(code) = run.state.exit_code() else { return };
    if view.ending || !restarts(view.pod, role, container, code) {
        return;
    }
    let ContainerState::Exited { finished_at, .. } = &run.state else { return };
    let failure = shown_failure(view, container);
    // A try after this failure has begun when the last one is later: the wait is that of the next failure.
    let waits = |it: &&backoff::Backoff| it.last_try <= *finished_at && it.until(*finished_at, view.now).is_some();
    let crash = view.memory.crashes.get(&container.name).filter(waits);
    let (reason, message) = match (failure, crash) {
        (_, Some(backoff)) => {
            let wait = backoff::go_seconds(backoff.delay);
            let pod = super::describe(view.pod);
            let message = format!("back-off {wait} restarting failed container={} pod={pod}", container.name);
            ("CrashLoopBackOff".to_owned(), message)
        }
        (Some(failure), None) => failure,
        (None, None) => return,
    };
    status.last_state = status.state.take();
    status.state = Some(waiting_state(&reason, Some(message)));
}

/// A container that the runtime knows nothing of.
fn unseen(view: &View<'_>, role: Role, container: &Container) -> ApiStatus {
    let mut status = blank(container);
    let Some(api) = api_status(view.previous, role, &container.name) else {
        status.state = Some(waiting(view, role, container));
        return status;
    };
    let terminated = |state: &Option<ApiState>| state.as_ref().is_some_and(|state| state.terminated.is_some());
    let over = view.ending || super::is_terminal(view.previous.phase.as_deref());
    if terminated(&api.state) && (over || role == Role::Init) {
        return ApiStatus { started: Some(false), ..api.clone() };
    }
    status.restart_count = api.restart_count;
    status.last_state.clone_from(&api.last_state);
    status.state = Some(waiting(view, role, container));
    let ran = api.state.as_ref().is_some_and(|state| state.running.is_some());
    if ran || terminated(&api.state) {
        let lost = if ran { lost() } else { api.state.clone().unwrap_or_default() };
        if ran && (over || !restarts(view.pod, role, container, LOST_EXIT_CODE)) {
            status.state = Some(lost);
        } else {
            // The next run counts; see `next_attempt`.
            status.last_state = Some(lost);
        }
    }
    status
}

fn lost() -> ApiState {
    ApiState {
        terminated: Some(ContainerStateTerminated {
            exit_code: LOST_EXIT_CODE,
            reason: Some("ContainerStatusUnknown".to_owned()),
            message: Some("The container could not be located when the pod was terminated".to_owned()),
            ..Default::default()
        }),
        ..ApiState::default()
    }
}

/// Why a container that never ran in this sandbox waits.
fn waiting(view: &View<'_>, role: Role, container: &Container) -> ApiState {
    if let Some((reason, message)) = shown_failure(view, container) {
        return waiting_state(&reason, Some(message));
    }
    let initializing = spec(view.pod).init_containers.as_ref().is_some_and(|list| !list.is_empty());
    let current = matches!(role, Role::Init | Role::Sidecar) && initializing;
    let reason = if initializing || current { "PodInitializing" } else { "ContainerCreating" };
    waiting_state(reason, None)
}

fn waiting_state(reason: &str, message: Option<String>) -> ApiState {
    ApiState {
        waiting: Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message }),
        ..ApiState::default()
    }
}

/// A failure to start, as it is shown at this time.
fn shown_failure(view: &View<'_>, container: &Container) -> Option<(String, String)> {
    let failure = view.memory.failures.get(&container.name)?;
    if failure.reason == "ErrImagePull" && backoff::after(failure.at, PULL_ERROR_SHOWN) <= view.now {
        let image = container.image.as_deref().unwrap_or_default();
        let message = format!("Back-off pulling image \"{image}\": ErrImagePull: {}", failure.message);
        return Some(("ImagePullBackOff".to_owned(), message));
    }
    Some((failure.reason.clone(), failure.message.clone()))
}

// Conditions.

/// The types of conditions that the node owns.
const OWN_CONDITIONS: [&str; 4] = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"];

fn set_conditions(view: &View<'_>, status: &mut PodStatus) {
    if view.memory.rejection.is_some() {
        status.conditions.clone_from(&view.previous.conditions);
        return;
    }
    let others: Vec<PodCondition> = view
        .previous
        .conditions
        .iter()
        .flatten()
        .filter(|condition| !OWN_CONDITIONS.contains(&condition.type_.as_str()))
        .cloned()
        .collect();
    let containers_ready = containers_ready(view, status);
    let own =
        [sandbox_condition(view), initialized(view, status), ready(view, &containers_ready, &others), containers_ready];
    // In the order that the API has them in: what says the same is the same.
    let mut conditions = view.previous.conditions.clone().unwrap_or_default();
    for condition in own.into_iter().map(|condition| dated(view, condition)) {
        match conditions.iter_mut().find(|present| present.type_ == condition.type_) {
            Some(present) => *present = condition,
            None => conditions.push(condition),
        }
    }
    status.conditions = Some(conditions);
}

/// A condition's transition time changes only with its status.
fn dated(view: &View<'_>, (kind, value): (&str, Verdict)) -> PodCondition {
    let mut present = view.previous.conditions.iter().flatten();
    let present = present.find(|condition| condition.type_ == kind && condition.status == value.status());
    PodCondition {
        type_: kind.to_owned(),
        status: value.status().to_owned(),
        last_transition_time: present.and_then(|it| it.last_transition_time.clone()).or_else(|| Some(time(view.now))),
        observed_generation: view.pod.metadata.generation,
        reason: value.reason,
        message: value.message,
        ..PodCondition::default()
    }
}

#[derive(Clone, Debug, Default)]
struct Verdict {
    yes: bool,
    reason: Option<String>,
    message: Option<String>,
}

impl Verdict {
    fn no(reason: &str, message: Option<String>) -> Self {
        Self { yes: false, reason: Some(reason.to_owned()), message }
    }

    fn yes() -> Self {
        Self { yes: true, ..Self::default() }
    }

    fn status(&self) -> &'static str {
        if self.yes { "True" } else { "False" }
    }
}

fn sandbox_condition(view: &View<'_>) -> (&'static str, Verdict) {
    let ready = view.observed.ready_sandbox().is_some() && !matches!(view.memory.volumes, Volumes::Gone);
    (OWN_CONDITIONS[0], Verdict { yes: ready, ..Verdict::default() })
}

fn initialized(view: &View<'_>, status: &PodStatus) -> (&'static str, Verdict) {
    let incomplete: Vec<&str> = status
        .init_container_statuses
        .iter()
        .flatten()
        .filter(|init| {
            let role = super::container(view.pod, &init.name).map(|(role, _)| role);
            if role == Some(Role::Sidecar) { init.started != Some(true) } else { !init.ready }
        })
        .map(|init| init.name.as_str())
        .collect();
    let started = status.container_statuses.iter().flatten().any(|container| {
        let ran = |state: &Option<ApiState>| {
            state.as_ref().is_some_and(|state| state.running.is_some() || state.terminated.is_some())
        };
        ran(&container.state) || ran(&container.last_state)
    });
    let verdict = if status.phase.as_deref() == Some("Succeeded") {
        Verdict { yes: true, reason: Some("PodCompleted".to_owned()), message: None }
    } else if started || incomplete.is_empty() {
        Verdict::yes()
    } else {
        let message = format!("containers with incomplete status: [{}]", incomplete.join(" "));
        Verdict::no("ContainersNotInitialized", Some(message))
    };
    (OWN_CONDITIONS[1], verdict)
}

fn containers_ready(view: &View<'_>, status: &PodStatus) -> (&'static str, Verdict) {
    let sidecars = status
        .init_container_statuses
        .iter()
        .flatten()
        .filter(|init| super::container(view.pod, &init.name).is_some_and(|(role, _)| role == Role::Sidecar));
    let unready: Vec<&str> = sidecars
        .chain(status.container_statuses.iter().flatten())
        .filter(|container| !container.ready)
        .map(|container| container.name.as_str())
        .collect();
    let verdict = match status.phase.as_deref() {
        Some("Succeeded") => Verdict::no("PodCompleted", None),
        Some("Failed") => Verdict::no("PodFailed", None),
        _ if unready.is_empty() => Verdict::yes(),
        _ => {
            let message = format!("containers with unready status: [{}]", unready.join(" "));
            Verdict::no("ContainersNotReady", Some(message))
        }
    };
    (OWN_CONDITIONS[3], verdict)
}

fn ready(view: &View<'_>, containers: &(&'static str, Verdict), others: &[PodCondition]) -> (&'static str, Verdict) {
    let kind = OWN_CONDITIONS[2];
    if !containers.1.yes {
        return (kind, containers.1.clone());
    }
    let missing: Vec<String> = spec(view.pod)
        .readiness_gates
        .iter()
        .flatten()
        .filter_map(|gate| {
            let name = &gate.condition_type;
            match others.iter().find(|condition| condition.type_ == *name) {
                None => Some(format!("corresponding condition of pod readiness gate \"{name}\" does not exist.")),
                Some(condition) if condition.status != "True" => Some(format!(
                    "the status of pod readiness gate \"{name}\" is not \"True\", but {}",
                    condition.status
                )),
                Some(_) => None,
            }
        })
        .collect();
    if missing.is_empty() {
        (kind, Verdict::yes())
    } else {
        (kind, Verdict::no("ReadinessGatesNotReady", Some(missing.join(", "))))
    }
}

#[cfg(test)]
mod tests;
