//! The `ContainerRuntime` seam: the verbs of CRI, the Container Runtime Interface of Kubernetes.
//!
//! Every call is idempotent and observation is complete: an agent may die between any two calls, come back, list
//! what exists and carry on. Objects are identified by what the caller asked for ([`SandboxConfig::key`],
//! [`ContainerConfig::key`]), so repeating a create returns the object that the first call made.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/architecture/cri/>.

mod confinement;
mod credentials;
mod image_reference;

use std::{collections::BTreeMap, fmt, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{future::BoxFuture, stream::BoxStream};
use jiff::Timestamp;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
};

pub use confinement::AppArmorProfile;
pub use credentials::RegistryCredentials;
pub use image_reference::{ImageReference, ImageVersion, InvalidImageReference};

/// Runs pods: sandboxes and the containers in them.
///
/// Implementations outlive nothing: state that must survive the agent (exit codes, logs) is kept where a new
/// instance of the same runtime finds it again.
#[async_trait]
pub trait ContainerRuntime: ImageService {
    /// What this runtime is, and whether it can work on this machine.
    async fn status(&self) -> Result<RuntimeStatus, RuntimeError>;

    /// Makes the pod's sandbox (its namespaces, network and cgroup) and returns it ready.
    /// Repeating the call with the same key returns the existing sandbox, if it is still ready.
    async fn run_sandbox(&self, config: &SandboxConfig) -> Result<SandboxStatus, RuntimeError>;

    /// Stops every process in the sandbox at once and releases its network. A sandbox that is gone is a success.
    async fn stop_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError>;

    /// Removes the sandbox with all its containers and their logs. A sandbox that is gone is a success.
    async fn remove_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError>;

    /// All sandboxes that this runtime holds, ready or not, in order of their keys.
    async fn list_sandboxes(&self) -> Result<Vec<SandboxStatus>, RuntimeError>;

    /// One sandbox as it is now.
    async fn inspect_sandbox(&self, id: &SandboxId) -> Result<SandboxStatus, RuntimeError> {
        let mut sandboxes = self.list_sandboxes().await?.into_iter();
        sandboxes.find(|sandbox| sandbox.id == *id).ok_or_else(|| RuntimeError::no_sandbox(id))
    }

    /// Creates a container in a ready sandbox. Repeating the call with the same key returns the existing one.
    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: &ContainerConfig,
    ) -> Result<ContainerId, RuntimeError>;

    /// Starts a created container. Starting one that runs or has exited changes nothing.
    async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError>;

    /// Sends the stop signal, waits up to `grace` for the end, then kills. Returns once the container has exited; one
    /// that has exited before is a success, one that is gone is [`RuntimeError::NotFound`].
    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError>;

    /// Removes a container and its log, killing it first if it runs. A container that is gone is a success.
    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError>;

    /// All containers that this runtime holds, in order of their keys.
    async fn list_containers(&self) -> Result<Vec<ContainerStatus>, RuntimeError>;

    /// One container as it is now.
    async fn inspect_container(&self, id: &ContainerId) -> Result<ContainerStatus, RuntimeError>;

    /// Runs a command inside a running container.
    async fn exec(&self, id: &ContainerId, options: ExecOptions) -> Result<Session, RuntimeError>;

    /// Joins the streams of the container's own process.
    async fn attach(&self, id: &ContainerId, options: AttachOptions) -> Result<Session, RuntimeError>;

    /// Connects to a TCP port inside the sandbox's network.
    async fn port_forward(&self, id: &SandboxId, port: u16) -> Result<Box<dyn Duplex>, RuntimeError>;

    /// The container's log, line by line, oldest first.
    async fn logs(
        &self,
        id: &ContainerId,
        options: LogOptions,
    ) -> Result<BoxStream<'static, Result<LogLine, RuntimeError>>, RuntimeError>;

    /// What the container uses at this moment; `None` when it does not run.
    async fn stats(&self, id: &ContainerId) -> Result<Option<ContainerStats>, RuntimeError>;

    /// Changes of sandboxes and containers from now on. A receiver that lags is told so and lists again.
    fn events(&self) -> BoxStream<'static, RuntimeEvent>;
}

