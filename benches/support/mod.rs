//! What the benchmarks share: clusters of simulated nodes, and what the process costs.
#![allow(dead_code, reason = "each benchmark uses its part")]

use std::{collections::BTreeSet, fs, net::Ipv4Addr, time::Duration};

use futures::{StreamExt, stream::BoxStream};
use orchestrator::{
    Cluster, NodeSpec,
    client::{Api, WatchEvent},
    core::status::ApiResult,
    env::Env,
    k8s_openapi::api::core::v1::{Pod, ServiceAccount},
    kube::{
        self,
        config::{KubeConfigOptions, Kubeconfig},
    },
    node::NodeConfig,
    runtime_sim::{MachineConfig, SimMachine},
};
use serde_json::{Value, json};

pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// The two numbers of the command line, or the usual ones.
pub(crate) fn two_numbers(usual: (usize, usize)) -> (usize, usize) {
    let numbers: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    if let [first, second] = numbers[..] { (first, second) } else { usual }
}

/// A runtime for the benchmark's futures: as many threads as the machine has.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime")
}

/// Nodes that run simulated containers, each on a machine of its own.
pub(crate) fn simulated_nodes(env: &Env, count: usize) -> impl Iterator<Item = NodeSpec> + use<> {
    let env = env.clone();
    (0..count).map(move |index| {
        let first = u32::from(Ipv4Addr::new(10, 128, 0, 0)) + (index as u32) * 256;
        let machine = SimMachine::new(&env, MachineConfig { subnet: first.into(), prefix: 24 });
        NodeSpec::new(format!("node-{index}"), std::sync::Arc::new(machine.runtime()))
            .runtime_name("sim")
            .config(NodeConfig::default())
    })
}

/// A cluster with everything, in memory, that is ready for pods.
pub(crate) async fn ready_cluster(nodes: usize) -> Cluster {
    let env = Env::real();
    let mut builder = Cluster::builder().env(&env);
    for node in simulated_nodes(&env, nodes) {
        builder = builder.node(node);
    }
    let cluster = builder.start().await.expect("the cluster starts");
    wait_for_account(&cluster).await;
    cluster
}

/// An API server over HTTPS without anything that acts on objects.
pub(crate) async fn api_server() -> Cluster {
    let mut config = orchestrator::apiserver::Config::default();
    // Without controllers nobody makes the accounts of pods.
    config.admission.service_account = false;
    let builder = Cluster::builder().control_plane(false).api_config(config);
    builder.listen("127.0.0.1:0".parse().expect("an address")).start().await.expect("the server starts")
}

/// How clients outside of the process reach a cluster.
pub(crate) async fn remote_config(cluster: &Cluster) -> kube::Config {
    let kubeconfig = Kubeconfig::from_yaml(cluster.kubeconfig().expect("served over HTTPS")).expect("a kubeconfig");
    kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.expect("a configuration")
}

/// Pods can be made in a namespace once it has its service account.
pub(crate) async fn wait_for_account(cluster: &Cluster) {
    let account = cluster.wait_until::<ServiceAccount>("default", PATIENCE, |accounts| !accounts.is_empty()).await;
    account.expect("the namespace gets its account");
}

/// A pod of a usual size.
pub(crate) fn pod(name: &str) -> Pod {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "bench", "tier": "backend"}, "annotations": {"note": "of a usual size"}},
        "spec": pod_spec(),
    });
    serde_json::from_value(pod).expect("a pod")
}

/// A small pod's specification.
pub(crate) fn pod_spec() -> Value {
    json!({"containers": [{
        "name": "main", "image": "registry.example/app/backend:1.2.3", "args": ["--listen=:8080"],
        "env": [{"name": "MODE", "value": "production"}, {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "ports": [{"containerPort": 8080, "name": "http"}],
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "100m", "memory": "64Mi"}},
    }]})
}

/// Memory of this process that is in use, in bytes.
pub(crate) fn resident_bytes() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    pages.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

/// Processor time that this process has used.
pub(crate) fn processor_time() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    // Fields 14 and 15 of proc_pid_stat(5), in hundredths of a second.
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

pub(crate) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

pub(crate) fn node_is_ready(node: &orchestrator::k8s_openapi::api::core::v1::Node) -> bool {
    let mut conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Follows all pods, one event at a time, and keeps no more than names, so that looking costs little beside what is
/// looked at.
pub(crate) struct Milestones {
    bound: BTreeSet<String>,
    running: BTreeSet<String>,
    events: BoxStream<'static, ApiResult<WatchEvent>>,
}

impl Milestones {
    /// Follows a cluster that has no pods yet.
    pub(crate) async fn follow(cluster: &Cluster) -> Self {
        let api: Api<Pod> = Api::all(&cluster.client());
        let list = api.list(&Default::default()).await.expect("pods are listed");
        assert!(list.items.is_empty(), "there are pods already");
        let events = api.watch(&Default::default(), &list.resource_version).await.expect("pods are watched");
        Self { bound: BTreeSet::new(), running: BTreeSet::new(), events }
    }

    pub(crate) async fn bound(&mut self, count: usize) {
        while self.bound.len() < count {
            self.take_in().await;
        }
    }

    pub(crate) async fn running(&mut self, count: usize) {
        while self.running.len() < count {
            self.take_in().await;
        }
    }

    async fn take_in(&mut self) {
        let event = tokio::time::timeout(PATIENCE, self.events.next()).await.expect("in time");
        let (object, there) = match event.expect("the watch stays open").expect("an event") {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, true),
            WatchEvent::Deleted(object) => (object, false),
            WatchEvent::Bookmark { .. } => return,
        };
        let pod = object.shared::<Pod>().expect("a pod");
        let name = pod.metadata.name.clone().unwrap_or_default();
        let is_bound = there && pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        keep(&mut self.bound, &name, is_bound);
        keep(&mut self.running, &name, there && phase == Some("Running"));
    }
}

fn keep(names: &mut BTreeSet<String>, name: &str, belongs: bool) {
    if belongs {
        names.insert(name.to_owned());
    } else {
        names.remove(name);
    }
}
