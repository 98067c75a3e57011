//! The runtime itself: the verbs of CRI, each a word with the engine.

use std::{
    collections::BTreeSet,
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bollard::{models::SystemInfo, query_parameters::StatsOptions};
use futures::{StreamExt, stream::BoxStream};
use orchestrator_core::{
    env::Env,
    runtime::{
        AttachOptions, ContainerConfig, ContainerId, ContainerRuntime, ContainerState, ContainerStats, ContainerStatus,
        Duplex, ExecOptions, Image, ImageService, LogLine, LogOptions, PullRequest, RuntimeError, RuntimeEvent,
        RuntimeStatus, SandboxConfig, SandboxId, SandboxState, SandboxStatus, Session,
    },
};
use tokio::sync::{Mutex, OnceCell, broadcast};

use crate::{
    config::{DockerBuilder, PodNetwork},
    engine::Engine,
    error::EngineError,
    features::{self, Features, Kind},
    hub::Hub,
    images::Images,
    logs,
    names::Owner,
    network,
    pod_files::PodFiles,
    port_forward, session, stats,
    turns::Turns,
};

/// Runs pods on a Docker Engine.
///
/// Cheap to clone. Dropping it leaves everything running; a new one with the same cluster and node carries on.
#[derive(Clone)]
pub struct DockerRuntime(Arc<Inner>);

pub(crate) struct Inner {
    engine: Arc<Engine>,
    owner: Owner,
    hub: Hub,
    images: Images,
    files: PodFiles,
    network: PodNetwork,
    cgroup_parent: Option<String>,
    seccomp_profiles: Option<PathBuf>,
    /// One at a time for each sandbox and for each container.
    turns: Turns,
    about: OnceCell<About>,
    lowers_oom_score: OnceCell<bool>,
    /// Whether files that belong to nothing were removed.
    swept: Mutex<bool>,
}

/// What the engine says of itself.
pub(crate) struct About {
    pub(crate) info: SystemInfo,
    kind: Kind,
}

impl fmt::Debug for DockerRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DockerRuntime").field("owner", &self.0.owner).finish_non_exhaustive()
    }
}

impl DockerRuntime {
    /// Begins to describe a runtime. The directory, an absolute path, is for what the engine does not keep: nothing that
    /// cannot be lost.
    pub fn builder(directory: impl Into<PathBuf>) -> DockerBuilder {
        DockerBuilder::new(directory.into())
    }

    pub(crate) fn new(builder: DockerBuilder, env: Env) -> Result<Self, RuntimeError> {
        if !builder.directory.is_absolute() {
            return Err(RuntimeError::Invalid(format!("the path {} is not absolute", builder.directory.display())));
        }
        builder.network.check()?;
        let owner = Owner::new(builder.cluster, builder.node)?;
        let engine = Arc::new(Engine::new(env, builder.socket, builder.call_time));
        let images =
            Images::new(Arc::clone(&engine), owner.image_repository(), builder.images, builder.directory.clone())?;
        let (turns, about, lowers_oom_score, swept) = Default::default();
        Ok(Self(Arc::new(Inner {
            hub: Hub::new(Arc::clone(&engine), owner.clone()),
            engine,
            owner,
            images,
            files: PodFiles::new(&builder.directory),
            network: builder.network,
            cgroup_parent: builder.cgroup_parent,
            seccomp_profiles: builder.seccomp_profiles,
            turns,
            about,
            lowers_oom_score,
            swept,
        })))
    }

    /// Removes what the runtime made on the engine for itself: this node's images, and the cluster's network unless another
    /// node has pods on it. Refused while there is a sandbox. What is gone is a success.
    pub async fn remove_leftovers(&self) -> Result<(), RuntimeError> {
        let inner = &self.0;
        inner.remove_trials().await?;
        if !inner.engine_list(None).await?.is_empty() {
            return Err(RuntimeError::WrongState("there are sandboxes or containers".to_owned()));
        }
        inner.images.clear().await?;
        let unique_names = inner.features().await?.unique_network_names;
        network::remove(&inner.engine, &inner.network, inner.owner.cluster(), unique_names).await?;
        let files = inner.files.clone();
        inner.file_work(move || files.clear()).await
    }
}

