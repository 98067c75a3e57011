//! Caches, controllers and events against a fake API server, in virtual time.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use k8s_openapi::{
    api::core::v1::{ConfigMap, Event as ApiEvent, Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube_core::params::{DeleteParams, ListParams, PostParams};
use orchestrator_core::{
    client::{Api, Resource},
    controller::{Action, Caches, Context, Controller, Outcome, Reconciler, limits},
    env::{Env, Simulation},
    events::{Event, EventRecorder},
    meta,
    object::ObjectKey,
    status::ApiError,
    store::Revision,
};
use orchestrator_testkit::fake_api::FakeApi;
use tokio_util::sync::CancellationToken;

const SEEDS: std::ops::Range<u64> = 0..30;

fn config_map(name: &str, value: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..Default::default() },
        data: Some([("value".to_owned(), value.to_owned())].into()),
        ..Default::default()
    }
}

fn value(map: &ConfigMap) -> &str {
    map.data.as_ref().and_then(|data| data.get("value")).map_or("", String::as_str)
}

/// Runs a test in many simulated worlds.
fn simulate<F: Future<Output = ()>>(test: impl Fn(Env, FakeApi) -> F) {
    for seed in SEEDS {
        let simulation = Simulation::new(seed);
        let env = simulation.env();
        let api = FakeApi::new(&env);
        simulation.run(test(env, api)).unwrap_or_else(|stuck| panic!("seed {seed}: {stuck}"));
    }
}

#[test]
fn a_cache_follows_through_faults_and_tells_every_change() {
    simulate(async |env, api| {
        let caches = Caches::new(&api.client(), &env);
        let maps = Api::<ConfigMap>::namespaced(&api.client(), "default");
        let cache = caches.cache::<ConfigMap>();
        cache.add_index("value", |map| vec![value(map).to_owned()]);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let subscription = cache.on_change({
            let seen = seen.clone();
            move |change| {
                let text = |map: &Option<Arc<ConfigMap>>| map.as_deref().map(value).unwrap_or("-").to_owned();
                let line = format!("{} {}>{}", change.key.name, text(&change.old), text(&change.new));
                seen.lock().unwrap().push(line);
            }
        });
        api.fail_requests(2);
        cache.synced().await;
        let create = PostParams::default();
        maps.create(&create, &config_map("a", "1")).await.unwrap();
        api.close_watches();
        let second = maps.create(&create, &config_map("b", "1")).await.unwrap();
        let revision = |map: &ConfigMap| Revision(map.metadata.resource_version.as_ref().unwrap().parse().unwrap());
        cache.reached(revision(&second)).await;
        assert_eq!(cache.by_index("value", "1").len(), 2);
        // Deleted and made again while nobody looks: another object.
        api.expire_watches();
        maps.delete("a", &DeleteParams::default()).await.unwrap();
        maps.create(&create, &config_map("a", "2")).await.unwrap();
        maps.delete("b", &DeleteParams::default()).await.unwrap();
        let last = maps.create(&create, &config_map("c", "3")).await.unwrap();
        api.expire_watches();
        cache.reached(revision(&last)).await;
        let mut seen = std::mem::take(&mut *seen.lock().unwrap());
        seen.sort();
        assert_eq!(seen, ["a ->1", "a ->2", "a 1>-", "b ->1", "b 1>-", "c ->3"]);
        assert_eq!(cache.by_index("value", "1").len(), 0);
        assert_eq!(cache.list_namespace("default").len(), 2);
        assert!(cache.list_namespace("other").is_empty());
        drop(subscription);
        caches.shutdown().await;
    });
}

