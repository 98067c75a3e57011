//! What controllers are to bring about, whatever goes wrong.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
        batch::v1::Job,
        core::v1::{ConfigMap, ContainerStatus, Namespace, Node, Pod, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube_core::params::{DeleteParams, Patch, PatchParams, PostParams};
use orchestrator_controllers::Controllers;
use orchestrator_core::{
    client::Api,
    controller::{Action, Context, Controller, Kind, Reconciler},
    object::ObjectKey,
    status::{ApiError, ApiResult},
};
use orchestrator_node::NodeAgent;
use orchestrator_scheduler::{Scheduling, framework::Profile};
use orchestrator_sim::explore::{Explorer, Fault, Objects, Process, explore};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::planted::{self, Looped, Memory, Plant, Wavering};

pub(crate) const NAMESPACE: &str = "default";

/// Some of the controllers, and a player of nodes beside them.
pub(crate) fn controllers(names: &'static [&'static str], plant: Option<Plant>) -> Explorer {
    let begin = move |process: Process| async move {
        let builder = Controllers::builder(&planted::caches(&process, plant), process.discovery());
        let _running = builder.controllers(names).expect("they are controllers").start();
        std::future::pending().await
    };
    explore(begin).beside(nodes).seeds(30)
}

/// Plays the nodes: what is to run for good runs, what is to end has ended.
async fn nodes(process: Process) {
    let controller = Controller::new("nodes", &process.caches()).reconciles::<Pod>();
    controller.run(Nodes, CancellationToken::new()).await;
}

struct Nodes;

#[async_trait]
impl Reconciler for Nodes {
    type Object = Pod;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> ApiResult<Action> {
        let Some(pod) = context.caches().cache::<Pod>().get(key) else { return Ok(Action::Done) };
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if phase != Some("Pending") || pod.metadata.deletion_timestamp.is_some() {
            return Ok(Action::Done);
        }
        let for_good = pod.spec.as_ref().is_some_and(|spec| spec.restart_policy.as_deref() == Some("Always"));
        let ready = if for_good { "True" } else { "False" };
        let status = json!({
            "phase": if for_good { "Running" } else { "Succeeded" },
            "podIP": "10.0.0.1",
            "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        });
        let api: Api<Pod> = Api::namespaced(context.client(), &key.namespace);
        match api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(json!({"status": status}))).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(Action::Done),
        }
    }
}

fn object<K: Kind>(name: &str, rest: Value) -> K {
    let mut tree = json!({"metadata": {"name": name, "namespace": NAMESPACE}});
    tree.as_object_mut().unwrap().extend(rest.as_object().cloned().unwrap_or_default());
    serde_json::from_value(tree).unwrap()
}

fn spec(replicas: u32, image: &str) -> Value {
    json!({
        "replicas": replicas,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "main", "image": image}]},
        },
    })
}

fn replicas(number: u32) -> Value {
    json!({"spec": {"replicas": number}})
}

/// How many pods of an image there are.
fn pods(objects: &Objects, image: &str) -> usize {
    let of_image = |pod: &Pod| {
        let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
        containers.iter().any(|container| container.image.as_deref() == Some(image))
    };
    objects.list::<Pod>().into_iter().filter(of_image).count()
}

/// Pods come and go with the number that is asked for.
pub(crate) fn replica_sets(plant: Option<Plant>) -> Explorer {
    controllers(&["replicaset-controller"], plant)
        .ends_the_same()
        .creates(&object::<ReplicaSet>("web", json!({"spec": spec(2, "app:1")})))
        .patches::<ReplicaSet>(NAMESPACE, "web", replicas(3))
        .settles()
        .patches::<ReplicaSet>(NAMESPACE, "web", replicas(1))
        .eventually("it has its pods and says so", |objects| {
            let status = objects.get::<ReplicaSet>(NAMESPACE, "web").and_then(|set| set.status).unwrap_or_default();
            pods(objects, "app:1") == 1
                && (status.replicas, status.ready_replicas, status.available_replicas) == (1, Some(1), Some(1))
                && status.observed_generation == Some(3)
        })
}

