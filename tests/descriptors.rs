//! A cluster that has ended holds no file of the process open, and no thread. A test alone in its process: it counts them.

use std::{fs, net::Ipv4Addr, sync::Arc, time::Duration};

use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use orchestrator::{
    Cluster, NodeSpec,
    client::Api,
    client_kube::KubeBackend,
    env::Env,
    k8s_openapi::api::core::v1::{Node, Pod},
    kube::api::{ListParams, WatchParams},
    runtime_sim::{MachineConfig, SimMachine},
};

const CLUSTERS: usize = 10;
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn clusters_that_ended_hold_nothing_of_the_process() {
    // What the process opens once and keeps, such as a source of chance, comes with the first cluster.
    live_and_end(1);
    let before = (open_files(), threads());
    live_and_end(CLUSTERS);
    // Sockets of clients are closed by their own tasks, which end with the runtime.
    assert_eq!((open_files(), threads()), before);
}

/// So many clusters at once, each with a client through HTTPS that watches when the end comes.
fn live_and_end(clusters: usize) {
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    tokio.block_on(async {
        let env = Env::real();
        let mut running = Vec::new();
        for _ in 0..clusters {
            running.push(one(&env).await);
        }
        for (cluster, watch) in running {
            cluster.shutdown().await;
            drop(watch);
        }
    });
}

async fn one(env: &Env) -> (Cluster, impl Sized + use<>) {
    let machine = SimMachine::new(env, MachineConfig::default());
    let node = NodeSpec::new("node-1", Arc::new(machine.runtime()));
    let cluster = Cluster::builder().env(env).node(node).listen((Ipv4Addr::LOCALHOST, 0).into()).start().await.unwrap();
    cluster.wait_until("", PATIENCE, |nodes: &[Arc<Node>]| nodes.len() == 1).await.unwrap();
    let kubeconfig = Kubeconfig::from_yaml(cluster.kubeconfig().unwrap()).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    let client = KubeBackend::new(kube::Client::try_from(config).unwrap()).into_client();
    let pods: Api<Pod> = Api::all(&client);
    let version = pods.list(&ListParams::default()).await.unwrap().resource_version;
    let watch = pods.watch(&WatchParams::default(), &version).await.unwrap();
    (cluster, watch)
}

fn open_files() -> Vec<String> {
    let target = |entry: fs::DirEntry| fs::read_link(entry.path()).ok();
    let entries = fs::read_dir("/proc/self/fd").unwrap().map(Result::unwrap).filter_map(target);
    // The directory that is being read is among them.
    let mut files: Vec<String> = entries.map(|path| path.display().to_string()).collect();
    files.retain(|file| !file.contains("/proc/"));
    files.sort();
    files
}

fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}
