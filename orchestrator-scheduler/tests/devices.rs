//! Claims of devices, with the running scheduler in virtual time.

use std::{
    collections::BTreeSet,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use k8s_openapi::api::{
    core::v1::{Event, Node, Pod},
    resource::v1::{DeviceClass, ResourceClaim, ResourceSlice},
};
use kube_core::params::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use orchestrator_core::{
    client::{Api, Backend, Call, Client, PatchBody, Reply, Request, WatchRequest, WatchStream, WriteOptions},
    controller::Caches,
    env::{Env, Simulation, TaskHandle},
    scheduler::{PodInfo, Snapshot, Verdict},
    status::{ApiError, ApiResult, Subject},
};
use orchestrator_scheduler::{
    Scheduling,
    explain::explain,
    framework::Profile,
    what_if::{Recording, what_if},
};
use orchestrator_testkit::fake_api::FakeApi;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// Binds pods, as the API server does, unless it is told not to. May be slow, and have no devices.
#[derive(Debug)]
struct Binder {
    api: FakeApi,
    env: Env,
    refuses: Arc<AtomicBool>,
    slow: bool,
    served: Arc<AtomicBool>,
}

impl Binder {
    fn serves(&self, group: &str) -> ApiResult<()> {
        let served = self.served.load(Ordering::Relaxed) || group != "resource.k8s.io";
        if served { Ok(()) } else { Err(ApiError::no_such_path()) }
    }
}

#[async_trait]
impl Backend for Binder {
    async fn request(&self, mut request: Request) -> ApiResult<Reply> {
        self.serves(&request.resource.group)?;
        if self.slow {
            self.env.sleep(Duration::from_micros(self.env.random_below(5000))).await;
        }
        if request.subresource.as_deref() == Some("binding")
            && let Call::Create { object, .. } = &request.call
        {
            if self.refuses.load(Ordering::Relaxed) {
                return Err(ApiError::unavailable("no bindings now"));
            }
            let node = object.to_tree()?["target"]["name"].clone();
            let name = request.name.clone().unwrap_or_default();
            let namespace = request.namespace.as_deref().unwrap_or_default();
            let pod = self.api.tree(&request.resource, namespace, &name);
            let subject = || Subject { resource: "pods", name: &name, ..Subject::default() };
            let pod = pod.ok_or_else(|| ApiError::not_found(subject()))?;
            if pod["spec"]["nodeName"].is_string() {
                return Err(ApiError::conflict(subject(), "pod is already assigned to node"));
            }
            request.subresource = None;
            let patch = PatchBody::Merge(json!({"spec": {"nodeName": node}}));
            request.call = Call::Patch { patch, options: WriteOptions::default() };
        }
        self.api.request(request).await
    }

    async fn watch(&self, request: WatchRequest) -> ApiResult<WatchStream> {
        self.serves(&request.resource.group)?;
        self.api.watch(request).await
    }
}

struct World {
    api: FakeApi,
    client: Client,
    env: Env,
    refuses: Arc<AtomicBool>,
    served: Arc<AtomicBool>,
    running: Vec<(CancellationToken, TaskHandle, Caches)>,
}

impl World {
    /// Nodes `a` and `b`, each with so many devices.
    async fn start(env: &Env, devices: usize) -> Self {
        let mut world = Self::new(env, false);
        world.fill(devices).await;
        world.schedule();
        world
    }

    /// Nothing in it, and nobody who schedules.
    fn new(env: &Env, slow: bool) -> Self {
        let api = FakeApi::new(env);
        let (refuses, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(true)));
        let binder =
            Binder { api: api.clone(), env: env.clone(), refuses: refuses.clone(), slow, served: served.clone() };
        let client = Client::new(Arc::new(binder));
        Self { api, client, env: env.clone(), refuses, served, running: Vec::new() }
    }

    async fn fill(&self, devices: usize) {
        let world = self;
        let class: DeviceClass = read(json!({"metadata": {"name": "gpu"}, "spec": {"selectors": [
            {"cel": {"expression": "device.driver == 'gpu.example.com'"}},
        ]}}));
        Api::all(&world.client).create(&PostParams::default(), &class).await.unwrap();
        for name in ["a", "b"] {
            let node: Node = read(json!({
                "metadata": {"name": name}, "status": {"allocatable": {"cpu": "64", "memory": "64Gi", "pods": "110"}},
            }));
            Api::all(&world.client).create(&PostParams::default(), &node).await.unwrap();
            world.slice(name, (0..devices).map(|at| json!({"name": format!("gpu-{at}")})).collect()).await;
        }
    }

    async fn slice(&self, node: &str, devices: Vec<Value>) {
        let slice: ResourceSlice = read(json!({"metadata": {"name": node}, "spec": {
            "driver": "gpu.example.com", "nodeName": node, "devices": devices,
            "pool": {"name": node, "generation": 1, "resourceSliceCount": 1},
        }}));
        Api::all(&self.client).create(&PostParams::default(), &slice).await.unwrap();
    }

    fn schedule(&mut self) {
        let caches = Caches::new(&self.client, &self.env);
        let shutdown = CancellationToken::new();
        let scheduling = Scheduling::builder(&caches, &self.env).build();
        let scheduler = self.env.spawn("scheduler", scheduling.run(shutdown.clone()));
        self.running.push((shutdown, scheduler, caches));
    }

    /// The schedulers' processes end, wherever they are.
    async fn stop(&mut self) {
        while !self.running.is_empty() {
            self.stop_one(0).await;
        }
    }

    async fn stop_one(&mut self, at: usize) {
        let (shutdown, scheduler, caches) = self.running.remove(at);
        shutdown.cancel();
        scheduler.join().await;
        caches.shutdown().await;
    }

    async fn claim(&self, name: &str, more: Value) {
        let mut exactly = json!({"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1});
        exactly.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let claim =
            json!({"metadata": {"name": name}, "spec": {"devices": {"requests": [{"name": "r", "exactly": exactly}]}}});
        self.claims().create(&PostParams::default(), &read(claim)).await.unwrap();
    }

    async fn pod(&self, name: &str, claim: &str) {
        self.create_pod(name, json!([{"name": "gpu", "resourceClaimName": claim}])).await;
    }

    async fn create_pod(&self, name: &str, claims: Value) {
        let pod =
            json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c"}], "resourceClaims": claims}});
        self.pods().create(&PostParams::default(), &read(pod)).await.unwrap();
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(&self.client, "x")
    }

    fn claims(&self) -> Api<ResourceClaim> {
        Api::namespaced(&self.client, "x")
    }

    async fn place(&self, name: &str) -> Option<String> {
        self.pods().get_opt(name).await.unwrap()?.spec.as_ref()?.node_name.clone()
    }

    async fn placed(&self, name: &str) {
        self.eventually(&format!("{name} is placed"), async || self.place(name).await.is_some()).await;
    }

    async fn message(&self, name: &str) -> Option<String> {
        let pod = self.pods().get(name).await.unwrap();
        let conditions = pod.status.as_ref()?.conditions.as_ref()?;
        conditions.iter().find(|condition| condition.type_ == "PodScheduled")?.message.clone()
    }

    async fn status(&self, claim: &str) -> Value {
        let claim = self.claims().get(claim).await.unwrap();
        serde_json::to_value(&claim.status).unwrap()
    }

    async fn events(&self, reason: &str) -> Vec<String> {
        let events = Api::<Event>::namespaced(&self.client, "x").list(&ListParams::default()).await.unwrap().items;
        let events = events.iter().filter(|event| event.reason.as_deref() == Some(reason));
        events.filter_map(|event| event.message.clone()).collect()
    }

    /// What the claims' controller does once nobody uses a claim.
    async fn give_back(&self, name: &str) {
        let claim = self.claims().get(name).await.unwrap();
        let mut claim = ResourceClaim::clone(&claim);
        claim.status = None;
        self.claims().replace_status(name, &PostParams::default(), &claim).await.unwrap();
    }

    async fn eventually<F: Future<Output = bool>>(&self, what: &str, check: impl Fn() -> F) {
        for _ in 0..10_000 {
            if check().await {
                return;
            }
            self.env.sleep(Duration::from_millis(100)).await;
        }
        panic!("not in a thousand seconds: {what}");
    }

    /// No device is had by two claims.
    async fn nothing_is_had_twice(&self) -> usize {
        let claims = self.claims().list(&ListParams::default()).await.unwrap().items;
        let mut seen = BTreeSet::new();
        for claim in claims {
            let allocation = claim.status.as_ref().and_then(|status| status.allocation.as_ref());
            let devices = allocation.and_then(|allocation| allocation.devices.as_ref());
            for result in devices.and_then(|devices| devices.results.as_ref()).into_iter().flatten() {
                assert!(seen.insert((result.pool.clone(), result.device.clone())), "{result:?}");
            }
        }
        seen.len()
    }
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn simulate<F: Future<Output = ()>>(seed: u64, run: impl FnOnce(Env) -> F) {
    let simulation = Simulation::new(seed);
    let env = simulation.env();
    simulation.run(run(env)).unwrap();
}

#[test]
fn a_claim_is_written_as_upstream_writes_it_and_its_pod_is_bound() {
    simulate(1, async |env| {
        let mut world = World::start(&env, 1).await;
        world.claim("c", json!({"tolerations": [{"operator": "Exists", "key": "k"}]})).await;
        world.pod("p", "c").await;
        world.placed("p").await;
        let node = world.place("p").await.unwrap();
        let claim = world.claims().get("c").await.unwrap();
        assert_eq!(
            claim.metadata.finalizers.as_deref(),
            Some(&["resource.kubernetes.io/delete-protection".to_owned()][..])
        );
        let uid = world.pods().get("p").await.unwrap().metadata.uid.clone();
        let mut status = world.status("c").await;
        assert!(status["allocation"]["allocationTimestamp"].take().is_string());
        let term = json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]});
        assert_eq!(
            status,
            json!({
                "allocation": {
                    "allocationTimestamp": null,
                    "devices": {"results": [{
                        "request": "r", "driver": "gpu.example.com", "pool": node, "device": "gpu-0",
                        "tolerations": [{"operator": "Exists", "key": "k"}],
                    }]},
                    "nodeSelector": {"nodeSelectorTerms": [term]},
                },
                "reservedFor": [{"resource": "pods", "name": "p", "uid": uid}],
            })
        );
        world.stop().await;
    });
}

