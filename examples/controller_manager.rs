//! The controllers on any Kubernetes, as `kube-controller-manager` runs them: of several such programs one works, the others
//! stand by.
//!
//! `--kubeconfig FILE` names the cluster. Without options the program takes care of a cluster of its own for a moment, with
//! two managers that reach it over HTTPS, of which the first one ends. `--help` tells the options.
#![expect(clippy::print_stdout, reason = "a program for people to look at")]

use std::{
    error::Error,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use clap::Parser;
use orchestrator::{
    Cluster, NodeSpec,
    client_kube::KubeBackend,
    controller::{
        Caches,
        leader::{LeadEnd, LeaderElection, Leadership, lead},
    },
    controllers::{Controllers, ControllersBuilder, Options as ControllerOptions, UnknownController},
    env::Env,
    k8s_openapi::api::core::v1::Pod,
    kube::{
        self,
        config::{KubeConfigOptions, Kubeconfig},
    },
    runtime_sim::{MachineConfig, SimMachine},
};
use tokio_util::sync::CancellationToken;

/// How long anything may take that is bound to happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// The controllers of Kubernetes.
#[derive(Clone, Parser)]
struct Options {
    /// The cluster to take care of.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Controllers to run: `*` is all, `name` adds one, `-name` takes one away.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "*", allow_hyphen_values = true)]
    controllers: Vec<String>,
    /// Certificates that clients in pods shall trust, published as `kube-root-ca.crt` in each namespace. By default those in
    /// the kubeconfig, if it has any.
    #[arg(long, value_name = "FILE")]
    root_ca_file: Option<PathBuf>,
    /// Addresses of pods, one range of each family, that nodes get theirs of.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    cluster_cidr: Vec<String>,
    /// Addresses of services, which nodes do not get.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    service_cluster_ip_range: Vec<String>,
    /// Work only while holding the lease.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    leader_elect: bool,
    /// The namespace of the lease.
    #[arg(long, value_name = "NAMESPACE", default_value = "kube-system")]
    leader_elect_resource_namespace: String,
    /// The name of the lease.
    #[arg(long, value_name = "NAME", default_value = "kube-controller-manager")]
    leader_elect_resource_name: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let Some(kubeconfig) = options.kubeconfig.clone() else {
        return take_turns(options).await;
    };
    let stop = CancellationToken::new();
    let manager = Manager::new("controller-manager", &kubeconfig, options).await?;
    let (signal, ended) = futures::join!(
        async {
            let signal = stop_signal().await;
            stop.cancel();
            signal
        },
        manager.run(stop.clone())
    );
    signal?;
    ended
}

/// A process of controllers. Cheap to clone.
#[derive(Clone)]
struct Manager {
    name: &'static str,
    backend: KubeBackend,
    env: Env,
    options: Options,
    controller_options: ControllerOptions,
}

impl Manager {
    async fn new(name: &'static str, kubeconfig: &Path, options: Options) -> Result<Self, Box<dyn Error>> {
        let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
        let trusted = certificates(&kubeconfig)?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let backend = KubeBackend::new(kube::Client::try_from(config)?);
        let mut controller_options = ControllerOptions::default();
        controller_options.root_certificates = match &options.root_ca_file {
            Some(file) => Some(std::fs::read_to_string(file)?),
            None => trusted,
        };
        controller_options.cluster_cidrs = options.cluster_cidr.clone();
        controller_options.service_cidrs = options.service_cluster_ip_range.clone();
        Ok(Self { name, backend, env: Env::real(), options, controller_options })
    }

    /// Works until it is told to stop, while it leads.
    async fn run(&self, stop: CancellationToken) -> Result<(), Box<dyn Error>> {
        let client = self.backend.clone().into_client();
        if !self.options.leader_elect {
            self.work(&Caches::new(&client, &self.env), &stop).await?;
            return Ok(());
        }
        let options = &self.options;
        let (namespace, name) = (&options.leader_elect_resource_namespace, &options.leader_elect_resource_name);
        let election = LeaderElection::new(namespace, name, self.name);
        // A wrong name among the controllers is found before anybody leads.
        self.controllers(&Caches::new(&client, &self.env))?;
        match lead(&client, &self.env, election, stop, |leadership| self.clone().lead(leadership)).await? {
            LeadEnd::Shutdown => Ok(()),
            end => Err(format!("{} ends: {end:?}", self.name).into()),
        }
    }

    async fn lead(self, leadership: Leadership) {
        println!("{} leads (term {})", self.name, leadership.term());
        let caches = Caches::new(leadership.client(), leadership.env());
        if let Err(error) = self.work(&caches, leadership.shutdown()).await {
            println!("{}: {error}", self.name);
        }
    }

    async fn work(&self, caches: &Caches, stop: &CancellationToken) -> Result<(), UnknownController> {
        let controllers = self.controllers(caches)?.start();
        stop.cancelled().await;
        controllers.shutdown().await;
        caches.shutdown().await;
        Ok(())
    }

    fn controllers(&self, caches: &Caches) -> Result<ControllersBuilder, UnknownController> {
        let builder = Controllers::builder(caches, Arc::new(self.backend.clone()));
        Ok(builder.controllers(&self.options.controllers)?.options(self.controller_options.clone()))
    }
}

/// The certificates that stand in the configuration itself.
fn certificates(kubeconfig: &Kubeconfig) -> Result<Option<String>, Box<dyn Error>> {
    let cluster = kubeconfig.clusters.iter().find_map(|it| it.cluster.as_ref());
    let Some(data) = cluster.and_then(|it| it.certificate_authority_data.as_ref()) else { return Ok(None) };
    Ok(Some(String::from_utf8(BASE64_STANDARD.decode(data)?)?))
}

/// A cluster without controllers, and two managers for it.
async fn take_turns(options: Options) -> Result<(), Box<dyn Error>> {
    let env = Env::real();
    let kubeconfig = std::env::temp_dir().join(format!("orchestrator-{}.kubeconfig", std::process::id()));
    let machine = SimMachine::new(&env, MachineConfig::default());
    let cluster = Cluster::builder()
        .env(&env)
        .run_controllers(false)
        .node(NodeSpec::new("node-1", Arc::new(machine.runtime())))
        .listen(([127, 0, 0, 1], 0).into())
        .kubeconfig(&kubeconfig)
        .start()
        .await?;
    let (stop_first, stop_second) = (CancellationToken::new(), CancellationToken::new());
    let first = Manager::new("manager-1", &kubeconfig, options.clone()).await?;
    let second = Manager::new("manager-2", &kubeconfig, options).await?;
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

/// What a user sees while the managers change.
async fn visit(cluster: &Cluster, stop_first: &CancellationToken) -> Result<(), Box<dyn Error>> {
    let deployment = |replicas: usize| {
        format!(
            "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: web}}, spec: {{replicas: {replicas}, \
             selector: {{matchLabels: {{app: web}}}}, template: {{metadata: {{labels: {{app: web}}}}, \
             spec: {{containers: [{{name: main, image: web}}]}}}}}}}}"
        )
    };
    cluster.apply(&deployment(2)).await?;
    pods_run(cluster, 2).await?;
    println!("manager-1 ends");
    stop_first.cancel();
    cluster.apply(&deployment(4)).await?;
    pods_run(cluster, 4).await
}

async fn pods_run(cluster: &Cluster, count: usize) -> Result<(), Box<dyn Error>> {
    let running = |pod: &Arc<Pod>| pod.status.as_ref().is_some_and(|it| it.phase.as_deref() == Some("Running"));
    let all = |pods: &[Arc<Pod>]| pods.len() == count && pods.iter().all(running);
    cluster.wait_until::<Pod>("default", PATIENCE, all).await?;
    println!("{count} pods run");
    Ok(())
}

/// Waits for Ctrl-C or SIGTERM.
async fn stop_signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    futures::future::select(Box::pin(interrupt.recv()), Box::pin(terminate.recv())).await;
    Ok(())
}
