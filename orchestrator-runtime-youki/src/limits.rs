//! Every bound of this crate, by name and with its unit.

use std::time::Duration;

/// Longest request or reply between agent and helper, in bytes.
pub(crate) const FRAME_BYTES: usize = 4 * 1024 * 1024;
/// What a helper holds back for one slow reader before it hangs up, in bytes.
pub(crate) const CONNECTION_BACKLOG_BYTES: usize = 256 * 1024;
/// Connections that a helper serves at once.
pub(crate) const HELPER_CONNECTIONS: usize = 512;
/// File descriptors that travel with one frame.
pub(crate) const FRAME_DESCRIPTORS: usize = 4;
/// Longest part of a log line, in bytes; longer lines are split into parts marked `P`, as upstream does.
pub(crate) const LOG_PART_BYTES: usize = 16 * 1024;
/// Size at which a container's log is set aside and started anew, in bytes. One older part is kept.
pub(crate) const LOG_FILE_BYTES: u64 = 10 * 1024 * 1024;
/// Output of a container that an attached client may be behind before it loses the connection, in bytes.
pub(crate) const ATTACH_BACKLOG_BYTES: usize = 256 * 1024;
/// How long the end of a container waits for the rest of its output.
pub(crate) const DRAIN_TIME: Duration = Duration::from_secs(5);
/// How long a cgroup may take to let go of its last process.
pub(crate) const CGROUP_REMOVAL_TIME: Duration = Duration::from_secs(10);
/// How long the start of a sandbox may go on that someone else has begun.
pub(crate) const UNFINISHED_TIME: Duration = Duration::from_secs(10);
/// Time between looks at it.
pub(crate) const UNFINISHED_PAUSE: Duration = Duration::from_millis(10);
/// How long a connection into a pod may take.
pub(crate) const CONNECT_TIME: Duration = Duration::from_secs(10);
/// Default size of the memory that holds what a container writes to its root file system, in bytes.
pub(crate) const WRITABLE_LAYER_BYTES: u64 = 1024 * 1024 * 1024;
/// Size of `/tmp` and the like in a container, in bytes each.
pub(crate) const SCRATCH_BYTES: u64 = 256 * 1024 * 1024;
/// Size of `/dev/shm`, in bytes.
pub(crate) const SHARED_MEMORY_BYTES: u64 = 64 * 1024 * 1024;
/// Events that a slow receiver may be behind before it is told to list again.
pub(crate) const EVENT_BACKLOG: usize = 1024;
/// Longest pod UID, in characters.
pub(crate) const POD_UID_CHARACTERS: usize = 63;
/// Longest container name, in characters.
pub(crate) const CONTAINER_NAME_CHARACTERS: usize = 63;
/// Times that the start of a helper is tried again when a leaving helper takes the shared cgroup away.
pub(crate) const CGROUP_JOIN_ATTEMPTS: usize = 100;
/// Longest file of users or groups in an image, in bytes.
pub(crate) const ACCOUNTS_BYTES: u64 = 1024 * 1024;
/// Users and groups of a pod that has a user namespace: as many as the kubelet gives.
pub(crate) const USER_RANGE_IDS: u32 = 65_536;
/// Ranges of users that pods get unless the embedder says otherwise.
pub(crate) const USER_RANGES: u16 = 1024;
/// Longest seccomp profile, in bytes.
pub(crate) const SECCOMP_PROFILE_BYTES: u64 = 1024 * 1024;
