//! What to do next for a pod: a pure function of what it asks for, what is there, and the time.
//!
//! It may be asked again at any time. It never asks for something that is under way, and what it asks for brings the
//! pod nearer to its goal: running its containers, or, once its life is over, nothing left on the machine.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodStatus};
use orchestrator_core::runtime::{ContainerState, ContainerStatus, SandboxState, SandboxStatus};

use super::{
    Role, backoff,
    containers::{Stage, is_started, next_attempt, restarts, stage},
    grace_seconds,
    memory::{Failure, Hook, Memory, Volumes},
    observed::Observed,
    operation::{Operation, ProbeKind, Slot},
    phase, probe, spec,
};
use crate::limits::{GRACE_MIN, RUNS_KEPT};

/// Everything a decision depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Situation<'a> {
    pub(crate) pod: &'a Pod,
    /// The newest status that is known, the API's or the one that is being written.
    pub(crate) previous: &'a PodStatus,
    pub(crate) observed: &'a Observed,
    pub(crate) memory: &'a Memory,
    pub(crate) in_flight: &'a BTreeMap<Slot, Operation>,
    /// Whether the pod is still wanted.
    pub(crate) wanted: Wanted,
    /// The API has the pod's final status.
    pub(crate) final_status_written: bool,
    pub(crate) now: Timestamp,
}

/// Whether a pod is still wanted on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// It is in the API.
    Yes,
    /// It is not in the API any more.
    Gone,
    /// The node is being shut down, and containers get so many seconds to end.
    Shutdown(i64),
}

/// What to do, in which order does not matter.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// Slots whose operation is to be dropped first.
    pub(crate) cancel: Vec<Slot>,
    /// Operations to begin.
    pub(crate) start: Vec<Operation>,
    /// Containers that wait before they are started again, with the wait in seconds.
    pub(crate) backing_off: Vec<(String, u64)>,
    /// When to decide again if nothing happens before.
    pub(crate) wake_at: Option<Timestamp>,
    /// Nothing of the pod is left.
    pub(crate) finished: bool,
}

/// Whether the pod is to be ended.
pub(crate) fn is_ending(situation: &Situation<'_>) -> bool {
    let Situation { pod, previous, observed, memory, now, .. } = *situation;
    situation.wanted != Wanted::Yes
        || pod.metadata.deletion_timestamp.is_some()
        || phase::outcome(pod, previous, observed, memory, false, now).is_over()
}

/// Decides.
pub(crate) fn decide(situation: &Situation<'_>) -> Plan {
    let mut planner = Planner { at: *situation, plan: Plan::default() };
    if is_ending(situation) {
        planner.end();
    } else {
        planner.run();
    }
    planner.plan.wake_at = planner.plan.wake_at.filter(|_| !planner.plan.finished);
    planner.plan
}

struct Planner<'a> {
    at: Situation<'a>,
    plan: Plan,
}

impl<'a> Planner<'a> {
    fn busy(&self, slot: &Slot) -> bool {
        self.at.in_flight.contains_key(slot) && !self.plan.cancel.contains(slot)
    }

    /// Begins an operation, unless its slot is taken.
    fn start(&mut self, operation: Operation) {
        let slot = operation.slot();
        if !self.busy(&slot) && !self.plan.start.iter().any(|planned| planned.slot() == slot) {
            self.plan.start.push(operation);
        }
    }

    fn wake(&mut self, at: Timestamp) {
        self.plan.wake_at = Some(self.plan.wake_at.map_or(at, |present| present.min(at)));
    }

    /// Whether the time to try again has not come yet.
    fn must_wait(&mut self, failure: Option<&Failure>) -> bool {
        let Some(failure) = failure.filter(|failure| failure.retry_at > self.at.now) else { return false };
        self.wake(failure.retry_at);
        true
    }

    /// When containers that are asked to stop now are to be killed.
    fn kill_at(&self) -> Timestamp {
        let soonest = backoff::after(self.at.now, GRACE_MIN);
        let own = backoff::after(self.at.now, seconds(grace_seconds(self.at.pod)));
        match self.at.wanted {
            Wanted::Gone => soonest,
            Wanted::Shutdown(grace) => backoff::after(self.at.now, seconds(grace)).min(own).max(soonest),
            Wanted::Yes => match &self.at.pod.metadata.deletion_timestamp {
                Some(time) => time.0.max(soonest),
                None => own,
            },
        }
    }

