//! How containers go through their lives in a helper: started, ended, stopped, removed.

use std::{io, time::Instant};

use nix::{libc, sys::wait::WaitStatus, unistd::Pid};
use orchestrator_core::runtime::{ContainerId, SandboxState};

use super::{
    boot::{helpers_cgroup, pod_cgroup},
    container::{Exit, Phase, exit_code},
    network,
    server::{Job, Server},
    worker::{Worker, WorkerMessage},
};
use crate::{
    files::{read_json, remove_tree, write_json, write_passing_json},
    layout::short_name,
    limits::{CGROUP_REMOVAL_TIME, DRAIN_TIME},
    protocol::{Failure, FailureKind, Reply},
    records::{ContainerProgress, SandboxProgress},
    signals, sys,
};

impl Server {
    /// A container's own cgroup.
    pub(super) fn container_cgroup(&self, id: &ContainerId) -> String {
        format!("{}/{}", pod_cgroup(&self.record), short_name(id))
    }

    /// Takes note of a child that has ended.
    pub(super) fn child_ended(&mut self, pid: Pid, status: WaitStatus) {
        let Some((code, signal)) = exit_code(status) else { return };
        let owner = self.containers.iter().find(|(_, container)| container.pid == Some(pid)).map(|(id, _)| id.clone());
        if self.pause == Some(pid) {
            // All processes of the pod ended with it.
            self.pause = None;
            let _ = self.stop_sandbox();
            return;
        }
        let Some(id) = owner else {
            // Workers are heard through their channels; what else ends may be what a worker is about to tell of.
            if self.workers.values().any(|(_, job)| matches!(job, Job::Start(_))) {
                self.unclaimed.insert(pid.as_raw(), status);
            }
            return;
        };
        let cgroup = self.container_cgroup(&id);
        let out_of_memory = self.cgroups.oom_kills(&cgroup) > 0;
        // Without a process namespace of its own, the container's other processes have outlived the first.
        self.kill_cgroup(&cgroup);
        if let Some(container) = self.containers.get_mut(&id) {
            container.pid = None;
            container.exit = Some(Exit { code, signal, at: super::now(), out_of_memory });
            container.drain_until = Some(super::instant() + DRAIN_TIME);
        }
    }

    /// Hears what a worker has to say.
    pub(super) fn hear_worker(&mut self, pid: i32) {
        let Some((worker, _)) = self.workers.get_mut(&pid) else { return };
        let (messages, open) = worker.receive().unwrap_or_default();
        for message in messages {
            let Some((worker, job)) = self.workers.get_mut(&pid) else { return };
            match job {
                Job::Start(id) => {
                    let id = id.clone();
                    let terminal = matches!(message, WorkerMessage::Running { .. }).then(|| worker.take_descriptor());
                    self.start_progressed(pid, &id, message, terminal.flatten());
                }
                Job::Exec(exec) => {
                    let (connection, reply, descriptors, last) = exec.progressed(worker, message);
                    if last {
                        self.finish(connection, &reply, descriptors);
                    } else {
                        self.reply(connection, &reply, descriptors);
                    }
                }
                Job::Remove(id) => {
                    let id = id.clone();
                    self.removal_ended(&id, message);
                }
            }
        }
        if !open {
            self.worker_ended(pid);
        }
    }

    fn worker_ended(&mut self, pid: i32) {
        let Some((_, job)) = self.workers.remove(&pid) else { return };
        let lost = || Failure::internal("a worker", "ended before it was done; see helper.log");
        match job {
            Job::Start(id) => {
                if let Some(container) = self.containers.get_mut(&id).filter(|container| container.starting) {
                    container.starting = false;
                    container.start_failure = Some(lost());
                }
            }
            Job::Exec(exec) => {
                if let Some(connection) = exec.unanswered() {
                    self.finish(connection, &lost().into(), Vec::new());
                }
            }
            Job::Remove(id) => {
                if self.containers.contains_key(&id) {
                    self.removal_ended(
                        &id,
                        WorkerMessage::Failed { kind: FailureKind::Internal, message: lost().message },
                    );
                }
            }
        }
        if !self.workers.values().any(|(_, job)| matches!(job, Job::Start(_))) {
            self.unclaimed.clear();
        }
    }