#[test]
fn devices_that_are_given_back_go_to_the_pods_that_wait() {
    simulate(2, async |env| {
        let mut world = World::start(&env, 1).await;
        for name in ["1", "2", "3"] {
            world.claim(name, json!({})).await;
            world.pod(name, name).await;
        }
        let waiting = async || {
            let mut waiting = Vec::new();
            for name in ["1", "2", "3"] {
                if world.place(name).await.is_none() {
                    waiting.push(name);
                }
            }
            waiting
        };
        world.eventually("one is left", async || waiting().await.len() == 1).await;
        let left = waiting().await[0];
        world.eventually("it is told", async || world.message(left).await.is_some()).await;
        assert_eq!(
            world.message(left).await.unwrap(),
            "0/2 nodes are available: 2 cannot allocate all claims. still not schedulable, preemption: 0/2 nodes are \
             available: 2 Preemption is not helpful for scheduling."
        );
        assert_eq!(world.nothing_is_had_twice().await, 2);
        let gone = ["1", "2", "3"].into_iter().find(|name| *name != left).unwrap();
        world.pods().delete(gone, &DeleteParams::default()).await.unwrap();
        world.env.sleep(Duration::from_secs(20)).await;
        assert_eq!(world.place(left).await, None, "the claim still has its device");
        world.give_back(gone).await;
        world.placed(left).await;
        assert_eq!(world.nothing_is_had_twice().await, 2);
        world.stop().await;
    });
}