impl Inner {
    pub(crate) fn env(&self) -> &Env {
        &self.engine.env
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn owner(&self) -> &Owner {
        &self.owner
    }

    pub(crate) fn images(&self) -> &Images {
        &self.images
    }

    pub(crate) fn files(&self) -> &PodFiles {
        &self.files
    }

    pub(crate) fn network(&self) -> &PodNetwork {
        &self.network
    }

    pub(crate) fn cgroup_parent(&self) -> Option<&str> {
        self.cgroup_parent.as_deref()
    }

    pub(crate) fn seccomp_profiles(&self) -> Option<&Path> {
        self.seccomp_profiles.as_deref()
    }

    pub(crate) fn turns(&self) -> &Turns {
        &self.turns
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<RuntimeEvent> {
        self.hub.subscribe()
    }

    /// What the engine says of itself, asked once.
    pub(crate) async fn about(&self) -> Result<&About, RuntimeError> {
        let ask = async || {
            let info = self.engine.call(|client| async move { client.info().await }).await?;
            let version = self.engine.call(|client| async move { client.version().await }).await?;
            Ok(About { info, kind: Kind::new(&version) })
        };
        let about: Result<_, EngineError> = self.about.get_or_try_init(ask).await;
        about.map_err(|error| error.during("asking the engine what it can do"))
    }

    /// Whether the engine may lower scores of the out-of-memory killer, once it was tried.
    pub(crate) fn lowers_oom_score(&self) -> &OnceCell<bool> {
        &self.lowers_oom_score
    }

    pub(crate) async fn features(&self) -> Result<Features, RuntimeError> {
        let About { info, kind } = self.about().await?;
        Ok(Features::new(info, *kind))
    }

    /// Once in a life, before anything is made: removes files of sandboxes that an agent before this one did not get to make.
    pub(crate) async fn sweep_files(&self) -> Result<(), RuntimeError> {
        let mut swept = self.swept.lock().await;
        if *swept {
            return Ok(());
        }
        let names = self.engine_list(None).await?.into_iter().flat_map(|summary| summary.names.unwrap_or_default());
        let known: BTreeSet<String> = names.map(|name| name.trim_start_matches('/').to_owned()).collect();
        let files = self.files.clone();
        self.file_work(move || files.sweep(&known)).await?;
        *swept = true;
        Ok(())
    }

    pub(crate) async fn file_work(
        &self,
        work: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> Result<(), RuntimeError> {
        let done = self.env().blocking(work).await;
        let done = done.unwrap_or_else(|| Err(io::Error::other("the work was given up")));
        done.map_err(|error| RuntimeError::internal("keeping the files of pods", error))
    }
}

#[async_trait]
impl ContainerRuntime for DockerRuntime {
    async fn status(&self) -> Result<RuntimeStatus, RuntimeError> {
        let asked = self.0.engine.call(|client| async move { client.info().await }).await;
        let (version, ready) = match asked {
            Ok(info) => (info.server_version.clone().unwrap_or_default(), features::ready(&info)),
            Err(error) => (String::new(), Err(error.to_string())),
        };
        // Until an engine has answered, it is what most are.
        let about = if ready.is_ok() { self.0.about().await.ok() } else { self.0.about.get() };
        let kind = about.map_or(Kind::Docker, |about| about.kind);
        Ok(RuntimeStatus { name: kind.name().to_owned(), version, ready })
    }

    async fn run_sandbox(&self, config: &SandboxConfig) -> Result<SandboxStatus, RuntimeError> {
        self.0.run_sandbox(config).await
    }

    async fn stop_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        self.0.stop_sandbox(id).await
    }

    async fn remove_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        self.0.remove_sandbox(id).await
    }

    async fn list_sandboxes(&self) -> Result<Vec<SandboxStatus>, RuntimeError> {
        self.0.list_sandboxes().await
    }

    async fn inspect_sandbox(&self, id: &SandboxId) -> Result<SandboxStatus, RuntimeError> {
        Ok(self.0.sandbox(id).await?.status)
    }

    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: &ContainerConfig,
    ) -> Result<ContainerId, RuntimeError> {
        self.0.create_container(sandbox, config).await
    }

