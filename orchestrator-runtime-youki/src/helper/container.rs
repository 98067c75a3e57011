//! What a helper knows about one container.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::{sys::wait::WaitStatus, unistd::Pid};
use orchestrator_core::runtime::ContainerState;

use super::output::Output;
use crate::{
    protocol::Failure,
    records::{ContainerProgress, ContainerRecord},
};

/// A connection's number in the helper.
pub(super) type ConnectionId = u64;

/// A container and what is going on with it.
pub(super) struct Container {
    pub(super) record: ContainerRecord,
    pub(super) phase: Phase,
    pub(super) output: Option<Output>,
    /// The container's first process, from when it is known until it is reaped.
    pub(super) pid: Option<Pid>,
    pub(super) started_at: Option<Timestamp>,
    /// A worker is starting it.
    pub(super) starting: bool,
    /// Why the start did not work.
    pub(super) start_failure: Option<Failure>,
    /// How the first process ended.
    pub(super) exit: Option<Exit>,
    /// The streams are given up at this time.
    pub(super) drain_until: Option<Instant>,
    /// It was asked to stop.
    pub(super) stop: Option<Stop>,
    /// It is to be removed once it has ended.
    pub(super) removing: bool,
    /// A worker is removing it.
    pub(super) removal_started: bool,
    pub(super) start_waiters: Vec<ConnectionId>,
    pub(super) stop_waiters: Vec<ConnectionId>,
    pub(super) remove_waiters: Vec<ConnectionId>,
    pub(super) attached: Vec<ConnectionId>,
}

/// Where a container is in its life.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    Created,
    /// From the request to start until the end is written down.
    Alive,
    Exited,
}

/// A request to stop.
pub(super) struct Stop {
    /// When it is killed.
    pub(super) kill_at: Instant,
    /// The stop signal has been sent.
    pub(super) signalled: bool,
    /// So has the last one.
    pub(super) killed: bool,
}

/// How a process ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exit {
    pub(super) code: i32,
    pub(super) signal: Option<i32>,
    pub(super) at: Timestamp,
    /// A process of the container was killed for want of memory.
    pub(super) out_of_memory: bool,
}

impl Container {
    pub(super) fn new(record: ContainerRecord) -> Self {
        Self {
            record,
            phase: Phase::Created,
            output: None,
            pid: None,
            started_at: None,
            starting: false,
            start_failure: None,
            exit: None,
            drain_until: None,
            stop: None,
            removing: false,
            removal_started: false,
            start_waiters: Vec::new(),
            stop_waiters: Vec::new(),
            remove_waiters: Vec::new(),
            attached: Vec::new(),
        }
    }

    /// Whether no process of it is there, or will be.
    pub(super) fn is_settled(&self) -> bool {
        !matches!(self.phase, Phase::Alive)
    }

    /// Asks it to end within this time; the earliest of several requests counts.
    pub(super) fn ask_to_stop(&mut self, grace: Duration) {
        let now = super::instant();
        let kill_at = now.checked_add(grace).unwrap_or(now + Duration::from_secs(86_400 * 365));
        match &mut self.stop {
            Some(stop) => stop.kill_at = stop.kill_at.min(kill_at),
            None => self.stop = Some(Stop { kill_at, signalled: false, killed: false }),
        }
    }

    /// The end of its life as it is written down, once everything about it is known.
    pub(super) fn ending(&self) -> Option<ContainerState> {
        if self.starting || !self.output.as_ref().is_none_or(Output::is_over) {
            return None;
        }
        if let Some(failure) = &self.start_failure {
            return (self.pid.is_none()).then(|| ContainerState::Exited {
                started_at: None,
                finished_at: self.exit.map_or_else(super::now, |exit| exit.at),
                exit_code: 128,
                signal: None,
                reason: "StartError".to_owned(),
                message: failure.message.clone(),
            });
        }
        let exit = self.exit?;
        let reason = if exit.code == 0 {
            "Completed"
        } else if exit.out_of_memory {
            "OOMKilled"
        } else {
            "Error"
        };
        Some(ContainerState::Exited {
            started_at: self.started_at,
            finished_at: exit.at,
            exit_code: exit.code,
            signal: exit.signal,
            reason: reason.to_owned(),
            message: String::new(),
        })
    }

    pub(super) fn running(&self, pid: Pid, started_at: Timestamp) -> ContainerProgress {
        ContainerProgress { state: ContainerState::Running { started_at }, pid: Some(pid.as_raw()) }
    }
}

/// The exit code of a process, and the signal that ended it; `None` if it has not ended.
pub(super) fn exit_code(status: WaitStatus) -> Option<(i32, Option<i32>)> {
    match status {
        WaitStatus::Exited(_, code) => Some((code, None)),
        WaitStatus::Signaled(_, signal, _) => Some((128 + signal as i32, Some(signal as i32))),
        _ => None,
    }
}
