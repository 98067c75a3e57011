//! What runs beside the API server: controllers, the scheduler, the nodes.

use std::collections::BTreeMap;

use futures::future::join_all;
use orchestrator_controllers::Controllers;
use orchestrator_core::{
    controller::Caches,
    env::{Env, TaskHandle},
    scheduler::Scheduler,
};
use orchestrator_node::{NodeAgent, PodSource};
use orchestrator_scheduler::Scheduling;
use tokio_util::sync::CancellationToken;

/// The parts of a cluster that hold clients.
#[derive(Debug)]
pub(super) struct Parts {
    caches: Caches,
    pub(super) controllers: Option<Controllers>,
    scheduler: Option<(CancellationToken, TaskHandle)>,
    /// What all nodes of this process take their pods from.
    pods: Option<PodSource>,
    pub(super) agents: BTreeMap<String, NodeAgent>,
}

impl Parts {
    pub(super) fn new(caches: &Caches) -> Self {
        Self { caches: caches.clone(), controllers: None, scheduler: None, pods: None, agents: BTreeMap::new() }
    }

    pub(super) fn start_scheduler(&mut self, caches: &Caches, env: &Env, own: Option<Box<dyn Scheduler>>) {
        let mut scheduling = Scheduling::builder(caches, env);
        if let Some(own) = own {
            scheduling = scheduling.scheduler(own);
        }
        let stop = CancellationToken::new();
        let task = env.spawn("scheduler", scheduling.build().run(stop.clone()));
        self.scheduler = Some((stop, task));
    }

    /// What nodes take their pods from; begins to follow them with the first node.
    pub(super) fn pods(&mut self) -> PodSource {
        self.pods.get_or_insert_with(|| PodSource::new(&self.caches)).clone()
    }

    /// Ends everything: first who makes pods, then who runs them.
    pub(super) async fn end(self, stop_pods: bool) {
        if let Some(controllers) = self.controllers {
            controllers.shutdown().await;
        }
        if let Some((stop, task)) = self.scheduler {
            stop.cancel();
            task.join().await;
        }
        let agents = self.agents.into_values();
        if stop_pods {
            join_all(agents.map(NodeAgent::shutdown)).await;
        } else {
            join_all(agents.map(NodeAgent::detach)).await;
        }
        self.caches.shutdown().await;
    }
}