/// A rollout.
pub(crate) fn deployments(plant: Option<Plant>) -> Explorer {
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "app:2"}]}}}});
    controllers(&["deployment-controller", "replicaset-controller"], plant)
        .ends_the_same()
        .creates(&object::<Deployment>("web", json!({"spec": spec(2, "app:1")})))
        .settles()
        .patches::<Deployment>(NAMESPACE, "web", image)
        // Whose reads are stale may go beyond it, as upstream may.
        .faults(|fault| !matches!(fault, Fault::BackInTime(..)))
        // What it asks for. A pod of the new set may come a moment before the old set has let go of one, as upstream.
        .never("a rollout asks for more pods than it may have", |objects| {
            let sets = objects.list::<ReplicaSet>();
            sets.iter().filter_map(|set| set.spec.as_ref()?.replicas).sum::<i32>() > 3
        })
        .eventually("all of it is new", |objects| {
            let status = objects.get::<Deployment>(NAMESPACE, "web").and_then(|it| it.status).unwrap_or_default();
            (pods(objects, "app:1"), pods(objects, "app:2")) == (0, 2)
                && (status.updated_replicas, status.available_replicas) == (Some(2), Some(2))
        })
}

/// Pods with names come one after the other, and go so.
pub(crate) fn stateful_sets(plant: Option<Plant>) -> Explorer {
    let mut set = spec(2, "app:1");
    set["serviceName"] = "web".into();
    controllers(&["statefulset-controller"], plant)
        .ends_the_same()
        .creates(&object::<StatefulSet>("web", json!({"spec": set})))
        .settles()
        .patches::<StatefulSet>(NAMESPACE, "web", replicas(3))
        .patches::<StatefulSet>(NAMESPACE, "web", replicas(1))
        .always("a pod is there only with those before it, or while they go", |objects| {
            let names: Vec<String> = objects.list::<Pod>().into_iter().filter_map(|pod| pod.metadata.name).collect();
            names.iter().all(|name| ["web-0", "web-1", "web-2"].contains(&name.as_str()))
        })
        .eventually("one pod is left", |objects| {
            let status = objects.get::<StatefulSet>(NAMESPACE, "web").and_then(|it| it.status).unwrap_or_default();
            objects.get::<Pod>(NAMESPACE, "web-0").is_some()
                && objects.list::<Pod>().len() == 1
                && (status.replicas, status.ready_replicas) == (1, Some(1))
        })
}

/// Each index of a job is done once.
pub(crate) fn jobs(plant: Option<Plant>) -> Explorer {
    let job = json!({"spec": {
        "completions": 3, "parallelism": 2, "completionMode": "Indexed",
        "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "app:1"}]}},
    }});
    // Whose reads are stale may make a second pod for an index, as upstream may: it has to count once.
    controllers(&["job-controller"], plant)
        .creates(&object::<Job>("sum", job))
        .always("no index is counted twice", |objects| {
            let status = objects.get::<Job>(NAMESPACE, "sum").and_then(|job| job.status).unwrap_or_default();
            status.succeeded.unwrap_or_default() <= 3
        })
        .eventually("it is complete, and its pods are free to go", |objects| {
            let status = objects.get::<Job>(NAMESPACE, "sum").and_then(|job| job.status).unwrap_or_default();
            let free =
                objects.list::<Pod>().iter().all(|pod| pod.metadata.finalizers.iter().flatten().next().is_none());
            let conditions = status.conditions.unwrap_or_default();
            free && status.succeeded == Some(3)
                && status.completed_indexes.as_deref() == Some("0-2")
                && conditions.iter().any(|condition| condition.type_ == "Complete" && condition.status == "True")
        })
}

/// A namespace goes with all that is in it.
pub(crate) fn namespaces(plant: Option<Plant>) -> Explorer {
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": "team"}})).unwrap();
    let inside = |name: &str| {
        let mut map = object::<ConfigMap>(name, json!({}));
        map.metadata.namespace = Some("team".to_owned());
        map
    };
    controllers(&["namespace-controller"], plant)
        .ends_the_same()
        .creates(&namespace)
        .creates(&inside("a"))
        .creates(&inside("b"))
        .deletes::<Namespace>("", "team")
        .eventually("the namespace is gone with all that was in it", |objects| {
            let left = objects.list::<ConfigMap>().iter().any(|map| map.metadata.namespace.as_deref() == Some("team"));
            !left && objects.get::<Namespace>("", "team").is_none()
        })
}

