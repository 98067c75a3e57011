//! What the engine says about a container, in the words of the seam: pure.

use std::{net::IpAddr, path::PathBuf};

use bollard::models::{ContainerInspectResponse, ContainerState as EngineState, ContainerStateStatusEnum as Status};
use jiff::Timestamp;
use orchestrator_core::runtime::{
    ContainerId, ContainerState, ContainerStatus, SandboxId, SandboxState, SandboxStatus,
};

use crate::names::{ContainerRecord, Owner, Record, START_FAILURE, SandboxRecord};

/// Exit code and reason of what never began, as with upstream.
const START_ERROR: (i32, &str) = (128, "StartError");
/// The highest number of a signal.
const SIGNAL_MAX: i32 = 64;

/// What there is under a name.
#[derive(Clone, Debug)]
pub(crate) enum Observed {
    Sandbox(ObservedSandbox),
    Container(ObservedContainer),
}

impl Observed {
    /// The container, if it is one that runs.
    pub(crate) fn running_container(self) -> Option<ObservedContainer> {
        match self {
            Self::Container(container) => container.status.state.is_running().then_some(container),
            Self::Sandbox(_) => None,
        }
    }
}

/// A sandbox as the engine has it.
#[derive(Clone, Debug)]
pub(crate) struct ObservedSandbox {
    pub(crate) engine_id: String,
    pub(crate) record: SandboxRecord,
    pub(crate) status: SandboxStatus,
    /// It was made, and its start neither tried nor failed yet.
    pub(crate) is_new: bool,
    /// It was to be started and could not be.
    pub(crate) has_failed: bool,
    /// The file that holds its network namespace, on the engine's machine.
    pub(crate) network_namespace: Option<PathBuf>,
}

/// A container as the engine has it.
#[derive(Clone, Debug)]
pub(crate) struct ObservedContainer {
    pub(crate) engine_id: String,
    pub(crate) record: ContainerRecord,
    pub(crate) status: ContainerStatus,
    pub(crate) stop_signal: Option<String>,
    pub(crate) stdin: bool,
    pub(crate) tty: bool,
}

/// Reads an answer of the engine; `None` when it is about something that is not this node's.
pub(crate) fn observe(owner: &Owner, answer: ContainerInspectResponse) -> Option<Observed> {
    let config = answer.config.as_ref()?;
    let labels = config.labels.as_ref()?;
    let (sandbox, record) = owner.record(|name| labels.get(name))?;
    let engine_id = answer.id.clone()?;
    let created_at = time(answer.created.as_deref()).unwrap_or_default();
    let mut state = answer.state.clone().unwrap_or_default();
    if let Some(message) = labels.get(START_FAILURE) {
        state.error = Some(message.clone());
    }
    Some(match record {
        Record::Sandbox(record) => {
            let running = state.status == Some(Status::RUNNING);
            let created = state.status == Some(Status::CREATED);
            let status = SandboxStatus {
                id: sandbox,
                key: record.key.clone(),
                namespace: record.namespace.clone(),
                name: record.name.clone(),
                state: if running { SandboxState::Ready } else { SandboxState::NotReady },
                created_at,
                addresses: addresses(&answer),
                labels: record.labels.clone(),
                annotations: record.annotations.clone(),
            };
            Observed::Sandbox(ObservedSandbox {
                engine_id,
                record,
                status,
                is_new: created && !has_failed(&state),
                has_failed: created && has_failed(&state),
                network_namespace: network_namespace(&answer),
            })
        }
        Record::Container(record) => {
            let status = ContainerStatus {
                id: ContainerId(answer.name.as_deref()?.trim_start_matches('/').to_owned()),
                sandbox: SandboxId(sandbox.0),
                key: record.key.clone(),
                image: record.image.clone(),
                image_id: answer.image.clone().unwrap_or_default(),
                created_at,
                state: container_state(&state, created_at),
                labels: record.labels.clone(),
                annotations: record.annotations.clone(),
            };
            Observed::Container(ObservedContainer {
                engine_id,
                record,
                status,
                stop_signal: config.stop_signal.clone().filter(|signal| !signal.is_empty()),
                stdin: config.open_stdin == Some(true),
                tty: config.tty == Some(true),
            })
        }
    })
}

/// A container that was made and whose start failed is still "created" to the engine, with an error.
fn has_failed(state: &EngineState) -> bool {
    state.error.as_deref().is_some_and(|error| !error.is_empty()) || state.exit_code.unwrap_or(0) != 0
}

