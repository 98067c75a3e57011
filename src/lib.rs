//! Kubernetes as Rust crates: a cluster in your own process, with the real API.
//!
//! Start at [`Cluster::builder`]. Everything else is re-exported here from the crate that it lives in.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use orchestrator::{Cluster, client::Api, k8s_openapi::api::core::v1::Namespace};
//!
//! let cluster = Cluster::builder().start().await?;
//! let namespaces: Api<Namespace> = Api::all(&cluster.client());
//! assert!(namespaces.get("kube-system").await.is_ok());
//! cluster.shutdown().await;
//! # Ok(())
//! # }
//! ```

mod cluster;

pub use cluster::{ApplyError, Cluster, ClusterBuilder, ClusterKeys, KeysError, NodeSpec, StartError, WaitError};
pub use k8s_openapi;
pub use kube;
pub use orchestrator_apiserver as apiserver;
pub use orchestrator_client_kube as client_kube;
pub use orchestrator_controllers as controllers;
pub use orchestrator_core as core;
pub use orchestrator_core::{client, controller, env, object, runtime, scheduler, store};
pub use orchestrator_images as images;
pub use orchestrator_node as node;
#[cfg(feature = "docker")]
pub use orchestrator_runtime_docker as runtime_docker;
pub use orchestrator_runtime_sim as runtime_sim;
pub use orchestrator_runtime_youki as runtime_youki;
pub use orchestrator_scheduler as kube_scheduler;
#[cfg(feature = "etcd")]
pub use orchestrator_store_etcd as store_etcd;
pub use orchestrator_store_mem as store_mem;
#[cfg(feature = "redb")]
pub use orchestrator_store_redb as store_redb;
#[cfg(feature = "sled")]
pub use orchestrator_store_sled as store_sled;
