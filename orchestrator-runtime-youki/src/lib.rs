//! `ContainerRuntime` on youki's libcontainer: real containers without a daemon.
//!
//! Every pod has one small single-threaded helper process, started by `exec`, never by forking the embedder. It holds
//! the pod's namespaces, makes and reaps its containers, copies their output into log files and writes exit codes to
//! disk; it outlives the agent, and a new [`YoukiRuntime`] on the same directory finds everything again.
//!
//! ```no_run
//! # async fn example() -> Result<(), orchestrator_core::runtime::RuntimeError> {
//! use orchestrator_runtime_youki::{ImageConfig, YoukiRuntime};
//!
//! // First thing in `main`, when the helper is the embedder's own program (the default):
//! orchestrator_runtime_youki::init();
//!
//! let runtime = YoukiRuntime::builder("/var/lib/example/node-1")
//!     .cluster("example")
//!     .image("busybox", ImageConfig::command(["sh"]))
//!     .build(orchestrator_core::env::Env::real())?;
//! # Ok(())
//! # }
//! ```
//!
//! What a container sees in this version is a private, writable copy of the machine's own root file system (the
//! image `host`, or a name given to [`YoukiBuilder::image`]); the machine's files never change.

mod address;
mod apparmor;
mod cgroups;
mod client;
mod config;
mod descriptors;
mod events;
mod files;
mod helper;
mod images;
mod launch;
mod layout;
mod limits;
mod log_format;
mod logs;
mod machine;
mod protocol;
mod records;
mod runtime;
mod session;
mod signals;
mod sys;
mod validate;

pub use address::{InvalidNetwork, Ipv4Network};
pub use config::{Helper, ImageConfig, ImageMount, YoukiBuilder};
pub use helper::{helper_main, init};
pub use orchestrator_images::{ImageSource, PackedImage, Registries};
pub use runtime::YoukiRuntime;
