//! How a simulated cluster is put together.

use orchestrator_controllers::Options;
use orchestrator_core::{env::Stuck, status::ApiError, store::StoreError};
use orchestrator_node::NodeConfig;

use crate::{cluster::SimCluster, image::Image};

/// What a simulated cluster is to be made of.
#[derive(Clone, Debug)]
pub struct SimClusterBuilder {
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    pub(crate) nodes_per_process: usize,
    pub(crate) node: NodeConfig,
    pub(crate) options: Options,
    pub(crate) control_plane: bool,
    pub(crate) controller_managers: usize,
    pub(crate) delays: bool,
    pub(crate) beside_tokio: bool,
}

/// A simulated cluster could not be started.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Every task waits for another.
    #[error(transparent)]
    Stuck(#[from] Stuck),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Tokio's runtime cannot be made.
    #[error("tokio's runtime cannot be made: {0}")]
    Tokio(#[from] std::io::Error),
    /// The API server did not start.
    #[error("the API server cannot start: {0}")]
    Api(#[from] ApiError),
}

impl SimClusterBuilder {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            nodes: 3,
            nodes_per_process: 10,
            node: NodeConfig::default(),
            options: Options::default(),
            control_plane: true,
            controller_managers: 1,
            delays: true,
            beside_tokio: false,
        }
    }

    /// How many nodes it has: `node-0` and so on.
    #[must_use]
    pub fn nodes(mut self, nodes: usize) -> Self {
        self.nodes = nodes;
        self
    }

    /// How many nodes share one process, and with it one link to the API server and one watch for each kind.
    #[must_use]
    pub fn nodes_per_process(mut self, nodes: usize) -> Self {
        self.nodes_per_process = nodes.max(1);
        self
    }

    /// What every node is like. Addresses and the pods' network are the node's own.
    #[must_use]
    pub fn node_config(mut self, config: NodeConfig) -> Self {
        self.node = config;
        self
    }

    /// How the controllers work.
    #[must_use]
    pub fn controller_options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Whether controllers and scheduler run from the start; they do by default.
    #[must_use]
    pub fn control_plane(mut self, runs: bool) -> Self {
        self.control_plane = runs;
        self
    }

    /// How many processes there are that could run the controllers. One runs them; several stand for a lease, and the one
    /// runs them that leads.
    #[must_use]
    pub fn controller_managers(mut self, processes: usize) -> Self {
        self.controller_managers = processes.max(1);
        self
    }

    /// Whether messages to and from the API server take time; they do by default.
    #[must_use]
    pub fn delays(mut self, delays: bool) -> Self {
        self.delays = delays;
        self
    }

    /// Lets processes use tokio as well: its timers follow virtual time, and its tasks run on the world's thread. Such a world
    /// cannot be used within asynchronous code, where tokio does not let another runtime begin.
    #[must_use]
    pub fn beside_tokio(mut self) -> Self {
        self.beside_tokio = true;
        self
    }

    /// Starts everything; nothing has happened yet but that the API server is up.
    pub fn build(self) -> Result<SimCluster, BuildError> {
        SimCluster::start(self, &Image::empty())
    }
}
