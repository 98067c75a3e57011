//! An own kind and its controller, run three ways without change: as a `Reconciler` on a client of this process, the same
//! through HTTPS, and beside them the same on kube-rs's own loop.
//!
//! `--kubeconfig FILE` runs the reconciler against any Kubernetes, until Ctrl-C: `kubectl get websites` has its work.
#![expect(clippy::print_stdout, reason = "a program for people to look at")]

mod course;
mod ours;
mod plan;
mod with_kube;

use std::{future::Future, net::Ipv4Addr, sync::Arc};

use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use orchestrator::{
    Cluster, NodeSpec,
    client::Client,
    client_kube::KubeBackend,
    env::Env,
    kube,
    runtime_sim::{MachineConfig, SimMachine},
};
use tokio_util::sync::CancellationToken;

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => three_ways().await,
        ["--kubeconfig", file] => elsewhere(Kubeconfig::read_from(file)?).await,
        _ => Err("usage: custom_controller [--kubeconfig FILE]".into()),
    }
}

async fn three_ways() -> Result<(), Failure> {
    let env = Env::real();
    let machine = SimMachine::new(&env, MachineConfig::default());
    let node = NodeSpec::new("node-1", Arc::new(machine.runtime()));
    let cluster = Cluster::builder().env(&env).node(node).listen((Ipv4Addr::LOCALHOST, 0).into()).start().await?;
    let client = cluster.client();
    course::define(&client, &env).await?;

    println!("as a reconciler, on the client of this process:");
    with(&client, &env, "in-process", |stop| ours::run(client.clone(), env.clone(), stop)).await?;
    println!("the same reconciler, through HTTPS:");
    let remote = connect(Kubeconfig::from_yaml(cluster.kubeconfig().ok_or("no kubeconfig")?)?).await?;
    with(&remote, &env, "through-https", |stop| ours::run(remote.clone(), env.clone(), stop)).await?;
    println!("with kube-rs, on the kube client of this process:");
    with(&client, &env, "with-kube", |stop| with_kube::run(cluster.kube_client(), stop)).await?;
    cluster.shutdown().await;
    Ok(())
}

/// Runs the reconciler against a cluster that is not ours.
async fn elsewhere(kubeconfig: Kubeconfig) -> Result<(), Failure> {
    let (env, client, stop) = (Env::real(), connect(kubeconfig).await?, CancellationToken::new());
    course::define(&client, &env).await?;
    println!("websites of example.com/v1 are looked after until Ctrl-C");
    let controller = env.spawn("example", ours::run(client, env.clone(), stop.clone()));
    tokio::signal::ctrl_c().await?;
    stop.cancel();
    println!("the controller has ended: {:?}", controller.join().await);
    Ok(())
}

/// A client of the server that a kubeconfig names.
async fn connect(kubeconfig: Kubeconfig) -> Result<Client, Failure> {
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    // A reconciler repeats its work by itself.
    config.default_retry = false;
    Ok(KubeBackend::new(kube::Client::try_from(config)?).into_client())
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
