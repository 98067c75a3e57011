//! kube-rs, unchanged, on a cluster's in-process client: no socket, no port, no file.

mod api;
mod controlling;
mod streams;
mod watching;

use std::{collections::BTreeMap, future::Future, time::Duration};

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use orchestrator::{Cluster, env::Env};

/// How long anything may take that is bound to happen, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(90);

/// A cluster without nodes whose pods nobody runs: the API server and all controllers.
async fn cluster() -> Cluster {
    Cluster::builder().start().await.unwrap()
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
