//! A cluster for ordinary tests: it steps, waits, freezes, forks, and says why.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::{ConfigMap, Pod},
};
use kube_core::params::{Patch, PatchParams};
use orchestrator_core::{
    client::Api,
    controller::{Action, Cause, Context, Kind, Reconciler},
    object::ObjectKey,
    status::{ApiError, ApiResult},
};
use orchestrator_sim::{TestCluster, TestError};
use serde_json::{Value, json};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NAMESPACE: &str = "default";
const REPLICA_SETS: &str = "replicaset-controller";

fn object<K: Kind>(name: &str, rest: Value) -> K {
    let mut tree = json!({"metadata": {"name": name, "namespace": NAMESPACE}});
    tree.as_object_mut().unwrap().extend(rest.as_object().cloned().unwrap_or_default());
    serde_json::from_value(tree).unwrap()
}

fn workload(replicas: u32) -> Value {
    json!({
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "main", "image": "web:1"}]},
            },
        },
    })
}

fn with_replica_sets() -> TestCluster {
    TestCluster::builder().controllers(&[REPLICA_SETS]).build().unwrap()
}

/// Writes into each config map how often it was looked at in this life.
struct Counts {
    runs: Arc<AtomicUsize>,
    for_ever: bool,
}

#[async_trait]
impl Reconciler for Counts {
    type Object = ConfigMap;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> ApiResult<Action> {
        let runs = self.runs.fetch_add(1, Ordering::Relaxed) + 1;
        let Some(map) = context.caches().cache::<ConfigMap>().get(key) else { return Ok(Action::Done) };
        if self.for_ever || map.data.is_none() {
            let maps: Api<ConfigMap> = Api::namespaced(context.client(), &key.namespace);
            let data = json!({"data": {"runs": runs.to_string()}});
            maps.patch(&key.name, &PatchParams::default(), &Patch::Merge(data)).await?;
        }
        Ok(if self.for_ever { Action::RequeueAfter(Duration::from_secs(30)) } else { Action::Done })
    }
}

fn counts() -> Counts {
    Counts { runs: Arc::default(), for_ever: false }
}

#[test]
fn a_test_goes_from_change_to_change() {
    let cluster = with_replica_sets();
    assert_eq!(cluster.step().unwrap(), None, "nothing is left to be done");
    cluster.create(&object::<ReplicaSet>("web", workload(2))).unwrap();
    let mut written = Vec::new();
    while let Some(change) = cluster.step().unwrap() {
        let is_new = change.previous.is_none();
        let kind = change.key.as_str().split('/').nth(2).unwrap_or_default().to_owned();
        written.push((kind, is_new));
    }
    let of = |kind: &str, is_new| written.iter().filter(|change| **change == (kind.to_owned(), is_new)).count();
    assert_eq!(of("pods", true), 2, "{written:?}");
    assert_eq!(of("replicasets", false), 1, "its status: {written:?}");
    assert_eq!(cluster.step().unwrap(), None);
}

#[test]
fn time_passes_only_as_asked() {
    let cluster = TestCluster::new().unwrap();
    let before = cluster.env().monotonic();
    cluster.create(&object::<ConfigMap>("a", json!({}))).unwrap();
    assert_eq!(cluster.env().monotonic(), before);
    cluster.advance(Duration::from_secs(3600)).unwrap();
    assert_eq!(cluster.env().monotonic() - before, Duration::from_secs(3600));
    assert_eq!(cluster.settle().unwrap(), Duration::ZERO, "nothing was written");
}

#[test]
fn it_says_why_a_reconcile_ran() {
    let cluster = TestCluster::new().unwrap();
    cluster.start_reconciler("counts", counts).unwrap();
    cluster.create(&object::<ConfigMap>("a", json!({}))).unwrap();
    cluster.settle().unwrap();
    let runs = cluster.runs("counts").unwrap();
    let of = |name: &str| runs.iter().filter(|run| run.key.name == name).collect::<Vec<_>>();
    let run = of("a")[0];
    assert!(matches!(run.causes.items(), [Cause::Changed { key, .. }] if key.name == "a"), "{run}");
    assert_eq!(run.writes.items().iter().map(|write| write.verb).collect::<Vec<_>>(), ["patch"]);
    assert!(run.to_string().starts_with("default/a because configmaps default/a changed; read configmaps default/a"));
    cluster.expect::<ConfigMap>(NAMESPACE, "a", json!({"data": {"runs": run_number(&runs, "a")}})).unwrap();
}

/// The number of the first run for an object, as that run has written it.
fn run_number(runs: &[Arc<orchestrator_core::controller::RunTrace>], name: &str) -> String {
    let index = runs.iter().position(|run| run.key.name == name).unwrap();
    (index + 1).to_string()
}

#[test]
fn what_is_frozen_acts_when_it_thaws() {
    let cluster = with_replica_sets();
    cluster.create(&object::<ReplicaSet>("web", workload(1))).unwrap();
    cluster.settle().unwrap();
    cluster.freeze(REPLICA_SETS).unwrap();
    cluster.patch::<ReplicaSet>(NAMESPACE, "web", json!({"spec": {"replicas": 3}})).unwrap();
    cluster.settle().unwrap();
    assert_eq!(cluster.list::<Pod>().len(), 1);
    cluster.thaw(REPLICA_SETS).unwrap();
    cluster.settle().unwrap();
    assert_eq!(cluster.list::<Pod>().len(), 3);
}

