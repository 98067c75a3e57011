//! What a process under test has to live with: [`Process`].

use std::{
    fmt,
    sync::{Arc, Mutex, OnceLock},
};

use futures::{FutureExt, future::BoxFuture};
use orchestrator_controllers::{Controllers, ControllersBuilder, Options, UnknownController};
use orchestrator_core::{
    client::{Client, ResourceDiscovery},
    controller::{Caches, Controller, ControllerMetrics, Reconciler, WorkQueues},
    env::Env,
};
use orchestrator_runtime_sim::{MachineConfig, SimMachine};
use tokio_util::sync::CancellationToken;

use crate::{http::KubeService, link::Seat, lock::lock};

/// What controllers publish as the certificate of the cluster's authority. Nobody checks it.
pub(crate) const ROOT_CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nc2ltdWxhdGVk\n-----END CERTIFICATE-----\n";

/// How a process reaches the server, and its environment.
#[derive(Clone)]
pub struct Process {
    client: Client,
    discovery: Arc<dyn ResourceDiscovery>,
    seat: Arc<Seat>,
    env: Env,
    lives: Lives,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").field("client", &self.client).finish_non_exhaustive()
    }
}

impl Process {
    pub(crate) fn new(
        client: Client,
        discovery: Arc<dyn ResourceDiscovery>,
        seat: &Arc<Seat>,
        env: &Env,
        lives: &Lives,
    ) -> Self {
        Self { client, discovery, seat: seat.clone(), env: env.clone(), lives: lives.clone() }
    }

    /// The way to the server. In an exploration, what is written through it is counted, and some of it goes wrong.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The same way for programs on kube-rs: HTTP without a socket. What is asked for through it goes through [`Self::client`];
    /// discovery, documents and streams into pods lead straight to the server.
    ///
    /// # Panics
    /// The world does not run beside tokio, whose tasks a `kube::Client` is made of:
    /// see [`Explorer::beside_tokio`](crate::explore::Explorer::beside_tokio) and
    /// [`TestClusterBuilder::beside_tokio`](crate::TestClusterBuilder::beside_tokio).
    pub fn kube_client(&self) -> kube::Client {
        kube::Client::new(KubeService::new(&self.seat, &self.client), "default")
    }

    /// Time, chance and tasks. Nothing else that is not given is the same in two runs of one seed.
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// A simulated machine, the same in all lives of the process: what a node agent has its containers on. They run on while the
    /// process is dead or stands still.
    pub fn machine(&self) -> &SimMachine {
        let make = || SimMachine::new(&self.lives.world, MachineConfig::default());
        self.lives.machine.get_or_init(make)
    }

    /// What kinds the server has. Asking goes over the link as well, and is not counted.
    pub fn discovery(&self) -> Arc<dyn ResourceDiscovery> {
        self.discovery.clone()
    }

    /// Caches over the client, as a process has one set of. What the controllers on them do can be asked for later.
    pub fn caches(&self) -> Caches {
        let caches = Caches::new(&self.client, &self.env);
        lock(&self.lives.queues).push(caches.work_queues().clone());
        caches
    }
}

/// What all lives of a process share: where to find what its controllers did, and a machine. Clones are the same.
#[derive(Clone)]
pub(crate) struct Lives {
    world: Env,
    queues: Arc<Mutex<Vec<WorkQueues>>>,
    machine: Arc<OnceLock<SimMachine>>,
}

impl fmt::Debug for Lives {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lives").field("machine", &self.machine).finish_non_exhaustive()
    }
}

impl Lives {
    pub(crate) fn new(world: &Env) -> Self {
        Self { world: world.clone(), queues: Arc::default(), machine: Arc::default() }
    }

    /// The controllers of all lives, the first one first.
    pub(crate) fn controllers(&self) -> Vec<Arc<ControllerMetrics>> {
        lock(&self.queues).iter().flat_map(WorkQueues::controllers).collect()
    }
}

/// Begins a life of a process. It is killed by being dropped.
pub(crate) type Begin = Arc<dyn Fn(Process) -> BoxFuture<'static, ()> + Send + Sync>;

/// The beginning that a function makes.
pub(crate) fn begin<F>(begin: impl Fn(Process) -> F + Send + Sync + 'static) -> Begin
where
    F: Future<Output = ()> + Send + 'static,
{
    Arc::new(move |process| begin(process).boxed())
}

/// The beginning of a controller that looks at its own kind only.
pub(crate) fn begin_reconciler<R: Reconciler>(
    name: &'static str,
    make: impl Fn() -> R + Send + Sync + 'static,
) -> Begin {
    begin(move |process| {
        let reconciler = make();
        let caches = process.caches();
        async move {
            let controller = Controller::new(name, &caches).reconciles::<R::Object>();
            controller.run(reconciler, CancellationToken::new()).await;
        }
    })
}

/// The beginning of some of Kubernetes' own controllers.
pub(crate) fn begin_controllers(names: &[&'static str]) -> Result<Begin, UnknownController> {
    let known = |name: &str| name == "*" || Controllers::names().any(|known| known == name);
    if let Some(name) = names.iter().find(|name| !known(name.trim_start_matches('-'))) {
        return Err(UnknownController((*name).to_owned()));
    }
    let names = names.to_vec();
    Ok(begin(move |process| {
        let mut options = Options::default();
        options.root_certificates = Some(ROOT_CERTIFICATE.to_owned());
        let builder = Controllers::builder(&process.caches(), process.discovery()).options(options);
        let controllers = builder.controllers(&names);
        async move {
            // That the names are known was looked at already.
            let _running = controllers.map(ControllersBuilder::start);
            std::future::pending().await
        }
    }))
}
