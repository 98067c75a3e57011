//! The running scheduler in virtual time, against an API server that binds.

use std::{future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube_core::params::{DeleteParams, ListParams, PostParams};
use orchestrator_core::{
    client::{Api, Backend, Call, Client, PatchBody, Reply, Request, WatchRequest, WatchStream, WriteOptions},
    controller::Caches,
    env::{Env, Simulation, TaskHandle},
    scheduler::{PodInfo, Scheduler, Snapshot, Verdict},
    status::{ApiError, ApiResult, Subject},
};
use orchestrator_scheduler::{Scheduling, framework::Profile};
use orchestrator_testkit::fake_api::FakeApi;
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// Binds pods, as the API server does.
#[derive(Debug)]
struct Binder(FakeApi);

#[async_trait]
impl Backend for Binder {
    async fn request(&self, mut request: Request) -> ApiResult<Reply> {
        if request.subresource.as_deref() == Some("binding")
            && let Call::Create { object, .. } = &request.call
        {
            let node = object.to_tree()?["target"]["name"].clone();
            let name = request.name.clone().unwrap_or_default();
            let subject = Subject { resource: "pods", name: &name, ..Subject::default() };
            let pod = self.0.tree(&request.resource, request.namespace.as_deref().unwrap_or_default(), &name);
            let pod = pod.ok_or_else(|| ApiError::not_found(subject))?;
            if pod["spec"]["nodeName"].is_string() {
                return Err(ApiError::conflict(subject, "pod is already assigned to a node"));
            }
            request.subresource = None;
            let patch = PatchBody::Merge(json!({"spec": {"nodeName": node}}));
            request.call = Call::Patch { patch, options: WriteOptions::default() };
        }
        self.0.request(request).await
    }

    async fn watch(&self, request: WatchRequest) -> ApiResult<WatchStream> {
        self.0.watch(request).await
    }
}

struct World {
    api: FakeApi,
    client: Client,
    env: Env,
    shutdown: CancellationToken,
    scheduler: TaskHandle,
    caches: Caches,
}

impl World {
    fn start(
        env: &Env,
        build: impl FnOnce(orchestrator_scheduler::Builder) -> orchestrator_scheduler::Builder,
    ) -> Self {
        let api = FakeApi::new(env);
        let client = Client::new(Arc::new(Binder(api.clone())));
        let caches = Caches::new(&client, env);
        let shutdown = CancellationToken::new();
        let scheduling = build(Scheduling::builder(&caches, env)).build();
        let scheduler = env.spawn("scheduler", scheduling.run(shutdown.clone()));
        Self { api, client, env: env.clone(), shutdown, scheduler, caches }
    }

    async fn node(&self, name: &str, cpu: &str) {
        let node = json!({
            "metadata": {"name": name},
            "status": {"allocatable": {"cpu": cpu, "memory": "64Gi", "pods": "110"}},
        });
        let node: Node = serde_json::from_value(node).unwrap();
        Api::all(&self.client).create(&PostParams::default(), &node).await.unwrap();
    }

    async fn pod(&self, name: &str, cpu: &str, more: serde_json::Value) {
        let mut pod = json!({
            "metadata": {"name": name, "namespace": "x"},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]},
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            pod["spec"][key] = value.clone();
        }
        let pod: Pod = serde_json::from_value(pod).unwrap();
        self.pods().create(&PostParams::default(), &pod).await.unwrap();
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(&self.client, "x")
    }

    async fn place(&self, name: &str) -> Option<String> {
        self.pods().get_opt(name).await.unwrap()?.spec.as_ref()?.node_name.clone()
    }

    async fn unplaced(&self) -> Vec<String> {
        let pods = self.pods().list(&ListParams::default()).await.unwrap().items;
        let pods = pods.iter().filter(|pod| pod.spec.as_ref().is_none_or(|spec| spec.node_name.is_none()));
        pods.filter_map(|pod| pod.metadata.name.clone()).collect()
    }

    async fn message(&self, name: &str) -> Option<String> {
        let pod = self.pods().get(name).await.unwrap();
        let conditions = pod.status.as_ref()?.conditions.as_ref()?;
        let condition = conditions.iter().find(|condition| condition.type_ == "PodScheduled")?;
        assert_eq!((condition.status.as_str(), condition.reason.as_deref()), ("False", Some("Unschedulable")));
        condition.message.clone()
    }

    async fn events(&self, reason: &str) -> Vec<String> {
        let events = Api::<Event>::namespaced(&self.client, "x").list(&ListParams::default()).await.unwrap().items;
        let events = events.iter().filter(|event| event.reason.as_deref() == Some(reason));
        events.filter_map(|event| event.message.clone()).collect()
    }

    async fn eventually<F: Future<Output = bool>>(&self, what: &str, check: impl Fn() -> F) {
        for _ in 0..600 {
            if check().await {
                return;
            }
            self.env.sleep(Duration::from_millis(100)).await;
        }
        panic!("not within a minute: {what}");
    }

    async fn end(self) {
        self.shutdown.cancel();
        self.scheduler.join().await;
        self.caches.shutdown().await;
    }
}

