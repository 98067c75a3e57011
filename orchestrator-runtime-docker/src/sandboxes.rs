//! Sandboxes: made, stopped and removed so that each call can be made again from wherever it was cut short.

use bollard::{models::ContainerCreateBody, query_parameters::CreateContainerOptions};
use futures::future::try_join_all;
use orchestrator_core::runtime::{DnsConfig, RuntimeError, SandboxConfig, SandboxId, SandboxState, SandboxStatus};

use crate::{
    error::EngineError,
    limits::{KILL_TIME, NETWORK_ATTEMPTS, REMOVAL_ROUNDS},
    names::SandboxRecord,
    network,
    runtime::Inner,
    specification::{self, SandboxInput},
    status::{Observed, ObservedContainer, ObservedSandbox},
    validate,
};

/// The turn of whoever looks for the cluster's network; no sandbox has this name.
const NETWORK_TURN: &str = "network";

impl Inner {
    pub(crate) async fn run_sandbox(&self, config: &SandboxConfig) -> Result<SandboxStatus, RuntimeError> {
        validate::sandbox(config)?;
        let id = self.owner().sandbox(&config.key)?;
        let _turn = self.turns().take(&id.0).await;
        let known = match self.find_sandbox(&id).await? {
            Some(known) if known.has_failed => {
                // Nobody has seen it ready: it is made anew.
                self.remove(&known.engine_id).await?;
                None
            }
            known => known,
        };
        let mut engine_id = match known {
            Some(known) if known.status.state == SandboxState::Ready => return Ok(known.status),
            // An agent before this one was cut short.
            Some(known) if known.is_new => known.engine_id,
            Some(_) => return Err(RuntimeError::WrongState(format!("the sandbox {id} exists and is not ready"))),
            None => self.create_sandbox(&id, config).await?,
        };
        for attempt in 1.. {
            match self.start(&engine_id).await {
                Ok(()) => break,
                Err(error) if attempt < NETWORK_ATTEMPTS && is_about_network(&error) => {
                    self.remove(&engine_id).await?;
                    engine_id = self.create_sandbox(&id, config).await?;
                }
                Err(error) => return Err(self.start_failed(&engine_id, error).await),
            }
        }
        Ok(self.sandbox(&id).await?.status)
    }

    /// Makes the sandbox's container, and what it needs; returns the engine's name for it.
    async fn create_sandbox(&self, id: &SandboxId, config: &SandboxConfig) -> Result<String, RuntimeError> {
        self.sweep_files().await?;
        let own_dns = config.dns != DnsConfig::default();
        if own_dns {
            let (files, id, dns) = (self.files().clone(), id.clone(), config.dns.clone());
            self.file_work(move || files.write(&id, &dns)).await?;
        }
        let image = self.pause_image().await?;
        let network = if config.namespaces.host_network {
            String::new()
        } else {
            let _turn = self.turns().take(NETWORK_TURN).await;
            let unique_names = self.features().await?.unique_network_names;
            network::ensure(self.engine(), self.network(), self.owner().cluster(), unique_names).await?
        };
        let record = SandboxRecord {
            key: config.key.clone(),
            namespace: config.namespace.clone(),
            name: config.name.clone(),
            namespaces: config.namespaces,
            own_dns,
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
        };
        let body = specification::sandbox(SandboxInput {
            owner: self.owner(),
            id,
            config,
            record,
            network: &network,
            image: &image,
            cgroup_parent: self.cgroup_parent(),
        });
        match self.create(&id.0, body).await {
            Ok(engine_id) => Ok(engine_id),
            // Another process of this node was quicker.
            Err(error) if error.is_conflict() => match self.named(|| self.find_sandbox(id)).await? {
                Some(known) if known.is_new || known.status.state == SandboxState::Ready => Ok(known.engine_id),
                Some(_) => Err(RuntimeError::WrongState(format!("the sandbox {id} exists and is not ready"))),
                None => Err(taken(&id.0)),
            },
            Err(error) if error.status() == Some(400) => Err(RuntimeError::Invalid(error.to_string())),
            Err(error) => Err(error.during(format!("making the sandbox {id}"))),
        }
    }

    /// What never was ready leaves nothing; what the engine may still be at is looked at by the next call.
    async fn start_failed(&self, engine_id: &str, error: EngineError) -> RuntimeError {
        if error.status().is_none() {
            return error.during("starting a sandbox");
        }
        if let Err(error) = self.remove(engine_id).await {
            tracing::warn!(%error, "a sandbox that could not be started is left on the engine");
        }
        RuntimeError::StartFailed(error.to_string())
    }