/// Brings images to the machine.
#[async_trait]
pub trait ImageService: Send + Sync + fmt::Debug {
    /// Makes the image available and returns it. Known images return at once.
    async fn pull_image(&self, request: &PullRequest) -> Result<Image, RuntimeError>;

    /// The image under this name, if it is here.
    async fn image_status(&self, name: &str) -> Result<Option<Image>, RuntimeError>;

    /// All images that are here, in order of their names.
    async fn list_images(&self) -> Result<Vec<Image>, RuntimeError>;

    /// Removes an image. One that is gone is a success.
    async fn remove_image(&self, name: &str) -> Result<(), RuntimeError>;

    /// The file system that images are on; `None` from a runtime that does not know it, whose images are then never removed to
    /// free space.
    async fn image_disk(&self) -> Result<Option<DiskSpace>, RuntimeError> {
        Ok(None)
    }
}

/// Space of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpace {
    /// All of it, in bytes.
    pub capacity_bytes: u64,
    /// What can still be written, in bytes.
    pub available_bytes: u64,
}

/// Names a sandbox within its runtime.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct SandboxId(pub String);

/// Names a container within its runtime.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct ContainerId(pub String);

impl fmt::Display for SandboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What makes a sandbox the one it is: the pod, and how often its sandbox was made anew.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct SandboxKey {
    /// The pod's UID.
    pub pod_uid: String,
    /// 0 for the pod's first sandbox.
    pub attempt: u32,
}

/// What makes a container the one it is: its name in the pod, and how often it was restarted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct ContainerKey {
    /// The container's name in the pod.
    pub name: String,
    /// 0 for the first run.
    pub attempt: u32,
}

/// Labels or annotations of a sandbox or a container. A configuration, the runtime's record of it and every status that tells of
/// it share one map.
pub type Labels = Arc<BTreeMap<String, String>>;

/// The sandbox of a pod, as asked for.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SandboxConfig {
    /// Identity: repeated calls with the same key mean the same sandbox.
    pub key: SandboxKey,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The host name that containers see.
    pub hostname: String,
    /// Name resolution inside the pod.
    pub dns: DnsConfig,
    /// Which namespaces the pod shares with the machine or among its containers.
    pub namespaces: NamespaceOptions,
    /// Limits of the whole pod's cgroup.
    pub resources: Resources,
    /// Kernel parameters, by their dotted names.
    pub sysctls: BTreeMap<String, String>,
    /// Labels of the pod, returned by [`ContainerRuntime::list_sandboxes`].
    pub labels: Labels,
    /// Annotations, returned by [`ContainerRuntime::list_sandboxes`].
    pub annotations: Labels,
}

/// `resolv.conf` in parts; all empty means the machine's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DnsConfig {
    /// Addresses of name servers.
    pub servers: Vec<String>,
    /// Search domains.
    pub searches: Vec<String>,
    /// Resolver options, such as `ndots:5`.
    pub options: Vec<String>,
}

/// Which namespaces are the machine's, and which the pod's containers share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct NamespaceOptions {
    /// The machine's network.
    pub host_network: bool,
    /// The machine's processes.
    pub host_pid: bool,
    /// The machine's IPC.
    pub host_ipc: bool,
    /// One process namespace for all containers of the pod.
    pub share_process_namespace: bool,
    /// A user namespace of the pod's own: who is root in its containers is nobody on the machine. Files of images and volumes
    /// belong to the same numbers inside as outside.
    #[serde(default)]
    pub user_namespace: bool,
}