#[test]
fn pods_wait_quietly_for_claims_that_are_to_be_made() {
    simulate(3, async |env| {
        let mut world = World::start(&env, 1).await;
        world.pod("by-name", "later").await;
        world.create_pod("by-template", json!([{"name": "gpu", "resourceClaimTemplateName": "t"}])).await;
        world.env.sleep(Duration::from_secs(30)).await;
        assert_eq!((world.message("by-name").await, world.message("by-template").await), (None, None));
        let before = world.env.monotonic();
        world.claim("later", json!({})).await;
        world.placed("by-name").await;
        let pod = world.pods().get("by-template").await.unwrap();
        let owner = json!([{
            "apiVersion": "v1", "kind": "Pod", "name": "by-template", "uid": pod.metadata.uid, "controller": true,
        }]);
        world.claim("made", json!({})).await;
        let owned = Patch::Merge(json!({"metadata": {"ownerReferences": owner}}));
        world.claims().patch("made", &PatchParams::default(), &owned).await.unwrap();
        let noted = json!({"status": {"resourceClaimStatuses": [{"name": "gpu", "resourceClaimName": "made"}]}});
        world.pods().patch_status("by-template", &PatchParams::default(), &Patch::Merge(noted)).await.unwrap();
        world.placed("by-template").await;
        assert!(world.env.monotonic() - before < Duration::from_secs(5), "nobody was refused and had to wait");
        assert_eq!(world.events("FailedScheduling").await, [""; 0]);
        world.stop().await;
    });
}