    fn start_progressed(
        &mut self,
        worker: i32,
        id: &ContainerId,
        message: WorkerMessage,
        terminal: Option<std::os::fd::OwnedFd>,
    ) {
        let progress_file = self.directory.container(id).progress();
        let Some(container) = self.containers.get_mut(id) else { return };
        match message {
            WorkerMessage::Running { pid } => {
                let pid = Pid::from_raw(pid);
                let started_at = super::now();
                container.pid = Some(pid);
                container.started_at = Some(started_at);
                if let Some(terminal) = terminal {
                    super::start::connect_terminal(container, terminal);
                }
                // Written before the program runs: whoever finds its traces finds out what it was. It outlives every process; if
                // the machine goes, nothing runs any more.
                let written = write_passing_json(&progress_file, &container.running(pid, started_at));
                let early_end = self.unclaimed.remove(&pid.as_raw());
                let gone = match (written, self.workers.get_mut(&worker)) {
                    (Ok(()), Some((worker, _))) => worker.go(),
                    (Err(error), _) => Err(error),
                    (_, None) => Err(io::Error::other("no worker")),
                };
                if gone.is_err() {
                    let _ = sys::kill(pid, libc::SIGKILL);
                }
                if let Some(status) = early_end {
                    self.child_ended(pid, status);
                }
            }
            WorkerMessage::Started => {
                container.starting = false;
                let waiters = std::mem::take(&mut container.start_waiters);
                self.finish_all(waiters, &Reply::Done);
                self.announce(Some(id));
            }
            WorkerMessage::Failed { kind, message } => {
                container.starting = false;
                container.start_failure = Some(Failure { kind, message });
                if let Some(pid) = container.pid {
                    let _ = sys::kill(pid, libc::SIGKILL);
                }
                container.drain_until = Some(super::instant() + DRAIN_TIME);
            }
            WorkerMessage::Ended { .. } | WorkerMessage::Done => {}
        }
    }

