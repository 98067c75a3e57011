//! How many runs of a small scenario an exploration makes in a second, on one core.
//!
//! `cargo bench -p orchestrator-sim --bench explore -- [SEEDS]`, one run, printed as a line. The scenario is a replica set that
//! is created and scaled, with the project's own controller under test and a player of nodes beside it; every run settles, and
//! is silent for twenty minutes of virtual time.
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
#![expect(clippy::print_stdout, reason = "a program for people to look at")]

use std::time::Instant;

use futures::StreamExt;
use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::Pod};
use kube_core::params::{Patch, PatchParams};
use orchestrator_controllers::Controllers;
use orchestrator_core::{
    client::{Api, Resource, WatchEvent, WatchRequest},
    object::ObjectKey,
};
use orchestrator_sim::explore::{Process, explore};
use serde_json::{Value, json};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SEEDS: u64 = 2_000;

fn main() {
    let seeds = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(SEEDS);
    let set: ReplicaSet = serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "main", "image": "app:1"}]},
            },
        },
    }))
    .expect("a replica set");
    let explorer = explore(controllers)
        .beside(nodes)
        .creates(&set)
        .patches::<ReplicaSet>("default", "web", json!({"spec": {"replicas": 2}}))
        .eventually("it has its pods", |objects| objects.list::<Pod>().len() == 2)
        .seeds(seeds);
    let begin = Instant::now();
    let report = explorer.run().expect("nothing is found");
    let seconds = begin.elapsed().as_secs_f64();
    println!("{} runs in {seconds:.2} s: {:.0} a second", report.runs, report.runs as f64 / seconds);
}

async fn controllers(process: Process) {
    let builder = Controllers::builder(&process.caches(), process.discovery());
    let _running = builder.controllers(&["replicaset-controller"]).expect("it is a controller").start();
    std::future::pending().await
}

/// Whatever is created runs.
async fn nodes(process: Process) {
    let resource = Resource::new("", "v1", "pods");
    while let Ok(mut events) = process.client().watch(WatchRequest::new(resource.clone(), None)).await {
        while let Some(Ok(event)) = events.next().await {
            let WatchEvent::Added(pod) = event else { continue };
            if let Ok(metadata) = pod.metadata() {
                run(&process, &ObjectKey::of(metadata)).await;
            }
        }
    }
}

async fn run(process: &Process, key: &ObjectKey) {
    let pods: Api<Pod> = Api::namespaced(process.client(), &key.namespace);
    let ready = json!([{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    let patch: Patch<Value> = Patch::Merge(json!({"status": {"phase": "Running", "conditions": ready}}));
    // A pod that is gone needs no status.
    let _ = pods.patch_status(&key.name, &PatchParams::default(), &patch).await;
}
