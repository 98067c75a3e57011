//! A machine that outlives its agents, and the handles on its fate.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use orchestrator_core::{
    env::{Env, Watched},
    runtime::{
        ContainerConfig, ContainerId, ContainerState, ContainerStatus, RuntimeError, RuntimeEvent, SandboxId,
        SandboxState, SandboxStatus,
    },
};
use tokio::sync::broadcast;

use crate::{
    limits::{EVENT_BACKLOG, PLANNED_FAILURES},
    runtime::SimRuntime,
    script::{ImageScript, Matcher, Script},
    state::{Container, Due, Sandbox, State},
};

/// A simulated machine. Clones share it; what runs on it runs until the last clone and runtime are dropped.
#[derive(Clone, Debug)]
pub struct SimMachine(pub(crate) Arc<Machine>);

/// What a machine is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineConfig {
    /// The network that pod addresses are from.
    pub subnet: Ipv4Addr,
    /// The number of leading bits that are the network's.
    pub prefix: u8,
}

impl Default for MachineConfig {
    fn default() -> Self {
        Self { subnet: Ipv4Addr::new(10, 244, 0, 0), prefix: 24 }
    }
}

/// The calls of a runtime, for planned failures and for counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// `status`
    Status,
    /// `run_sandbox`
    RunSandbox,
    /// `stop_sandbox`
    StopSandbox,
    /// `remove_sandbox`
    RemoveSandbox,
    /// `list_sandboxes`
    ListSandboxes,
    /// `create_container`
    CreateContainer,
    /// `start_container`
    StartContainer,
    /// `stop_container`
    StopContainer,
    /// `remove_container`
    RemoveContainer,
    /// `list_containers`
    ListContainers,
    /// `inspect_container`
    InspectContainer,
    /// `exec`
    Exec,
    /// `attach`
    Attach,
    /// `port_forward`
    PortForward,
    /// `logs`
    Logs,
    /// `stats`
    Stats,
    /// `pull_image`
    PullImage,
    /// `image_status`
    ImageStatus,
    /// `list_images`
    ListImages,
    /// `remove_image`
    RemoveImage,
}

#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) env: Env,
    pub(crate) config: MachineConfig,
    pub(crate) events: broadcast::Sender<RuntimeEvent>,
    state: Mutex<State>,
}

/// How a container ended.
#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(crate) exit_code: i32,
    pub(crate) signal: Option<i32>,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl End {
    pub(crate) fn exit(code: i32) -> Self {
        let reason = if code == 0 { "Completed" } else { "Error" };
        Self { exit_code: code, signal: None, reason, message: String::new() }
    }

    pub(crate) fn killed() -> Self {
        Self { exit_code: 137, signal: Some(9), reason: "Error", message: String::new() }
    }

    pub(crate) fn out_of_memory() -> Self {
        Self { reason: "OOMKilled", ..Self::killed() }
    }
}

impl SimMachine {
    /// A machine with nothing on it.
    pub fn new(env: &Env, config: MachineConfig) -> Self {
        let (events, _) = broadcast::channel(EVENT_BACKLOG);
        Self(Arc::new(Machine { env: env.clone(), config, events, state: Mutex::default() }))
    }

    /// A machine of its own that begins with everything on this one, as it is now; ends that are due come at their time.
    /// The new environment's clock has to stand where this one's stands.
    #[must_use]
    pub fn fork(&self, env: &Env) -> Self {
        let fork = Self::new(env, self.0.config.clone());
        let present = self.0.lock();
        let mut state = fork.0.lock();
        *state = State {
            sandboxes: present.sandboxes.clone(),
            sandbox_keys: present.sandbox_keys.clone(),
            containers: present
                .containers
                .iter()
                .map(|(id, container)| (id.clone(), Box::new(container.fork())))
                .collect(),
            rules: present.rules.clone(),
            images: present.images.clone(),
            pulled: present.pulled.clone(),
            removed: present.removed.clone(),
            failures: BTreeMap::new(),
            calls: BTreeMap::new(),
            used_addresses: present.used_addresses.clone(),
            not_ready: present.not_ready.clone(),
        };
        for (id, container) in &present.containers {
            if let Some(due) = &container.due {
                fork.0.finish_after(&mut state, id, due.at.saturating_sub(env.monotonic()), due.end.clone());
            }
        }
        drop((state, present));
        fork
    }

