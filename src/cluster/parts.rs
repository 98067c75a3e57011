//! What runs beside the API server: controllers, the scheduler, the nodes.

use std::collections::BTreeMap;

use futures::future::{BoxFuture, join_all};
use orchestrator_controllers::{Controllers, ControllersBuilder, UnknownController};
use orchestrator_core::{
    client::Client,
    controller::{
        Caches,
        leader::{InvalidElection, LeadEnd, LeaderElection, Leadership, lead},
    },
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
    /// Those who make pods or bind them, beside the controllers of a cluster that has no elections.
    workers: Vec<Worker>,
    /// What all nodes of this process take their pods from.
    pods: Option<PodSource>,
    pub(super) agents: BTreeMap<String, NodeAgent>,
}

/// A task that ends when it is told to.
#[derive(Debug)]
struct Worker {
    stop: CancellationToken,
    task: TaskHandle,
}

impl Parts {
    pub(super) fn new(caches: &Caches) -> Self {
        Self { caches: caches.clone(), controllers: None, workers: Vec::new(), pods: None, agents: BTreeMap::new() }
    }

    pub(super) fn start_scheduler(&mut self, caches: &Caches, env: &Env, own: Option<Box<dyn Scheduler>>) {
        let mut scheduling = Scheduling::builder(caches, env);
        if let Some(own) = own {
            scheduling = scheduling.scheduler(own);
        }
        let stop = CancellationToken::new();
        let task = env.spawn("scheduler", scheduling.build().run(stop.clone()));
        self.workers.push(Worker { stop, task });
    }

    /// Works whenever this process holds the lease of an election, until the cluster ends.
    pub(super) fn stand(
        &mut self,
        client: &Client,
        env: &Env,
        election: LeaderElection,
        work: impl Fn(Leadership) -> BoxFuture<'static, ()> + Send + 'static,
    ) -> Result<(), InvalidElection> {
        election.check()?;
        let stop = CancellationToken::new();
        let (client, work_env, told) = (client.clone(), env.clone(), stop.clone());
        let task = env.spawn("election", async move {
            let lease = election.name.clone();
            match lead(&client, &work_env, election, told, work).await {
                Ok(LeadEnd::Shutdown) => {}
                ended => tracing::error!(lease, ?ended, "this process stands no more"),
            }
        });
        self.workers.push(Worker { stop, task });
        Ok(())
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
        self.workers.iter().for_each(|worker| worker.stop.cancel());
        for worker in self.workers {
            worker.task.join().await;
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

/// Runs controllers for one term.
pub(super) async fn lead_controllers(
    leadership: Leadership,
    controllers: impl FnOnce(&Caches) -> Result<ControllersBuilder, UnknownController>,
) {
    let caches = Caches::new(leadership.client(), leadership.env());
    let controllers = match controllers(&caches) {
        Ok(builder) => builder.start(),
        Err(error) => return tracing::error!(%error, "no controllers run"),
    };
    leadership.shutdown().cancelled().await;
    controllers.shutdown().await;
    caches.shutdown().await;
}

/// Schedules for one term.
pub(super) async fn lead_scheduling(leadership: Leadership) {
    let caches = Caches::new(leadership.client(), leadership.env());
    Scheduling::builder(&caches, leadership.env()).build().run(leadership.shutdown().clone()).await;
    caches.shutdown().await;
}
