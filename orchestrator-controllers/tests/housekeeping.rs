//! The controllers that keep a cluster tidy, together, against a fake API server in virtual time.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{ConfigMap, Event, Namespace, Node, Pod, Secret, Service, ServiceAccount},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube_core::params::{DeleteParams, ListParams, PostParams};
use orchestrator_controllers::{Controllers, Options};
use orchestrator_core::{
    client::{Api, Client, Resource, ResourceDiscovery, ResourceInfo},
    controller::{Caches, Kind},
    env::{Env, Simulation},
    meta,
    status::ApiResult,
};
use orchestrator_testkit::fake_api::FakeApi;
use serde_json::{Value, json};

#[derive(Debug)]
struct Served;

#[async_trait]
impl ResourceDiscovery for Served {
    async fn resources(&self) -> ApiResult<Vec<ResourceInfo>> {
        Ok(vec![
            info::<ConfigMap>(true),
            info::<Secret>(true),
            info::<Pod>(true),
            info::<Service>(true),
            info::<ServiceAccount>(true),
            info::<EndpointSlice>(true),
            info::<Namespace>(false),
            info::<Node>(false),
        ])
    }
}

fn info<K: Kind>(namespaced: bool) -> ResourceInfo {
    let verbs = ["get", "list", "watch", "delete", "deletecollection"].map(str::to_owned).to_vec();
    ResourceInfo { resource: Resource::of::<K>(&()), kind: K::kind(&()).into_owned(), namespaced, verbs }
}

struct World {
    env: Env,
    client: Client,
}

impl World {
    async fn create<K: Kind>(&self, namespace: &str, tree: Value) -> Arc<K> {
        let object: K = serde_json::from_value(tree).unwrap();
        self.api::<K>(namespace).create(&PostParams::default(), &object).await.unwrap()
    }

    fn api<K: Kind>(&self, namespace: &str) -> Api<K> {
        let namespace = Some(namespace.to_owned()).filter(|namespace| !namespace.is_empty());
        Api::of_resource(&self.client, Resource::of::<K>(&()), namespace)
    }

    async fn names<K: Kind>(&self, namespace: &str) -> Vec<String> {
        let list = self.api::<K>(namespace).list(&ListParams::default()).await.unwrap();
        list.items.iter().map(|object| meta::name(object.meta()).to_owned()).collect()
    }

    async fn get<K: Kind>(&self, namespace: &str, name: &str) -> Arc<K> {
        self.api::<K>(namespace).get(name).await.unwrap()
    }

    async fn wait(&self, seconds: u64) {
        self.env.sleep(Duration::from_secs(seconds)).await;
    }
}

/// Runs some controllers and a test beside them, in several worlds; everything has to end.
fn simulate(controllers: &[&str], test: impl AsyncFn(&World)) {
    for seed in 0..5 {
        let simulation = Simulation::new(seed);
        let env = simulation.env();
        let world = World { client: FakeApi::new(&env).client(), env: env.clone() };
        let caches = Caches::new(&world.client, &env);
        let mut options = Options::default();
        options.root_certificates = Some("PEM".to_owned());
        let builder = Controllers::builder(&caches, Arc::new(Served)).controllers(controllers).unwrap();
        let controllers = builder.options(options).start();
        let done = simulation.run(async {
            test(&world).await;
            let states = controllers.states();
            assert!(states.values().all(|state| state.running && state.restarts == 0), "{states:?}");
            controllers.shutdown().await;
            caches.shutdown().await;
        });
        done.unwrap_or_else(|stuck| panic!("seed {seed}: {stuck}"));
        assert_eq!(simulation.tasks(), 0, "nothing is left running");
    }
}

fn owner<K: Kind>(object: &K, block: bool) -> Value {
    let mut reference = meta::owner_reference(object, false);
    reference.block_owner_deletion = Some(block);
    json!([reference])
}