/// A service finds its pods.
pub(crate) fn endpoint_slices(plant: Option<Plant>) -> Explorer {
    // Without an address of its own, which would be drawn.
    let service = json!({"spec": {"clusterIP": "None", "selector": {"app": "web"}, "ports": [{"port": 80}]}});
    let pod = |name: &str| {
        // Nobody plays its node: it goes at once.
        let container = json!({"name": "main", "image": "app:1"});
        let spec = json!({"nodeName": "n", "terminationGracePeriodSeconds": 0, "containers": [container]});
        let mut pod = object::<Pod>(name, json!({"spec": spec}));
        pod.metadata.labels = Some([("app".to_owned(), "web".to_owned())].into());
        pod
    };
    controllers(&["endpointslice-controller"], plant)
        .ends_the_same()
        .creates(&node("n"))
        .creates(&object::<Service>("web", service))
        .creates(&pod("a"))
        .creates(&pod("b"))
        .settles()
        .deletes::<Pod>(NAMESPACE, "a")
        .eventually("the pod that is left is the one to be reached", |objects| {
            let slices = objects.list::<EndpointSlice>().into_iter();
            let slices = slices.filter(|slice| slice.metadata.namespace.as_deref() == Some(NAMESPACE));
            let targets = slices.filter(|slice| slice.metadata.name.as_deref() != Some("kubernetes"));
            let targets: Vec<Option<String>> = targets
                .flat_map(|slice| slice.endpoints.unwrap_or_default())
                .map(|endpoint| endpoint.target_ref.and_then(|target| target.name))
                .collect();
            targets == [Some("b".to_owned())]
        })
}

/// A config map that belongs to another one, by a UID that no object of this name has any more.
fn orphan(name: &str) -> ConfigMap {
    let mut map = object::<ConfigMap>(name, json!({}));
    map.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "ConfigMap".to_owned(),
        name: "owner".to_owned(),
        uid: "11111111-2222-4333-8444-555555555555".to_owned(),
        ..OwnerReference::default()
    }]);
    map
}

/// What belonged to somebody who is gone goes.
pub(crate) fn garbage(plant: Option<Plant>) -> Explorer {
    controllers(&["garbage-collector-controller"], plant)
        .ends_the_same()
        .creates(&object::<ConfigMap>("owner", json!({})))
        .creates(&object::<ConfigMap>("free", json!({})))
        .creates(&orphan("left"))
        .waits(Duration::from_secs(60))
        .always("what belongs to nobody stays", |objects| {
            let is_made = objects.get::<ConfigMap>(NAMESPACE, "left").is_some();
            !is_made || objects.get::<ConfigMap>(NAMESPACE, "free").is_some()
        })
        .eventually("what belongs to one who is gone is gone, too", |objects| {
            let there = |name: &str| objects.get::<ConfigMap>(NAMESPACE, name).is_some();
            there("owner") && there("free") && !there("left")
        })
}

/// Nodes begin with a taint, which goes when they are looked after.
struct Untaints;

#[async_trait]
impl Reconciler for Untaints {
    type Object = Node;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> ApiResult<Action> {
        let node = context.caches().cache::<Node>().get(key);
        if node.is_some_and(|node| node.spec.as_ref().is_some_and(|spec| spec.taints.is_some())) {
            let nodes: Api<Node> = Api::all(context.client());
            let patch = Patch::Merge(json!({"spec": {"taints": null}}));
            nodes.patch(&key.name, &PatchParams::default(), &patch).await?;
        }
        Ok(Action::Done)
    }
}

async fn untaint(process: Process) {
    let controller = Controller::new("untaints", &process.caches()).reconciles::<Node>();
    controller.run(Untaints, CancellationToken::new()).await;
}

fn node(name: &str) -> Node {
    let condition = json!({"type": "Ready", "status": "True"});
    let allocatable = json!({"cpu": "1", "memory": "1Gi", "pods": "10"});
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"allocatable": allocatable, "capacity": allocatable, "conditions": [condition]},
    }))
    .unwrap()
}