    /// When something is to be done although nothing happens.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        // While a worker is at a container, its end is not due yet; what the worker says wakes the loop.
        let due = || self.containers.values().filter(|container| !container.is_settled() && !container.starting);
        let stops = due()
            .filter(|container| container.pid.is_some())
            .filter_map(|container| container.stop.as_ref().filter(|stop| !stop.killed).map(|stop| stop.kill_at));
        let drains = due().filter_map(|container| container.drain_until);
        stops.chain(drains).chain(self.dials.iter().map(|dial| dial.until)).min()
    }

    /// Takes every step that can be taken now.
    pub(super) fn advance(&mut self) {
        let ids: Vec<ContainerId> = self.containers.keys().cloned().collect();
        for id in ids {
            self.advance_stop(&id);
            self.advance_end(&id);
            self.advance_removal(&id);
        }
        self.expire_dials();
        self.advance_sandbox();
    }

    fn advance_stop(&mut self, id: &ContainerId) {
        let Some(container) = self.containers.get_mut(id) else { return };
        // While a worker is at it, the program may not run yet.
        let (Some(stop), Some(pid), false) = (&mut container.stop, container.pid, container.starting) else { return };
        if super::instant() >= stop.kill_at {
            if !stop.killed {
                stop.killed = true;
                let _ = sys::kill(pid, libc::SIGKILL);
            }
        } else if !stop.signalled {
            stop.signalled = true;
            let name = container.record.config.stop_signal.as_ref().or(container.record.image.stop_signal.as_ref());
            let signal = name.and_then(|name| signals::number(name)).unwrap_or(libc::SIGTERM);
            let _ = sys::kill(pid, signal);
        }
    }

    /// Writes the end of a container down, durably and before anyone hears of it.
    fn advance_end(&mut self, id: &ContainerId) {
        let progress_file = self.directory.container(id).progress();
        let Some(container) = self.containers.get_mut(id) else { return };
        if container.is_settled() {
            return;
        }
        if container.drain_until.is_some_and(|until| super::instant() >= until)
            && let Some(output) = &mut container.output
        {
            output.abandon();
        }
        let Some(state) = container.ending() else { return };
        // A full disk is no reason to forget: this helper still knows, and tries to say so.
        let _ = write_json(&progress_file, &ContainerProgress { state: state.clone(), pid: None });
        let exit_code = state.exit_code().unwrap_or(-1);
        container.phase = Phase::Exited;
        let failure = container.start_failure.clone();
        let starters = std::mem::take(&mut container.start_waiters);
        let stoppers = std::mem::take(&mut container.stop_waiters);
        let attached = std::mem::take(&mut container.attached);
        self.finish_all(starters, &failure.map_or(Reply::Done, Reply::from));
        self.finish_all(stoppers, &Reply::Done);
        self.finish_all(attached, &Reply::Ended { exit_code });
        self.announce(Some(id));
    }

    fn advance_removal(&mut self, id: &ContainerId) {
        let cgroup = self.container_cgroup(id);
        let Some(container) = self.containers.get_mut(id) else { return };
        if !container.removing || container.removal_started || !container.is_settled() {
            return;
        }
        container.removal_started = true;
        container.output = None;
        let cgroups = self.cgroups.clone();
        let paths =
            [self.directory.libcontainer().join(short_name(id)), self.directory.container(id).path().to_owned()];
        let worker = Worker::spawn(&[], move |_| {
            let remove = || {
                cgroups.kill(&cgroup, CGROUP_REMOVAL_TIME)?;
                cgroups.remove(&cgroup, CGROUP_REMOVAL_TIME)?;
                paths.iter().try_for_each(|path| remove_tree(path))
            };
            remove().map_err(|error| Failure::internal("removing a container", error))?;
            Ok(WorkerMessage::Done)
        });
        match worker {
            Ok(worker) => {
                self.workers.insert(worker.pid.as_raw(), (worker, Job::Remove(id.clone())));
            }
            Err(error) => {
                let message = error.to_string();
                self.removal_ended(id, WorkerMessage::Failed { kind: FailureKind::Internal, message });
            }
        }
    }

    fn removal_ended(&mut self, id: &ContainerId, message: WorkerMessage) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let waiters = std::mem::take(&mut container.remove_waiters);
        if let WorkerMessage::Failed { kind, message } = message {
            container.removing = false;
            container.removal_started = false;
            self.finish_all(waiters, &Reply::Failed { kind, message });
        } else {
            self.containers.remove(id);
            self.finish_all(waiters, &Reply::Done);
            self.announce(Some(id));
        }
    }

    /// Goes on with stopping or removing the sandbox once all containers have ended.
    fn advance_sandbox(&mut self) {
        let busy = !self.workers.is_empty() || self.containers.values().any(|container| !container.is_settled());
        if busy || (self.stop_waiters.is_empty() && self.remove_waiters.is_empty()) {
            return;
        }
        let released = self.release_network();
        let reply = match &released {
            Ok(()) => Reply::Done,
            Err(error) => Failure::internal("releasing the pod's network", error).into(),
        };
        let waiters = std::mem::take(&mut self.stop_waiters);
        self.finish_all(waiters, &reply);
        if self.remove_waiters.is_empty() {
            return;
        }
        let waiters = std::mem::take(&mut self.remove_waiters);
        match released.and_then(|()| self.remove_everything()) {
            Ok(()) => {
                self.announce(None);
                self.leaving = true;
                self.finish_all(waiters, &Reply::Done);
            }
            Err(error) => self.finish_all(waiters, &Failure::internal("removing the sandbox", error).into()),
        }
    }

    /// Says durably that the sandbox is not ready any more.
    pub(super) fn mark_stopped(&mut self) -> io::Result<()> {
        if !self.stopped {
            let file = self.directory.progress();
            let before: Option<SandboxProgress> = read_json(&file)?;
            let addresses = before.map(|before| before.addresses).unwrap_or_default();
            write_json(&file, &SandboxProgress { state: SandboxState::NotReady, addresses })?;
            self.stopped = true;
            self.announce(None);
        }
        Ok(())
    }

    fn release_network(&self) -> io::Result<()> {
        if let Some(pause) = self.pause {
            let _ = sys::kill(pause, libc::SIGKILL);
        }
        if self.record.config.namespaces.host_network {
            return Ok(());
        }
        network::disconnect()?;
        network::release(&self.record.network, &self.record.root, &self.record.id)
    }

    fn remove_everything(&mut self) -> io::Result<()> {
        let pod = pod_cgroup(&self.record);
        self.cgroups.kill(&pod, CGROUP_REMOVAL_TIME)?;
        self.cgroups.remove(&pod, CGROUP_REMOVAL_TIME)?;
        self.cgroups.leave(&helpers_cgroup(&self.record));
        // Last of all: who does not find the directory may rely on nothing being left.
        remove_tree(self.directory.path())
    }

    fn kill_cgroup(&self, path: &str) {
        for process in self.cgroups.processes(path).unwrap_or_default() {
            let _ = sys::kill(process, libc::SIGKILL);
        }
    }
}