#[test]
fn a_namespace_is_furnished_and_emptied() {
    let names = ["namespace-controller", "serviceaccount-controller", "root-ca-certificate-publisher-controller"];
    simulate(&names, async |world| {
        world.create::<Namespace>("", json!({"metadata": {"name": "team"}})).await;
        world.wait(1).await;
        assert_eq!(world.names::<ServiceAccount>("team").await, ["default"]);
        let map = world.get::<ConfigMap>("team", "kube-root-ca.crt").await;
        assert_eq!(map.data.as_ref().unwrap()["ca.crt"], "PEM");
        world.api::<ServiceAccount>("team").delete("default", &DeleteParams::default()).await.unwrap();
        world.wait(1).await;
        assert_eq!(world.names::<ServiceAccount>("team").await, ["default"]);
        world.create::<Pod>("team", json!({"metadata": {"name": "slow", "finalizers": ["example.com/slow"]}})).await;
        world.create::<Secret>("team", json!({"metadata": {"name": "needed"}})).await;
        world.api::<Namespace>("").delete("team", &DeleteParams::default()).await.unwrap();
        world.wait(2).await;
        let namespace = world.get::<Namespace>("", "team").await;
        let conditions = namespace.status.clone().unwrap().conditions.unwrap();
        assert!(meta::is_condition_true(&conditions, "NamespaceFinalizersRemaining"), "{conditions:?}");
        assert_eq!(world.names::<Secret>("team").await, ["needed"], "pods go first");
        let mut pod = (*world.get::<Pod>("team", "slow").await).clone();
        pod.metadata.finalizers = None;
        world.api::<Pod>("team").replace("slow", &PostParams::default(), &pod).await.unwrap();
        world.wait(1).await;
        assert!(world.names::<Namespace>("").await.is_empty());
        assert!(world.names::<ConfigMap>("team").await.is_empty());
    });
}

#[test]
fn garbage_is_what_nobody_owns() {
    simulate(&["garbage-collector-controller"], async |world| {
        let ghost = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": "gone"}]);
        let map = |name: &str, owners: &Value| json!({"metadata": {"name": name, "ownerReferences": owners}});
        let owner_map = world.create::<ConfigMap>("a", map("owner", &Value::Null)).await;
        world.create::<ConfigMap>("a", map("ghost", &ghost)).await;
        let child = world.create::<Secret>("a", map("child", &owner(&*owner_map, true))).await;
        world.create::<Secret>("a", map("grandchild", &owner(&*child, true))).await;
        world
            .create::<Secret>(
                "a",
                map(
                    "foreign",
                    &json!([{
                        "apiVersion": "example.com/v1", "kind": "Unknown", "name": "x", "uid": "y",
                    }]),
                ),
            )
            .await;
        let mut two = owner(&*owner_map, false);
        two.as_array_mut().unwrap().extend(ghost.as_array().unwrap().clone());
        world.create::<Secret>("a", map("two", &two)).await;
        world.wait(5).await;
        assert_eq!(world.names::<ConfigMap>("a").await, ["owner"]);
        assert_eq!(world.names::<Secret>("a").await, ["child", "foreign", "grandchild", "two"]);
        assert_eq!(meta::owners(&world.get::<Secret>("a", "two").await.metadata).len(), 1, "the absent one is dropped");
        // Elsewhere nobody is found under that name.
        world.create::<Secret>("b", map("astray", &owner(&*owner_map, true))).await;
        world.create::<Node>("", map("astray", &owner(&*owner_map, true))).await;
        world.wait(5).await;
        assert!(world.names::<Secret>("b").await.is_empty());
        assert_eq!(world.names::<Node>("").await, ["astray"], "an object of the cluster is never collected so");
        let events = world.api::<Event>("default").list(&ListParams::default()).await.unwrap();
        assert_eq!(events.items[0].reason.as_deref(), Some("OwnerRefInvalidNamespace"));
        world.api::<ConfigMap>("a").delete("owner", &DeleteParams::background()).await.unwrap();
        world.wait(5).await;
        assert_eq!(world.names::<Secret>("a").await, ["foreign"]);
    });
}

