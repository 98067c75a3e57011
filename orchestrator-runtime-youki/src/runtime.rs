//! The runtime itself: the verbs of CRI, each a look at the files of a sandbox and a word with its helper.

use std::{collections::BTreeMap, fmt, ops::RangeInclusive, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::stream::BoxStream;
use orchestrator_core::{
    env::Env,
    runtime::{
        AttachOptions, ContainerConfig, ContainerId, ContainerRuntime, ContainerStats, ContainerStatus, DiskSpace,
        Duplex, ExecOptions, Image, ImageService, LogLine, LogOptions, PullRequest, RuntimeError, RuntimeEvent,
        RuntimeStatus, SandboxConfig, SandboxId, SandboxState, SandboxStatus, SeccompProfile, Session,
    },
};
use tokio::sync::{Mutex, OwnedMutexGuard, broadcast};

use crate::{
    apparmor,
    cgroups::Cgroups,
    client::{CallError, HelperConnection, call},
    config::{Helper, YoukiBuilder},
    events,
    files::{read_beneath, remove_tree},
    helper::{Profile, command, missing_for_users, pod_cgroup, wants_devices},
    images::Images,
    launch::launch,
    layout::{Layout, SandboxDirectory, container_id, sandbox_id, short_name},
    limits::{EVENT_BACKLOG, SECCOMP_PROFILE_BYTES, UNFINISHED_PAUSE, UNFINISHED_TIME},
    logs, machine,
    protocol::{Errand, Reply, Request},
    records::{ContainerRecord, NetworkRecord, ObservedSandbox, SandboxRecord, read_container},
    session::{self, session},
    validate,
};

/// Runs pods with libcontainer, on this machine, without a daemon.
///
/// Cheap to clone. Dropping it leaves everything running; a new one on the same directory carries on.
#[derive(Clone)]
pub struct YoukiRuntime(Arc<Inner>);

struct Inner {
    env: Env,
    layout: Layout,
    images: Images,
    helper: Helper,
    network: NetworkRecord,
    cgroup_parent: String,
    hidden_paths: Vec<PathBuf>,
    writable_layer_bytes: u64,
    seccomp_profiles: Option<PathBuf>,
    apparmor_profile: Option<String>,
    user_ranges: RangeInclusive<u16>,
    machine: Result<(), String>,
    added: broadcast::Sender<SandboxId>,
    /// One at a time for each sandbox: making it, and clearing up after a helper that died.
    turns: Mutex<BTreeMap<SandboxId, Arc<Mutex<()>>>>,
}

impl fmt::Debug for YoukiRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("YoukiRuntime").field("root", &self.0.layout.root()).finish_non_exhaustive()
    }
}

impl YoukiRuntime {
    /// Begins to describe a runtime that keeps its state in this directory, an absolute path.
    pub fn builder(root: impl Into<PathBuf>) -> YoukiBuilder {
        YoukiBuilder::new(root.into())
    }

    /// Whether containers can run on this machine; the error says what is missing. Changes nothing.
    pub fn check_machine() -> Result<(), String> {
        machine::check()
    }

