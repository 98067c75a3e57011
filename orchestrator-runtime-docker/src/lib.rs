//! `ContainerRuntime` on the Docker Engine: every pod is a small container that holds namespaces, and those that join it.
//!
//! All that has to outlast the agent is on the engine: names say what a container is (so that a call that is made again finds
//! what the first one made), labels say whose it is and what was asked for. A new [`DockerRuntime`] with the same cluster and
//! node finds everything; one with another cluster or node finds nothing of it.
//!
//! ```no_run
//! # async fn example() -> Result<(), orchestrator_core::runtime::RuntimeError> {
//! use orchestrator_runtime_docker::{DockerRuntime, PackedImage};
//!
//! let shell = PackedImage::new().executable("/bin/sh").executable("/bin/sleep").args(["/bin/sh"]);
//! let runtime = DockerRuntime::builder("/var/lib/example/node-1")
//!     .cluster("example")
//!     .node("node-1")
//!     .image("shell", shell)
//!     .build(orchestrator_core::env::Env::real())?;
//! # Ok(())
//! # }
//! ```
//!
//! What the engine cannot do is refused by name ([`RuntimeError::Unsupported`]): limits of a whole pod, kernel parameters of
//! the machine, profiles and limits that its kernel does not know. Some things differ from other runtimes and cannot be
//! refused: the containers of a pod have one host name but not one UTS namespace; a signal is told from the exit code alone; a
//! command whose session is dropped ends only if the engine is on this machine. An engine that must not make processes harder
//! to kill than itself gives scores below zero as zero.
//!
//! # Podman
//!
//! Podman's service answers at the same API, and what it is stands in its version; tests run on Podman 4.3. What is other there:
//!
//! - Refused by name: a seccomp profile of one's own. Refused by the start instead of before: a limit of memory that is too
//!   small. A mount of what is not there is refused only if the service is on this machine; Podman itself would make a directory.
//! - A command that is not there begins a session, which ends with code 126 or 127 and says why on standard error.
//! - Who is killed for want of memory has ended with code 137 and reason `Error`, if Podman does not know why.
//! - Lines of logs have their time to the second, so `since` counts from the beginning of one. Text without a line break is a part
//!   of a line, however short. Between the parts of a terminal's line there is a time, which belongs to nobody. When a log is
//!   too long its older half is not set aside, but gone.
//! - A privileged container gets the capabilities that the service has, and begins although some are missing.
//! - The containers of a pod do share one UTS namespace. Containers outlive the service, and a start that failed is remembered by
//!   a container that is never to run, because Podman forgets it.
//!
//! Start at [`DockerRuntime`]; `specification` says what a container is made of, `status` what the engine's answers mean.
//!
//! [`RuntimeError::Unsupported`]: orchestrator_core::runtime::RuntimeError::Unsupported

mod config;
mod containers;
mod engine;
mod error;
mod features;
mod http;
mod hub;
mod images;
mod limits;
mod log_lines;
mod logs;
mod names;
mod network;
mod observe;
mod oom_score;
mod pod_files;
mod port_forward;
mod pump;
mod runtime;
mod sandboxes;
mod session;
mod specification;
mod stats;
mod status;
mod turns;
mod validate;

pub use orchestrator_images::{ImageSource, PackedImage};

pub use config::{DockerBuilder, PodNetwork};
pub use error::EngineError;
pub use runtime::DockerRuntime;