#[test]
fn owners_wait_for_dependents_or_leave_them() {
    simulate(&["garbage-collector-controller"], async |world| {
        let map = |name: &str, owners: &Value| json!({"metadata": {"name": name, "ownerReferences": owners}});
        let first = world.create::<ConfigMap>("a", map("first", &Value::Null)).await;
        let second = world.create::<ConfigMap>("a", map("second", &Value::Null)).await;
        let mut slow = map("slow", &owner(&*first, true));
        slow["metadata"]["finalizers"] = json!(["example.com/slow"]);
        world.create::<Secret>("a", slow).await;
        world.create::<Secret>("a", map("quick", &owner(&*first, true))).await;
        world.create::<Secret>("a", map("left", &owner(&*second, true))).await;
        world.wait(2).await;
        world.api::<ConfigMap>("a").delete("first", &DeleteParams::foreground()).await.unwrap();
        world.api::<ConfigMap>("a").delete("second", &DeleteParams::orphan()).await.unwrap();
        world.wait(5).await;
        assert_eq!(world.names::<ConfigMap>("a").await, ["first"]);
        assert_eq!(world.names::<Secret>("a").await, ["left", "slow"]);
        assert!(meta::owners(&world.get::<Secret>("a", "left").await.metadata).is_empty());
        let mut slow = (*world.get::<Secret>("a", "slow").await).clone();
        slow.metadata.finalizers = None;
        world.api::<Secret>("a").replace("slow", &PostParams::default(), &slow).await.unwrap();
        world.wait(5).await;
        assert!(world.names::<ConfigMap>("a").await.is_empty());
        assert_eq!(world.names::<Secret>("a").await, ["left"]);
    });
}

#[test]
fn slices_follow_pods() {
    simulate(&["endpointslice-controller"], async |world| {
        let service = json!({
            "metadata": {"name": "svc"},
            "spec": {"selector": {"app": "a"}, "ports": [{"port": 80, "targetPort": 8080}]},
        });
        world.create::<Service>("a", service).await;
        world.wait(1).await;
        let slice = world.names::<EndpointSlice>("a").await;
        assert_eq!(slice.len(), 1, "empty at first");
        world.create::<Node>("", json!({"metadata": {"name": "n"}})).await;
        let pod =
            json!({"metadata": {"name": "p", "labels": {"app": "a"}}, "spec": {"nodeName": "n", "containers": []}});
        let mut pod = (*world.create::<Pod>("a", pod).await).clone();
        pod.status = serde_json::from_value(json!({
            "podIPs": [{"ip": "10.0.0.1"}], "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}],
        }))
        .unwrap();
        world.api::<Pod>("a").replace_status("p", &PostParams::default(), &pod).await.unwrap();
        world.wait(1).await;
        let names = world.names::<EndpointSlice>("a").await;
        assert_eq!(names.len(), 1);
        let slice = world.get::<EndpointSlice>("a", &names[0]).await;
        assert_eq!(slice.endpoints.as_ref().unwrap()[0].addresses, ["10.0.0.1"]);
        assert_eq!(slice.ports.as_ref().unwrap()[0].port, Some(8080));
        world.api::<Pod>("a").delete("p", &DeleteParams::default()).await.unwrap();
        world.wait(1).await;
        let names = world.names::<EndpointSlice>("a").await;
        assert_eq!(world.get::<EndpointSlice>("a", &names[0]).await.endpoints, None);
    });
}

/// Renews a node's lease.
async fn renew(world: &World, node: &str) {
    let leases = world.api::<Lease>("kube-node-lease");
    let mut lease = leases.get_opt(node).await.unwrap().map(|lease| (*lease).clone()).unwrap_or_default();
    lease.metadata = ObjectMeta { name: Some(node.to_owned()), ..lease.metadata };
    lease.spec.get_or_insert_default().renew_time = Some(MicroTime(world.env.now()));
    if lease.metadata.uid.is_some() {
        leases.replace(node, &PostParams::default(), &lease).await.unwrap();
    } else {
        leases.create(&PostParams::default(), &lease).await.unwrap();
    }
}

