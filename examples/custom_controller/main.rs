//! An own kind and its controller: as a `Reconciler` on a client of this process, and beside it the same on kube-rs's loop.
//!
//! The reconciler takes a `Client` and knows no more of it: with a client of another server it runs there without change.
#![expect(clippy::print_stdout, reason = "a program for people to look at")]

mod course;
mod ours;
mod plan;
mod with_kube;

use std::{future::Future, sync::Arc};

use orchestrator::{
    Cluster, NodeSpec,
    client::Client,
    env::Env,
    runtime_sim::{MachineConfig, SimMachine},
};
use tokio_util::sync::CancellationToken;

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let env = Env::real();
    let machine = SimMachine::new(&env, MachineConfig::default());
    let node = NodeSpec::new("node-1", Arc::new(machine.runtime()));
    let cluster = Cluster::builder().env(&env).node(node).start().await?;
    let client = cluster.client();
    course::define(&client, &env).await?;

    println!("as a reconciler, on the client of this process:");
    with(&client, &env, "in-process", |stop| ours::run(client.clone(), env.clone(), stop)).await?;
    println!("with kube-rs, on the kube client of this process:");
    with(&client, &env, "with-kube", |stop| with_kube::run(cluster.kube_client(), stop)).await?;
    cluster.shutdown().await;
    Ok(())
}

/// Runs a controller for as long as a site goes through its life.
async fn with<F>(
    client: &Client,
    env: &Env,
    name: &str,
    controller: impl FnOnce(CancellationToken) -> F,
) -> Result<(), Failure>
where
    F: Future<Output = ()> + Send + 'static,
{
    let stop = CancellationToken::new();
    let controller = env.spawn("example", controller(stop.clone()));
    let outcome = course::walk(client, env, name).await;
    stop.cancel();
    let end = controller.join().await;
    println!("  the controller has ended: {end:?}");
    outcome
}
