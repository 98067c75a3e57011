//! A whole cluster in one process: three nodes, the manifests of a Kubernetes course, and a tour of what they do.
//!
//! Containers are real ones, made by youki, where the machine allows it (Linux, root); else they are simulated, and the
//! program says why. `--runtime youki|docker|simulated` asks for one kind. `--serve` brings the cluster up without the tour,
//! prints `kubeconfig: PATH` and stays until SIGTERM or Ctrl-C.
#![expect(clippy::print_stdout, reason = "a program for people to look at")]

mod machine;
mod nodes;
mod table;
mod tour;
mod web_server;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use clap::Parser;
use futures::future::{Either, select};
use orchestrator::{
    Cluster,
    apiserver::{Config, DefaultTolerations},
    controllers,
    env::Env,
    runtime_youki,
};

use crate::nodes::{Nodes, Runtime};

/// A cluster of three nodes.
#[derive(Parser)]
struct Options {
    /// Bring the cluster up without the tour, and serve until told to stop.
    #[arg(long)]
    serve: bool,
    /// What makes the containers: youki, docker or simulated; what the machine allows by default.
    #[arg(long, value_name = "RUNTIME")]
    runtime: Option<Runtime>,
}

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    // The helper processes of the runtime are this program, started anew.
    runtime_youki::init();
    if std::env::args().nth(1).is_some_and(|argument| argument == web_server::ARGUMENT) {
        return web_server::run();
    }
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(&options))
}

/// Runs the cluster in a directory of its own, and sees to it that nothing is left of either.
async fn run(options: &Options) -> Result<(), Failure> {
    let name = format!("mini-cluster-{}", std::process::id());
    let directory = std::env::temp_dir().join(&name);
    std::fs::create_dir_all(&directory)?;
    let env = Env::real();
    let result = with_cluster(&env, &directory, &name, options).await;
    std::fs::remove_dir_all(&directory)?;
    let left = machine::left_behind(&env, &name).await?;
    if !left.is_empty() {
        return Err(format!("left on the machine:\n{}", left.join("\n")).into());
    }
    println!("the machine is clean: no process, mount, cgroup or file of the cluster is left");
    result
}

async fn with_cluster(env: &Env, directory: &Path, name: &str, options: &Options) -> Result<(), Failure> {
    let signal = stop_signal()?;
    let nodes = Nodes::new(env, directory, name, options.runtime)?;
    println!("containers: {}", nodes.description());
    let mut builder = Cluster::builder()
        .env(env)
        .listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .kubeconfig(directory.join("mini-cluster.kubeconfig"))
        .api_config(api_config())
        .controller_options(controller_options(directory));
    for node in nodes.specs() {
        builder = builder.node(node);
    }
    let mut cluster = builder.start().await?;
    if let Some(path) = cluster.kubeconfig_path() {
        println!("kubeconfig: {}", path.display());
    }
    let result = if options.serve {
        signal.await;
        Ok(())
    } else {
        match select(Box::pin(tour::run(&mut cluster, &nodes)), signal).await {
            Either::Left((result, _)) => result,
            Either::Right(_) => Err("interrupted".into()),
        }
    };
    cluster.shutdown().await;
    nodes.remove().await?;
    result
}

/// A tour does not wait for a lost node as long as production would: pods leave it after seconds.
fn api_config() -> Config {
    let mut config = Config::default();
    config.admission.default_tolerations = Some(DefaultTolerations { not_ready_seconds: 2, unreachable_seconds: 2 });
    config
}

fn controller_options(directory: &Path) -> controllers::Options {
    let mut options = controllers::Options::default();
    options.local_volumes = Some(directory.join("claims"));
    options.node_monitor_grace_period = Duration::from_secs(12);
    options
}

/// Resolves with Ctrl-C or SIGTERM. Signals are caught from the call on.
fn stop_signal() -> std::io::Result<impl Future<Output = ()> + Unpin> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(Box::pin(async move {
        select(Box::pin(interrupt.recv()), Box::pin(terminate.recv())).await;
    }))
}
