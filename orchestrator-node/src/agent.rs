//! The agent of one node, as an embedder holds it.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use orchestrator_core::{
    client::Client,
    controller::Caches,
    env::{Env, TaskEnd, TaskHandle, Watched},
    events::EventRecorder,
    node_connector::NodeConnector,
    runtime::ContainerRuntime,
};

use crate::{
    config::NodeConfig,
    connector::Connector,
    images,
    limits::API_RETRY,
    node::Node,
    pod::status::NodeFacts,
    pods::{Pods, Roster},
    registration,
    source::PodSource,
    volumes::{SimulatedVolumes, VolumeHost},
};

/// Who manages the fields that an agent writes; upstream's name.
const FIELD_MANAGER: &str = "kubelet";

/// A running node agent.
///
/// Dropping it is the same as killing it: containers keep running, and the next agent of this node finds them.
pub struct NodeAgent {
    node: Arc<Node>,
    roster: Arc<Roster>,
    shutdown: Watched<Option<i64>>,
    pods: TaskHandle,
    registration: TaskHandle,
    images: TaskHandle,
}

impl fmt::Debug for NodeAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeAgent").field("name", &self.node.name).finish_non_exhaustive()
    }
}

/// Everything a node agent is made of.
#[derive(Debug)]
pub struct NodeAgentBuilder {
    client: Client,
    env: Env,
    runtime: Arc<dyn ContainerRuntime>,
    name: String,
    config: NodeConfig,
    volumes: Arc<dyn VolumeHost>,
    pods: Option<PodSource>,
    runtime_name: Option<String>,
}

impl NodeAgentBuilder {
    /// What the node is like.
    #[must_use]
    pub fn config(mut self, config: NodeConfig) -> Self {
        self.config = config;
        self
    }

    /// Where volumes are. Without it there are no files, which only simulated containers can do without.
    #[must_use]
    pub fn volumes(mut self, volumes: Arc<dyn VolumeHost>) -> Self {
        self.volumes = volumes;
        self
    }

    /// Takes pods from a source that other nodes of this process use as well.
    #[must_use]
    pub fn pods(mut self, pods: PodSource) -> Self {
        self.pods = Some(pods);
        self
    }

    /// The runtime's name in container IDs; its own when not given.
    #[must_use]
    pub fn runtime_name(mut self, name: impl Into<String>) -> Self {
        self.runtime_name = Some(name.into());
        self
    }

    /// Starts the agent.
    #[must_use = "dropping the agent kills it"]
    pub fn start(self) -> NodeAgent {
        let pods = self.pods.unwrap_or_else(|| PodSource::new(&Caches::new(&self.client, &self.env)));
        let facts = OnceLock::new();
        if let Some(runtime) = self.runtime_name {
            let _ = facts.set(NodeFacts { runtime, addresses: self.config.addresses.clone() });
        }
        let node = Arc::new(Node {
            events: EventRecorder::new(&self.client, &self.env, "kubelet", &self.name),
            name: self.name,
            client: self.client,
            services: pods.caches().cache(),
            caches: pods.caches().clone(),
            runtime: self.runtime,
            volumes: self.volumes,
            allocatable: self.config.allocatable(),
            config: self.config,
            facts,
            env: self.env,
        });
        let roster = Arc::new(Roster::default());
        let shutdown = Watched::new(None);
        let stop = shutdown.watcher();
        let work = (node.clone(), pods, roster.clone());
        let pods = restarting(&node.env, "node pods", move || {
            let (node, pods, roster) = work.clone();
            let stop = stop.clone();
            async move {
                roster.stop().await;
                Pods::new(node, pods, roster, stop).run().await;
            }
        });
        let registered = node.clone();
        let registration = restarting(&node.env, "node registration", move || registration::run(registered.clone()));
        let collected = node.clone();
        let images = restarting(&node.env, "node images", move || images::run(collected.clone()));
        NodeAgent { node, roster, shutdown, pods, registration, images }
    }
}

/// Runs a component, and runs it anew when it panicked.
fn restarting<F, W>(env: &Env, name: &'static str, make: F) -> TaskHandle
where
    F: Fn() -> W + Send + 'static,
    W: Future<Output = ()> + Send + 'static,
{
    let inner = env.clone();
    env.spawn(name, async move {
        loop {
            let task = inner.spawn(name, make());
            match task.join().await {
                TaskEnd::Panicked(message) => {
                    tracing::error!(task = name, message, "a component of the node panicked and is started anew");
                    inner.sleep(API_RETRY).await;
                }
                _ => return,
            }
        }
    })
}

impl NodeAgent {
    /// An agent for the node of this name, with the defaults of [`NodeConfig`].
    pub fn builder(
        client: &Client,
        env: &Env,
        runtime: Arc<dyn ContainerRuntime>,
        name: impl Into<String>,
    ) -> NodeAgentBuilder {
        NodeAgentBuilder {
            client: client.with_field_manager(FIELD_MANAGER),
            env: env.clone(),
            runtime,
            name: name.into(),
            config: NodeConfig::default(),
            volumes: Arc::new(SimulatedVolumes),
            pods: None,
            runtime_name: None,
        }
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        &self.node.name
    }

    /// Reaches the node's containers, for logs, exec, attach and port-forward.
    pub fn connector(&self) -> Arc<dyn NodeConnector> {
        Arc::new(Connector::new(&self.node, &self.roster))
    }

    /// Ends all containers, removes them with their volumes, and stops. Nothing is written about it to the API, so
    /// that the pods run again when the node comes back.
    pub async fn shutdown(self) {
        let grace = i64::try_from(self.node.config.shutdown_grace.as_secs()).unwrap_or(i64::MAX);
        self.shutdown.set(Some(grace));
        self.pods.join().await;
        self.registration.stop().await;
        self.images.stop().await;
        self.node.events.shutdown().await;
    }

    /// Stops, and leaves containers running. The next agent of this node finds them.
    pub async fn detach(self) {
        self.pods.stop().await;
        self.registration.stop().await;
        self.images.stop().await;
        self.roster.stop().await;
        self.node.events.shutdown().await;
    }
}