fn container_state(state: &EngineState, created_at: Timestamp) -> ContainerState {
    let started_at = time(state.started_at.as_deref());
    match state.status {
        Some(Status::CREATED) if has_failed(state) => ContainerState::Exited {
            started_at: None,
            // The engine does not say when; upstream's adapter for Docker took the same time.
            finished_at: created_at,
            exit_code: START_ERROR.0,
            signal: None,
            reason: START_ERROR.1.to_owned(),
            message: start_message(state.error.as_deref().unwrap_or_default()),
        },
        Some(Status::CREATED) => ContainerState::Created,
        Some(Status::RUNNING | Status::PAUSED | Status::RESTARTING) => match started_at {
            Some(started_at) => ContainerState::Running { started_at },
            None => ContainerState::Unknown,
        },
        Some(Status::EXITED | Status::DEAD | Status::REMOVING) => match time(state.finished_at.as_deref()) {
            Some(finished_at) => ended(state, started_at, finished_at),
            None if started_at.is_none() => ContainerState::Created,
            None => ContainerState::Unknown,
        },
        _ => ContainerState::Unknown,
    }
}

fn ended(state: &EngineState, started_at: Option<Timestamp>, finished_at: Timestamp) -> ContainerState {
    let exit_code = state.exit_code.and_then(|code| i32::try_from(code).ok()).unwrap_or(-1);
    let reason = match (state.oom_killed, exit_code) {
        (Some(true), _) => "OOMKilled",
        (_, 0) => "Completed",
        _ => "Error",
    };
    ContainerState::Exited {
        started_at,
        finished_at,
        exit_code,
        // The engine says no more than the code; a program may end itself with such a one as well.
        signal: Some(exit_code - 128).filter(|signal| (1..=SIGNAL_MAX).contains(signal)),
        reason: reason.to_owned(),
        message: state.error.clone().unwrap_or_default(),
    }
}

/// What the engine says of a start that failed, never empty.
pub(crate) fn start_message(error: &str) -> String {
    match error.trim() {
        "" => "the engine did not start it, and says no more".to_owned(),
        error => error.to_owned(),
    }
}

fn addresses(answer: &ContainerInspectResponse) -> Vec<IpAddr> {
    let networks = answer.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
    // Its order is nobody's.
    let mut ends: Vec<_> = networks.into_iter().flatten().collect();
    ends.sort_by(|one, other| one.0.cmp(other.0));
    let texts = |end: &bollard::models::EndpointSettings| [end.ip_address.clone(), end.global_ipv6_address.clone()];
    ends.into_iter().flat_map(|(_, end)| texts(end)).flatten().filter_map(|text| text.parse().ok()).collect()
}

fn network_namespace(answer: &ContainerInspectResponse) -> Option<PathBuf> {
    let key = answer.network_settings.as_ref()?.sandbox_key.as_ref()?;
    (!key.is_empty()).then(|| PathBuf::from(key))
}

/// Go's zero time means that it has not happened.
fn time(text: Option<&str>) -> Option<Timestamp> {
    let time: Timestamp = text?.parse().ok()?;
    (time > Timestamp::UNIX_EPOCH).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: &str = "0001-01-01T00:00:00Z";

    fn state(status: Status, started_at: &str, finished_at: &str) -> EngineState {
        EngineState {
            status: Some(status),
            started_at: Some(started_at.to_owned()),
            finished_at: Some(finished_at.to_owned()),
            exit_code: Some(0),
            error: Some(String::new()),
            ..EngineState::default()
        }
    }

    #[test]
    fn every_state_has_a_word() {
        let (one, two) = ("2026-01-01T00:00:01.5Z", "2026-01-01T00:00:02Z");
        let created_at: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let told = |state: &EngineState| container_state(state, created_at);
        assert_eq!(told(&state(Status::CREATED, NEVER, NEVER)), ContainerState::Created);
        let started_at = one.parse().unwrap();
        for status in [Status::RUNNING, Status::PAUSED] {
            assert_eq!(told(&state(status, one, NEVER)), ContainerState::Running { started_at });
        }
        let failed = EngineState {
            error: Some("no such file".into()),
            exit_code: Some(127),
            ..state(Status::CREATED, NEVER, NEVER)
        };
        let ContainerState::Exited { started_at: None, exit_code: 128, reason, message, .. } = told(&failed) else {
            panic!()
        };
        assert_eq!((reason.as_str(), message.as_str()), ("StartError", "no such file"));
        for (code, oom, expected, signal) in [
            (0, false, "Completed", None),
            (3, false, "Error", None),
            (137, false, "Error", Some(9)),
            (137, true, "OOMKilled", Some(9)),
            (255, false, "Error", None),
        ] {
            let ended = EngineState { exit_code: Some(code), oom_killed: Some(oom), ..state(Status::EXITED, one, two) };
            let ContainerState::Exited { reason, signal: told, finished_at, .. } = told(&ended) else { panic!() };
            assert_eq!((reason.as_str(), told, finished_at), (expected, signal, two.parse().unwrap()));
        }
        assert_eq!(told(&state(Status::REMOVING, one, NEVER)), ContainerState::Unknown);
        assert_eq!(told(&EngineState::default()), ContainerState::Unknown);
    }

    #[test]
    fn times_that_never_were() {
        assert_eq!(time(Some(NEVER)), None);
        assert_eq!(time(Some("")), None);
        assert!(time(Some("2026-01-01T00:00:00.123456789Z")).is_some());
    }
}
