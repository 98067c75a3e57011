//! Pods bound per second through the real pipeline on the memory store, as upstream's `scheduler_perf` measures it: no node
//! agents, nodes are objects only. And how long one pod waits on an idle cluster.
//!
//! One run, printed as lines: `cargo bench --bench scheduler -- [NODES PODS]`. The decision alone is measured by
//! `cargo bench -p orchestrator-scheduler --bench decisions`.
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
#![expect(clippy::print_stdout, reason = "a program for people to look at")]

mod support;

use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use orchestrator::{
    Cluster,
    client::Api,
    k8s_openapi::api::core::v1::{Node, Pod},
    kube::api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

/// How many requests are under way at a time.
const CONCURRENT: usize = 64;
/// How many pods are made one by one on the idle cluster.
const SINGLE_PODS: usize = 300;

fn main() {
    let (nodes, pods) = support::two_numbers((5_000, 10_000));
    support::runtime().block_on(run(nodes, pods));
}

async fn run(nodes: usize, pods: usize) {
    let plain = json!({});
    let apart = json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"labelSelector": {"matchLabels": {"color": "green"}}, "topologyKey": "kubernetes.io/hostname"},
    ]}}});
    let spread = json!({"topologySpreadConstraints": [{
        "maxSkew": 5, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"color": "green"}},
    }]});
    measure("SchedulingBasic", nodes, 1_000, pods, &plain).await;
    measure("SchedulingPodAntiAffinity", nodes, 1_000.min(nodes / 4), 2_000.min(nodes / 2), &apart).await;
    measure("TopologySpreading", nodes, 1_000, pods / 2, &spread).await;
}

/// One workload on a cluster of its own.
async fn measure(name: &str, nodes: usize, before: usize, pods: usize, more: &Value) {
    let cluster = cluster(nodes).await;
    let mut milestones = support::Milestones::follow(&cluster).await;
    create(&cluster, 0..before, more).await;
    milestones.bound(before).await;
    let begin = Instant::now();
    let (_, ()) = futures::join!(create(&cluster, before..before + pods, more), milestones.bound(before + pods));
    let time = begin.elapsed().as_secs_f64();
    println!("{name:<28} {nodes} nodes, {pods} pods: {:.0} pods/s", pods as f64 / time);
    let mut waits = Vec::new();
    for number in 0..SINGLE_PODS {
        let begin = Instant::now();
        let index = before + pods + number;
        create(&cluster, index..index + 1, &json!({})).await;
        milestones.bound(index + 1).await;
        waits.push(begin.elapsed());
    }
    waits.sort_unstable();
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "{:<28} one pod from its creation to its node: {:.2} ms (median), {:.2} ms (99 %)",
        "",
        milliseconds(waits[waits.len() / 2]),
        milliseconds(waits[waits.len() * 99 / 100]),
    );
    cluster.shutdown().await;
}

/// A scheduler, and nodes that nobody runs.
async fn cluster(nodes: usize) -> Cluster {
    let mut config = orchestrator::apiserver::Config::default();
    // Without controllers nobody makes the accounts of pods.
    config.admission.service_account = false;
    let cluster = Cluster::builder().run_controllers(false).api_config(config).start().await.expect("it starts");
    let api: Api<Node> = Api::all(&cluster.client());
    stream::iter(0..nodes).for_each_concurrent(CONCURRENT, |index| add_node(&api, index)).await;
    cluster
}

async fn add_node(api: &Api<Node>, index: usize) {
    let name = format!("node-{index}");
    let node = json!({
        "metadata": {"name": name, "labels": {
            "kubernetes.io/hostname": name,
            "topology.kubernetes.io/zone": format!("zone{}", index % 3),
        }},
        "status": {"allocatable": {"cpu": "4", "memory": "32Gi", "pods": "110"}},
    });
    let node: Node = serde_json::from_value(node).expect("a node");
    api.create(&PostParams::default(), &node).await.expect("created");
    // A new node is not ready until its agent says so; this one has none.
    let ready = Patch::Merge(json!({"spec": {"taints": null}}));
    api.patch(&name, &PatchParams::default(), &ready).await.expect("patched");
}

async fn create(cluster: &Cluster, numbers: std::ops::Range<usize>, more: &Value) {
    let api: Api<Pod> = Api::namespaced(&cluster.client(), "default");
    let create = async |number: usize| {
        let mut pod = json!({
            "metadata": {"name": format!("pod-{number}"), "labels": {"color": "green"}},
            "spec": {"containers": [{
                "name": "pause", "image": "registry.k8s.io/pause:3.10.1",
                "resources": {"requests": {"cpu": "100m", "memory": "500Mi"}},
            }]},
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            pod["spec"][key] = value.clone();
        }
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        api.create(&PostParams::default(), &pod).await.expect("created");
    };
    stream::iter(numbers).for_each_concurrent(CONCURRENT, create).await;
}