    pub(crate) fn new(builder: YoukiBuilder, env: Env) -> Result<Self, RuntimeError> {
        let invalid = |message: String| Err(RuntimeError::Invalid(message));
        let cgroup_parent =
            builder.cgroup_parent.clone().unwrap_or_else(|| format!("orchestrator-{}", builder.cluster));
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if cgroup_parent.is_empty() || cgroup_parent.starts_with('.') || !cgroup_parent.bytes().all(is_plain) {
            return invalid(format!("the cgroup parent {cgroup_parent:?} is not a plain name"));
        }
        let directory = builder.network_directory.clone().unwrap_or_else(|| builder.root.join("network"));
        for path in [&builder.root, &directory].into_iter().chain(&builder.image_directory) {
            if !path.is_absolute() {
                return invalid(format!("the path {} is not absolute", path.display()));
            }
        }
        let pods = builder.pod_network.unwrap_or(builder.cluster_network);
        if !builder.cluster_network.contains(&pods) {
            return invalid(format!("the pods' network {pods} is not in the cluster's {}", builder.cluster_network));
        }
        let ranges = &builder.user_ranges;
        if ranges.is_empty() || *ranges.start() == 0 || *ranges.end() == u16::MAX {
            return invalid(format!("the ranges of users {} to {}", ranges.start(), ranges.end()));
        }
        let (added, _) = broadcast::channel(EVENT_BACKLOG);
        let cluster_network = builder.cluster_network;
        let image_directory = builder.image_directory.clone().unwrap_or_else(|| builder.root.join("images"));
        let layout = Layout::new(builder.root.clone());
        let mut hidden_paths = builder.hidden_paths.clone();
        hidden_paths.push(image_directory.clone());
        Ok(Self(Arc::new(Inner {
            helper: builder.helper.clone(),
            writable_layer_bytes: builder.writable_layer_bytes,
            seccomp_profiles: builder.seccomp_profiles.clone(),
            apparmor_profile: builder.apparmor_profile.clone(),
            user_ranges: builder.user_ranges.clone(),
            images: Images::new(builder, image_directory, layout.clone(), env.clone())?,
            env,
            layout,
            network: NetworkRecord { directory, cluster: cluster_network, pods },
            cgroup_parent,
            hidden_paths,
            machine: machine::check(),
            added,
            turns: Mutex::default(),
        })))
    }

    /// The file that holds the network namespace of the cluster's bridge, for `setns`. It is there from the first
    /// pod on, until [`Self::remove_network`].
    pub fn network_namespace(&self) -> PathBuf {
        self.0.network.directory.join("netns")
    }

    /// Removes the cluster's bridge with its network namespace. Refused while a pod of any node that shares it has
    /// an address. One that is gone is a success.
    pub async fn remove_network(&self) -> Result<(), RuntimeError> {
        self.0.ready()?;
        self.0.launch(Errand::RemoveNetwork { directory: self.0.network.directory.clone() }, ()).await
    }
}

impl Inner {
    fn ready(&self) -> Result<(), RuntimeError> {
        self.machine.clone().map_err(RuntimeError::Missing)
    }

    async fn launch(&self, errand: Errand, held: impl Send + 'static) -> Result<(), RuntimeError> {
        launch(&self.env, &self.helper, errand, held).await
    }

    /// Waits until no other errand for a sandbox is under way. Errands hold their turn themselves, so that one that nobody waits
    /// for any more does not meet the next.
    async fn turn(&self, id: &SandboxId) -> Arc<OwnedMutexGuard<()>> {
        let turn = {
            let mut turns = self.turns.lock().await;
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(turns.entry(id.clone()).or_default())
        };
        Arc::new(turn.lock_owned().await)
    }

    /// Reads a sandbox. If its helper died, what it left running is ended first, so that what is read is true.
    async fn observe(&self, id: &SandboxId) -> Result<Option<(SandboxDirectory, ObservedSandbox)>, RuntimeError> {
        let Ok(directory) = self.layout.sandbox(id) else { return Ok(None) };
        let Some(mut observed) = read(&directory)? else { return Ok(None) };
        if observed.is_abandoned() {
            let turn = self.turn(id).await;
            // Someone else may have seen to it meanwhile.
            match read(&directory)? {
                Some(now) if now.is_abandoned() => {
                    let errand = Errand::Settle { root: self.layout.root().to_owned(), id: id.clone() };
                    // What cannot be ended is told as it is: not ready, and unknown. The next look tries again.
                    if let Err(error) = self.launch(errand, turn).await {
                        tracing::warn!(sandbox = %id, %error, "clearing up after a pod's helper failed");
                    }
                }
                _ => {}
            }
            match read(&directory)? {
                Some(now) => observed = now,
                None => return Ok(None),
            }
        }
        Ok(Some((directory, observed)))
    }