#[test]
fn a_kind_has_one_cache_that_ends_with_its_last_user() {
    let simulation = Simulation::new(1);
    let env = simulation.env();
    let api = FakeApi::new(&env);
    let caches = Caches::new(&api.client(), &env);
    let first = caches.cache::<ConfigMap>();
    let second = caches.cache::<ConfigMap>();
    let partial = caches.metadata(&Resource::of::<ConfigMap>(&()));
    let wait = Duration::from_secs(1);
    simulation.run(async { env.sleep(wait).await }).unwrap();
    assert_eq!(simulation.tasks(), 2, "typed and metadata");
    assert!(second.is_synced() && partial.is_synced());
    drop((first, partial));
    simulation.run(async { env.sleep(wait).await }).unwrap();
    assert_eq!(simulation.tasks(), 1);
    let subscription = second.on_change(|_| {});
    drop(second);
    simulation.run(async { env.sleep(wait).await }).unwrap();
    assert_eq!(simulation.tasks(), 1, "a subscription is a user");
    drop(subscription);
    simulation.run(async { env.sleep(wait).await }).unwrap();
    assert_eq!(simulation.tasks(), 0);
}

#[test]
fn long_lists_come_in_pages() {
    simulate(async |env, api| {
        let maps = Api::<ConfigMap>::namespaced(&api.client(), "default");
        for number in 0..2 * limits::LIST_PAGE_OBJECTS + 1 {
            maps.create(&PostParams::default(), &config_map(&format!("m{number}"), "")).await.unwrap();
        }
        let cache = Caches::new(&api.client(), &env).cache::<ConfigMap>();
        cache.synced().await;
        assert_eq!(cache.list().len(), 2 * limits::LIST_PAGE_OBJECTS + 1);
    });
}

/// Makes one pod per config map, named by the server: made twice, if the cache does not show the first one yet.
struct PodPerMap {
    pods: orchestrator_core::controller::Cache<Pod>,
    maps: orchestrator_core::controller::Cache<ConfigMap>,
    running: Mutex<std::collections::BTreeSet<ObjectKey>>,
    most: AtomicUsize,
}

#[async_trait]
impl Reconciler for PodPerMap {
    type Object = ConfigMap;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> Result<Action, ApiError> {
        assert!(self.running.lock().unwrap().insert(key.clone()), "one run per key");
        let count = self.running.lock().unwrap().len();
        self.most.fetch_max(count, Ordering::Relaxed);
        let result = self.run(key, context).await;
        self.running.lock().unwrap().remove(key);
        result
    }
}

impl PodPerMap {
    async fn run(&self, key: &ObjectKey, context: &Context) -> Result<Action, ApiError> {
        let Some(map) = self.maps.get(key) else { return Ok(Action::Done) };
        context.env().sleep(Duration::from_millis(context.env().random_below(50))).await;
        let owned = |pod: &&Arc<Pod>| meta::is_controlled_by(&pod.metadata, meta::uid(&map.metadata));
        if self.pods.list_namespace(&key.namespace).iter().filter(owned).count() > 0 {
            return Ok(Action::Done);
        }
        let pod = Pod {
            metadata: ObjectMeta {
                generate_name: Some(format!("{}-", key.name)),
                owner_references: Some(vec![meta::owner_reference(&*map, true)]),
                ..Default::default()
            },
            ..Default::default()
        };
        Api::namespaced(context.client(), &key.namespace).create(&PostParams::default(), &pod).await?;
        // Another run right away, which must see the pod.
        Ok(Action::RequeueAfter(Duration::from_nanos(1)))
    }
}

#[test]
fn a_reconciler_sees_its_own_writes_and_heals() {
    simulate(async |env, api| {
        let caches = Caches::new(&api.client(), &env);
        let (pods, maps) = (caches.cache::<Pod>(), caches.cache::<ConfigMap>());
        let reconciler = PodPerMap { pods: pods.clone(), maps, running: Mutex::default(), most: AtomicUsize::new(0) };
        let controller = Controller::new("pod-per-map", &caches).reconciles::<ConfigMap>().owns::<Pod>().concurrency(3);
        let metrics = controller.metrics();
        let shutdown = CancellationToken::new();
        let task = env.spawn("controller", controller.run(reconciler, shutdown.clone()));
        let maps = Api::<ConfigMap>::namespaced(&api.client(), "default");
        for number in 0..10 {
            maps.create(&PostParams::default(), &config_map(&format!("m{number}"), "")).await.unwrap();
            match env.random_below(6) {
                0 => api.close_watches(),
                1 => api.expire_watches(),
                2 => api.fail_requests(2),
                _ => env.sleep(Duration::from_millis(env.random_below(100))).await,
            }
            // Failures are meant for the controller.
            api.fail_requests(0);
        }
        env.sleep(Duration::from_secs(120)).await;
        let all = Api::<Pod>::namespaced(&api.client(), "default");
        let listed = all.list(&ListParams::default()).await.unwrap();
        assert_eq!(listed.items.len(), 10);
        all.delete(meta::name(&listed.items[0].metadata), &DeleteParams::default()).await.unwrap();
        env.sleep(Duration::from_secs(120)).await;
        assert_eq!(all.list(&ListParams::default()).await.unwrap().items.len(), 10);
        assert_eq!((metrics.panics(), metrics.running(), metrics.queue_length()), (0, 0, 0));
        assert_eq!(metrics.writes(), 11);
        shutdown.cancel();
        task.join().await;
        drop(pods);
        caches.shutdown().await;
    });
}

