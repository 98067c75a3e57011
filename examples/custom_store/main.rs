//! An own store: proven by the contract that every store has to keep, then used by a cluster.
#![expect(clippy::print_stdout, reason = "a program for people to look at")]

mod log_store;

use std::{sync::Arc, time::Duration};

use log_store::LogStore;
use orchestrator::{
    Cluster, NodeSpec,
    env::Env,
    k8s_openapi::api::apps::v1::Deployment,
    runtime_sim::{MachineConfig, SimMachine},
    store::{KeyRange, ListOptions, Store},
};
use orchestrator_testkit::{harness, store::CASES};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for (name, case) in CASES {
        // In virtual time, in several orders of tasks. A promise that is broken is a panic that says which.
        let outcome = harness::simulated(name, async |_| Arc::new(LogStore::new()) as Arc<dyn Store>, case);
        println!("{outcome:?}: {}", name.replace('_', " "));
    }
    tokio::runtime::Runtime::new()?.block_on(use_it())
}

/// Runs a deployment on a cluster that keeps its state in the store.
async fn use_it() -> Result<(), Box<dyn std::error::Error>> {
    let env = Env::real();
    let store: Arc<dyn Store> = Arc::new(LogStore::new());
    let machine = SimMachine::new(&env, MachineConfig::default());
    let node = NodeSpec::new("node-1", Arc::new(machine.runtime()));
    let cluster = Cluster::builder().env(&env).store(store.clone()).node(node).start().await?;
    cluster.apply(include_str!("../manifests/deployment.yaml")).await?;
    let available = |all: &[Arc<Deployment>]| {
        all.iter().any(|it| it.status.as_ref().is_some_and(|status| status.available_replicas == Some(3)))
    };
    cluster.wait_until("default", Duration::from_secs(30), available).await?;
    for key in keys(&store, "/registry/pods/").await? {
        println!("stored:   {key}");
    }
    let status = store.status().await?;
    println!("store:    {} keys, revision {}, {} bytes", status.keys, status.revision, status.size_bytes);
    cluster.shutdown().await;
    assert_eq!(keys(&store, "/registry/deployments/").await?.len(), 1, "the state outlives the cluster");
    Ok(())
}

async fn keys(store: &Arc<dyn Store>, prefix: &str) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let listing = store.list(&KeyRange::prefix(prefix), ListOptions::default()).await?;
    Ok(listing.entries.iter().map(|entry| entry.key.to_string()).collect())
}