#[test]
fn pods_leave_a_silent_node_and_a_removed_one() {
    let names = ["node-lifecycle-controller", "taint-eviction-controller", "pod-garbage-collector-controller"];
    simulate(&names, async |world| {
        for name in ["good", "bad", "removed"] {
            let mut node = (*world.create::<Node>("", json!({"metadata": {"name": name}})).await).clone();
            node.status = serde_json::from_value(json!({"conditions": [{"type": "Ready", "status": "True"}]})).unwrap();
            world.api::<Node>("").replace_status(name, &PostParams::default(), &node).await.unwrap();
            let pod = json!({
                "metadata": {"name": format!("on-{name}")},
                "spec": {"nodeName": name, "containers": [], "tolerations": [{
                    "key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute",
                    "tolerationSeconds": 100,
                }]},
            });
            let mut pod = (*world.create::<Pod>("a", pod).await).clone();
            pod.status = serde_json::from_value(json!({"conditions": [{"type": "Ready", "status": "True"}]})).unwrap();
            world.api::<Pod>("a").replace_status(&format!("on-{name}"), &PostParams::default(), &pod).await.unwrap();
        }
        world.api::<Node>("").delete("removed", &DeleteParams::default()).await.unwrap();
        let ten_seconds = async |times: u32| {
            for _ in 0..times {
                renew(world, "good").await;
                world.wait(10).await;
            }
        };
        ten_seconds(4).await;
        assert_eq!(world.names::<Pod>("a").await.len(), 3);
        ten_seconds(4).await;
        assert_eq!(world.names::<Pod>("a").await, ["on-bad", "on-good"]);
        let bad = world.get::<Node>("", "bad").await;
        let taints: Vec<_> =
            bad.spec.as_ref().unwrap().taints.iter().flatten().map(|taint| taint.effect.as_str()).collect();
        assert_eq!(taints, ["NoSchedule", "NoExecute"]);
        let pod = world.get::<Pod>("a", "on-bad").await;
        assert!(!meta::is_condition_true(pod.status.as_ref().unwrap().conditions.as_ref().unwrap(), "Ready"));
        ten_seconds(10).await;
        assert_eq!(world.names::<Pod>("a").await, ["on-good"]);
        // The node comes back.
        let mut node = (*world.get::<Node>("", "bad").await).clone();
        node.status = serde_json::from_value(json!({"conditions": [{"type": "Ready", "status": "True"}]})).unwrap();
        world.api::<Node>("").replace_status("bad", &PostParams::default(), &node).await.unwrap();
        world.wait(1).await;
        assert_eq!(world.get::<Node>("", "bad").await.spec.as_ref().and_then(|spec| spec.taints.clone()), None);
    });
}

#[test]
fn controllers_are_chosen_as_upstream_does() {
    let simulation = Simulation::new(1);
    let env = simulation.env();
    let caches = Caches::new(&FakeApi::new(&env).client(), &env);
    let builder = || Controllers::builder(&caches, Arc::new(Served));
    assert_eq!(builder().controllers(&["nonsense"]).unwrap_err().0, "nonsense");
    let started = |names: &[&str]| {
        let controllers = builder().controllers(names).unwrap().start();
        simulation
            .run(async {
                env.sleep(Duration::from_secs(1)).await;
                let count = controllers.states().len();
                controllers.shutdown().await;
                count
            })
            .unwrap()
    };
    let on_request = ["bootstrap-signer-controller", "token-cleaner-controller"];
    let by_default = Controllers::names().count() - on_request.len();
    assert_eq!(started(&["*", "-namespace-controller"]), by_default - 1);
    assert_eq!(started(&["*", on_request[0]]), by_default + 1);
    assert_eq!(started(&["namespace-controller"]), 1);
}