/// Panics, fails, then works; `slow` never ends by itself.
struct Rough(AtomicUsize);

#[async_trait]
impl Reconciler for Rough {
    type Object = ConfigMap;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> Result<Action, ApiError> {
        if key.name == "slow" {
            context.env().sleep(Duration::from_secs(1_000_000)).await;
        }
        match self.0.fetch_add(1, Ordering::Relaxed) {
            0 => panic!("on purpose"),
            1 => Err(ApiError::internal("on purpose")),
            _ => Ok(Action::Done),
        }
    }
}

#[test]
fn panics_and_failures_are_retried_and_the_slow_block_nobody() {
    simulate(async |env, api| {
        let caches = Caches::new(&api.client(), &env);
        let maps = Api::<ConfigMap>::namespaced(&api.client(), "default");
        maps.create(&PostParams::default(), &config_map("slow", "")).await.unwrap();
        maps.create(&PostParams::default(), &config_map("x", "")).await.unwrap();
        let controller = Controller::new("rough", &caches).reconciles::<ConfigMap>();
        let metrics = controller.metrics();
        let shutdown = CancellationToken::new();
        let task = env.spawn("controller", controller.run(Rough(AtomicUsize::new(0)), shutdown.clone()));
        env.sleep(Duration::from_secs(1)).await;
        assert_eq!((metrics.runs(), metrics.failures(), metrics.panics(), metrics.running()), (3, 2, 1, 1));
        assert_eq!(metrics.last_run().unwrap().outcome, Outcome::Done);
        let before = env.monotonic();
        shutdown.cancel();
        task.join().await;
        assert_eq!(env.monotonic() - before, limits::DRAIN_TIME);
        caches.shutdown().await;
    });
}

#[test]
fn events_are_counted_on_the_first() {
    simulate(async |env, api| {
        let recorder = EventRecorder::new(&api.client(), &env, "tester", "host");
        let pod = Pod {
            metadata: ObjectMeta {
                name: Some("web".to_owned()),
                namespace: Some("default".to_owned()),
                uid: Some("u".to_owned()),
                ..Default::default()
            },
            ..Default::default()
        };
        let regarding = meta::object_reference(&pod);
        for _ in 0..3 {
            recorder.publish(&regarding, Event::warning("Failed", "it failed")).await;
        }
        recorder.publish(&regarding, Event::normal("Works", "it works")).await;
        recorder.flush().await;
        let events = Api::<ApiEvent>::namespaced(&api.client(), "default").list(&ListParams::default()).await.unwrap();
        let mut found: Vec<_> = events.items.iter().map(|event| (event.reason.as_deref(), event.count)).collect();
        found.sort();
        assert_eq!(found, [(Some("Failed"), Some(3)), (Some("Works"), Some(1))]);
        let event = &events.items[0];
        assert!(meta::name(&event.metadata).starts_with("web."));
        assert_eq!(event.reporting_component.as_deref(), Some("tester"));
        assert_eq!(event.source.as_ref().unwrap().host.as_deref(), Some("host"));
        recorder.shutdown().await;
        recorder.publish(&regarding, Event::normal("Late", "dropped")).await;
        assert_eq!(recorder.dropped(), 1);
    });
}
