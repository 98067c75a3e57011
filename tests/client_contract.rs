//! The remote client keeps the contract of a client: over HTTPS, and through a `kube::Client` in this process.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use orchestrator::{
    Cluster, ClusterBuilder, apiserver,
    client::{Client, ResourceDiscovery},
    client_kube::KubeBackend,
    env::Env,
    store_mem::{Limits, MemStore},
};
use orchestrator_testkit::{client::Subject, client_contract};

/// A cluster without controllers, and a client that reaches it from outside.
struct Remote {
    cluster: Cluster,
    client: Client,
}

#[async_trait]
impl Subject for Remote {
    fn client(&self) -> &Client {
        &self.client
    }

    async fn forget_history(&self) -> bool {
        let store = self.cluster.store();
        let now = store.status().await.unwrap().revision;
        store.compact(now).await.unwrap();
        true
    }
}

/// A server alone, whose watches have bookmarks soon.
fn server(env: &Env) -> ClusterBuilder {
    let soon = Duration::from_millis(20);
    let limits = Limits { bookmark_interval: soon, ..Limits::default() };
    Cluster::builder()
        .env(env)
        .store(std::sync::Arc::new(MemStore::with_limits(env, limits)))
        .api_config(apiserver::Config { bookmark_interval: soon, ..apiserver::Config::default() })
        .control_plane(false)
}

async fn over_https(env: &Env) -> Remote {
    let cluster = server(env).listen(([127, 0, 0, 1], 0).into()).start().await.unwrap();
    let kubeconfig = Kubeconfig::from_yaml(cluster.kubeconfig().unwrap()).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    // A refusal is an answer here, not something to try for minutes.
    config.default_retry = false;
    let client = KubeBackend::new(kube::Client::try_from(config).unwrap()).into_client();
    Remote { cluster, client }
}

async fn without_a_socket(env: &Env) -> Remote {
    let cluster = server(env).start().await.unwrap();
    let client = KubeBackend::new(cluster.kube_client()).into_client();
    Remote { cluster, client }
}

client_contract!(https, real, over_https);
client_contract!(service, real, without_a_socket);

/// What works on all resources finds the same ones from outside as in the process.
#[tokio::test]
async fn discovery_is_the_same_from_outside() {
    let cluster = server(&Env::real()).start().await.unwrap();
    let by_name = |found: Vec<orchestrator::client::ResourceInfo>| -> BTreeMap<String, _> {
        let count = found.len();
        let found: BTreeMap<_, _> = found.into_iter().map(|info| (info.resource.to_string(), info)).collect();
        assert_eq!(found.len(), count, "each resource once");
        found
    };
    let inside = by_name(cluster.server().resources().await.unwrap());
    let outside = by_name(KubeBackend::new(cluster.kube_client()).resources().await.unwrap());
    let names = |found: &BTreeMap<String, _>| found.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&outside), names(&inside));
    for (name, info) in &outside {
        let mut verbs = (info.verbs.clone(), inside[name].verbs.clone());
        verbs.0.sort();
        verbs.1.sort();
        assert_eq!(verbs.0, verbs.1, "{name}");
        assert_eq!((&info.kind, info.namespaced), (&inside[name].kind, inside[name].namespaced), "{name}");
    }
    assert!(outside.len() > 50, "{}", outside.len());
    cluster.shutdown().await;
}
