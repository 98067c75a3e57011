//! kube-rs, unchanged, on a cluster: by its in-process client, without any socket, and over HTTPS.

/// Makes each of these functions two tests, one for each way to reach a cluster.
macro_rules! through_both_doors {
    ($($test:ident),* $(,)?) => {
        mod in_process {
            $(#[tokio::test] async fn $test() { super::$test(crate::Door::InProcess).await })*
        }
        mod over_https {
            $(#[tokio::test] async fn $test() { super::$test(crate::Door::Https).await })*
        }
    };
}

mod api;
mod applying;
mod controlling;
mod streams;
mod watching;

use std::{
    collections::BTreeMap,
    future::Future,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use orchestrator::{Cluster, ClusterBuilder, env::Env};

/// How long anything may take that is bound to happen, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(90);

/// How a client reaches its cluster.
#[derive(Clone, Copy, Debug)]
enum Door {
    InProcess,
    Https,
}

/// A cluster, and the client for its door.
struct Reached {
    cluster: Cluster,
    client: Client,
}

impl Reached {
    async fn start(door: Door, builder: ClusterBuilder) -> Self {
        let cluster = match door {
            Door::InProcess => builder.start().await.unwrap(),
            Door::Https => builder.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).start().await.unwrap(),
        };
        let client = match door {
            Door::InProcess => cluster.kube_client(),
            Door::Https => https(&cluster).await,
        };
        Self { cluster, client }
    }

    fn kube_client(&self) -> Client {
        self.client.clone()
    }

    async fn shutdown(self) {
        self.cluster.shutdown().await;
    }
}

/// A client as everyone makes it, from the cluster's configuration.
async fn https(cluster: &Cluster) -> Client {
    let kubeconfig = Kubeconfig::from_yaml(cluster.kubeconfig().unwrap()).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

/// A cluster without nodes whose pods nobody runs: the API server and all controllers.
async fn cluster(door: Door) -> Reached {
    Reached::start(door, Cluster::builder()).await
}

/// Waits for something that is bound to happen.
async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    let outcome = Env::real().timeout(PATIENCE, future).await;
    outcome.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

/// The next item of a stream that has one.
async fn next<S: futures::Stream + Unpin>(what: &str, stream: &mut S) -> S::Item {
    soon(what, stream.next()).await.unwrap_or_else(|| panic!("{what}: the stream has ended"))
}

fn config_map(name: &str, value: &str) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(name.to_owned());
    map.metadata.labels = Some(BTreeMap::from([("value".to_owned(), value.to_owned())]));
    map.data = Some(BTreeMap::from([("value".to_owned(), value.to_owned())]));
    map
}
