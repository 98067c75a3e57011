//! Each invariant holds in a small world in order, and catches what is planted in it.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{ALWAYS, SETTLED, violations};
use crate::snapshot::{PodOnMachine, Snapshot, Stored};

fn put(snapshot: &mut Snapshot, tree: &Value) {
    let name = tree["metadata"]["name"].as_str().unwrap();
    let key = format!("/registry/{}/{name}", tree["kind"].as_str().unwrap().to_lowercase());
    let object = Stored::decode(tree.to_string().as_bytes()).expect("an object");
    snapshot.objects.insert(key, Arc::new(object));
}

/// Changes an object of the world through its tree.
fn change(snapshot: &mut Snapshot, tree: Value, pointer: &str, value: Value) {
    let mut tree = tree;
    *tree.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer} is not there")) = value;
    put(snapshot, &tree);
}

fn node(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "uid": name},
        "spec": {"taints": []},
        "status": {
            "allocatable": {"cpu": "1", "memory": "1Gi", "pods": "10"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}

fn owner(kind: &str, name: &str) -> Value {
    json!([{"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": name, "controller": true}])
}

fn pod(name: &str, node: &str, owner_kind: &str, owner_name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "default", "uid": name,
            "labels": {"app": "web", "controller-revision-hash": "new"},
            "ownerReferences": owner(owner_kind, owner_name),
        },
        "spec": {
            "nodeName": node,
            "containers": [{"name": "main", "resources": {"requests": {"cpu": "400m"}}}],
        },
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default", "uid": "web", "generation": 1},
        "spec": {"replicas": 1, "selector": {}, "template": {}},
        "status": {
            "observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1,
        },
    })
}

fn replica_set() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {
            "name": "web-1", "namespace": "default", "uid": "web-1", "generation": 1,
            "ownerReferences": owner("Deployment", "web"),
        },
        "spec": {"replicas": 1, "selector": {}},
        "status": {"observedGeneration": 1, "replicas": 1, "readyReplicas": 1, "availableReplicas": 1},
    })
}

fn stateful_set() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": "db", "namespace": "default", "uid": "db", "generation": 1},
        "spec": {"replicas": 1, "selector": {}, "template": {}, "serviceName": "db"},
        "status": {
            "observedGeneration": 1, "replicas": 1, "readyReplicas": 1, "updatedReplicas": 1, "updateRevision": "new",
        },
    })
}

fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default", "uid": "svc"},
        "spec": {"selector": {"app": "web"}},
    })
}

fn slice() -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "name": "web-x", "namespace": "default", "uid": "slice",
            "labels": {"kubernetes.io/service-name": "web"},
        },
        "endpoints": [
            {"addresses": ["10.0.0.1"], "conditions": {"ready": true}, "targetRef": {"uid": "web-1-a"}},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": true}, "targetRef": {"uid": "db-0"}},
        ],
    })
}

fn running(name: &str) -> PodOnMachine {
    PodOnMachine {
        uid: name.to_owned(),
        namespace: "default".to_owned(),
        name: name.to_owned(),
        running: vec!["main".to_owned()],
    }
}

fn web_pod() -> Value {
    pod("web-1-a", "a", "ReplicaSet", "web-1")
}

/// Two nodes; a deployment and a stateful set of one pod each, and a service for both.
fn world() -> Snapshot {
    let mut world = Snapshot::default();
    let objects = [
        node("a"),
        node("b"),
        deployment(),
        replica_set(),
        stateful_set(),
        service(),
        slice(),
        web_pod(),
        pod("db-0", "b", "StatefulSet", "db"),
    ];
    objects.iter().for_each(|object| put(&mut world, object));
    world.machines.insert("a".to_owned(), vec![running("web-1-a")]);
    world.machines.insert("b".to_owned(), vec![running("db-0")]);
    world
}

/// The invariants that a change breaks.
fn broken(plant: impl FnOnce(&mut Snapshot)) -> Vec<&'static str> {
    let mut world = world();
    plant(&mut world);
    let all: Vec<_> = ALWAYS.iter().chain(SETTLED).copied().collect();
    let mut names: Vec<_> = violations(&all, &world).iter().map(|violation| violation.invariant).collect();
    names.dedup();
    names
}

fn assert_caught(name: &str, plant: impl FnOnce(&mut Snapshot)) {
    let broken = broken(plant);
    assert!(broken.contains(&name), "{name:?} is not among {broken:?}");
}

#[test]
fn a_world_in_order_breaks_nothing() {
    assert_eq!(broken(|_| {}), Vec::<&str>::new());
}