#[test]
fn one_state_has_two_futures() {
    let cluster = with_replica_sets();
    cluster.create(&object::<ReplicaSet>("web", workload(2))).unwrap();
    cluster.settle().unwrap();
    let (up, gone) = (cluster.fork().unwrap(), cluster.fork_with(7).unwrap());
    up.patch::<ReplicaSet>(NAMESPACE, "web", json!({"spec": {"replicas": 5}})).unwrap();
    up.settle().unwrap();
    gone.patch::<ReplicaSet>(NAMESPACE, "web", json!({"spec": {"replicas": 0}})).unwrap();
    gone.settle().unwrap();
    let pods = |cluster: &TestCluster| cluster.list::<Pod>().len();
    assert_eq!((pods(&cluster), pods(&up), pods(&gone)), (2, 5, 0));
    assert!(up.env().monotonic() > cluster.env().monotonic());
}

#[test]
fn a_process_that_is_killed_begins_anew() {
    let cluster = TestCluster::new().unwrap();
    cluster.start_reconciler("counts", counts).unwrap();
    cluster.create(&object::<ConfigMap>("a", json!({}))).unwrap();
    cluster.settle().unwrap();
    cluster.kill("counts").unwrap();
    let map = cluster.create(&object::<ConfigMap>("b", json!({}))).unwrap();
    assert!(map.metadata.uid.is_some(), "as the server made it");
    cluster.settle().unwrap();
    cluster.expect::<ConfigMap>(NAMESPACE, "b", json!({"data": null})).unwrap();
    cluster.restart("counts").unwrap();
    cluster.settle().unwrap();
    let written = cluster.get::<ConfigMap>(NAMESPACE, "b").unwrap().data.unwrap();
    assert!(written["runs"].parse::<usize>().unwrap() <= cluster.list::<ConfigMap>().len(), "it counts from one again");
}

#[test]
fn what_is_not_as_expected_is_told_in_full() {
    let cluster = TestCluster::new().unwrap();
    cluster.create(&object::<ConfigMap>("a", json!({"data": {"color": "red"}}))).unwrap();
    let expected = json!({"data": {"color": "blue", "shape": "round"}});
    let unexpected = cluster.expect::<ConfigMap>(NAMESPACE, "a", expected).unwrap_err();
    assert_eq!(
        format!("{unexpected:?}"),
        "ConfigMap default/a is not as expected:\n  .data.color: is \"red\", expected \"blue\"\n  .data.shape: is not \
         there, expected \"round\""
    );
    let unexpected = cluster.expect::<Pod>(NAMESPACE, "b", json!({})).unwrap_err();
    assert_eq!(unexpected.to_string(), "Pod default/b is not as expected:\n  it is not there");
    let never = cluster.eventually("it is green", Duration::from_secs(5), |_| false).unwrap_err();
    assert_eq!(never.to_string(), "within 5s it did not happen that it is green");
}

#[test]
fn what_never_rests_does_not_settle() {
    let cluster = TestCluster::new().unwrap();
    cluster.start_reconciler("counts", || Counts { for_ever: true, ..counts() }).unwrap();
    cluster.create(&object::<ConfigMap>("a", json!({}))).unwrap();
    let unsettled = cluster.settle().unwrap_err();
    assert!(matches!(&unsettled, TestError::Unsettled(changes) if changes.len() == 10), "{unsettled}");
    assert!(unsettled.to_string().contains("put /registry/configmaps/default/a"), "{unsettled}");
}

#[test]
fn the_server_and_the_test_say_what_is_wrong() {
    let cluster = with_replica_sets();
    let broken = object::<ReplicaSet>("web", json!({"spec": {"selector": {"matchLabels": {"a": "b"}}}}));
    let refused = cluster.create(&broken).unwrap_err();
    assert!(matches!(&refused, TestError::Api(error) if error.code() == 422), "{refused}");
    let missing = cluster.patch::<Pod>(NAMESPACE, "none", json!({})).unwrap_err();
    assert!(matches!(&missing, TestError::Api(error) if error.is_not_found()), "{missing}");
    assert!(matches!(cluster.freeze("nobody"), Err(TestError::NoProcess(name)) if name == "nobody"));
    assert!(matches!(cluster.start_reconciler(REPLICA_SETS, counts), Err(TestError::Taken(REPLICA_SETS))));
    let unknown = TestCluster::builder().controllers(&["replicasets"]).build().unwrap_err();
    assert_eq!(unknown.to_string(), "\"replicasets\" is not in the list of known controllers");
}

#[test]
fn a_whole_cluster_runs_pods() {
    let cluster = TestCluster::builder().whole().nodes(2).build().unwrap();
    cluster.create(&object::<Deployment>("web", workload(3))).unwrap();
    let ready =
        |cluster: &TestCluster| cluster.expect::<Deployment>(NAMESPACE, "web", json!({"status": {"readyReplicas": 3}}));
    cluster.settle().unwrap();
    ready(&cluster).unwrap();
    cluster.cluster().kill_node("node-0");
    cluster.advance(Duration::from_secs(900)).unwrap();
    ready(&cluster).unwrap();
    let lives = |pod: &Pod| pod.metadata.deletion_timestamp.is_none();
    let nodes = cluster.list::<Pod>().into_iter().filter(lives).filter_map(|pod| pod.spec?.node_name);
    assert_eq!(nodes.collect::<Vec<_>>(), ["node-1"; 3]);
}