    fn stop(&mut self, run: &ContainerStatus, deadline: Timestamp, message: String) {
        let slot = Slot::Container(run.key.name.clone());
        match self.at.in_flight.get(&slot) {
            // A stop that is under way is repeated only to make it clearly sooner.
            Some(Operation::Stop { deadline: present, .. }) if *present <= backoff::after(deadline, GRACE_MIN) => {
                return;
            }
            Some(Operation::Stop { .. }) => self.plan.cancel.push(slot),
            _ => {}
        }
        let container = run.key.name.clone();
        self.start(Operation::Stop { container, id: run.id.clone(), deadline, message });
    }

    // The end of a pod.

    fn end(&mut self) {
        for (slot, operation) in self.at.in_flight {
            if operation.is_cancellable() {
                self.plan.cancel.push(slot.clone());
            }
        }
        if self.end_containers() || self.sandbox_or_volumes_busy() {
            return;
        }
        let failure = self.at.memory.cleanup_failure.as_ref();
        if self.must_wait(failure) {
            return;
        }
        let sandboxes = self.at.observed.sandboxes();
        if let Some(sandbox) = sandboxes.iter().find(|sandbox| sandbox.state == SandboxState::Ready) {
            self.start(Operation::StopSandbox { id: sandbox.id.clone() });
        } else if self.at.memory.volumes != Volumes::Gone {
            self.start(Operation::TearDownVolumes);
        } else if self.at.wanted == Wanted::Yes {
            self.delete_pod();
        } else if let Some(sandbox) = sandboxes.first() {
            self.start(Operation::RemoveSandbox { id: sandbox.id.clone() });
        } else if let Some(run) = self.at.observed.containers().first() {
            self.start(Operation::Remove { container: run.key.name.clone(), id: run.id.clone() });
        } else {
            self.plan.finished = self.at.in_flight.keys().all(|slot| self.plan.cancel.contains(slot));
        }
    }

    fn sandbox_or_volumes_busy(&self) -> bool {
        self.busy(&Slot::Sandbox) || self.busy(&Slot::Volumes)
    }

    /// Stops what runs: everything but sidecars at once, then sidecars in reverse order. True while something runs.
    fn end_containers(&mut self) -> bool {
        let deadline = self.kill_at();
        let alive =
            |run: &&ContainerStatus| matches!(run.state, ContainerState::Running { .. } | ContainerState::Unknown);
        let sidecars: Vec<&str> = spec(self.at.pod)
            .init_containers
            .iter()
            .flatten()
            .filter(|container| super::is_sidecar(container))
            .map(|container| container.name.as_str())
            .collect();
        let running: Vec<&ContainerStatus> = self.at.observed.containers().iter().filter(alive).collect();
        let (sidecar_runs, others): (Vec<_>, Vec<_>) =
            running.iter().copied().partition(|run| sidecars.contains(&run.key.name.as_str()));
        let message = |run: &ContainerStatus| format!("Stopping container {}", run.key.name);
        let busy_elsewhere = self.at.in_flight.values().any(|it| matches!(it, Operation::Start { .. }));
        if others.is_empty() && !busy_elsewhere {
            let last = sidecar_runs.iter().max_by_key(|run| sidecars.iter().position(|name| *name == run.key.name));
            if let Some(run) = last {
                self.stop(run, deadline, message(run));
            }
        }
        for run in &others {
            self.stop(run, deadline, message(run));
        }
        let containers_busy =
            self.at.in_flight.keys().any(|slot| matches!(slot, Slot::Container(_)) && self.busy(slot));
        !running.is_empty() || containers_busy
    }

    fn delete_pod(&mut self) {
        if self.at.pod.metadata.deletion_timestamp.is_none() || !self.at.final_status_written {
            return;
        }
        match self.at.memory.delete_again_at {
            Some(at) if at > self.at.now => self.wake(at),
            _ => self.start(Operation::DeletePod),
        }
    }

    // The life of a pod.

    fn run(&mut self) {
        if let Some(deadline) = phase::deadline(self.at.pod, self.at.previous) {
            self.wake(deadline);
        }
        if !self.volumes_ready() {
            return;
        }
        let Some(sandbox) = self.sandbox() else { return };
        self.tidy(sandbox);
        let initialized = self.at.observed.containers().iter().any(|run| {
            run.sandbox == sandbox.id
                && !matches!(run.state, ContainerState::Created)
                && spec(self.at.pod).containers.iter().any(|container| container.name == run.key.name)
        });
        if !self.init_containers(sandbox, initialized) {
            return;
        }
        let at = self.at;
        for (role, container) in super::containers(at.pod) {
            if matches!(role, Role::Regular | Role::Ephemeral) {
                self.container(sandbox, role, &container);
            }
        }
    }

