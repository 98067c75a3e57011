//! What is planted is caught: chance that does not come from the seed, and a controller that never rests.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube_core::params::{DeleteParams, Patch, PatchParams, PostParams};
use orchestrator_core::client::Api;
use orchestrator_sim::{Record, SimCluster};
use serde_json::json;

const NAME: &str = "planted";

/// A small world in which a config map gets a value that `chance` gives.
fn world(seed: u64, chance: impl Fn(&SimCluster) -> String) -> SimCluster {
    let cluster = SimCluster::builder(seed).nodes(2).build().unwrap();
    let value = chance(&cluster);
    let work = async {
        cluster.settled(Duration::from_secs(300)).await.unwrap();
        let api: Api<ConfigMap> = Api::namespaced(&cluster.client(), "default");
        let map = json!({"metadata": {"name": NAME}, "data": {"chance": value}});
        api.create(&PostParams::default(), &serde_json::from_value(map).unwrap()).await.unwrap();
    };
    cluster.run(work).unwrap();
    cluster
}

/// Where two worlds part, by the key of the first change that differs.
fn parting(one: &SimCluster, other: &SimCluster) -> Option<String> {
    let key = |record: Option<&Record>| record.map(|record| record.key.to_string()).unwrap_or_default();
    one.history(|one| other.history(|other| one.difference(other).map(|difference| key(difference.left))))
}

#[test]
fn chance_from_elsewhere_changes_the_history() {
    let from_the_seed = |cluster: &SimCluster| cluster.env().random().to_string();
    let (one, other) = (world(3, from_the_seed), world(3, from_the_seed));
    assert_eq!(parting(&one, &other), None);
    assert_eq!(one.history(|one| one.hash()), other.history(|other| other.hash()));

    // An address differs from run to run, as an order by pointers would.
    let from_elsewhere = |cluster: &SimCluster| format!("{cluster:p}{:?}", std::thread::current().id());
    let one = world(3, from_elsewhere);
    let other = std::thread::scope(|scope| scope.spawn(|| world(3, from_elsewhere)).join().unwrap());
    assert_eq!(parting(&one, &other).as_deref(), Some("/registry/configmaps/default/planted"));
    assert_ne!(one.history(|one| one.hash()), other.history(|other| other.hash()));
}

#[test]
fn a_loop_that_never_rests_is_heard() {
    let cluster = world(4, |_| String::new());
    let quiet = cluster.run(cluster.noise_within(Duration::from_secs(600))).unwrap();
    assert_eq!(quiet, Vec::<String>::new());

    let (env, api) = (cluster.env().clone(), Api::<ConfigMap>::namespaced(&cluster.client(), "default"));
    let restless = cluster.env().spawn("restless", async move {
        for count in 0.. {
            env.sleep(Duration::from_secs(60)).await;
            let patch = Patch::Merge(json!({"data": {"count": format!("{count}")}}));
            api.patch(NAME, &PatchParams::default(), &patch).await.unwrap();
        }
    });
    let noise = cluster.run(cluster.noise_within(Duration::from_secs(601))).unwrap();
    assert_eq!(noise.len(), 10, "{noise:#?}");
    let unsettled = cluster.run(cluster.settled(Duration::from_secs(300))).unwrap();
    assert!(unsettled.is_err(), "it never falls silent");
    drop(restless);
}

#[test]
fn a_container_that_nobody_wants_is_found() {
    let cluster = world(5, |_| String::new());
    let pods: Api<Pod> = Api::namespaced(&cluster.client(), "default");
    let stray = async {
        let pod = json!({
            "metadata": {"name": NAME}, "spec": {"containers": [{"name": "main", "image": "app:1"}]},
        });
        pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
        cluster.settled(Duration::from_secs(300)).await.unwrap();
        let pod = pods.get(NAME).await.unwrap();
        let node = pod.spec.as_ref().unwrap().node_name.clone().unwrap();
        // Nobody looks after the machine while the pod is forced out of the API.
        cluster.kill_agent(&node);
        pods.delete(NAME, &DeleteParams::default().grace_period(0)).await.unwrap();
        (node, cluster.unsettled())
    };
    let (node, found) = cluster.run(stray).unwrap();
    let expected = format!("default/planted is still on {node}");
    assert!(found.iter().any(|violation| violation.detail == expected), "{found:?}");
    cluster.start_agent(&node);
    assert!(cluster.run(cluster.settled(Duration::from_secs(300))).unwrap().is_ok(), "the agent removes it");
}

#[test]
fn nothing_outlives_its_death() {
    let cluster = world(6, |_| String::new());
    let before = cluster.tasks();
    let killed = async {
        cluster.kill_node("node-1");
        cluster.kill_controllers();
        cluster.kill_scheduler();
        cluster.kill_api_server();
        cluster.env().sleep(Duration::from_secs(30)).await;
        let without = cluster.tasks();
        cluster.start_api_server().await.unwrap();
        cluster.start_controllers();
        cluster.start_scheduler();
        cluster.start_agent("node-1");
        cluster.settled(Duration::from_secs(600)).await.unwrap();
        without
    };
    let without = cluster.run(killed).unwrap();
    assert!(without < before, "{without} tasks of {before} are left after the kill");
    assert_eq!(cluster.tasks(), before, "what was killed and started again has the tasks that it had");
}