#[test]
fn pods_that_share_a_claim_run_where_its_device_is() {
    simulate(4, async |env| {
        let mut world = World::start(&env, 1).await;
        world.claim("shared", json!({})).await;
        for name in ["1", "2", "3"] {
            world.pod(name, "shared").await;
        }
        for name in ["1", "2", "3"] {
            world.placed(name).await;
            assert_eq!(world.place(name).await, world.place("1").await);
        }
        assert_eq!(world.status("shared").await["reservedFor"].as_array().unwrap().len(), 3);
        assert_eq!(world.nothing_is_had_twice().await, 1);
        world.stop().await;
    });
}

#[test]
fn a_claim_without_users_gives_way_when_its_device_is_elsewhere() {
    simulate(5, async |env| {
        let mut world = World::start(&env, 1).await;
        world.claim("c", json!({})).await;
        world.pod("first", "c").await;
        world.placed("first").await;
        let first = world.place("first").await.unwrap();
        let unused = Patch::Merge(json!({"status": {"reservedFor": null}}));
        world.claims().patch_status("c", &PatchParams::default(), &unused).await.unwrap();
        let closed = Patch::Merge(json!({"spec": {"unschedulable": true}}));
        Api::<Node>::all(&world.client).patch(&first, &PatchParams::default(), &closed).await.unwrap();
        world.env.sleep(Duration::from_secs(1)).await;
        world.pod("second", "c").await;
        world.placed("second").await;
        assert_ne!(world.place("second").await.unwrap(), first);
        let told = world.events("FailedScheduling").await;
        assert!(told.iter().any(|told| told.contains(
            "1 node(s) were unschedulable, 1 resourceclaim not available on the node. deallocation of ResourceClaim completed, \
             preemption:"
        )), "{told:?}");
        world.stop().await;
    });
}

#[test]
fn a_pod_that_is_not_bound_releases_its_claim() {
    simulate(6, async |env| {
        let mut world = World::start(&env, 1).await;
        world.refuses.store(true, Ordering::Relaxed);
        world.claim("c", json!({})).await;
        world.pod("p", "c").await;
        world.eventually("it was tried", async || !world.events("FailedScheduling").await.is_empty()).await;
        world.eventually("it was released", async || world.status("c").await.get("reservedFor").is_none()).await;
        world.refuses.store(false, Ordering::Relaxed);
        world.placed("p").await;
        assert_eq!(world.nothing_is_had_twice().await, 1);
        world.stop().await;
    });
}

#[test]
fn a_scheduler_that_dies_anywhere_allocates_nothing_twice() {
    for seed in 0..12 {
        simulate(seed, async move |env| {
            let mut world = World::start(&env, 3).await;
            world.refuses.store(seed % 3 == 0, Ordering::Relaxed);
            for number in 0..10 {
                let name = number.to_string();
                world.claim(&name, json!({})).await;
                world.pod(&name, &name).await;
                if number % 3 == 2 {
                    for _ in 0..world.env.random_below(60) {
                        world.env.sleep(Duration::ZERO).await;
                    }
                    world.api.fail_requests(world.env.random_below(4) as u32);
                    world.stop().await;
                    world.api.fail_requests(0);
                    world.refuses.store(false, Ordering::Relaxed);
                    world.schedule();
                }
            }
            world.env.sleep(Duration::from_secs(60)).await;
            let mut placed = 0;
            for number in 0..10 {
                placed += usize::from(world.place(&number.to_string()).await.is_some());
            }
            assert_eq!((placed, world.nothing_is_had_twice().await), (6, 6), "seed {seed}");
            world.stop().await;
        });
    }
}