    fn volumes_ready(&mut self) -> bool {
        match &self.at.memory.volumes {
            Volumes::Ready { refresh_at } => {
                match refresh_at {
                    Some(at) if *at <= self.at.now => self.start(Operation::RefreshVolumes),
                    Some(at) => self.wake(*at),
                    None => {}
                }
                true
            }
            Volumes::Failed(failure) => {
                if !self.must_wait(Some(failure)) {
                    self.start(Operation::SetUpVolumes);
                }
                false
            }
            Volumes::Unknown | Volumes::Gone => {
                self.start(Operation::SetUpVolumes);
                false
            }
        }
    }

    /// The sandbox to run containers in, if there is one. Otherwise asks for one, after the old one's containers are gone.
    fn sandbox(&mut self) -> Option<&'a SandboxStatus> {
        if let Some(sandbox) = self.at.observed.ready_sandbox() {
            return Some(sandbox);
        }
        let mut running = false;
        for run in self.at.observed.containers().iter().filter(|run| run.state.is_running()) {
            running = true;
            let message = "Pod sandbox changed, it will be killed and re-created.".to_owned();
            self.stop(run, backoff::after(self.at.now, GRACE_MIN), message);
        }
        let failure = self.at.memory.sandbox_failure.as_ref();
        if !running && !self.must_wait(failure) {
            let newest = self.at.observed.newest_sandbox();
            let attempt = newest.map_or(0, |sandbox| sandbox.key.attempt.saturating_add(1));
            self.start(Operation::RunSandbox { attempt });
        }
        None
    }

    /// Removes runs and sandboxes that nobody asks for any more.
    fn tidy(&mut self, sandbox: &SandboxStatus) {
        for (_, container) in super::containers(self.at.pod) {
            let ended = |run: &&ContainerStatus| matches!(run.state, ContainerState::Exited { .. });
            if let Some(run) = self.at.observed.runs(&container.name).skip(RUNS_KEPT).find(ended) {
                self.start(Operation::Remove { container: container.name.clone(), id: run.id.clone() });
            }
        }
        let needed = |old: &SandboxStatus| {
            let mut runs = self.at.observed.containers().iter().filter(|run| run.sandbox == old.id);
            runs.any(|run| self.at.observed.runs(&run.key.name).take(RUNS_KEPT).any(|kept| kept.id == run.id))
        };
        let old = self.at.observed.sandboxes().iter().find(|old| old.id != sandbox.id && !needed(old));
        if let Some(old) = old {
            self.start(Operation::RemoveSandbox { id: old.id.clone() });
        }
    }

    /// Brings init containers forward. True once the regular ones may run.
    fn init_containers(&mut self, sandbox: &'a SandboxStatus, initialized: bool) -> bool {
        for container in spec(self.at.pod).init_containers.iter().flatten() {
            let sidecar = super::is_sidecar(container);
            if initialized && !sidecar {
                continue;
            }
            let role = if sidecar { Role::Sidecar } else { Role::Init };
            let newest = self.at.observed.newest_run(&container.name);
            let done = newest.is_some_and(|run| run.sandbox == sandbox.id && run.state.exit_code() == Some(0));
            if !sidecar && done {
                continue;
            }
            self.container(sandbox, role, container);
            let through = match newest.map(|run| (&run.state, run.key.attempt)) {
                Some((ContainerState::Running { .. }, attempt)) => {
                    sidecar && is_started(container, attempt, self.at.memory)
                }
                _ => false,
            };
            if !through && !initialized {
                return false;
            }
        }
        true
    }

    /// Starts, restarts, ends or probes one container.
    fn container(&mut self, sandbox: &'a SandboxStatus, role: Role, container: &Container) {
        let at = self.at;
        match stage(at.observed, at.previous, role, &container.name, Some(&sandbox.id)) {
            Stage::Running(run, started_at) => self.running(role, container, run, started_at),
            Stage::Created(run) => self.bring_up(sandbox, container, run.key.attempt),
            Stage::Unknown(run) => {
                let message =
                    format!("Container {} is in UNKNOWN state, try killing it before restart", container.name);
                self.stop(run, at.now, message);
            }
            Stage::Absent | Stage::Lost if role == Role::Ephemeral && self.ran_before(role, container) => {}
            Stage::Absent | Stage::Lost => self.next_run(sandbox, role, container),
            Stage::Exited { code, at: finished_at } => {
                let elsewhere = at.observed.newest_run(&container.name).is_some_and(|run| run.sandbox != sandbox.id);
                let again = restarts(at.pod, role, container, code) || (elsewhere && role == Role::Init);
                let wait = at.memory.crashes.get(&container.name).and_then(|it| it.until(finished_at, at.now));
                match wait {
                    _ if !again => {}
                    Some(until) => {
                        let delay = at.memory.crashes.get(&container.name).map_or(0, |it| it.delay.as_secs());
                        self.plan.backing_off.push((container.name.clone(), delay));
                        self.wake(until);
                    }
                    None => self.next_run(sandbox, role, container),
                }
            }
        }
    }

    fn ran_before(&self, role: Role, container: &Container) -> bool {
        next_attempt(self.at.observed, self.at.previous, role, &container.name) > 0
    }

    fn next_run(&mut self, sandbox: &SandboxStatus, role: Role, container: &Container) {
        let attempt = next_attempt(self.at.observed, self.at.previous, role, &container.name);
        self.bring_up(sandbox, container, attempt);
    }

    /// Pulls the image, then starts the container.
    fn bring_up(&mut self, sandbox: &SandboxStatus, container: &Container, attempt: u32) {
        let name = &container.name;
        let failure = self.at.memory.failures.get(name);
        if self.must_wait(failure) {
            if let Some(failure) = failure.filter(|failure| failure.reason == "ErrImagePull") {
                let shown = backoff::after(failure.at, crate::limits::PULL_ERROR_SHOWN);
                if shown > self.at.now {
                    self.wake(shown);
                }
            }
            return;
        }
        if self.at.memory.pulled.get(name) == Some(&attempt) {
            self.start(Operation::Start { container: name.clone(), attempt, sandbox: sandbox.id.clone() });
        } else {
            self.start(Operation::Pull { container: name.clone(), attempt });
        }
    }

    fn running(&mut self, role: Role, container: &Container, run: &ContainerStatus, started_at: Timestamp) {
        let name = &container.name;
        let attempt = run.key.attempt;
        let own_grace = backoff::after(self.at.now, seconds(grace_seconds(self.at.pod)));
        if container.image.as_deref().is_some_and(|image| image != run.image) && role != Role::Init {
            self.stop(run, own_grace, format!("Container {name} definition changed, will be restarted"));
            return;
        }
        if let Some((of, message)) = self.at.memory.condemned.get(name)
            && *of == attempt
        {
            let probe = container.liveness_probe.as_ref().and_then(|probe| probe.termination_grace_period_seconds);
            let deadline = probe.map_or(own_grace, |grace| backoff::after(self.at.now, seconds(grace)));
            self.stop(run, deadline, message.clone());
            return;
        }
        if self.at.memory.hooks.get(name) == Some(&(attempt, Hook::Due)) {
            self.start(Operation::PostStart { container: name.clone(), attempt, id: run.id.clone() });
        }
        for kind in ProbeKind::ALL {
            self.probe(container, run, started_at, kind);
        }
    }

    fn probe(&mut self, container: &Container, run: &ContainerStatus, started_at: Timestamp, kind: ProbeKind) {
        let Some(settings) = probe::of(container, kind) else { return };
        let name = &container.name;
        let attempt = run.key.attempt;
        let started = container.startup_probe.is_none()
            || self.at.memory.verdict(name, attempt, ProbeKind::Startup) == Some(true);
        // The startup probe ends with its first success; the others begin there.
        if (kind == ProbeKind::Startup) == started {
            return;
        }
        let known = self.at.memory.probes.get(name).filter(|(of, _)| *of == attempt);
        let due = known
            .and_then(|(_, probes)| probes.get(&kind).map(|state| state.next_at))
            .unwrap_or_else(|| probe::ProbeState::new(settings, started_at, None).next_at);
        if due > self.at.now {
            self.wake(due);
        } else {
            self.start(Operation::Probe { container: name.clone(), attempt, id: run.id.clone(), kind });
        }
    }
}

fn seconds(seconds: i64) -> std::time::Duration {
    std::time::Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

#[cfg(test)]
mod tests;