#[test]
fn a_pod_on_two_nodes() {
    assert_caught("no pod runs on two nodes", |world| {
        world.machines.get_mut("b").unwrap().push(running("web-1-a"));
    });
}

#[test]
fn a_doubled_identity() {
    let twin = PodOnMachine { uid: "another".to_owned(), ..running("db-0") };
    assert_caught("no identity runs twice", |world| world.machines.get_mut("a").unwrap().push(twin));
    let ended = PodOnMachine { uid: "another".to_owned(), running: Vec::new(), ..running("db-0") };
    let broken = broken(|world| world.machines.get_mut("a").unwrap().push(ended));
    assert!(!broken.contains(&"no identity runs twice"), "one that has ended is no twin: {broken:?}");
}

#[test]
fn an_overcommitted_node() {
    let name = "no node is overcommitted";
    let more = |world: &mut Snapshot, count: usize| {
        (0..count).for_each(|index| put(world, &pod(&format!("more-{index}"), "a", "ReplicaSet", "web-1")));
    };
    assert_caught(name, |world| more(world, 2));
    assert!(!broken(|world| more(world, 1)).contains(&name), "800m of 1000m");
    assert_caught(name, |world| change(world, node("a"), "/status/allocatable/pods", json!("0")));
    let finished = broken(|world| {
        more(world, 2);
        for index in 0..2 {
            let over = pod(&format!("more-{index}"), "a", "ReplicaSet", "web-1");
            change(world, over, "/status/phase", json!("Succeeded"));
        }
    });
    assert!(!finished.contains(&name), "pods that are over take nothing");
}

#[test]
fn a_misplaced_pod() {
    assert_caught("no pod runs on a node that it is not bound to", |world| {
        let pod = world.machines.get_mut("a").unwrap().pop().unwrap();
        world.machines.get_mut("b").unwrap().push(pod);
    });
}

#[test]
fn a_node_in_trouble() {
    let name = "every node is ready";
    assert_caught(name, |world| change(world, node("a"), "/status/conditions/0/status", json!("Unknown")));
    let taint = json!([{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}]);
    assert_caught(name, |world| change(world, node("a"), "/spec/taints", taint));
}

#[test]
fn a_pod_that_is_not_ready() {
    let name = "every pod is ready where it is bound";
    assert_caught(name, |world| change(world, web_pod(), "/status/conditions/0/status", json!("False")));
    assert_caught(name, |world| change(world, web_pod(), "/spec/nodeName", json!("")));
    assert_caught(name, |world| change(world, web_pod(), "/spec/nodeName", json!("gone")));
}

#[test]
fn strays_on_machines() {
    let name = "machines run what is bound to them, and nothing else";
    assert_caught(name, |world| world.machines.get_mut("a").unwrap().clear());
    assert_caught(name, |world| world.machines.get_mut("a").unwrap().push(running("nobody's")));
    assert_caught(name, |world| world.machines.get_mut("a").unwrap()[0].running.clear());
}

#[test]
fn workloads_that_are_not_as_they_ask() {
    let name = "deployments are as they ask";
    assert_caught(name, |world| change(world, deployment(), "/spec/replicas", json!(2)));
    assert_caught(name, |world| change(world, deployment(), "/status/updatedReplicas", json!(0)));
    assert_caught(name, |world| change(world, deployment(), "/metadata/generation", json!(2)));
    let name = "replica sets are as they ask";
    assert_caught(name, |world| change(world, replica_set(), "/spec/replicas", json!(2)));
    assert_caught(name, |world| change(world, replica_set(), "/status/readyReplicas", json!(0)));
    let name = "stateful sets are as they ask";
    assert_caught(name, |world| change(world, stateful_set(), "/status/updateRevision", json!("newer")));
    assert_caught(name, |world| put(world, &pod("db-1", "b", "StatefulSet", "db")));
    assert_caught(name, |world| drop(world.objects.remove("/registry/pod/db-0")));
}

#[test]
fn a_service_that_lists_others_than_its_pods() {
    let name = "services list their pods";
    assert_caught(name, |world| change(world, slice(), "/endpoints/0/targetRef/uid", json!("old")));
    assert_caught(name, |world| change(world, slice(), "/endpoints/0/conditions/ready", json!(false)));
}

#[test]
fn what_is_left_behind() {
    let name = "nothing is orphaned";
    assert_caught(name, |world| drop(world.objects.remove("/registry/deployment/web")));
    assert_caught(name, |world| drop(world.objects.remove("/registry/service/web")));
    assert_caught(name, |world| {
        change(world, web_pod(), "/metadata/ownerReferences/0/uid", json!("an earlier one"));
    });
    let mut going = web_pod();
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert_caught("nothing waits for its end", |world| put(world, &going));
}
