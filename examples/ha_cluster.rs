//! Three control planes on one etcd cluster: each serves, one works, and another takes over when it dies.
//!
//! The program starts three members of etcd (Debian's package `etcd-server`), or takes those that `--etcd URL,URL` names. In the
//! middle of a rollout it kills the plane that leads and one member; the rollout goes on. Run it with `--features etcd`.
#![expect(clippy::print_stdout, reason = "a program for people to look at")]

use std::{
    error::Error,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use clap::Parser;
use orchestrator::{
    Cluster, ClusterBuilder, ClusterKeys, NodeSpec,
    core::node_connector::NodeDirectory,
    env::Env,
    k8s_openapi::api::{coordination::v1::Lease, core::v1::Pod},
    runtime_sim::{MachineConfig, SimMachine},
    store_etcd::{EtcdConfig, EtcdStore},
};

type Failure = Box<dyn Error>;

const MEMBERS: usize = 3;
const REPLICAS: usize = 6;
const PATIENCE: Duration = Duration::from_secs(90);
/// The lease's time, how long its holder works without a renewal, and how often it renews: shorter than upstream's.
const ELECTION: [Duration; 3] = [Duration::from_secs(6), Duration::from_secs(4), Duration::from_secs(1)];

/// Three control planes over etcd.
#[derive(Parser)]
struct Options {
    /// Members of an etcd cluster, instead of three of the program's own.
    #[arg(long, value_name = "URLS", value_delimiter = ',')]
    etcd: Vec<String>,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let options = Options::parse();
    let directory = Directory(std::env::temp_dir().join(format!("ha-cluster-{}", std::process::id())));
    std::fs::create_dir_all(&directory.0)?;
    let mut members = if options.etcd.is_empty() { Member::start_all(&directory.0)? } else { Vec::new() };
    let endpoints = if members.is_empty() { options.etcd } else { members.iter().map(|it| it.url.clone()).collect() };
    let common = Common {
        env: Env::real(),
        endpoints,
        keys: ClusterKeys::open(directory.0.join("pki"))?,
        nodes: NodeDirectory::default(),
        directory: directory.0.clone(),
    };
    let first = common.plane("plane-1").await?.start().await?;
    leader(&first, "plane-1").await?;
    let second = common.plane("plane-2").await?.start().await?;
    let machine = SimMachine::new(&common.env, MachineConfig::default());
    let node = NodeSpec::new("node-1", Arc::new(machine.runtime()));
    let third = common.plane("plane-3").await?.node(node).start().await?;

    second.apply(&deployment("web:1")).await?;
    rolled_out(&third, "web:1").await?;
    first.apply(&deployment("web:2")).await?;
    let begun = |pods: &[Arc<Pod>]| pods.iter().any(|pod| runs(pod, "web:2"));
    third.wait_until::<Pod>("default", PATIENCE, begun).await?;
    println!("plane-1 dies in the middle of a rollout, and a member of etcd with it");
    drop(first);
    drop(members.pop());
    rolled_out(&second, "web:2").await?;
    leader(&second, "plane-").await?;
    for plane in [&second, &third] {
        show(plane)?;
    }
    second.shutdown().await;
    third.shutdown().await;
    Ok(())
}

/// What the planes have in common.
struct Common {
    env: Env,
    endpoints: Vec<String>,
    keys: ClusterKeys,
    nodes: NodeDirectory,
    directory: PathBuf,
}

impl Common {
    /// A whole control plane with a connection of its own.
    async fn plane(&self, name: &str) -> Result<ClusterBuilder, Failure> {
        let endpoints = self.endpoints.clone();
        let config = EtcdConfig { endpoints, prefix: "orchestrator".to_owned(), ..EtcdConfig::default() };
        // Members that were just started elect a leader first.
        let connect = async {
            loop {
                match EtcdStore::connect(&self.env, config.clone()).await {
                    Ok(store) => return store,
                    Err(error) => println!("etcd is not there yet: {error}"),
                }
                self.env.sleep(Duration::from_millis(500)).await;
            }
        };
        let store = self.env.timeout(PATIENCE, connect).await.map_err(|_| "etcd does not answer")?;
        let [lease, renew, retry] = ELECTION;
        Ok(Cluster::builder()
            .env(&self.env)
            .store(Arc::new(store))
            .keys(&self.keys)
            .leader_election_with(name, lease, renew, retry)
            .node_directory(&self.nodes)
            .listen((Ipv4Addr::LOCALHOST, 0).into())
            .kubeconfig(self.directory.join(format!("{name}.kubeconfig"))))
    }
}

fn deployment(image: &str) -> String {
    format!(
        "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: web}}, spec: {{replicas: {REPLICAS}, \
         selector: {{matchLabels: {{app: web}}}}, template: {{metadata: {{labels: {{app: web}}}}, \
         spec: {{containers: [{{name: main, image: '{image}'}}]}}}}}}}}"
    )
}

fn runs(pod: &Pod, image: &str) -> bool {
    let is_of = |pod: &Pod| pod.spec.as_ref()?.containers.first()?.image.as_deref().map(|found| found == image);
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    is_of(pod) == Some(true) && phase == Some("Running")
}

/// Waits until there are as many pods as there have to be, all of this image.
async fn rolled_out(plane: &Cluster, image: &str) -> Result<(), Failure> {
    let all = |pods: &[Arc<Pod>]| pods.len() == REPLICAS && pods.iter().all(|pod| runs(pod, image));
    plane.wait_until::<Pod>("default", PATIENCE, all).await?;
    println!("{REPLICAS} pods run {image}");
    Ok(())
}

/// Waits until somebody of this name leads the controllers.
async fn leader(plane: &Cluster, name: &str) -> Result<(), Failure> {
    let holder = |lease: &Lease| {
        let is_meant = lease.metadata.name.as_deref() == Some("kube-controller-manager");
        lease.spec.as_ref().filter(|_| is_meant)?.holder_identity.clone().filter(|holder| holder.starts_with(name))
    };
    let led = |leases: &[Arc<Lease>]| leases.iter().any(|lease| holder(lease).is_some());
    let leases = plane.wait_until::<Lease>("kube-system", PATIENCE, led).await?;
    println!("the controllers are led by {}", leases.iter().find_map(|lease| holder(lease)).unwrap_or_default());
    Ok(())
}

/// What `kubectl` sees, where there is one.
fn show(plane: &Cluster) -> Result<(), Failure> {
    let Some(kubeconfig) = plane.kubeconfig_path() else { return Ok(()) };
    let mut command = Command::new("kubectl");
    command.arg("--kubeconfig").arg(kubeconfig).args(["get", "deployments,pods", "--request-timeout=30s"]);
    match command.output() {
        Ok(output) if output.status.success() => {
            println!("{} sees:\n{}", kubeconfig.display(), String::from_utf8_lossy(&output.stdout));
            Ok(())
        }
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into()),
        Err(_) => {
            println!("there is no kubectl to ask");
            Ok(())
        }
    }
}

