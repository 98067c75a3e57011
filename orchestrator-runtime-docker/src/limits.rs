//! Every bound of this crate, by name and with its unit.

use std::time::Duration;

/// How long one call to the engine may take unless the embedder says otherwise: the kubelet's `runtimeRequestTimeout`.
pub(crate) const CALL_TIME: Duration = Duration::from_secs(120);
/// How long a pull may take without any progress.
pub(crate) const IMAGE_STALL_TIME: Duration = Duration::from_secs(60);
/// How long the loading of an image may take without a word of the engine.
pub(crate) const IMAGE_LOAD_TIME: Duration = Duration::from_secs(600);
/// Times that an image is loaded while somebody removes layers of it.
pub(crate) const LOAD_ATTEMPTS: usize = 4;
/// How long a killed container may take to end.
pub(crate) const KILL_TIME: Duration = Duration::from_secs(60);
/// Times that the cluster's network is looked for, and that a sandbox is made on it.
pub(crate) const NETWORK_ATTEMPTS: usize = 4;
/// Time between looks for a network that another process is making.
pub(crate) const NETWORK_PAUSE: Duration = Duration::from_millis(500);
/// Times that the containers of a sandbox are listed while it is removed.
pub(crate) const REMOVAL_ROUNDS: usize = 16;
/// Time between looks at a container while its events are awaited.
pub(crate) const LOOK_PAUSE: Duration = Duration::from_secs(2);
/// Time between the first looks at a command that begins.
pub(crate) const EXEC_PAUSE_MIN: Duration = Duration::from_millis(2);
/// Time between the last looks at a command that begins.
pub(crate) const EXEC_PAUSE_MAX: Duration = Duration::from_millis(100);
/// How long a connection into a pod may take.
pub(crate) const CONNECT_TIME: Duration = Duration::from_secs(10);
/// First pause before the engine is tried again by whoever listens to it.
pub(crate) const RECONNECT_PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest such pause.
pub(crate) const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long a log that is followed waits for an engine that is gone.
pub(crate) const LOG_RECONNECT_TIME: Duration = Duration::from_secs(60);
/// Events that a slow receiver may be behind before it is told to list again.
pub(crate) const EVENT_BACKLOG: usize = 1024;
/// Containers that are inspected at once.
pub(crate) const INSPECTIONS: usize = 8;
/// Output of a command that its reader may be behind, in bytes.
pub(crate) const SESSION_BUFFER_BYTES: usize = 64 * 1024;
/// Longest answer of an engine that refuses to stream, in bytes.
pub(crate) const REFUSAL_BYTES: usize = 64 * 1024;
/// Longest answer of an engine that tells of containers, in bytes.
pub(crate) const ANSWER_BYTES: usize = 256 * 1024 * 1024;
/// Times that images are listed while some of them go.
pub(crate) const IMAGE_LISTS: usize = 16;
/// Longest explanation of a command that did not begin, in bytes.
pub(crate) const EXPLANATION_BYTES: usize = 16 * 1024;
/// Size at which the engine sets a container's log aside, in bytes. One older part is kept.
pub(crate) const LOG_FILE_BYTES: u64 = 10 * 1024 * 1024;
/// Longest part of a log line: where the engine cuts longer ones, in bytes.
pub(crate) const LOG_PART_BYTES: usize = 16 * 1024;
/// How long the engine may have a name before it has the container, because a call was given up that it still answers.
pub(crate) const NAME_TIME: Duration = Duration::from_secs(10);
/// Time between looks at it.
pub(crate) const NAME_PAUSE: Duration = Duration::from_millis(20);
/// Longest pod UID and container name, in characters.
pub(crate) const NAME_CHARACTERS: usize = 63;
/// Longest name of a cluster, in characters.
pub(crate) const CLUSTER_CHARACTERS: usize = 63;
/// Longest name of a node, in characters.
pub(crate) const NODE_CHARACTERS: usize = 253;
/// Longest seccomp profile, in bytes.
pub(crate) const SECCOMP_PROFILE_BYTES: u64 = 1024 * 1024;
/// What is sent to the engine at once while an image is loaded, in bytes.
pub(crate) const UPLOAD_CHUNK_BYTES: usize = 64 * 1024;
/// Such pieces that wait to be sent.
pub(crate) const UPLOAD_CHUNKS: usize = 8;