/// What the nodes of all placed pods are asked for, in thousandths of a core.
async fn used(world: &World, node: &str) -> i64 {
    let pods = world.pods().list(&ListParams::default()).await.unwrap().items;
    let pods = pods.iter().map(|pod| PodInfo::new(pod.clone()));
    pods.filter(|pod| pod.node_name() == Some(node)).map(|pod| pod.requests().milli_cpu).sum()
}

#[test]
fn pods_get_nodes_as_far_as_there_is_room() {
    for seed in 0..4 {
        let simulation = Simulation::new(seed);
        let env = simulation.env();
        let run = async {
            let world = World::start(&env, |builder| builder);
            for name in ["a", "b", "c"] {
                world.node(name, "2").await;
            }
            world.api.fail_requests(seed as u32);
            for number in 0..14 {
                world.env.sleep(Duration::from_millis(number)).await;
                while world.client.request(get_node()).await.is_err() {}
                world.pod(&format!("p{number}"), "500m", json!({})).await;
            }
            world.pod("other", "1m", json!({"schedulerName": "another"})).await;
            world.pod("gated", "1m", json!({"schedulingGates": [{"name": "wait"}]})).await;
            world.eventually("12 pods are placed", async || world.unplaced().await.len() == 4).await;
            for name in ["a", "b", "c"] {
                assert_eq!(used(&world, name).await, 2000);
            }
            let unplaced = world.unplaced().await;
            let waiting = unplaced.iter().find(|name| name.starts_with('p')).unwrap();
            world.eventually("it is told", async || world.message(waiting).await.is_some()).await;
            assert_eq!(
                world.message(waiting).await.unwrap(),
                "0/3 nodes are available: 3 Insufficient cpu. no new claims to deallocate, preemption: 0/3 nodes are \
                 available: 3 No preemption victims found for incoming pod."
            );
            world.eventually("events", async || world.events("Scheduled").await.len() == 12).await;
            assert!(world.events("Scheduled").await[0].starts_with("Successfully assigned x/p"));
            assert!(!world.events("FailedScheduling").await.is_empty());
            world.node("d", "8").await;
            world.eventually("the rest", async || world.unplaced().await == ["gated", "other"]).await;
            assert_eq!(used(&world, "d").await, 1000);
            world.end().await;
        };
        simulation.run(run).unwrap();
    }
}

fn get_node() -> Request {
    Request {
        user: None,
        resource: orchestrator_core::client::Resource::of::<Node>(&()),
        namespace: None,
        name: Some("a".to_owned()),
        subresource: None,
        call: Call::Get { resource_version: None },
    }
}

#[test]
fn freed_room_is_used() {
    let simulation = Simulation::new(1);
    let env = simulation.env();
    let run = async {
        let world = World::start(&env, |builder| builder);
        world.node("a", "1").await;
        world.pod("first", "1", json!({})).await;
        world.eventually("placed", async || world.place("first").await.is_some()).await;
        world.pod("second", "1", json!({})).await;
        world.eventually("refused", async || world.message("second").await.is_some()).await;
        world.pods().delete("first", &DeleteParams::default()).await.unwrap();
        world.eventually("placed", async || world.place("second").await.is_some()).await;
        world.end().await;
    };
    simulation.run(run).unwrap();
}

#[test]
fn important_pods_make_room() {
    let simulation = Simulation::new(2);
    let env = simulation.env();
    let run = async {
        let world = World::start(&env, |builder| builder);
        world.node("a", "2").await;
        world.node("b", "2").await;
        for (name, priority) in [("low-a", 1), ("low-b", 1), ("mid-a", 5), ("mid-b", 5)] {
            world.pod(name, "1", json!({"priority": priority})).await;
        }
        world.eventually("placed", async || world.unplaced().await.is_empty()).await;
        world.pod("high", "1", json!({"priority": 9, "schedulerName": "default-scheduler"})).await;
        world.eventually("placed", async || world.place("high").await.is_some()).await;
        let left = world.pods().list(&ListParams::default()).await.unwrap().items;
        let low = left.iter().filter(|pod| pod.metadata.name.as_deref().unwrap().starts_with("low")).count();
        assert_eq!((left.len(), low), (4, 1));
        world.eventually("told", async || world.events("Preempted").await.len() == 1).await;
        let high = world.pods().get("high").await.unwrap();
        let status = high.status.as_ref().unwrap();
        assert_eq!(status.nominated_node_name, high.spec.as_ref().unwrap().node_name);
        world.end().await;
    };
    simulation.run(run).unwrap();
}

/// Likes the last node.
struct LastFit;

impl Scheduler for LastFit {
    fn schedule(&self, _pod: &PodInfo, cluster: &Snapshot, _tie: u64) -> Verdict {
        let why = orchestrator_core::scheduler::Unschedulable::new(cluster.len());
        cluster.nodes().last().map_or(why.into(), |node| Verdict::Node(node.name().to_owned()))
    }
}