    /// The sandbox of a container and the container as they are now.
    async fn observe_container(
        &self,
        id: &ContainerId,
    ) -> Result<(SandboxDirectory, ObservedSandbox, ContainerRecord, ContainerStatus), RuntimeError> {
        let (sandbox, _) = self.layout.sandbox_of(id)?;
        let (directory, observed) = self.observe(&sandbox).await?.ok_or_else(|| RuntimeError::no_container(id))?;
        let container =
            read_container(&sandbox, &directory.container(id), observed.is_abandoned()).map_err(unreadable)?;
        let (record, status) = container.ok_or_else(|| RuntimeError::no_container(id))?;
        Ok((directory, observed, record, status))
    }

    /// Asks a container's helper for something; `None` when there is no helper any more.
    async fn call(
        &self,
        directory: &SandboxDirectory,
        request: &Request,
    ) -> Result<Option<(Reply, Vec<std::os::fd::OwnedFd>)>, RuntimeError> {
        match call(directory, request).await {
            Ok(reply) => Ok(Some(reply)),
            Err(CallError::Gone) => Ok(None),
            Err(CallError::Failed(error)) => Err(error),
        }
    }

    async fn streams(&self, id: &ContainerId, request: Request, kind: session::Kind) -> Result<Session, RuntimeError> {
        let (directory, ..) = self.observe_container(id).await?;
        let gone = || RuntimeError::WrongState(format!("the container {id} is not running"));
        let opened = HelperConnection::open(&directory, &request).await;
        let mut connection = opened.map_err(|error| failed(error, gone))?;
        let (reply, descriptors) = connection.next().await.map_err(|error| failed(error, gone))?;
        session(kind, &reply, descriptors, connection)
    }

    /// The text of a profile that is a file of the machine.
    async fn seccomp_profile(&self, profile: &SeccompProfile) -> Result<Option<String>, RuntimeError> {
        let SeccompProfile::Localhost(file) = profile else { return Ok(None) };
        let name = file.display().to_string();
        let Some(directory) = self.seccomp_profiles.clone() else {
            let message = format!("the seccomp profile {name:?}: the runtime was given no directory of profiles");
            return Err(RuntimeError::Unsupported(message));
        };
        let file = file.clone();
        let text = self.env.blocking(move || read_beneath(&directory, &file, SECCOMP_PROFILE_BYTES)).await;
        let text = text.unwrap_or_else(|| Err(std::io::Error::other("the work was given up")));
        let text = text.map_err(|error| RuntimeError::Invalid(format!("the seccomp profile {name:?}: {error}")))?;
        Profile::read(&text)
            .map_err(|error| RuntimeError::Invalid(format!("the seccomp profile {name:?}: {error}")))?;
        Ok(Some(text))
    }

    async fn create(
        &self,
        sandbox: &SandboxId,
        directory: &SandboxDirectory,
        record: ContainerRecord,
    ) -> Result<(), RuntimeError> {
        if command(&record).is_empty() {
            return Err(RuntimeError::Invalid(format!(
                "neither the container nor the image {} has a command",
                record.config.image
            )));
        }
        match self.call(directory, &Request::Create(Box::new(record))).await? {
            Some(_) => Ok(()),
            None => Err(RuntimeError::WrongState(format!("the sandbox {sandbox} is not ready"))),
        }
    }

    async fn end_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let directory = match self.observe_container(id).await {
            Ok((directory, ..)) => directory,
            Err(RuntimeError::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        if self.call(&directory, &Request::Remove { id: id.clone() }).await?.is_some() {
            return Ok(());
        }
        // Ends the container, if the helper died on the way. Its cgroup goes with the sandbox.
        let (sandbox, _) = self.layout.sandbox_of(id)?;
        self.observe(&sandbox).await?;
        let paths = [directory.libcontainer().join(short_name(id)), directory.container(id).path().to_owned()];
        let removed = self.env.blocking(move || paths.iter().try_for_each(|path| remove_tree(path))).await;
        removed.unwrap_or(Ok(())).map_err(|error| RuntimeError::internal("removing a container", error))
    }

    async fn end_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        let Ok(directory) = self.layout.sandbox(id) else { return Ok(()) };
        if self.ask_for_the_end(&directory).await? {
            return Ok(());
        }
        let turn = self.turn(id).await;
        // A start that was given up, and went on nevertheless, has made a helper meanwhile.
        if self.ask_for_the_end(&directory).await? || !directory.path().exists() {
            return Ok(());
        }
        self.launch(Errand::Sweep { root: self.layout.root().to_owned(), id: id.clone() }, turn).await
    }

