//! A cluster as a value: [`Cluster`], made by [`ClusterBuilder`].

mod access;
mod apply;
mod builder;
mod keys;
mod parts;
mod wait;

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use futures::future::BoxFuture;
use orchestrator_apiserver::{
    ApiServer,
    http::{Endpoint, HttpService},
};
use orchestrator_core::{
    client::{Client, UserInfo},
    env::Env,
    node_connector::NodeDirectory,
    store::Store,
};
use tokio_util::sync::DropGuard;

pub use apply::ApplyError;
pub use builder::{ClusterBuilder, NodeSpec, StartError};
pub use keys::{ClusterKeys, KeysError};
pub use wait::WaitError;

use access::Access;
use parts::Parts;

/// A running cluster. Dropping it ends everything at once, as if the process had been killed.
#[derive(Debug)]
pub struct Cluster {
    env: Env,
    store: Arc<dyn Store>,
    server: ApiServer,
    access: Access,
    endpoint: Option<Endpoint>,
    service: HttpService,
    /// Ends what clients have opened through the service when the cluster is dropped.
    _service_guard: DropGuard,
    directory: NodeDirectory,
    parts: Parts,
}

impl Cluster {
    /// A cluster with the embedded defaults: a store in memory, all controllers, the scheduler, no nodes, no socket.
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder::default()
    }

    /// A client in this process, as administrator.
    pub fn client(&self) -> Client {
        self.server.client()
    }

    /// A kube-rs client in this process, as administrator: no socket, no port. It works until the cluster ends.
    pub fn kube_client(&self) -> kube::Client {
        kube::Client::new(self.service.clone(), "default")
    }

    /// The API server itself.
    pub fn server(&self) -> &ApiServer {
        &self.server
    }

    /// The store itself, to look at.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Where time, chance and tasks come from.
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// Where the API is served, if it is.
    pub fn address(&self) -> Option<SocketAddr> {
        self.endpoint.as_ref().map(Endpoint::address)
    }

    /// A configuration for `kubectl`; `None` when the API is not served on a socket.
    pub fn kubeconfig(&self) -> Option<&str> {
        self.access.kubeconfig()
    }

    /// Where the configuration for `kubectl` was written.
    pub fn kubeconfig_path(&self) -> Option<&PathBuf> {
        self.access.kubeconfig_path()
    }

    /// Ends the cluster: all pods are stopped and removed, every task is joined, every file is gone.
    pub async fn shutdown(self) {
        self.end(true).await;
    }

    /// Ends the cluster, but leaves the containers running for the next one with the same state.
    pub async fn detach(self) {
        self.end(false).await;
    }

    /// Adds a node, or starts one again that was killed: its agent finds the containers that it left. A node of the
    /// same name that still runs is detached first.
    pub async fn add_node(&mut self, node: NodeSpec) {
        let name = node.name().to_owned();
        self.kill_node(&name).await;
        let agent = node.start(&self.server.client(), &self.env, self.parts.pods());
        self.directory.insert(&name, agent.connector());
        self.parts.agents.insert(name, agent);
    }

    /// Takes a node out of the cluster as if its machine had gone: its agent ends, its containers stay as they are, and
    /// the cluster finds out by itself. `false` when there is no such node.
    pub async fn kill_node(&mut self, name: &str) -> bool {
        self.directory.remove(name);
        match self.parts.agents.remove(name) {
            Some(agent) => {
                agent.detach().await;
                true
            }
            None => false,
        }
    }

    /// Boxed, as the start.
    fn end(self, stop_pods: bool) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            self.server.drain();
            if let Err(error) = self.server.withdraw().await {
                tracing::warn!(%error, "other servers will find out by themselves that this one ended");
            }
            self.parts.end(stop_pods).await;
            self.server.close();
            self.service.shutdown().await;
            if let Some(endpoint) = self.endpoint {
                endpoint.shutdown().await;
            }
            self.access.remove_files();
        })
    }
}

/// The administrator, as certificates and in-process clients name him.
fn administrator() -> UserInfo {
    UserInfo::admin()
}
