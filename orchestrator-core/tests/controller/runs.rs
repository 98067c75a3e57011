//! Runs of a reconciler: they see their own writes, are retried, and block nobody.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use k8s_openapi::{
    api::core::v1::{ConfigMap, Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube_core::params::{DeleteParams, ListParams, PostParams};
use orchestrator_core::{
    client::Api,
    controller::{Action, Caches, Cause, Context, Controller, Outcome, Reconciler, limits},
    env::Simulation,
    meta,
    object::ObjectKey,
    status::ApiError,
};
use orchestrator_testkit::fake_api::FakeApi;
use tokio_util::sync::CancellationToken;

use crate::{config_map, simulate};

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
fn all_keys_run_again_each_time_the_resync_period_has_passed() {
    simulate(async |env, api| {
        let caches = Caches::new(&api.client(), &env);
        let maps = Api::<ConfigMap>::namespaced(&api.client(), "default");
        for name in ["a", "b"] {
            maps.create(&PostParams::default(), &config_map(name, "")).await.unwrap();
        }
        let controller = Controller::new("resync", &caches).reconciles::<ConfigMap>().resync(Duration::from_secs(600));
        let metrics = controller.metrics();
        let shutdown = CancellationToken::new();
        let task = env.spawn("controller", controller.run(Rough(AtomicUsize::new(2)), shutdown.clone()));
        env.sleep(Duration::from_secs(590)).await;
        assert_eq!(metrics.runs(), 2);
        env.sleep(Duration::from_secs(20)).await;
        assert_eq!(metrics.runs(), 4);
        assert_eq!(metrics.last_run().unwrap().causes.items(), [Cause::Resync]);
        env.sleep(Duration::from_secs(600)).await;
        assert_eq!(metrics.runs(), 6);
        shutdown.cancel();
        task.join().await;
        caches.shutdown().await;
    });
}

/// Fails always, and notes when it was tried.
struct Failing(Arc<Mutex<Vec<(ObjectKey, Duration)>>>);

#[async_trait]
impl Reconciler for Failing {
    type Object = ConfigMap;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> Result<Action, ApiError> {
        self.0.lock().unwrap().push((key.clone(), context.env().monotonic()));
        Err(ApiError::internal("on purpose"))
    }
}

/// When each key was tried in a simulated hour.
fn tries(seed: u64) -> Vec<(ObjectKey, Duration)> {
    let simulation = Simulation::new(seed);
    let (env, tries) = (simulation.env(), Arc::new(Mutex::new(Vec::new())));
    let api = FakeApi::new(&env);
    let done = simulation.run(async {
        let caches = Caches::new(&api.client(), &env);
        let maps = Api::<ConfigMap>::namespaced(&api.client(), "default");
        for name in ["a", "b"] {
            maps.create(&PostParams::default(), &config_map(name, "")).await.unwrap();
        }
        let (controller, shutdown) = (Controller::new("failing", &caches).reconciles(), CancellationToken::new());
        let task = env.spawn("controller", controller.run(Failing(tries.clone()), shutdown.clone()));
        env.sleep(Duration::from_secs(3600)).await;
        shutdown.cancel();
        task.join().await;
        caches.shutdown().await;
    });
    done.unwrap();
    std::mem::take(&mut *tries.lock().unwrap())
}

#[test]
fn pauses_between_retries_follow_from_the_seed_and_differ_between_keys() {
    let first = tries(1);
    assert_eq!(first, tries(1));
    assert_ne!(first, tries(2));
    let of = |name: &str| -> Vec<Duration> {
        let times: Vec<_> = first.iter().filter(|(key, _)| key.name == name).map(|(_, time)| *time).collect();
        times.windows(2).map(|pair| pair[1] - pair[0]).collect()
    };
    let (a, b) = (of("a"), of("b"));
    assert!(a.iter().zip(&b).all(|(a, b)| a != b), "keys that failed together do not come back together");
    for (index, pause) in a.iter().enumerate() {
        let least = (limits::RETRY_FIRST * 2_u32.pow(index as u32)).min(limits::RETRY_LONGEST);
        assert!((least..=least * 11 / 10).contains(pause), "pause {index} is {pause:?}");
    }
    assert!(a.iter().filter(|pause| **pause >= limits::RETRY_LONGEST).count() >= 2, "the longest pause came again");
}
