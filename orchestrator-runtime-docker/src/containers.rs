//! Containers: made, started, stopped and removed, each call the same when it is made again.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    time::Duration,
};

use orchestrator_core::runtime::{
    ContainerConfig, ContainerId, ContainerState, ContainerStatus, RuntimeError, SandboxId, SandboxState,
    SeccompProfile,
};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use crate::{
    limits::{KILL_TIME, NAME_PAUSE, NAME_TIME, SECCOMP_PROFILE_BYTES},
    runtime::Inner,
    sandboxes::taken,
    specification::{self, ContainerInput},
    status::{Observed, start_message},
    validate,
};

impl Inner {
    pub(crate) async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: &ContainerConfig,
    ) -> Result<ContainerId, RuntimeError> {
        validate::container(config)?;
        let id = self.owner().container(sandbox, &config.key)?;
        let _turn = self.turns().take(&sandbox.0).await;
        let found = self.sandbox(sandbox).await?;
        if self.find_container(&id).await?.is_some() {
            return Ok(id);
        }
        if found.status.state != SandboxState::Ready {
            return Err(RuntimeError::WrongState(format!("the sandbox {sandbox} is not ready")));
        }
        let no_image = || RuntimeError::NotFound { kind: "image", id: config.image.clone() };
        let image = self.images().find(&config.image).await?.ok_or_else(no_image)?;
        let seccomp = self.seccomp_profile(config.security.seccomp()).await?;
        let features = self.features().await?;
        if !features.checks_mounts {
            self.check_mounts(config).await?;
        }
        let resolver = found.record.own_dns.then(|| self.files().path(sandbox));
        let body = specification::container(&ContainerInput {
            owner: self.owner(),
            sandbox,
            sandbox_engine_id: &found.engine_id,
            sandbox_record: &found.record,
            config,
            image: &image,
            resolver: resolver.as_deref(),
            seccomp: seccomp.as_deref(),
            features: &features,
            oom_score: self.oom_score(config.resources.oom_score_adjust).await?,
            cgroup_parent: self.cgroup_parent(),
        })?;
        match self.create(&id.0, body).await {
            Ok(_) => Ok(id),
            // Another process of this node was quicker.
            Err(error) if error.is_conflict() => match self.named(|| self.find_container(&id)).await? {
                Some(_) => Ok(id),
                None if self.sandbox(sandbox).await?.status.state != SandboxState::Ready => {
                    Err(RuntimeError::WrongState(format!("the sandbox {sandbox} is not ready")))
                }
                None => Err(taken(&id.0)),
            },
            Err(error) if error.is_not_found() => Err(no_image()),
            Err(error) if error.status() == Some(400) => Err(RuntimeError::Invalid(error.to_string())),
            Err(error) => Err(error.during(format!("making the container {id}"))),
        }
    }

    /// Refuses mounts of what is not there.
    async fn check_mounts(&self, config: &ContainerConfig) -> Result<(), RuntimeError> {
        let paths: Vec<_> = config.mounts.iter().map(|mount| mount.host_path.clone()).collect();
        let missing = self.env().blocking(move || paths.into_iter().find(|path| !path.exists())).await;
        match missing.flatten() {
            Some(path) => Err(RuntimeError::Invalid(format!("a mount of {}, which does not exist", path.display()))),
            None => Ok(()),
        }
    }

    /// Looks for what has a name on the engine already. A call that was given up may be at it: then its name comes first.
    pub(crate) async fn named<T, F: Future<Output = Result<Option<T>, RuntimeError>>>(
        &self,
        find: impl Fn() -> F,
    ) -> Result<Option<T>, RuntimeError> {
        let since = self.env().monotonic();
        loop {
            let found = find().await?;
            if found.is_some() || self.env().monotonic().saturating_sub(since) >= NAME_TIME {
                return Ok(found);
            }
            self.env().sleep(NAME_PAUSE).await;
        }
    }

    pub(crate) async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        // The engine would start again what has ended: whoever comes second must see what the first one did.
        let _turn = self.turns().take(&id.0).await;
        let container = self.container(id).await?;
        if container.status.state != ContainerState::Created {
            return Ok(());
        }
        let sandbox = &container.status.sandbox;
        let ready = self.find_sandbox(sandbox).await?.is_some_and(|now| now.status.state == SandboxState::Ready);
        if !ready {
            return Err(RuntimeError::WrongState(format!("the sandbox {sandbox} is not ready")));
        }
        match self.start(&container.engine_id).await {
            Ok(()) => Ok(()),
            Err(error) if error.is_not_found() && self.find_container(id).await?.is_none() => {
                Err(RuntimeError::no_container(id))
            }
            Err(error) if error.status().is_some() => {
                let message = start_message(&error.to_string());
                if !self.features().await?.keeps_start_failures {
                    self.remember_failure(&container.status.id, &message).await?;
                }
                Err(RuntimeError::StartFailed(message))
            }
            Err(error) => Err(error.during(format!("starting the container {id}"))),
        }
    }

    /// Puts something in the place of a container that could not be started, so that it has ended for whoever looks. Nothing of
    /// it has run. An agent that dies in between finds it as it was, or not at all.
    async fn remember_failure(&self, id: &ContainerId, message: &str) -> Result<(), RuntimeError> {
        // Another process of this node may have had more luck.
        let container = self.find_container(id).await?.filter(|now| now.status.state == ContainerState::Created);
        let Some(container) = container else { return Ok(()) };
        self.remove(&container.engine_id).await?;
        let made = self.create(&id.0, specification::failed(self.owner(), &container, message)).await;
        made.map(drop).map_err(|error| error.during(format!("remembering that {id} could not be started")))
    }

    pub(crate) async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError> {
        let container = self.container(id).await?;
        if !container.status.state.is_running() {
            return Ok(());
        }
        if !grace.is_zero() {
            self.kill(&container.engine_id, container.stop_signal.as_deref().unwrap_or("SIGTERM")).await?;
            if let Ok(ended) = self.env().timeout(grace, self.ended(id)).await {
                return ended.map(drop);
            }
        }
        self.kill(&container.engine_id, "SIGKILL").await?;
        match self.env().timeout(KILL_TIME, self.ended(id)).await {
            Ok(ended) => ended.map(drop),
            Err(elapsed) => Err(RuntimeError::internal(format!("killing the container {id}"), elapsed)),
        }
    }

    pub(crate) async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let _turn = self.turns().take(&id.0).await;
        match self.find_container(id).await? {
            Some(container) => self.remove(&container.engine_id).await,
            None => Ok(()),
        }
    }

    pub(crate) async fn list_containers(&self) -> Result<Vec<ContainerStatus>, RuntimeError> {
        let mut found = Vec::new();
        for observed in self.observe_all(None).await? {
            if let Observed::Container(container) = observed {
                found.push((container.record.sandbox, container.status));
            }
        }
        found.sort_by(|one, other| (&one.0, &one.1.key).cmp(&(&other.0, &other.1.key)));
        Ok(found.into_iter().map(|(_, status)| status).collect())
    }

    /// The text of a seccomp profile; none is the engine's own choice.
    async fn seccomp_profile(&self, profile: &SeccompProfile) -> Result<Option<String>, RuntimeError> {
        let file = match profile {
            SeccompProfile::RuntimeDefault => return Ok(None),
            SeccompProfile::Unconfined => return Ok(Some("unconfined".to_owned())),
            SeccompProfile::Localhost(file) => file.clone(),
        };
        let name = file.display().to_string();
        let Some(directory) = self.seccomp_profiles() else {
            let message = format!("the seccomp profile {name:?}: the runtime was given no directory of profiles");
            return Err(RuntimeError::Unsupported(message));
        };
        let directory = directory.to_owned();
        let text = self.env().blocking(move || read_beneath(&directory, &file)).await;
        let text = text.unwrap_or_else(|| Err(io::Error::other("the work was given up")));
        let text = text.map_err(|error| RuntimeError::Invalid(format!("the seccomp profile {name:?}: {error}")))?;
        Ok(Some(text))
    }
}

/// Reads a file below a directory; no link leads out of it.
fn read_beneath(directory: &Path, name: &Path) -> io::Result<String> {
    let directory = File::open(directory)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let file = File::from(openat2(&directory, name, flags, Mode::empty(), resolve)?);
    let mut text = String::new();
    file.take(SECCOMP_PROFILE_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > SECCOMP_PROFILE_BYTES {
        return Err(io::Error::other(format!("it is longer than {SECCOMP_PROFILE_BYTES} bytes")));
    }
    Ok(text)
}
