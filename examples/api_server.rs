//! The API server alone, without controllers, scheduler or nodes: what a test of API behaviour needs.
//!
//! `--serve`, or any other option, lets it serve over HTTPS until it gets SIGTERM or Ctrl-C; it prints one line when it is
//! ready. Without options it makes one object and ends. `--help` tells the options.
#![expect(clippy::print_stdout, reason = "a program for people to look at")]

use std::{error::Error, net::SocketAddr, path::PathBuf, sync::Arc};

use clap::Parser;
use orchestrator::{
    Cluster, ClusterBuilder, ClusterKeys,
    apiserver::{AddressRange, Config},
    client::UserInfo,
    env::Env,
    store::Store,
    store_mem::MemStore,
    store_sled::{Limits, SledStore},
};

/// A server that answers from memory is faster by a third with an allocator made for many threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A Kubernetes API server.
#[derive(Parser)]
struct Options {
    /// Serve until told to stop, with what is not given by other options chosen freely.
    #[arg(long)]
    serve: bool,
    /// Serve on this address; port 0 draws a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The bearer token of the user `admin` in the group `system:masters`; a random one by default.
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// Where services get their addresses from.
    #[arg(long, value_name = "CIDR", default_value = "10.0.0.0/16")]
    service_cidr: AddressRange,
    /// Let requests without a token in as `system:anonymous`, who may ask for little more than the version and health.
    #[arg(long)]
    anonymous: bool,
    /// Where the state is kept: mem, sled:DIR, redb:DIR or etcd:URL. Further members of an etcd cluster follow with commas; redb
    /// and etcd have to be built in, with `--features redb` and `--features etcd`.
    #[arg(long, value_name = "STORE", default_value = "mem")]
    store: String,
    /// Keep the authority and the key of tokens here (ca.crt, ca.key, sa.key), so that what they signed is good after a restart;
    /// new ones with each start by default.
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,
    /// Write a configuration for kubectl here; a file for temporary use by default.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Run the controllers, too.
    #[arg(long)]
    controllers: bool,
    /// Run the scheduler, too.
    #[arg(long)]
    scheduler: bool,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    if std::env::args_os().len() == 1 {
        return make_one_object(options).await;
    }
    let (cluster, access) = start(options).await?;
    let address = cluster.address().ok_or("no address to serve on")?;
    println!("ready: https://{address} token {} kubeconfig {}", access.token, access.kubeconfig.display());
    stop_signal().await?;
    cluster.shutdown().await;
    Ok(())
}

/// How a client gets in.
struct Access {
    token: String,
    kubeconfig: PathBuf,
}

async fn start(options: Options) -> Result<(Cluster, Access), Box<dyn Error>> {
    let env = Env::real();
    let config = config(&options)?;
    let access = Access {
        token: options.token.unwrap_or_else(|| format!("{:016x}{:016x}", env.random(), env.random())),
        kubeconfig: options
            .kubeconfig
            .unwrap_or_else(|| std::env::temp_dir().join(format!("orchestrator-{}.kubeconfig", std::process::id()))),
    };
    let mut builder = builder(&env, &options.store).await?;
    if let Some(directory) = &options.keys {
        builder = builder.keys(&ClusterKeys::open(directory)?);
    }
    let cluster = builder
        .api_config(config)
        .run_controllers(options.controllers)
        .run_scheduler(options.scheduler)
        .token(&access.token, UserInfo::new("admin", &["system:masters"]))
        .listen(options.listen)
        .kubeconfig(&access.kubeconfig)
        .start()
        .await?;
    Ok((cluster, access))
}

fn config(options: &Options) -> Result<Config, Box<dyn Error>> {
    let mut config = Config { service_range: options.service_cidr, anonymous: options.anonymous, ..Config::default() };
    if !options.controllers {
        // Where no pod ever runs, pods look as on the server that conversations were recorded from. It belongs to a
        // distribution with an authority of its own for services; nobody publishes it here.
        let own_authority = serde_json::json!({"configMap": {
            "name": "openshift-service-ca.crt", "items": [{"key": "service-ca.crt", "path": "service-ca.crt"}],
        }});
        config.token_volume_sources.push(serde_json::from_value(own_authority)?);
    }
    Ok(config)
}

/// A cluster on the store of this name.
async fn builder(env: &Env, store: &str) -> Result<ClusterBuilder, String> {
    let (kind, place) = store.split_once(':').unwrap_or((store, ""));
    let store: Arc<dyn Store> = match kind {
        "mem" if place.is_empty() => Arc::new(MemStore::new(env)),
        "sled" if !place.is_empty() => {
            let opened = SledStore::open(env, place, Limits::default()).await;
            Arc::new(opened.map_err(|error| format!("--store {store}: {error}"))?)
        }
        "redb" if !place.is_empty() => redb(env, place).await.map_err(|error| format!("--store {store}: {error}"))?,
        "etcd" if !place.is_empty() => etcd(env, place).await.map_err(|error| format!("--store {store}: {error}"))?,
        _ => return Err(format!("--store {store}: no such store; there are mem, sled:DIR, redb:DIR and etcd:URL")),
    };
    Ok(Cluster::builder().env(env).store(store))
}

#[cfg(feature = "redb")]
async fn redb(env: &Env, directory: &str) -> Result<Arc<dyn Store>, String> {
    use orchestrator::store_redb::{Limits, RedbStore};

    let opened = RedbStore::open(env, directory, Limits::default()).await;
    Ok(Arc::new(opened.map_err(|error| error.to_string())?))
}

#[cfg(not(feature = "redb"))]
async fn redb(_: &Env, _: &str) -> Result<Arc<dyn Store>, String> {
    Err("the redb store is not built into this program; `--features redb` builds it in".to_owned())
}

#[cfg(feature = "etcd")]
async fn etcd(env: &Env, members: &str) -> Result<Arc<dyn Store>, String> {
    use orchestrator::store_etcd::{EtcdConfig, EtcdStore};

    let endpoints = members.split(',').map(str::to_owned).collect();
    let config = EtcdConfig { endpoints, prefix: "orchestrator".to_owned(), ..EtcdConfig::default() };
    Ok(Arc::new(EtcdStore::connect(env, config).await.map_err(|error| error.to_string())?))
}

#[cfg(not(feature = "etcd"))]
async fn etcd(_: &Env, _: &str) -> Result<Arc<dyn Store>, String> {
    Err("the etcd store is not built into this program; `--features etcd` builds it in".to_owned())
}

async fn make_one_object(options: Options) -> Result<(), Box<dyn Error>> {
    let (cluster, _) = start(options).await?;
    let text = "{apiVersion: v1, kind: ConfigMap, metadata: {name: hello}, data: {greeting: hello}}";
    println!("{:?}", cluster.apply(text).await?);
    cluster.shutdown().await;
    Ok(())
}

/// Waits for Ctrl-C or SIGTERM.
async fn stop_signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    futures::future::select(Box::pin(interrupt.recv()), Box::pin(terminate.recv())).await;
    Ok(())
}