/// One pod for each node.
pub(crate) fn daemon_sets(plant: Option<Plant>) -> Explorer {
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "app:2"}]}}}});
    let mut set = spec(0, "app:1");
    set.as_object_mut().unwrap().remove("replicas");
    controllers(&["daemonset-controller"], plant)
        .beside(untaint)
        .given(&node("one"))
        .creates(&object::<DaemonSet>("agent", json!({"spec": set})))
        .creates(&node("two"))
        .settles()
        .patches::<DaemonSet>(NAMESPACE, "agent", image)
        .eventually("each node has one new pod", |objects| {
            let status = objects.get::<DaemonSet>(NAMESPACE, "agent").and_then(|set| set.status).unwrap_or_default();
            (pods(objects, "app:1"), pods(objects, "app:2")) == (0, 2)
                && (status.number_ready, status.updated_number_scheduled) == (2, Some(2))
        })
}

/// Each pod gets a node that can bear it.
pub(crate) fn the_scheduler(plant: Option<Plant>) -> Explorer {
    const NODES: [&str; 3] = ["one", "two", "three"];
    let begin = move |process: Process| async move {
        let mut builder = Scheduling::builder(&planted::caches(&process, plant), process.env());
        if let Some(Plant::Verdict(change)) = plant {
            builder = builder.scheduler(Box::new(Wavering(Profile::default(), change)));
        }
        builder.build().run(CancellationToken::new()).await;
    };
    let pod = |name: &str| {
        let container = json!({"name": "main", "image": "app:1", "resources": {"requests": {"cpu": "600m"}}});
        object::<Pod>(name, json!({"spec": {"containers": [container]}}))
    };
    let on = |objects: &Objects, node: &str| {
        let is_on = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node);
        objects.list::<Pod>().into_iter().filter(is_on).count()
    };
    explore(begin)
        .seeds(30)
        .beside(untaint)
        .given(&node("one"))
        .given(&node("two"))
        .creates(&pod("a"))
        .creates(&pod("b"))
        .creates(&pod("c"))
        .settles()
        .creates(&node("three"))
        // Whose reads are stale may give a node too much, as upstream may: the node refuses the pod then.
        .faults(|fault| !matches!(fault, Fault::BackInTime(..)))
        .always("no node has more than it can bear", move |objects| NODES.iter().all(|node| on(objects, node) <= 1))
        .eventually("every node has a pod", move |objects| NODES.iter().all(|node| on(objects, node) == 1))
}

/// Pods run on the node that they are bound to, and are gone from the machine when they are gone.
pub(crate) fn the_node_agent() -> Explorer {
    let begin = |process: Process| async move {
        let runtime = Arc::new(process.machine().runtime());
        let _agent = NodeAgent::builder(process.client(), process.env(), runtime, "one").start();
        std::future::pending().await
    };
    let pod = |name: &str, version: &str| {
        let container = json!({"name": "main", "image": format!("app:{version}")});
        let spec = json!({"nodeName": "one", "containers": [container], "automountServiceAccountToken": false});
        object::<Pod>(name, json!({"spec": spec}))
    };
    let runs = |objects: &Objects, name: &str| {
        let status = objects.get::<Pod>(NAMESPACE, name).and_then(|pod| pod.status).unwrap_or_default();
        let is_running = |container: &ContainerStatus| container.state.as_ref().is_some_and(|it| it.running.is_some());
        status.phase.as_deref() == Some("Running") && status.container_statuses.iter().flatten().all(is_running)
    };
    let image = |objects: &Objects, name: &str| objects.get::<Pod>(NAMESPACE, name)?.spec?.containers[0].image.clone();
    explore(begin)
        .seeds(60)
        // Its lease is renewed for as long as a run lasts.
        .faults(|fault| fault.place() <= 60)
        .creates(&pod("a", "1"))
        .creates(&pod("b", "1"))
        .settles()
        .deletes::<Pod>(NAMESPACE, "a")
        .settles()
        .creates(&pod("a", "2"))
        .deletes::<Pod>(NAMESPACE, "b")
        .creates(&pod("c", "1"))
        .eventually("what is to run runs", move |objects| {
            runs(objects, "a") && image(objects, "a").as_deref() == Some("app:2") && runs(objects, "c")
        })
        .eventually("what was deleted is gone", |objects| objects.get::<Pod>(NAMESPACE, "b").is_none())
}

