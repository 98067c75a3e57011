//! What the runtime holds of one pod.

use orchestrator_core::runtime::{ContainerId, ContainerStatus, SandboxId, SandboxState, SandboxStatus};

/// The sandboxes and containers of one pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Observed {
    /// By attempt, oldest first.
    sandboxes: Vec<SandboxStatus>,
    /// By name and attempt, oldest first.
    containers: Vec<ContainerStatus>,
}

impl Observed {
    pub(crate) fn new(sandboxes: Vec<SandboxStatus>, containers: Vec<ContainerStatus>) -> Self {
        let mut observed = Self { sandboxes, containers };
        observed.sort();
        observed
    }

    fn sort(&mut self) {
        self.sandboxes.sort_by_key(|sandbox| sandbox.key.attempt);
        self.containers.sort_by(|a, b| a.key.cmp(&b.key));
    }

    pub(crate) fn sandboxes(&self) -> &[SandboxStatus] {
        &self.sandboxes
    }

    pub(crate) fn containers(&self) -> &[ContainerStatus] {
        &self.containers
    }

    /// The newest sandbox, ready or not.
    pub(crate) fn newest_sandbox(&self) -> Option<&SandboxStatus> {
        self.sandboxes.last()
    }

    /// The newest sandbox if it can hold containers.
    pub(crate) fn ready_sandbox(&self) -> Option<&SandboxStatus> {
        self.newest_sandbox().filter(|sandbox| sandbox.state == SandboxState::Ready)
    }

    /// All runs of a container, newest first.
    pub(crate) fn runs(&self, name: &str) -> impl Iterator<Item = &ContainerStatus> {
        self.containers.iter().rev().filter(move |container| container.key.name == name)
    }

    pub(crate) fn newest_run(&self, name: &str) -> Option<&ContainerStatus> {
        self.runs(name).next()
    }

    pub(crate) fn container(&self, id: &ContainerId) -> Option<&ContainerStatus> {
        self.containers.iter().find(|container| container.id == *id)
    }

    pub(crate) fn sandbox(&self, id: &SandboxId) -> Option<&SandboxStatus> {
        self.sandboxes.iter().find(|sandbox| sandbox.id == *id)
    }

    /// Takes in what the runtime says of a sandbox now; `None` is that it is gone.
    pub(crate) fn put_sandbox(&mut self, id: &SandboxId, status: Option<SandboxStatus>) {
        self.sandboxes.retain(|sandbox| sandbox.id != *id);
        if status.is_none() {
            self.containers.retain(|container| container.sandbox != *id);
        }
        self.sandboxes.extend(status);
        self.sort();
    }

    /// Takes in what the runtime says of a container now; `None` is that it is gone.
    pub(crate) fn put_container(&mut self, id: &ContainerId, status: Option<ContainerStatus>) {
        self.containers.retain(|container| container.id != *id);
        self.containers.extend(status);
        self.sort();
    }
}
