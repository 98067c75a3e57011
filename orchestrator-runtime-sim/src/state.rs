//! What a machine holds: sandboxes, containers, images.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use jiff::Timestamp;
use orchestrator_core::{
    env::{TaskHandle, Watched},
    runtime::{
        ContainerConfig, ContainerId, ContainerKey, ContainerState, ContainerStatus, RuntimeError, SandboxId,
        SandboxKey, SandboxStatus,
    },
};

use crate::{
    machine::{End, Verb},
    script::{ImageScript, Matcher, Script},
};

/// Everything on a machine.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// On the heap one by one: most machines have a few, and a map makes room for eleven.
    pub(crate) sandboxes: BTreeMap<SandboxKey, Box<Sandbox>>,
    pub(crate) sandbox_keys: BTreeMap<SandboxId, SandboxKey>,
    /// As the sandboxes.
    pub(crate) containers: BTreeMap<ContainerId, Box<Container>>,
    pub(crate) rules: Vec<(Matcher, Script)>,
    pub(crate) images: BTreeMap<String, ImageScript>,
    pub(crate) pulled: BTreeSet<String>,
    pub(crate) removed: BTreeSet<String>,
    pub(crate) failures: BTreeMap<Verb, VecDeque<RuntimeError>>,
    pub(crate) calls: BTreeMap<Verb, u64>,
    pub(crate) used_addresses: BTreeSet<u32>,
    pub(crate) not_ready: Option<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct Sandbox {
    pub(crate) status: SandboxStatus,
    pub(crate) address_index: Option<u32>,
}

#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) status: ContainerStatus,
    pub(crate) config: ContainerConfig,
    pub(crate) script: Script,
    /// Its present end by itself or by a stop signal, if one is due.
    pub(crate) due: Option<Due>,
    /// Becomes true when the container has ended or is gone.
    pub(crate) ended: Watched<bool>,
}

/// An end that is due; dropping it calls it off.
#[derive(Debug)]
pub(crate) struct Due {
    /// When, by the environment's monotonic clock.
    pub(crate) at: Duration,
    pub(crate) end: End,
    pub(crate) _timer: TaskHandle,
}

impl Container {
    pub(crate) fn started_at(&self) -> Option<Timestamp> {
        match &self.status.state {
            ContainerState::Running { started_at } => Some(*started_at),
            ContainerState::Exited { started_at, .. } => *started_at,
            _ => None,
        }
    }

    pub(crate) fn finished_at(&self) -> Option<Timestamp> {
        match &self.status.state {
            ContainerState::Exited { finished_at, .. } => Some(*finished_at),
            _ => None,
        }
    }
}

impl State {
    pub(crate) fn sandbox(&self, id: &SandboxId) -> Option<&Sandbox> {
        self.sandboxes.get(self.sandbox_keys.get(id)?).map(|sandbox| &**sandbox)
    }

    pub(crate) fn sandbox_mut(&mut self, id: &SandboxId) -> Option<&mut Sandbox> {
        self.sandboxes.get_mut(self.sandbox_keys.get(id)?).map(|sandbox| &mut **sandbox)
    }

    pub(crate) fn containers_of(&self, sandbox: &SandboxId) -> Vec<ContainerId> {
        self.containers.values().filter(|it| it.status.sandbox == *sandbox).map(|it| it.status.id.clone()).collect()
    }

    pub(crate) fn find_container(&self, sandbox: &SandboxId, key: &ContainerKey) -> Option<&Container> {
        self.containers.get(&container_id(sandbox, key)).map(|container| &**container)
    }

    /// The lowest free host number, from 2 on: 1 is the gateway.
    pub(crate) fn take_address(&mut self, subnet: Ipv4Addr, prefix: u8) -> Option<(u32, IpAddr)> {
        let hosts = 1_u32.checked_shl(32_u32.saturating_sub(prefix.into())).unwrap_or(u32::MAX);
        let index = (2..hosts.saturating_sub(1)).find(|index| !self.used_addresses.contains(index))?;
        self.used_addresses.insert(index);
        Some((index, Ipv4Addr::from(u32::from(subnet).wrapping_add(index)).into()))
    }

    pub(crate) fn image_present(&self, name: &str) -> bool {
        let absent = self.images.get(name).is_some_and(|script| script.absent) || self.removed.contains(name);
        !absent || self.pulled.contains(name)
    }

    /// The script for a container: its annotation's, else that of the newest rule that matches.
    pub(crate) fn script_for(&self, config: &ContainerConfig, sandbox: &SandboxStatus) -> Result<Script, RuntimeError> {
        let annotation = [&config.annotations, &sandbox.annotations]
            .iter()
            .find_map(|annotations| annotations.get(crate::script::SCRIPT_ANNOTATION));
        if let Some(text) = annotation {
            return Script::parse(text).map_err(|error| RuntimeError::Invalid(error.to_string()));
        }
        let rule = self.rules.iter().rev().find(|(matcher, _)| matcher.matches(config, sandbox));
        Ok(rule.map(|(_, script)| script.clone()).unwrap_or_default())
    }
}

pub(crate) fn sandbox_id(key: &SandboxKey) -> SandboxId {
    SandboxId(format!("{}_{}", key.pod_uid, key.attempt))
}

pub(crate) fn container_id(sandbox: &SandboxId, key: &ContainerKey) -> ContainerId {
    ContainerId(format!("{sandbox}_{}_{}", key.name, key.attempt))
}