/// Limits of a cgroup; `None` means unlimited.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Resources {
    /// Relative CPU weight, in cgroup v1 shares (2 to 262,144).
    pub cpu_shares: Option<u64>,
    /// CPU time per period, in microseconds.
    pub cpu_quota_microseconds: Option<i64>,
    /// Length of the CPU period, in microseconds.
    pub cpu_period_microseconds: Option<u64>,
    /// Memory, in bytes.
    pub memory_limit_bytes: Option<i64>,
    /// Number of processes and threads.
    pub pids_limit: Option<i64>,
    /// `oom_score_adj` of the processes.
    pub oom_score_adjust: Option<i32>,
}

/// A sandbox as it is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SandboxStatus {
    /// Its name in the runtime.
    pub id: SandboxId,
    /// Identity as asked for.
    pub key: SandboxKey,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// Whether containers can be made in it.
    pub state: SandboxState,
    /// When it was made.
    pub created_at: Timestamp,
    /// The pod's addresses, the first one primary; empty on the machine's network.
    pub addresses: Vec<IpAddr>,
    /// Labels given at creation.
    pub labels: Labels,
    /// Annotations given at creation.
    pub annotations: Labels,
}

/// Whether a sandbox can hold running containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum SandboxState {
    /// It is whole.
    Ready,
    /// It was stopped, or a part of it died.
    NotReady,
}

/// A container, as asked for.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ContainerConfig {
    /// Identity within the sandbox: repeated calls with the same key mean the same container.
    pub key: ContainerKey,
    /// The image's name, as pulled.
    pub image: String,
    /// Replaces the image's entry point, unless empty.
    pub command: Vec<String>,
    /// Replaces the image's arguments, unless empty.
    pub args: Vec<String>,
    /// Replaces the image's working directory.
    pub working_directory: Option<String>,
    /// Environment, in order, added to the image's.
    pub environment: Vec<(String, String)>,
    /// What is mounted, in order.
    pub mounts: Vec<Mount>,
    /// Limits of the container's own cgroup.
    pub resources: Resources,
    /// User, capabilities and confinement.
    pub security: SecurityContext,
    /// A terminal instead of pipes.
    pub tty: bool,
    /// Standard input stays open for attach.
    pub stdin: bool,
    /// Standard input ends with the first attach.
    pub stdin_once: bool,
    /// The signal that asks it to stop; the image's, or SIGTERM, when `None`.
    pub stop_signal: Option<String>,
    /// Labels, returned by [`ContainerRuntime::list_containers`].
    pub labels: Labels,
    /// Annotations, returned by [`ContainerRuntime::list_containers`].
    pub annotations: Labels,
}

/// A path of the machine inside a container.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Mount {
    /// On the machine.
    pub host_path: PathBuf,
    /// In the container; absolute.
    pub container_path: PathBuf,
    /// Whether writes are refused.
    pub read_only: bool,
    /// How mounts made later travel.
    pub propagation: MountPropagation,
}

/// How mounts made after the start travel between machine and container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum MountPropagation {
    /// Not at all.
    #[default]
    Private,
    /// From the machine into the container.
    HostToContainer,
    /// Both ways.
    Bidirectional,
}

/// User, capabilities and confinement of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SecurityContext {
    /// Numeric user; the image's when `None`.
    pub run_as_user: Option<i64>,
    /// Numeric primary group; the image's when `None`.
    pub run_as_group: Option<i64>,
    /// Further groups.
    pub supplemental_groups: Vec<i64>,
    /// Whether the image's own files add groups.
    pub supplemental_groups_policy: SupplementalGroupsPolicy,
    /// All capabilities and devices.
    pub privileged: bool,
    /// Capabilities added to the default set, without `CAP_`; `ALL` means all.
    pub add_capabilities: Vec<String>,
    /// Capabilities dropped from the default set, without `CAP_`; `ALL` means all.
    pub drop_capabilities: Vec<String>,
    /// The root file system refuses writes.
    pub read_only_root: bool,
    /// `no_new_privs`.
    pub no_new_privileges: bool,
    /// Which system calls are refused; a profile is refused by runtimes that cannot install it.
    pub seccomp_profile: SeccompProfile,
    /// An AppArmor profile, refused where it cannot be had; the runtime's own choice when `None`.
    pub apparmor_profile: Option<AppArmorProfile>,
}

