//! How a cluster for tests is put together.

use orchestrator_scheduler::Scheduling;
use tokio_util::sync::CancellationToken;

use super::{TestCluster, TestError};
use crate::{SimCluster, process, requests};

/// What a cluster for tests is made of: an API server, and what is asked for besides.
#[derive(Clone, Debug, Default)]
#[must_use = "nothing is there until it is built"]
pub struct TestClusterBuilder {
    seed: u64,
    nodes: usize,
    controllers: Vec<&'static str>,
    scheduler: bool,
    beside_tokio: bool,
}

impl TestClusterBuilder {
    /// The seed of all chance: delays, names, order. Zero unless said otherwise.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// How many simulated nodes run pods: `node-0` and so on. None unless said otherwise.
    pub fn nodes(mut self, nodes: usize) -> Self {
        self.nodes = nodes;
        self
    }

    /// Kubernetes' own controllers, by their names in upstream's `--controllers`, each as a process of its own of that name;
    /// `*` are all that are on by default, together in the process `controllers`. None unless said otherwise.
    pub fn controllers(mut self, names: &[&'static str]) -> Self {
        self.controllers.extend(names);
        self
    }

    /// Everything that Kubernetes is made of: all controllers that are on by default, and the scheduler.
    pub fn whole(self) -> Self {
        self.controllers(&["*"]).scheduler()
    }

    /// The scheduler, as the process `scheduler`.
    pub fn scheduler(mut self) -> Self {
        self.scheduler = true;
        self
    }

    /// Lets processes use tokio as well, as programs on kube-rs do: its timers follow the cluster's clock, and its tasks run on the
    /// cluster's thread. Such a cluster cannot be used within asynchronous code, where tokio does not let another runtime begin.
    pub fn beside_tokio(mut self) -> Self {
        self.beside_tokio = true;
        self
    }

    /// Starts all of it and waits until it has settled.
    ///
    /// # Errors
    /// There is no controller of a name, or the cluster does not start.
    pub fn build(self) -> Result<TestCluster, TestError> {
        let cluster = SimCluster::builder(self.seed).nodes(self.nodes).control_plane(false);
        let cluster = if self.beside_tokio { cluster.beside_tokio() } else { cluster }.build()?;
        let cluster = TestCluster::around(cluster)?;
        // As in any cluster that has been there for a moment; pods are refused without it.
        cluster.write(requests::default_account())?;
        for name in self.controllers {
            cluster.enter(if name == "*" { "controllers" } else { name }, process::begin_controllers(&[name])?)?;
        }
        if self.scheduler {
            cluster.start("scheduler", |process| async move {
                let scheduling = Scheduling::builder(&process.caches(), process.env()).build();
                scheduling.run(CancellationToken::new()).await;
            })?;
        }
        cluster.settle()?;
        Ok(cluster)
    }
}