    async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.0.start_container(id).await
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError> {
        self.0.stop_container(id, grace).await
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.0.remove_container(id).await
    }

    async fn list_containers(&self) -> Result<Vec<ContainerStatus>, RuntimeError> {
        self.0.list_containers().await
    }

    async fn inspect_container(&self, id: &ContainerId) -> Result<ContainerStatus, RuntimeError> {
        Ok(self.0.container(id).await?.status)
    }

    async fn exec(&self, id: &ContainerId, options: ExecOptions) -> Result<Session, RuntimeError> {
        if options.command.is_empty() || options.command.iter().any(|word| word.contains('\0')) {
            return Err(RuntimeError::Invalid("a command that cannot be executed".to_owned()));
        }
        let container = self.0.running_container(id).await?;
        let features = self.0.features().await?;
        session::exec(&self.0.engine, &container, options, features).await
    }

    async fn attach(&self, id: &ContainerId, options: AttachOptions) -> Result<Session, RuntimeError> {
        let container = self.0.running_container(id).await?;
        let (inner, id) = (Arc::clone(&self.0), id.clone());
        let ended = async move {
            let status = inner.ended(&id).await?.ok_or_else(|| RuntimeError::no_container(&id))?;
            let code = status.state.exit_code();
            code.ok_or_else(|| RuntimeError::WrongState(format!("nobody knows how the container {id} has ended")))
        };
        session::attach(&self.0.engine, &container, options, ended).await
    }

    async fn port_forward(&self, id: &SandboxId, port: u16) -> Result<Box<dyn Duplex>, RuntimeError> {
        let sandbox = self.0.sandbox(id).await?;
        if sandbox.status.state != SandboxState::Ready {
            return Err(RuntimeError::WrongState(format!("the sandbox {id} is not ready")));
        }
        let namespace = match sandbox.network_namespace {
            _ if sandbox.record.namespaces.host_network => None,
            Some(path) => Some(path),
            None => {
                return Err(RuntimeError::internal("connecting into a pod", "the engine names no network namespace"));
            }
        };
        port_forward::connect(self.0.env(), id, namespace, port).await
    }

    async fn logs(
        &self,
        id: &ContainerId,
        options: LogOptions,
    ) -> Result<BoxStream<'static, Result<LogLine, RuntimeError>>, RuntimeError> {
        self.0.container(id).await?;
        Ok(logs::stream(Arc::clone(&self.0), id.clone(), options).boxed())
    }

    async fn stats(&self, id: &ContainerId) -> Result<Option<ContainerStats>, RuntimeError> {
        let container = self.0.container(id).await?;
        if !matches!(container.status.state, ContainerState::Running { .. }) {
            return Ok(None);
        }
        let (engine_id, now) = (container.engine_id.as_str(), self.0.env().now());
        let options = StatsOptions { stream: false, one_shot: true };
        let measured = self.0.engine.call(|client| async move {
            let mut measured = std::pin::pin!(client.stats(engine_id, Some(options)));
            measured.next().await.transpose()
        });
        match measured.await {
            Ok(measured) => Ok(measured.and_then(|measured| stats::stats(&measured, now))),
            Err(error) if error.is_not_found() => Err(RuntimeError::no_container(id)),
            Err(error) => Err(error.during(format!("measuring the container {id}"))),
        }
    }

    fn events(&self) -> BoxStream<'static, RuntimeEvent> {
        self.0.hub.events()
    }
}

#[async_trait]
impl ImageService for DockerRuntime {
    async fn pull_image(&self, request: &PullRequest) -> Result<Image, RuntimeError> {
        self.0.images.pull(request).await
    }

    async fn image_status(&self, name: &str) -> Result<Option<Image>, RuntimeError> {
        self.0.images.status(name).await
    }

    async fn list_images(&self) -> Result<Vec<Image>, RuntimeError> {
        self.0.images.list().await
    }

    async fn remove_image(&self, name: &str) -> Result<(), RuntimeError> {
        self.0.images.remove(name).await
    }
}