    /// The image of sandboxes, which the engine has after this.
    pub(crate) async fn pause_image(&self) -> Result<String, RuntimeError> {
        let about = self.about().await?;
        self.images().pause(architecture(about.info.architecture.as_deref())).await
    }

    pub(crate) async fn create(&self, name: &str, body: ContainerCreateBody) -> Result<String, EngineError> {
        let options = CreateContainerOptions { name: Some(name.to_owned()), ..CreateContainerOptions::default() };
        let made =
            self.engine().call(|client| async move { client.create_container(Some(options), body).await }).await?;
        for warning in made.warnings {
            tracing::warn!(container = name, warning, "the engine warns of a container");
        }
        Ok(made.id)
    }

    pub(crate) async fn stop_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        let _turn = self.turns().take(&id.0).await;
        match self.find_sandbox(id).await? {
            // It was never ready, and must not become so.
            Some(sandbox) if sandbox.is_new || sandbox.has_failed => self.remove(&sandbox.engine_id).await,
            Some(sandbox) => self.end_all(id, &sandbox).await,
            None => Ok(()),
        }
    }

    /// Ends every process of the sandbox, its own first: after that no container starts in it any more.
    async fn end_all(&self, id: &SandboxId, sandbox: &ObservedSandbox) -> Result<(), RuntimeError> {
        let all = async {
            self.kill(&sandbox.engine_id, "SIGKILL").await?;
            self.not_ready(id).await?;
            loop {
                let observed = self.observe_all(Some(id)).await?.into_iter();
                let running: Vec<ObservedContainer> = observed.filter_map(Observed::running_container).collect();
                if running.is_empty() {
                    return Ok(());
                }
                try_join_all(running.iter().map(|container| async {
                    self.kill(&container.engine_id, "SIGKILL").await?;
                    self.ended(&container.status.id).await
                }))
                .await?;
            }
        };
        let ended = self.env().timeout(KILL_TIME, all).await;
        ended.unwrap_or_else(|elapsed| Err(RuntimeError::internal(format!("ending the processes of {id}"), elapsed)))
    }

    /// Removes the containers first: as long as one is there, the sandbox is, and whoever lists finds what is left to do.
    pub(crate) async fn remove_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        if !self.owner().may_own(&id.0) {
            return Ok(());
        }
        let _turn = self.turns().take(&id.0).await;
        if let Some(sandbox) = self.find_sandbox(id).await? {
            self.kill(&sandbox.engine_id, "SIGKILL").await?;
        }
        for _ in 0..REMOVAL_ROUNDS {
            let all = self.engine_list(Some(id)).await?;
            if all.is_empty() {
                let (files, id) = (self.files().clone(), id.clone());
                return self.file_work(move || files.remove(&id)).await;
            }
            let is_sandbox =
                |names: &Option<Vec<String>>| names.iter().flatten().any(|name| name.trim_start_matches('/') == id.0);
            let (own, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|summary| is_sandbox(&summary.names));
            let others: Vec<String> = others.into_iter().filter_map(|summary| summary.id).collect();
            try_join_all(others.iter().map(|engine_id| self.remove(engine_id))).await?;
            for engine_id in own.into_iter().filter_map(|summary| summary.id) {
                self.remove(&engine_id).await?;
            }
        }
        Err(RuntimeError::internal(
            format!("removing the sandbox {id}"),
            "somebody makes containers in it all the time",
        ))
    }

    pub(crate) async fn list_sandboxes(&self) -> Result<Vec<SandboxStatus>, RuntimeError> {
        let mut statuses: Vec<SandboxStatus> = Vec::new();
        for observed in self.observe_all(None).await? {
            if let Observed::Sandbox(sandbox) = observed {
                // Just being made: nobody has seen it yet.
                let unfinished = sandbox.is_new && self.turns().is_taken(&sandbox.status.id.0);
                statuses.extend((!unfinished).then_some(sandbox.status));
            }
        }
        statuses.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(statuses)
    }
}

/// Whether a sandbox could not be started because its network has just gone, or because another process of the cluster has
/// just made one as well. The engine has no better way to say so.
fn is_about_network(error: &EngineError) -> bool {
    let message = error.to_string();
    error.status().is_some()
        && message.contains("network")
        && ["ambiguous", "not found"].iter().any(|word| message.contains(word))
}

/// A name of ours on a container that is not.
pub(crate) fn taken(name: &str) -> RuntimeError {
    RuntimeError::WrongState(format!("the engine has a container {name} that is not this node's"))
}

/// The engine's word for its machine, as images have it.
fn architecture(machine: Option<&str>) -> &str {
    match machine {
        Some("x86_64") => "amd64",
        Some("aarch64") => "arm64",
        other => other.unwrap_or_default(),
    }
}
