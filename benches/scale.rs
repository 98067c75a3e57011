//! A Deployment of thousands of pods on a thousand simulated nodes: how long, and how much memory.
//!
//! One run, printed as lines, in a process of its own: `cargo bench --bench scale -- [NODES PODS]`.
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
#![expect(clippy::print_stdout, reason = "a program for people to look at")]

mod support;

use std::time::{Duration, Instant};

use orchestrator::{
    Cluster,
    client::Api,
    k8s_openapi::api::{apps::v1::Deployment, core::v1::Node},
    kube::api::PostParams,
};
use serde_json::json;

/// How long an idle cluster is looked at.
const IDLE: Duration = Duration::from_secs(10);

fn main() {
    let (nodes, pods) = support::two_numbers((1_000, 2_000));
    support::runtime().block_on(run(nodes, pods));
}

async fn run(nodes: usize, pods: usize) {
    let empty = support::resident_bytes();
    println!("process before any cluster: {:.1} MB", support::megabytes(empty));
    let small = support::ready_cluster(3).await;
    idle("three nodes, no pods").await;
    small.shutdown().await;

    let begin = Instant::now();
    let cluster = support::ready_cluster(nodes).await;
    cluster
        .wait_until::<Node>("", support::PATIENCE, |found| {
            found.len() == nodes && found.iter().all(|node| support::node_is_ready(node))
        })
        .await
        .expect("all nodes are ready");
    println!("{nodes} nodes ready: {:.2} s", begin.elapsed().as_secs_f64());
    let before = support::resident_bytes();
    converge(&cluster, pods).await;
    let after = support::resident_bytes();
    println!(
        "resident with {nodes} nodes: {:.1} MB, with {pods} pods as well: {:.1} MB ({:.1} kB a pod)",
        support::megabytes(before),
        support::megabytes(after),
        (after.saturating_sub(before)) as f64 / 1e3 / pods as f64
    );
    idle("all of it").await;
    cluster.shutdown().await;
}

async fn converge(cluster: &Cluster, pods: usize) {
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": {"name": "scale"},
        "spec": {
            "replicas": pods,
            "selector": {"matchLabels": {"app": "scale"}},
            "template": {"metadata": {"labels": {"app": "scale"}}, "spec": support::pod_spec()},
        },
    }))
    .expect("a deployment");
    let mut milestones = support::Milestones::follow(cluster).await;
    let begin = Instant::now();
    let api: Api<Deployment> = Api::namespaced(&cluster.client(), "default");
    api.create(&PostParams::default(), &deployment).await.expect("created");
    milestones.bound(pods).await;
    let all_bound = begin.elapsed();
    println!(
        "{pods} pods bound: {:.2} s ({:.0} a second)",
        all_bound.as_secs_f64(),
        pods as f64 / all_bound.as_secs_f64()
    );
    milestones.running(pods).await;
    println!("{pods} pods running: {:.2} s", begin.elapsed().as_secs_f64());
}

async fn idle(what: &str) {
    // What has just been made has settled after a moment.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (begin, used) = (Instant::now(), support::processor_time());
    tokio::time::sleep(IDLE).await;
    let used = support::processor_time().saturating_sub(used);
    println!(
        "idle with {what}: {:.1} MB resident, {:.2} % of one core",
        support::megabytes(support::resident_bytes()),
        100.0 * used.as_secs_f64() / begin.elapsed().as_secs_f64(),
    );
}
