//! The node agent: pod workers, volumes, status, logs and exec.
//!
//! Start at [`NodeAgent::builder`]: it runs the pods that are bound to one node, on a
//! [`ContainerRuntime`](orchestrator_core::runtime::ContainerRuntime). Many agents of one process share one
//! [`PodSource`], so that a thousand nodes cost one watch.
//!
//! Inside, each pod has a worker (`pod::worker`) that observes the runtime, decides purely (`pod::decide`), acts
//! (`pod::operations`) and shows the result (`pod::status`). Nothing that matters is kept in memory: an agent that is
//! killed and started again finds its containers and carries on.

mod admission;
mod agent;
mod config;
mod connector;
mod container;
mod first;
mod http;
mod images;
mod limits;
pub mod machine;
mod node;
mod pod;
mod pods;
mod registration;
mod source;
mod volumes;

pub use agent::{NodeAgent, NodeAgentBuilder};
pub use config::{ImageCollection, NodeConfig};
pub use source::PodSource;
pub use volumes::{
    DirectoryVolumes, EmptyDir, File, Payload, SimulatedVolumes, SubPath, VolumeError, VolumeHost, VolumeName,
};
