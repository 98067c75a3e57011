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