/// A map that is to have a copy, for as long as it is there, and to be ripe after a while.
pub(crate) fn copies(plant: Option<Plant>) -> Explorer {
    let begin = move |process: Process| async move {
        let controller = Controller::new("copies", &planted::caches(&process, plant)).reconciles::<ConfigMap>();
        let copies = Looped { reconciler: Copies, plant, memory: Memory::default() };
        controller.run(copies, CancellationToken::new()).await;
    };
    let map = |data: &str| object::<ConfigMap>("a", json!({"data": {"text": data}}));
    explore(begin)
        .seeds(30)
        .creates(&map("one"))
        .settles()
        .patches::<ConfigMap>(NAMESPACE, "a", json!({"data": {"text": "two"}}))
        .creates(&object::<ConfigMap>("b", json!({"data": {"text": "three"}})))
        .settles()
        .deletes::<ConfigMap>(NAMESPACE, "b")
        .creates(&object::<ConfigMap>("c", json!({"data": {"text": "four"}})))
        .eventually("there is a copy of what is there, and it is ripe", |objects| {
            let text = |name: &str| Some(objects.get::<ConfigMap>(NAMESPACE, name)?.data?.get("text")?.clone());
            let is_ripe = |name: &str| {
                let map = objects.get::<ConfigMap>(NAMESPACE, name).unwrap_or_default();
                map.metadata.labels.is_some_and(|labels| labels.contains_key(RIPE))
            };
            text("b-copy") == text("b")
                && ["a", "c"].iter().all(|name| text(&format!("{name}-copy")) == text(name) && is_ripe(name))
        })
}

/// The label of a map that has been there for a while, and how long that is.
const RIPE: &str = "ripe";
const RIPENS: Duration = Duration::from_secs(20);
const FINALIZER: &str = "example.com/copies";

#[derive(Debug)]
struct Copies;

fn is_held(map: Option<Arc<ConfigMap>>) -> bool {
    map.is_some_and(|map| map.metadata.finalizers.iter().flatten().any(|held| held == FINALIZER))
}

#[async_trait]
impl Reconciler for Copies {
    type Object = ConfigMap;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> ApiResult<Action> {
        let Some(map) = context.caches().cache::<ConfigMap>().get(key) else { return Ok(Action::Done) };
        if key.namespace != NAMESPACE || key.name.contains('-') || key.name.contains('.') {
            return Ok(Action::Done);
        }
        let api: Api<ConfigMap> = Api::namespaced(context.client(), NAMESPACE);
        let copy = format!("{}-copy", key.name);
        let patch = async |patch: Value| match api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await
        {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        };
        let held = is_held(Some(map.clone()));
        if map.metadata.deletion_timestamp.is_some() {
            match api.delete(&copy, &DeleteParams::default()).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ if held => patch(json!({"metadata": {"finalizers": null}})).await?,
                _ => {}
            }
            return Ok(Action::Done);
        }
        if !held {
            patch(json!({"metadata": {"finalizers": [FINALIZER]}})).await?;
        }
        let wanted = ConfigMap { data: map.data.clone(), ..object::<ConfigMap>(&copy, json!({})) };
        match api.get_opt(&copy).await? {
            // What was read may be long gone; one that is still held goes no further without this reconciler.
            None if is_held(api.get_opt(&key.name).await?) => drop(api.create(&PostParams::default(), &wanted).await?),
            None => return Ok(Action::Done),
            Some(there) if there.data != map.data => {
                let data = Patch::Merge(json!({"data": map.data}));
                api.patch(&copy, &PatchParams::default(), &data).await?;
            }
            Some(_) => {}
        }
        let created = map.metadata.creation_timestamp.as_ref().map_or(context.env().now(), |time| time.0);
        let age = context.env().now().duration_since(created).unsigned_abs();
        if map.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(RIPE)) {
            return Ok(Action::Done);
        }
        if age < RIPENS {
            return Ok(Action::RequeueAfter(RIPENS - age));
        }
        patch(json!({"metadata": {"labels": {RIPE: ""}}})).await?;
        Ok(Action::Done)
    }
}