    /// Has the helper of a sandbox remove it; `false` when there is no helper, or none any more.
    async fn ask_for_the_end(&self, directory: &SandboxDirectory) -> Result<bool, RuntimeError> {
        if read(directory)?.is_none_or(|observed| observed.helper.is_none()) {
            return Ok(false);
        }
        let asked = async {
            let mut connection = HelperConnection::open(directory, &Request::RemoveSandbox).await?;
            connection.next().await?;
            connection.closed().await;
            Ok(())
        };
        match asked.await {
            Ok(()) => Ok(true),
            Err(CallError::Gone) => Ok(false),
            Err(CallError::Failed(error)) => Err(error),
        }
    }

    async fn make_sandbox(&self, id: &SandboxId, config: &SandboxConfig) -> Result<SandboxStatus, RuntimeError> {
        let turn = self.turn(id).await;
        let directory = self.layout.sandbox(id)?;
        // A start that an agent before this one began, or that died a moment ago, is over soon, one way or the other.
        let since = self.env.monotonic();
        while read(&directory)?.is_some_and(|observed| observed.is_unfinished())
            && self.env.monotonic().saturating_sub(since) < UNFINISHED_TIME
        {
            self.env.sleep(UNFINISHED_PAUSE).await;
        }
        if let Some(observed) = read(&directory)? {
            let status = observed.status();
            match (&observed.progress, observed.helper) {
                (Some(_), Some(_)) if status.state == SandboxState::Ready => return Ok(status),
                // A start that was cut short left nothing that anyone has seen.
                (None, None) => {}
                _ => return Err(RuntimeError::WrongState(format!("the sandbox {id} exists and is not ready"))),
            }
        }
        let root = self.layout.root().to_owned();
        if directory.path().exists() {
            self.launch(Errand::Sweep { root: root.clone(), id: id.clone() }, Arc::clone(&turn)).await?;
        }
        let record = SandboxRecord {
            id: id.clone(),
            root,
            config: config.clone(),
            created_at: self.env.now(),
            network: self.network.clone(),
            cgroup_parent: self.cgroup_parent.clone(),
            hidden_paths: self.hidden_paths.clone(),
            writable_layer_bytes: self.writable_layer_bytes,
            user_ranges: self.user_ranges.clone(),
        };
        self.launch(Errand::Sandbox(Box::new(record)), turn).await?;
        // Nobody listening is no failure.
        let _ = self.added.send(id.clone());
        let observed = read(&directory)?.ok_or_else(|| RuntimeError::no_sandbox(id))?;
        Ok(observed.status())
    }
}

fn read(directory: &SandboxDirectory) -> Result<Option<ObservedSandbox>, RuntimeError> {
    ObservedSandbox::read(directory).map_err(unreadable)
}

fn unreadable(error: std::io::Error) -> RuntimeError {
    RuntimeError::internal("reading the runtime's files", error)
}

fn failed(error: CallError, gone: impl FnOnce() -> RuntimeError) -> RuntimeError {
    match error {
        CallError::Gone => gone(),
        CallError::Failed(error) => error,
    }
}

#[async_trait]
impl ContainerRuntime for YoukiRuntime {
    async fn status(&self) -> Result<RuntimeStatus, RuntimeError> {
        Ok(RuntimeStatus {
            name: "youki".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ready: self.0.machine.clone(),
        })
    }