    /// The runtime as an agent sees it. All runtimes of a machine see the same.
    pub fn runtime(&self) -> SimRuntime {
        SimRuntime::new(self.0.clone())
    }

    /// Containers that match, created from now on, follow this script. Of several rules the newest counts.
    /// Answers of existing containers to commands and on ports follow it as well.
    pub fn script(&self, matcher: Matcher, script: Script) {
        let mut state = self.0.lock();
        let State { sandboxes, sandbox_keys, containers, .. } = &mut *state;
        for container in containers.values_mut() {
            let sandbox = sandbox_keys.get(&container.status.sandbox).and_then(|key| sandboxes.get(key));
            if sandbox.is_some_and(|sandbox| matcher.matches(&container.config, &sandbox.status)) {
                container.script.exec = script.exec.clone();
                container.script.ports = script.ports.clone();
            }
        }
        state.rules.retain(|(present, _)| *present != matcher);
        state.rules.push((matcher, script));
    }

    /// How an image is had.
    pub fn image(&self, name: impl Into<String>, script: ImageScript) {
        self.0.lock().images.insert(name.into(), script);
    }

    /// Ends a running container with this code, as if it had crashed. False when it does not run.
    pub fn kill_container(&self, id: &ContainerId, exit_code: i32) -> bool {
        self.0.finish(id, &End::exit(exit_code))
    }

    /// Ends a sandbox and all in it, as if its pause process had died. False when it is not ready.
    pub fn kill_sandbox(&self, id: &SandboxId) -> bool {
        self.0.stop_sandbox(id)
    }

    /// The machine loses power: all sandboxes and containers are gone, images stay.
    pub fn crash_machine(&self) {
        let mut state = self.0.lock();
        let sandboxes = std::mem::take(&mut state.sandboxes);
        let containers = std::mem::take(&mut state.containers);
        state.sandbox_keys.clear();
        state.used_addresses.clear();
        drop(state);
        for container in containers.values() {
            container.ended.set(true);
        }
        for sandbox in sandboxes.into_values() {
            self.0.tell_sandbox(&sandbox.status);
        }
    }

    /// The next call of this verb fails with this error; several are used up one by one.
    pub fn fail_next(&self, verb: Verb, error: RuntimeError) {
        let mut state = self.0.lock();
        let failures = state.failures.entry(verb).or_default();
        if failures.len() < PLANNED_FAILURES {
            failures.push_back(error);
        }
    }

    /// The runtime reports this defect in its status; `None` repairs it.
    pub fn set_not_ready(&self, defect: Option<String>) {
        self.0.lock().not_ready = defect;
    }

    /// How often a verb was called.
    pub fn calls(&self, verb: Verb) -> u64 {
        self.0.lock().calls.get(&verb).copied().unwrap_or(0)
    }

    /// All containers, in order of their ids.
    pub fn containers(&self) -> Vec<ContainerStatus> {
        self.0.lock().containers.values().map(|container| container.status.clone()).collect()
    }

    /// All sandboxes, in order of their keys.
    pub fn sandboxes(&self) -> Vec<SandboxStatus> {
        self.0.lock().sandboxes.values().map(|sandbox| sandbox.status.clone()).collect()
    }

    /// All sandboxes, in order of their keys, with the names of the containers that run in each.
    pub fn running(&self) -> Vec<(SandboxStatus, Vec<String>)> {
        let state = self.0.lock();
        let in_sandbox = |sandbox: &Sandbox| {
            let inside = state.containers.values().filter(|it| it.status.sandbox == sandbox.status.id);
            let running = inside.filter(|it| it.status.state.is_running()).map(|it| it.status.key.name.clone());
            (sandbox.status.clone(), running.collect())
        };
        state.sandboxes.values().map(|sandbox| in_sandbox(sandbox)).collect()
    }