/// The pods that have a node: each has its claim, on its node, and no device is had by two of them.
async fn pods_have_devices_of_their_own(world: &World, names: impl Iterator<Item = usize>) -> usize {
    let mut seen = BTreeSet::new();
    for name in names.map(|name| name.to_string()) {
        let Some(node) = world.place(&name).await else { continue };
        let uid = world.pods().get(&name).await.unwrap().metadata.uid.clone();
        let status = world.status(&name).await;
        let device = &status["allocation"]["devices"]["results"][0];
        assert_eq!(device["pool"].as_str(), Some(&*node), "{name}: {status}");
        assert_eq!(status["reservedFor"][0]["uid"].as_str(), uid.as_deref(), "{name}: {status}");
        assert!(seen.insert((node, device["device"].to_string())), "{name}: {status}");
    }
    seen.len()
}

#[test]
fn two_schedulers_that_know_nothing_of_each_other_allocate_nothing_twice() {
    for seed in 0..12 {
        simulate(seed, async move |env| {
            let mut world = World::new(&env, true);
            world.fill(3).await;
            world.schedule();
            world.schedule();
            for number in 0..10 {
                let name = number.to_string();
                world.claim(&name, json!({})).await;
                world.pod(&name, &name).await;
                world.env.sleep(Duration::from_millis(world.env.random_below(10))).await;
                if seed % 3 == 0 && number % 4 == 3 {
                    world.api.fail_requests(world.env.random_below(4) as u32);
                    let dies = world.env.random_below(2) as usize;
                    world.stop_one(dies).await;
                    world.api.fail_requests(0);
                    world.schedule();
                }
                pods_have_devices_of_their_own(&world, 0..10).await;
            }
            for _ in 0..120 {
                world.env.sleep(Duration::from_secs(1)).await;
                pods_have_devices_of_their_own(&world, 0..10).await;
            }
            let placed = pods_have_devices_of_their_own(&world, 0..10).await;
            assert_eq!((placed, world.nothing_is_had_twice().await), (6, 6), "seed {seed}");
            world.stop().await;
        });
    }
}

#[test]
fn a_server_without_devices_is_scheduled_on_and_may_get_them_later() {
    simulate(8, async |env| {
        let mut world = World::new(&env, false);
        world.fill(1).await;
        world.served.store(false, Ordering::Relaxed);
        world.schedule();
        world.create_pod("plain", json!([])).await;
        world.placed("plain").await;
        world.pod("p", "c").await;
        world.served.store(true, Ordering::Relaxed);
        world.claim("c", json!({})).await;
        world.placed("p").await;
        world.stop().await;
    });
}

#[test]
fn a_claim_that_cannot_be_read_is_told_as_an_error_and_tried_again() {
    simulate(9, async |env| {
        let mut world = World::start(&env, 1).await;
        world.claim("c", json!({"selectors": [{"cel": {"expression": "device.attributes['d'].absent == 1"}}]})).await;
        world.pod("p", "c").await;
        world.eventually("it is told", async || world.message("p").await.is_some()).await;
        let message = world.message("p").await.unwrap();
        assert!(
            message.starts_with("running \"DynamicResources\" filter plugin: claim x/c: selector #0 on device"),
            "{message}"
        );
        let pod = world.pods().get("p").await.unwrap();
        let conditions = pod.status.as_ref().unwrap().conditions.as_ref().unwrap();
        assert_eq!(conditions[0].reason.as_deref(), Some("SchedulerError"));
        for node in ["a", "b"] {
            let attributes = json!({"d/absent": {"int": 1}});
            let patch = Patch::Merge(json!({"spec": {"devices": [{"name": "gpu-0", "attributes": attributes}]}}));
            Api::<ResourceSlice>::all(&world.client).patch(node, &PatchParams::default(), &patch).await.unwrap();
        }
        world.placed("p").await;
        world.stop().await;
    });
}