/// Whether an image's `/etc/group` adds groups to a container's processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum SupplementalGroupsPolicy {
    /// It adds those that list the user.
    #[default]
    Merge,
    /// It adds none.
    Strict,
}

/// Which system calls a container's processes may make.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum SeccompProfile {
    /// All of them.
    #[default]
    Unconfined,
    /// Those that the runtime lets containers make.
    RuntimeDefault,
    /// What a file of the machine says.
    Localhost(PathBuf),
}

/// A container as it is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ContainerStatus {
    /// Its name in the runtime.
    pub id: ContainerId,
    /// Where it lives.
    pub sandbox: SandboxId,
    /// Identity as asked for.
    pub key: ContainerKey,
    /// The image's name, as asked for.
    pub image: String,
    /// The image's identity.
    pub image_id: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// What it does now.
    pub state: ContainerState,
    /// Labels given at creation.
    pub labels: Labels,
    /// Annotations given at creation.
    pub annotations: Labels,
}

/// What a container does.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum ContainerState {
    /// Made, not started.
    Created,
    /// Its process lives.
    Running {
        /// When it started.
        started_at: Timestamp,
    },
    /// Its process has ended.
    Exited {
        /// When it started; `None` if it never did.
        started_at: Option<Timestamp>,
        /// When it ended.
        finished_at: Timestamp,
        /// Exit code, or 128 plus the signal.
        exit_code: i32,
        /// The signal that ended it.
        signal: Option<i32>,
        /// Why: `Completed`, `Error`, `OOMKilled`, `StartError`.
        reason: String,
        /// Details for people.
        message: String,
    },
    /// The runtime lost track of it.
    Unknown,
}

impl ContainerState {
    /// Whether its process lives.
    pub fn is_running(&self) -> bool {
        matches!(self, Self::Running { .. })
    }

    /// The exit code, once it has ended.
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Exited { exit_code, .. } => Some(*exit_code),
            _ => None,
        }
    }
}

/// A change in the runtime; receivers look at the object, the event only says which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuntimeEvent {
    /// This sandbox changed or went away.
    Sandbox {
        /// Which sandbox.
        id: SandboxId,
        /// The pod's UID.
        pod_uid: String,
    },
    /// A container of this sandbox changed or went away.
    Container {
        /// Which container.
        id: ContainerId,
        /// The pod's UID.
        pod_uid: String,
    },
    /// Events were lost; list again.
    Lagged,
}

/// How to run a command in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ExecOptions {
    /// Program and arguments, not passed through a shell.
    pub command: Vec<String>,
    /// Whether standard input is wanted.
    pub stdin: bool,
    /// Whether standard output is wanted.
    pub stdout: bool,
    /// Whether standard error is wanted; never with a terminal.
    pub stderr: bool,
    /// A terminal instead of pipes.
    pub tty: bool,
}

/// Which streams of a container's own process to join.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AttachOptions {
    /// Whether standard input is wanted.
    pub stdin: bool,
    /// Whether standard output is wanted.
    pub stdout: bool,
    /// Whether standard error is wanted; never with a terminal.
    pub stderr: bool,
    /// Whether the container has a terminal.
    pub tty: bool,
}

/// The streams of a command that runs in a container. Dropping it ends an exec's command.
pub struct Session {
    /// Where to write standard input; shutting it down is end of file.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Standard output.
    pub stdout: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Standard error.
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Takes changes of the terminal's size.
    pub resize: Option<mpsc::Sender<TerminalSize>>,
    /// Resolves to the exit code, once the command has ended.
    pub exit: BoxFuture<'static, Result<i32, RuntimeError>>,
}