    /// The running container of this name in the pod of this name.
    pub fn find_running(&self, pod: &str, container: &str) -> Option<ContainerStatus> {
        let state = self.0.lock();
        let mut running = state.containers.values().filter(|it| it.status.state.is_running());
        let found = running.find(|it| {
            it.status.key.name == container && state.sandbox(&it.status.sandbox).is_some_and(|it| it.status.name == pod)
        });
        found.map(|container| container.status.clone())
    }

    /// The configuration that a container was made with.
    pub fn container_config(&self, id: &ContainerId) -> Option<ContainerConfig> {
        self.0.lock().containers.get(id).map(|container| container.config.clone())
    }
}

impl Container {
    /// A copy without the end that is due.
    fn fork(&self) -> Self {
        let ended = Watched::new(self.ended.get());
        Self { status: self.status.clone(), config: self.config.clone(), script: self.script.clone(), due: None, ended }
    }
}

impl Machine {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call, and fails it if that was planned.
    pub(crate) fn begin(&self, verb: Verb) -> Result<MutexGuard<'_, State>, RuntimeError> {
        let mut state = self.lock();
        *state.calls.entry(verb).or_default() += 1;
        match state.failures.get_mut(&verb).and_then(|failures| failures.pop_front()) {
            Some(error) => Err(error),
            None => Ok(state),
        }
    }

    pub(crate) fn tell_sandbox(&self, status: &SandboxStatus) {
        let event = RuntimeEvent::Sandbox { id: status.id.clone(), pod_uid: status.key.pod_uid.clone() };
        let _ = self.events.send(event);
    }

    pub(crate) fn tell_container(&self, state: &State, sandbox: &SandboxId, id: &ContainerId) {
        let pod_uid = state.sandbox_keys.get(sandbox).map(|key| key.pod_uid.clone()).unwrap_or_default();
        let _ = self.events.send(RuntimeEvent::Container { id: id.clone(), pod_uid });
    }

    /// Ends a running container. False when it does not run.
    pub(crate) fn finish(&self, id: &ContainerId, end: &End) -> bool {
        let mut state = self.lock();
        let now = self.env.now();
        let Some(container) = state.containers.get_mut(id) else { return false };
        let ContainerState::Running { started_at } = container.status.state else { return false };
        container.status.state = ContainerState::Exited {
            started_at: Some(started_at),
            finished_at: now,
            exit_code: end.exit_code,
            signal: end.signal,
            reason: end.reason.to_owned(),
            message: end.message.clone(),
        };
        container.ended.set(true);
        let due = container.due.take();
        let sandbox = container.status.sandbox.clone();
        self.tell_container(&state, &sandbox, id);
        drop(state);
        drop(due);
        true
    }

    /// Ends a container by itself after this time, unless it ends before.
    pub(crate) fn finish_after(self: &Arc<Self>, state: &mut State, id: &ContainerId, delay: Duration, end: End) {
        let machine: Weak<Self> = Arc::downgrade(self);
        let at = self.env.monotonic().saturating_add(delay);
        let sleep = self.env.sleep(delay);
        let (name, planned) = (id.clone(), end.clone());
        let timer = self.env.spawn("simulated container", async move {
            sleep.await;
            if let Some(machine) = machine.upgrade() {
                machine.finish(&name, &end);
            }
        });
        if let Some(container) = state.containers.get_mut(id) {
            container.due = Some(Due { at, end: planned, _timer: timer });
        }
    }

    pub(crate) fn stop_sandbox(&self, id: &SandboxId) -> bool {
        let containers = self.lock().containers_of(id);
        for container in containers {
            self.finish(&container, &End::killed());
        }
        let mut state = self.lock();
        let Some(sandbox) = state.sandbox_mut(id) else { return false };
        if sandbox.status.state == SandboxState::NotReady {
            return false;
        }
        sandbox.status.state = SandboxState::NotReady;
        let address = sandbox.address_index.take();
        let status = sandbox.status.clone();
        if let Some(index) = address {
            state.used_addresses.remove(&index);
        }
        self.tell_sandbox(&status);
        true
    }
}
