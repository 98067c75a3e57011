//! The scheduler on any Kubernetes, as `kube-scheduler` runs it: of several such programs one works, the others stand by.
//!
//! `--kubeconfig FILE` names the cluster, `--config FILE` a `KubeSchedulerConfiguration`. Without options the program
//! schedules for a cluster of its own for a moment, with two schedulers that reach it over HTTPS, of which the first one
//! ends.
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
        return take_turns(configuration).await;
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

/// A cluster without a scheduler, and two schedulers for it.
async fn take_turns(configuration: Configuration) -> Result<(), Box<dyn Error>> {
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
    let (stop_first, stop_second) = (CancellationToken::new(), CancellationToken::new());
    let first = Process::new("scheduler-1", &kubeconfig, configuration.clone()).await?;
    let second = Process::new("scheduler-2", &kubeconfig, configuration).await?;
    let walk = async {
        let outcome = visit(&cluster, &stop_first).await;
        stop_first.cancel();
        stop_second.cancel();
        outcome
    };
    // The second stands when the first one leads, so that it is told which is which.
    let stand_by = async {
        env.sleep(Duration::from_secs(1)).await;
        second.run(stop_second.clone()).await
    };
    let (first, second, walked) = futures::join!(first.run(stop_first.clone()), stand_by, walk);
    cluster.shutdown().await;
    walked.and(first).and(second)
}

/// What a user sees while the schedulers change.
async fn visit(cluster: &Cluster, stop_first: &CancellationToken) -> Result<(), Box<dyn Error>> {
    let deployment = |replicas: usize| {
        format!(
            "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: web}}, spec: {{replicas: {replicas}, \
             selector: {{matchLabels: {{app: web}}}}, template: {{metadata: {{labels: {{app: web}}}}, \
             spec: {{containers: [{{name: main, image: web}}]}}}}}}}}"
        )
    };
    cluster.apply(&deployment(2)).await?;
    pods_are_bound(cluster, 2).await?;
    println!("scheduler-1 ends");
    stop_first.cancel();
    cluster.apply(&deployment(4)).await?;
    pods_are_bound(cluster, 4).await
}

async fn pods_are_bound(cluster: &Cluster, count: usize) -> Result<(), Box<dyn Error>> {
    let bound = |pod: &Arc<Pod>| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    let all = |pods: &[Arc<Pod>]| pods.len() == count && pods.iter().all(bound);
    cluster.wait_until::<Pod>("default", PATIENCE, all).await?;
    println!("{count} pods have nodes");
    Ok(())
}

/// Waits for Ctrl-C or SIGTERM.
async fn stop_signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    futures::future::select(Box::pin(interrupt.recv()), Box::pin(terminate.recv())).await;
    Ok(())
}