#[test]
fn schedulers_and_profiles_can_be_replaced() {
    let simulation = Simulation::new(3);
    let env = simulation.env();
    let run = async {
        let world =
            World::start(&env, |builder| builder.scheduler(Box::new(LastFit)).profile(Profile::packing("packing")));
        world.pod("early", "1", json!({})).await;
        world.eventually("refused", async || world.message("early").await.is_some()).await;
        assert_eq!(world.message("early").await.unwrap(), "no nodes available to schedule pods");
        for name in ["a", "b", "c"] {
            world.node(name, "8").await;
        }
        world.eventually("placed", async || world.place("early").await.as_deref() == Some("c")).await;
        for number in 0..4 {
            let name = format!("packed{number}");
            world.pod(&name, "1", json!({"schedulerName": "packing"})).await;
            world.eventually("placed", async || world.place(&name).await.is_some()).await;
            assert_eq!(world.place(&name).await.as_deref(), Some("c"));
        }
        world.end().await;
    };
    simulation.run(run).unwrap();
}

/// Which pod was bound where, in the order of the bindings.
fn bindings(seed: u64) -> Vec<(String, String)> {
    let simulation = Simulation::new(seed);
    let env = simulation.env();
    let run = async {
        let world = World::start(&env, |builder| builder);
        for number in 0..9 {
            world.node(&format!("n{number}"), "4").await;
        }
        for number in 0..20 {
            world.pod(&format!("p{number}"), "500m", json!({"priority": number % 3})).await;
        }
        world.eventually("all are placed", async || world.unplaced().await.is_empty()).await;
        let mut pods = world.pods().list(&ListParams::default()).await.unwrap().items;
        pods.sort_by_key(|pod| pod.metadata.resource_version.as_ref().unwrap().parse::<u64>().unwrap());
        let place = |pod: &Arc<Pod>| Some((pod.metadata.name.clone()?, pod.spec.as_ref()?.node_name.clone()?));
        let bindings = pods.iter().filter_map(place).collect();
        world.end().await;
        bindings
    };
    simulation.run(run).unwrap()
}

#[test]
fn a_seed_gives_one_order_of_bindings() {
    let of_seeds: Vec<_> = (0..4).map(bindings).collect();
    assert!(of_seeds.iter().all(|bindings| bindings.len() == 20));
    assert_eq!(of_seeds, (0..4).map(bindings).collect::<Vec<_>>());
    assert!(of_seeds.iter().any(|bindings| *bindings != of_seeds[0]), "ties are broken by chance");
}

#[test]
fn configurations_are_followed() {
    let simulation = Simulation::new(5);
    let env = simulation.env();
    let text = "{apiVersion: kubescheduler.config.k8s.io/v1, kind: KubeSchedulerConfiguration, \
                podInitialBackoffSeconds: 3, podMaxBackoffSeconds: 3, profiles: [{schedulerName: careless, \
                plugins: {multiPoint: {disabled: [{name: TaintToleration}]}}}]}";
    let configuration = orchestrator_scheduler::config::Configuration::from_yaml(text).unwrap();
    let run = async {
        let world = World::start(&env, |builder| builder.configuration(&configuration));
        let node = json!({
            "metadata": {"name": "a"}, "spec": {"taints": [{"key": "t", "effect": "NoSchedule"}]},
            "status": {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "9"}},
        });
        let node: Node = serde_json::from_value(node).unwrap();
        Api::all(&world.client).create(&PostParams::default(), &node).await.unwrap();
        world.pod("other", "1m", json!({})).await;
        world.pod("careless", "1m", json!({"schedulerName": "careless"})).await;
        world.eventually("placed", async || world.place("careless").await.is_some()).await;
        assert_eq!(world.unplaced().await, ["other"]);
        world.end().await;
    };
    simulation.run(run).unwrap();
}

#[test]
fn the_promise_to_a_less_important_pod_is_void() {
    let simulation = Simulation::new(6);
    let env = simulation.env();
    let run = async {
        let world = World::start(&env, |builder| builder);
        world.node("a", "1").await;
        world.pod("low", "1", json!({"priority": 1})).await;
        world.eventually("placed", async || world.place("low").await.is_some()).await;
        let nominated = async |name: &str| {
            let pod = world.pods().get(name).await.unwrap();
            pod.status.as_ref().and_then(|status| status.nominated_node_name.clone())
        };
        // The victim ends, but is kept from going.
        let keep = kube_core::params::Patch::Merge(json!({"metadata": {"finalizers": ["x/keep"]}}));
        world.pods().patch("low", &kube_core::params::PatchParams::default(), &keep).await.unwrap();
        world.pod("middle", "1", json!({"priority": 5})).await;
        world.eventually("promised", async || nominated("middle").await.is_some()).await;
        world.pod("high", "1", json!({"priority": 9})).await;
        world.eventually("promised", async || nominated("high").await.is_some()).await;
        world.eventually("void", async || nominated("middle").await.is_none()).await;
        let free = kube_core::params::Patch::Merge(json!({"metadata": {"finalizers": null}}));
        world.pods().patch("low", &kube_core::params::PatchParams::default(), &free).await.unwrap();
        world.eventually("placed", async || world.place("high").await.is_some()).await;
        assert_eq!(world.unplaced().await, ["middle"]);
        world.end().await;
    };
    simulation.run(run).unwrap();
}