#[test]
fn pods_wait_until_their_devices_are_prepared() {
    simulate(7, async |env| {
        let mut world = World::start(&env, 0).await;
        let device =
            |name: &str| json!({"name": name, "bindingConditions": ["Ready"], "bindingFailureConditions": ["Failed"]});
        for node in ["a", "b"] {
            Api::<ResourceSlice>::all(&world.client).delete(node, &DeleteParams::default()).await.unwrap();
        }
        world.slice("a", vec![device("gpu-0")]).await;
        world.claim("c", json!({})).await;
        world.pod("p", "c").await;
        let pending = async || world.events("BindingConditionsPending").await;
        world.eventually("it waits", async || !pending().await.is_empty()).await;
        assert_eq!(pending().await, ["waiting for binding conditions for device on node a"]);
        assert_eq!(world.place("p").await, None);
        let prepare = async |condition: &str| {
            let condition = json!({
                "type": condition, "status": "True", "reason": "R", "message": "m",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            });
            let device =
                json!({"driver": "gpu.example.com", "pool": "a", "device": "gpu-0", "conditions": [condition]});
            let patch = Patch::Merge(json!({"status": {"devices": [device]}}));
            world.claims().patch_status("c", &PatchParams::default(), &patch).await.unwrap();
        };
        prepare("Failed").await;
        let failed =
            "running PreBind plugin \"DynamicResources\": claim c binding failed: reason=R, message=\"m\"".to_owned();
        world.eventually("it failed", async || world.events("FailedScheduling").await.contains(&failed)).await;
        let time = async || world.status("c").await["allocation"]["allocationTimestamp"].as_str().map(str::to_owned);
        let anew = async |before: &Option<String>| {
            let status = world.status("c").await;
            let now = time().await;
            status.get("devices").is_none() && now.is_some() && now != *before
        };
        let first = time().await;
        world.eventually("it has a device again", async || anew(&first).await).await;
        let second = time().await;
        let late = "running PreBind plugin \"DynamicResources\": device binding timeout".to_owned();
        world.eventually("too late", async || world.events("FailedScheduling").await.contains(&late)).await;
        world.eventually("it has a device again", async || anew(&second).await).await;
        prepare("Ready").await;
        world.placed("p").await;
        world.stop().await;
    });
}

#[test]
fn a_cluster_that_is_imagined_has_devices_too() {
    let mut cluster = Snapshot::default();
    let node =
        json!({"metadata": {"name": "a"}, "status": {"allocatable": {"pods": "9", "cpu": "9", "memory": "9Gi"}}});
    cluster.set_node(Arc::new(read(node)));
    cluster.devices.classes.insert("gpu".to_owned(), Arc::new(read(json!({"metadata": {"name": "gpu"}, "spec": {}}))));
    let slice = json!({"metadata": {"name": "a"}, "spec": {
        "driver": "d", "nodeName": "a", "devices": [{"name": "0"}],
        "pool": {"name": "a", "generation": 1, "resourceSliceCount": 1},
    }});
    cluster.devices.slices.insert("a".to_owned(), Arc::new(read(slice)));
    let pods: Vec<Arc<PodInfo>> = ["0", "1"]
        .into_iter()
        .map(|name| {
            let requests = json!([{"name": "r", "exactly": {"deviceClassName": "gpu"}}]);
            let claim = json!({
                "metadata": {"name": name, "namespace": "x", "uid": name}, "spec": {"devices": {"requests": requests}},
            });
            let key = orchestrator_core::object::ObjectKey::new("x", name);
            cluster.devices.set_claim(key, Some(Arc::new(read(claim))));
            let claims = json!([{"name": "gpu", "resourceClaimName": name}]);
            let metadata = json!({"name": name, "namespace": "x", "uid": name});
            let pod: Pod = read(json!({"metadata": metadata, "spec": {"containers": [], "resourceClaims": claims}}));
            Arc::new(PodInfo::from(pod))
        })
        .collect();
    let profile = Profile::default();
    let explanation = explain(&profile, &pods[0], &cluster, 0);
    assert!(matches!(&explanation.verdict, Verdict::Node(node) if node == "a"), "{explanation}");
    let (outcomes, after) = what_if(&profile, cluster, pods.clone(), 0);
    assert!(matches!(&outcomes[0].verdict, Verdict::Node(node) if node == "a"));
    let Verdict::Unschedulable(why) = &outcomes[1].verdict else { panic!("{:?}", outcomes[1]) };
    assert!(why.message().starts_with("0/1 nodes are available: 1 cannot allocate all claims."), "{}", why.message());
    let explanation = explain(&profile, &pods[1], &after, 0);
    assert_eq!(explanation.nodes["a"].refusals[0].reasons, ["cannot allocate all claims"]);
    assert!(
        explanation.waits_for.contains("ResourceSlice/Add") && explanation.waits_for.contains("ResourceClaim/Update")
    );
    let recording = Recording::of(&pods[1], &after, 0);
    assert!(matches!(recording.replay(&profile), Verdict::Unschedulable(_)));
}