/// A directory that goes with the program.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A member of etcd, which ends when it is dropped.
struct Member {
    url: String,
    process: Child,
}

impl Member {
    /// Starts a cluster of members that know each other.
    fn start_all(directory: &Path) -> Result<Vec<Self>, Failure> {
        // Held until all are drawn, so that they differ.
        let free: Vec<_> =
            (0..2 * MEMBERS).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<_, _>>()?;
        let urls = free.iter().map(|it| Ok(format!("http://{}", it.local_addr()?)));
        let urls = urls.collect::<Result<Vec<_>, std::io::Error>>()?;
        drop(free);
        let (clients, peers) = urls.split_at(MEMBERS);
        let names: Vec<String> = peers.iter().enumerate().map(|(index, peer)| format!("etcd-{index}={peer}")).collect();
        let start = |(index, (client, peer)): (usize, (&String, &String))| {
            let name = format!("etcd-{index}");
            let mut command = Command::new("etcd");
            command.args(["--name", &name, "--data-dir"]).arg(directory.join(&name));
            command.args(["--listen-client-urls", client, "--advertise-client-urls", client]);
            command.args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]);
            command.args(["--initial-cluster", &names.join(",")]);
            let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
            let process = process.map_err(|error| format!("cannot start etcd (Debian's etcd-server): {error}"))?;
            Ok(Self { url: client.clone(), process })
        };
        clients.iter().zip(peers).enumerate().map(start).collect()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone afterwards.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