    async fn run_sandbox(&self, config: &SandboxConfig) -> Result<SandboxStatus, RuntimeError> {
        self.0.ready()?;
        validate::sandbox(config)?;
        if config.namespaces.user_namespace
            && let Some(missing) = missing_for_users(&self.0.user_ranges)
        {
            return Err(RuntimeError::Unsupported(format!("a user namespace for the pod: {missing}")));
        }
        let id = sandbox_id(&config.key)?;
        self.0.make_sandbox(&id, config).await
    }

    async fn stop_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        self.0.ready()?;
        let Some((directory, observed)) = self.0.observe(id).await? else { return Ok(()) };
        if observed.helper.is_some() && self.0.call(&directory, &Request::StopSandbox).await?.is_none() {
            // The helper died on the way; looking again ends what it left.
            self.0.observe(id).await?;
        }
        Ok(())
    }

    async fn remove_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        self.0.ready()?;
        self.0.end_sandbox(id).await?;
        self.0.images.release_all(id).await
    }

    async fn list_sandboxes(&self) -> Result<Vec<SandboxStatus>, RuntimeError> {
        self.0.ready()?;
        let mut statuses = Vec::new();
        for id in self.0.layout.list().map_err(unreadable)? {
            if let Some((_, observed)) = self.0.observe(&id).await?
                && !observed.is_unfinished()
            {
                statuses.push(observed.status());
            }
        }
        statuses.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(statuses)
    }

    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: &ContainerConfig,
    ) -> Result<ContainerId, RuntimeError> {
        self.0.ready()?;
        validate::container(config)?;
        let cgroups = Cgroups::find().map_err(RuntimeError::Missing)?;
        if cgroups.is_unified() && !config.security.privileged && wants_devices(&config.security) {
            let message =
                "the capability MKNOD where only cgroups of version 2 are: libcontainer does not confine devices there";
            return Err(RuntimeError::Unsupported(message.to_owned()));
        }
        let id = container_id(sandbox, &config.key)?;
        let (directory, observed) = self.0.observe(sandbox).await?.ok_or_else(|| RuntimeError::no_sandbox(sandbox))?;
        validate::users(config, observed.record.config.namespaces.user_namespace)?;
        let abandoned = observed.is_abandoned();
        if read_container(sandbox, &directory.container(&id), abandoned).map_err(unreadable)?.is_some() {
            return Ok(id);
        }
        let apparmor = apparmor::profile(&config.security, self.0.apparmor_profile.as_deref())?;
        let seccomp = self.0.seccomp_profile(config.security.seccomp()).await?;
        let found = self.0.images.hold(&config.image, &id).await?;
        let record = ContainerRecord {
            id: id.clone(),
            config: config.clone(),
            image: found.defaults,
            image_id: found.id,
            root: found.root,
            seccomp,
            apparmor,
            created_at: self.0.env.now(),
        };
        let created = self.0.create(sandbox, &directory, record).await;
        if created.is_err() {
            self.0.images.release(&id).await?;
        }
        created.map(|()| id)
    }

    async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.0.ready()?;
        let (directory, ..) = self.0.observe_container(id).await?;
        if self.0.call(&directory, &Request::Start { id: id.clone() }).await?.is_some() {
            return Ok(());
        }
        let (.., status) = self.0.observe_container(id).await?;
        if status.state.exit_code().is_some() {
            return Ok(());
        }
        Err(RuntimeError::WrongState(format!("the sandbox {} is not ready", status.sandbox)))
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError> {
        self.0.ready()?;
        let (directory, ..) = self.0.observe_container(id).await?;
        let grace_milliseconds = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let request = Request::Stop { id: id.clone(), grace_milliseconds };
        if self.0.call(&directory, &request).await?.is_none() {
            // Without a helper, looking is what ends the container.
            self.0.observe_container(id).await?;
        }
        Ok(())
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.0.ready()?;
        self.0.end_container(id).await?;
        self.0.images.release(id).await
    }

    async fn list_containers(&self) -> Result<Vec<ContainerStatus>, RuntimeError> {
        self.0.ready()?;
        let mut statuses = Vec::new();
        for sandbox in self.0.layout.list().map_err(unreadable)? {
            let Some((directory, observed)) = self.0.observe(&sandbox).await? else { continue };
            let first = statuses.len();
            for id in directory.containers().map_err(unreadable)? {
                let container = read_container(&sandbox, &directory.container(&id), observed.is_abandoned());
                if let Some((_, status)) = container.map_err(unreadable)? {
                    statuses.push((observed.record.config.key.clone(), status));
                }
            }
            statuses[first..].sort_by(|one, other| one.1.key.cmp(&other.1.key));
        }
        statuses.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(statuses.into_iter().map(|(_, status)| status).collect())
    }

    async fn inspect_container(&self, id: &ContainerId) -> Result<ContainerStatus, RuntimeError> {
        self.0.ready()?;
        self.0.observe_container(id).await.map(|(.., status)| status)
    }

    async fn exec(&self, id: &ContainerId, options: ExecOptions) -> Result<Session, RuntimeError> {
        self.0.ready()?;
        if options.command.is_empty() || options.command.iter().any(|word| word.contains('\0')) {
            return Err(RuntimeError::Invalid("a command that cannot be executed".to_owned()));
        }
        self.0.streams(id, Request::Exec { id: id.clone(), options }, session::Kind::Exec).await
    }

    async fn attach(&self, id: &ContainerId, options: AttachOptions) -> Result<Session, RuntimeError> {
        self.0.ready()?;
        self.0.streams(id, Request::Attach { id: id.clone(), options }, session::Kind::Attach).await
    }

    async fn port_forward(&self, id: &SandboxId, port: u16) -> Result<Box<dyn Duplex>, RuntimeError> {
        self.0.ready()?;
        let (directory, _) = self.0.observe(id).await?.ok_or_else(|| RuntimeError::no_sandbox(id))?;
        let internal = |error: std::io::Error| RuntimeError::internal("connecting into a pod", error);
        match self.0.call(&directory, &Request::Connect { port }).await? {
            Some((Reply::Connected, descriptors)) => {
                let descriptor = descriptors
                    .into_iter()
                    .next()
                    .ok_or_else(|| RuntimeError::internal("connecting into a pod", "the helper sent no connection"))?;
                let stream = std::net::TcpStream::from(descriptor);
                stream.set_nonblocking(true).map_err(internal)?;
                Ok(Box::new(tokio::net::TcpStream::from_std(stream).map_err(internal)?))
            }
            Some(_) => Err(RuntimeError::internal("connecting into a pod", "the helper spoke out of turn")),
            None => Err(RuntimeError::WrongState(format!("the sandbox {id} is not ready"))),
        }
    }

    async fn logs(
        &self,
        id: &ContainerId,
        options: LogOptions,
    ) -> Result<BoxStream<'static, Result<LogLine, RuntimeError>>, RuntimeError> {
        self.0.ready()?;
        let (directory, ..) = self.0.observe_container(id).await?;
        logs::lines(directory.container(id), options)
    }

    async fn stats(&self, id: &ContainerId) -> Result<Option<ContainerStats>, RuntimeError> {
        self.0.ready()?;
        let (_, observed, _, status) = self.0.observe_container(id).await?;
        if !status.state.is_running() {
            return Ok(None);
        }
        let cgroups = Cgroups::find().map_err(RuntimeError::Missing)?;
        let usage = cgroups.usage(&format!("{}/{}", pod_cgroup(&observed.record), short_name(id)));
        Ok(usage.map(|usage| ContainerStats {
            timestamp: self.0.env.now(),
            cpu_nanoseconds: usage.cpu_nanoseconds,
            memory_working_set_bytes: usage.memory_working_set_bytes,
            pids: usage.pids,
        }))
    }

    fn events(&self) -> BoxStream<'static, RuntimeEvent> {
        events::events(self.0.layout.clone(), self.0.added.subscribe())
    }
}

#[async_trait]
impl ImageService for YoukiRuntime {
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

    async fn image_disk(&self) -> Result<Option<DiskSpace>, RuntimeError> {
        self.0.images.disk()
    }
}