impl Session {
    /// A session that is over, without any output.
    pub fn ended(exit: Result<i32, RuntimeError>) -> Self {
        Self { stdin: None, stdout: None, stderr: None, resize: None, exit: Box::pin(std::future::ready(exit)) }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("stdin", &self.stdin.is_some())
            .field("stdout", &self.stdout.is_some())
            .field("stderr", &self.stderr.is_some())
            .finish_non_exhaustive()
    }
}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// A connection in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Which part of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LogOptions {
    /// Goes on until the container has ended.
    pub follow: bool,
    /// Only this many lines, the last ones.
    pub tail_lines: Option<usize>,
    /// Only lines from this time on.
    pub since: Option<Timestamp>,
}

/// One line of a container's log, as written: a long line comes in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// When it was written.
    pub timestamp: Timestamp,
    /// Where it was written.
    pub stream: LogStream,
    /// The text, without the line break.
    pub content: Bytes,
    /// The line goes on in the next entry of the same stream.
    pub partial: bool,
}

/// Which stream a log line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What to pull.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PullRequest {
    /// The image's name as the pod gives it.
    pub image: String,
    /// Credentials, if the pod or its service account has some.
    pub credentials: Vec<RegistryCredentials>,
}

/// An image on this machine.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Image {
    /// The name it was pulled under.
    pub name: String,
    /// Its identity, such as a digest.
    pub id: String,
    /// Space on disk, in bytes.
    pub size_bytes: u64,
    /// The user it runs as by default, if it says one.
    pub user: Option<ImageUser>,
    /// It stays, however little space is left.
    pub pinned: bool,
}

/// The user an image runs as by default.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum ImageUser {
    /// By number.
    Id(i64),
    /// By name, which only the image's own files can resolve.
    Name(String),
}

impl ImageUser {
    /// Reads what an image's configuration says: `user` or `user:group`, of names or numbers. Nothing is no user.
    pub fn parse(text: &str) -> Option<Self> {
        let user = text.split(':').next().filter(|user| !user.is_empty())?;
        Some(user.parse().map_or_else(|_| Self::Name(user.to_owned()), Self::Id))
    }
}

/// What a container uses at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ContainerStats {
    /// When it was measured.
    pub timestamp: Timestamp,
    /// CPU time used since the start, in nanoseconds.
    pub cpu_nanoseconds: u64,
    /// Memory that cannot be reclaimed, in bytes.
    pub memory_working_set_bytes: u64,
    /// Number of processes and threads.
    pub pids: u64,
}

/// What the runtime is, and whether it works here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeStatus {
    /// Its name, such as `youki`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Whether containers can run; `Err` says what is missing, in words.
    pub ready: Result<(), String>,
}

/// Why a call to a runtime failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// There is no such sandbox, container or image.
    #[error("{kind} {id} not found")]
    NotFound {
        /// `sandbox`, `container` or `image`.
        kind: &'static str,
        /// Its name.
        id: String,
    },
    /// The object exists, but not in a state that allows the call.
    #[error("{0}")]
    WrongState(String),
    /// The configuration asks for what this runtime does not do. It is refused, never ignored.
    #[error("not supported by this runtime: {0}")]
    Unsupported(String),
    /// The configuration makes no sense.
    #[error("invalid configuration: {0}")]
    Invalid(String),
    /// The image cannot be had.
    #[error("{0}")]
    ImagePull(String),
    /// The command could not be started in the container.
    #[error("{0}")]
    StartFailed(String),
    /// The machine lacks what this runtime needs.
    #[error("the machine lacks: {0}")]
    Missing(String),
    /// The runtime failed on its own account.
    #[error("{context}: {source}")]
    Internal {
        /// What was being done.
        context: String,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl RuntimeError {
    /// Wraps an error of the runtime's own with what was being done.
    pub fn internal(context: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Internal { context: context.into(), source: source.into() }
    }

    /// A container that is not there.
    pub fn no_container(id: &ContainerId) -> Self {
        Self::NotFound { kind: "container", id: id.0.clone() }
    }

    /// A sandbox that is not there.
    pub fn no_sandbox(id: &SandboxId) -> Self {
        Self::NotFound { kind: "sandbox", id: id.0.clone() }
    }
}
