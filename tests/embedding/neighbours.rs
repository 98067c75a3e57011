//! Ten clusters in one process at once, with sockets and files, that never see each other.

use std::{
    collections::BTreeSet,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
};

use futures::future::{join_all, try_join_all};
use kube::api::ListParams;
use orchestrator::{
    Cluster,
    client::{Api, UserInfo},
    k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod},
};

use crate::{census::Census, deployment, machines, on_machines, running, shut_down};

const CLUSTERS: usize = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_clusters_never_meet() {
    let directory = directory("ten");
    let census = Census::default();
    let clusters = start(&census, &directory).await;
    let applied = clusters.iter().enumerate().map(|(index, cluster)| async move {
        // The same names everywhere; the content and the count differ.
        let text = format!(
            "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: same}}, data: {{of: '{index}'}}}}\n---\n{}",
            deployment("same", index % 3 + 1)
        );
        cluster.apply(&text).await.unwrap();
    });
    join_all(applied).await;
    let mut uids = BTreeSet::new();
    for (index, cluster) in clusters.iter().enumerate() {
        let pods = running(cluster, index % 3 + 1).await;
        uids.extend(pods.iter().filter_map(|pod| pod.metadata.uid.clone()));
        let maps: Api<ConfigMap> = Api::namespaced(&cluster.client(), "default");
        assert_eq!(maps.get("same").await.unwrap().data.as_ref().unwrap()["of"], index.to_string());
        // Through its socket a cluster shows its own, too.
        assert_eq!(over_https(cluster).await.data.unwrap()["of"], index.to_string());
    }
    assert_eq!(uids.len(), (0..CLUSTERS).map(|index| index % 3 + 1).sum::<usize>());
    one_trusts_no_other(&clusters).await;

    // One ends, the others stay.
    let mut clusters = clusters;
    let addresses: Vec<SocketAddr> = clusters.iter().filter_map(Cluster::address).collect();
    clusters.remove(0).shutdown().await;
    assert!(TcpStream::connect(addresses[0]).is_err(), "the socket is closed");
    assert_eq!(fs::read_dir(&directory).unwrap().count(), CLUSTERS - 1);
    running(&clusters[0], 2).await;

    shut_down(clusters).await;
    for address in addresses {
        assert!(TcpStream::connect(address).is_err(), "{address} is closed");
    }
    census.empty().await;
    fs::remove_dir(&directory).expect("every file is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn clusters_that_are_dropped_close_their_sockets() {
    let directory = directory("dropped");
    let census = Census::default();
    let mut clusters = start(&census, &directory).await;
    clusters.truncate(3);
    let addresses: Vec<SocketAddr> = clusters.iter().filter_map(Cluster::address).collect();
    assert!(census.count() > 0);
    drop(clusters);
    census.empty().await;
    for address in addresses {
        assert!(TcpStream::connect(address).is_err(), "{address} is closed");
    }
    // Being dropped is like being killed: files stay, and hold no more than a way to a server that is gone.
    fs::remove_dir_all(&directory).unwrap();
}

async fn start(census: &Census, directory: &Path) -> Vec<Cluster> {
    let env = census.env();
    let starts = (0..CLUSTERS).map(|index| {
        on_machines(&env, &machines(&env, 2))
            .listen((Ipv4Addr::LOCALHOST, 0).into())
            .token(format!("token-{index}"), UserInfo::new("admin", &["system:masters"]))
            .kubeconfig(directory.join(index.to_string()))
            .start()
    });
    try_join_all(starts).await.unwrap()
}

fn directory(name: &str) -> PathBuf {
    let directory = std::env::temp_dir().join(format!("embedding-{name}-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    directory
}

async fn client(kubeconfig: &str) -> kube::Client {
    let kubeconfig = kube::config::Kubeconfig::from_yaml(kubeconfig).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
    kube::Client::try_from(config).unwrap()
}

async fn over_https(cluster: &Cluster) -> ConfigMap {
    let client = client(cluster.kubeconfig().unwrap()).await;
    let pods: kube::Api<Pod> = kube::Api::default_namespaced(client.clone());
    let listed = pods.list(&ListParams::default()).await.unwrap().items.len();
    assert_eq!(listed, running(cluster, listed).await.len());
    kube::Api::default_namespaced(client).get("same").await.unwrap()
}

/// The certificates of one cluster are nothing to another, and so are its tokens.
async fn one_trusts_no_other(clusters: &[Cluster]) {
    let [one, other] = [&clusters[0], &clusters[1]].map(|cluster| cluster.kubeconfig().unwrap().to_owned());
    let (own, foreign) = (clusters[0].address().unwrap(), clusters[1].address().unwrap());
    let mixed = one.replace(&own.to_string(), &foreign.to_string());
    assert_ne!((&mixed, &mixed), (&one, &other));
    let namespaces: kube::Api<Namespace> = kube::Api::all(client(&mixed).await);
    assert!(namespaces.get("default").await.is_err(), "the server's certificate is of another authority");
    assert!(kube::Api::<Namespace>::all(client(&one).await).get("default").await.is_ok());
}
