//! The scheduler on any Kubernetes, as `kube-scheduler` runs it: of several such programs one works, the others stand by.
//!
//! `--kubeconfig FILE` names the cluster, `--config FILE` a `KubeSchedulerConfiguration`. Without options the program
//! schedules for a cluster of its own for a moment, which it reaches over HTTPS.
#![expect(clippy::print_stdout, reason = "a program for people to look at")]

use std::{
    error::Error,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Parser;
use orchestrator::{
    Cluster, NodeSpec,
    client_kube::KubeBackend,
    controller::{
        Caches,
        leader::{LeadEnd, Leadership, lead},
    },
    env::Env,
    k8s_openapi::api::core::v1::Pod,
    kube::{
        self,
        config::{KubeConfigOptions, Kubeconfig},
    },
    kube_scheduler::{Scheduling, config::Configuration},
    runtime_sim::{MachineConfig, SimMachine},
};
use tokio_util::sync::CancellationToken;

/// How long anything may take that is bound to happen.
const PATIENCE: Duration = Duration::from_secs(60);
/// Upstream's configuration with nothing said.
const DEFAULT: &str = "{apiVersion: kubescheduler.config.k8s.io/v1, kind: KubeSchedulerConfiguration}";

/// The scheduler of Kubernetes.
#[derive(Clone, Parser)]
struct Options {
    /// The cluster to schedule for. By default the one in the configuration, if it names any.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// A `KubeSchedulerConfiguration`.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Work only while holding the lease. By default as the configuration says.
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set)]
    leader_elect: Option<bool>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let text = options.config.map_or_else(|| Ok(DEFAULT.to_owned()), std::fs::read_to_string)?;
    let mut configuration = Configuration::from_yaml(&text)?;
    if options.leader_elect == Some(false) {
        configuration.leader_election = None;
    }
    let Some(kubeconfig) = options.kubeconfig.or_else(|| configuration.kubeconfig.clone().map(PathBuf::from)) else {
        return schedule_for_a_moment(configuration).await;
    };
    let stop = CancellationToken::new();
    let scheduler = Process::new("scheduler", &kubeconfig, configuration).await?;
    let (signal, ended) = futures::join!(
        async {
            let signal = stop_signal().await;
            stop.cancel();
            signal
        },
        scheduler.run(stop.clone())
    );
    signal?;
    ended
}

/// A process that schedules. Cheap to clone.
#[derive(Clone)]
struct Process {
    name: &'static str,
    backend: KubeBackend,
    env: Env,
    configuration: Arc<Configuration>,
}

impl Process {
    async fn new(name: &'static str, kubeconfig: &Path, configuration: Configuration) -> Result<Self, Box<dyn Error>> {
        let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let backend = KubeBackend::new(kube::Client::try_from(config)?);
        Ok(Self { name, backend, env: Env::real(), configuration: Arc::new(configuration) })
    }

    /// Works until it is told to stop, while it leads.
    async fn run(&self, stop: CancellationToken) -> Result<(), Box<dyn Error>> {
        let client = self.backend.clone().into_client();
        let Some(mut election) = self.configuration.leader_election.clone() else {
            self.work(&Caches::new(&client, &self.env), &self.env, &stop).await;
            return Ok(());
        };
        election.identity = self.name.to_owned();
        match lead(&client, &self.env, election, stop, |leadership| self.clone().lead(leadership)).await? {
            LeadEnd::Shutdown => Ok(()),
            end => Err(format!("{} ends: {end:?}", self.name).into()),
        }
    }

    async fn lead(self, leadership: Leadership) {
        println!("{} leads (term {})", self.name, leadership.term());
        let caches = Caches::new(leadership.client(), leadership.env());
        self.work(&caches, leadership.env(), leadership.shutdown()).await;
    }

    async fn work(&self, caches: &Caches, env: &Env, stop: &CancellationToken) {
        let scheduling = Scheduling::builder(caches, env).configuration(&self.configuration).build();
        scheduling.run(stop.clone()).await;
        caches.shutdown().await;
    }
}

/// A cluster without a scheduler, and this one for it.
async fn schedule_for_a_moment(configuration: Configuration) -> Result<(), Box<dyn Error>> {
    let env = Env::real();
    let kubeconfig = std::env::temp_dir().join(format!("orchestrator-{}.kubeconfig", std::process::id()));
    let machine = SimMachine::new(&env, MachineConfig::default());
    let cluster = Cluster::builder()
        .env(&env)
        .run_scheduler(false)
        .node(NodeSpec::new("node-1", Arc::new(machine.runtime())))
        .listen(([127, 0, 0, 1], 0).into())
        .kubeconfig(&kubeconfig)
        .start()
        .await?;
    let stop = CancellationToken::new();
    let process = Process::new("scheduler", &kubeconfig, configuration).await?;
    let visit = async {
        let outcome = visit(&cluster).await;
        stop.cancel();
        outcome
    };
    let (scheduled, visited) = futures::join!(process.run(stop.clone()), visit);
    cluster.shutdown().await;
    visited.and(scheduled)
}

/// What a user sees.
async fn visit(cluster: &Cluster) -> Result<(), Box<dyn Error>> {
    let pod = |name: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{containers: [{{name: main, image: web}}]}}}}"
        )
    };
    let bound = |pods: &[Arc<Pod>]| {
        pods.len() == 2 && pods.iter().all(|pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some()))
    };
    cluster.apply(&pod("first")).await?;
    cluster.apply(&pod("second")).await?;
    for pod in cluster.wait_until::<Pod>("default", PATIENCE, bound).await? {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        println!("{} goes to {}", pod.metadata.name.as_deref().unwrap_or_default(), node.unwrap_or_default());
    }
    Ok(())
}

/// Waits for Ctrl-C or SIGTERM.
async fn stop_signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    futures::future::select(Box::pin(interrupt.recv()), Box::pin(terminate.recv())).await;
    Ok(())
}
