//! The loop as a whole over a network that loses, repeats, delays and reorders: it converges, and then it is silent.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use k8s_openapi::{
    api::core::v1::{ConfigMap, Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube_core::params::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use orchestrator_core::{
    client::Api,
    controller::{Action, Caches, Context, Controller, Reconciler},
    env::{Env, Simulation},
    meta,
    object::ObjectKey,
    status::{ApiError, ApiResult},
};
use orchestrator_testkit::{
    fake_api::FakeApi,
    network::{Network, NetworkFaults},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{config_map, value};

const SEEDS: std::ops::Range<u64> = 0..150;

/// Keeps as many pods for each config map as its value says, and none without the map.
struct PodsPerMap {
    running: Mutex<BTreeSet<ObjectKey>>,
}

/// Ends a run, however it ends.
struct Running<'a>(&'a PodsPerMap, &'a ObjectKey);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.lock().unwrap().remove(self.1);
    }
}

#[async_trait]
impl Reconciler for PodsPerMap {
    type Object = ConfigMap;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> Result<Action, ApiError> {
        assert!(self.running.lock().unwrap().insert(key.clone()), "one run per key");
        let _running = Running(self, key);
        let map = context.caches().cache::<ConfigMap>().get(key);
        let pods = context.caches().cache::<Pod>().list_namespace(&key.namespace);
        context.env().sleep(Duration::from_millis(context.env().random_below(50))).await;
        let api = Api::<Pod>::namespaced(context.client(), &key.namespace);
        let wanted: usize = map.as_ref().map_or(0, |map| value(map).parse().unwrap());
        let of_key = |pod: &&Arc<Pod>| meta::controller_of(&pod.metadata).is_some_and(|owner| owner.name == key.name);
        let uid = map.as_ref().map(|map| meta::uid(&map.metadata));
        let owned = |pod: &Arc<Pod>| uid.is_some_and(|uid| meta::is_controlled_by(&pod.metadata, uid));
        let (mine, others): (Vec<_>, Vec<_>) = pods.iter().filter(of_key).cloned().partition(owned);
        for pod in others.iter().chain(mine.iter().skip(wanted)) {
            match api.delete(meta::name(&pod.metadata), &DeleteParams::default()).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        for _ in mine.len()..wanted {
            if let Some(map) = &map {
                let owners = Some(vec![meta::owner_reference(&**map, true)]);
                let generate_name = Some(format!("{}-", key.name));
                let metadata = ObjectMeta { generate_name, owner_references: owners, ..Default::default() };
                api.create(&PostParams::default(), &Pod { metadata, ..Default::default() }).await?;
            }
        }
        Ok(Action::Done)
    }
}

/// Somebody changes what is wanted.
async fn meddle(env: &Env, maps: &Api<ConfigMap>, pods: &Api<Pod>) -> ApiResult<()> {
    let name = format!("m{}", env.random_below(4));
    let count = env.random_below(5).to_string();
    match env.random_below(4) {
        0 => maps.delete(&name, &DeleteParams::default()).await,
        1 => {
            let patch = Patch::Merge(json!({"data": {"value": count}}));
            maps.patch(&name, &PatchParams::default(), &patch).await.map(drop)
        }
        2 => {
            let found = pods.list(&ListParams::default()).await?.items;
            let index = env.random_below(found.len() as u64) as usize;
            let Some(pod) = found.get(index) else { return Ok(()) };
            pods.delete(meta::name(&pod.metadata), &DeleteParams::default()).await
        }
        _ => maps.create(&PostParams::default(), &config_map(&name, &count)).await.map(drop),
    }
}

async fn converges(env: Env, api: FakeApi) {
    let network = Network::new(&api.client(), &env);
    network.set_faults(NetworkFaults::all(60));
    let caches = Caches::new(&network.client(), &env);
    let controller = Controller::new("pods", &caches).reconciles::<ConfigMap>().concurrency(3);
    let controller = controller.watches::<Pod>(|change| {
        // By name, so that pods of an owner that is gone are found.
        let owner = |pod: &Arc<Pod>| meta::controller_of(&pod.metadata).map(|owner| owner.name.clone());
        change.objects().filter_map(owner).map(|name| ObjectKey::new("default", name)).collect()
    });
    let (metrics, shutdown) = (controller.metrics(), CancellationToken::new());
    let task = env.spawn("controller", controller.run(PodsPerMap { running: Mutex::default() }, shutdown.clone()));
    let maps = Api::<ConfigMap>::namespaced(&api.client(), "default");
    let pods = Api::<Pod>::namespaced(&api.client(), "default");
    for _ in 0..60 {
        let _ = meddle(&env, &maps, &pods).await;
        env.sleep(Duration::from_millis(env.random_below(1000))).await;
        match env.random_below(30) {
            0 => api.close_watches(),
            1 => api.expire_watches(),
            2 => network.cut(),
            3 => network.mend(),
            _ => {}
        }
    }
    network.mend();
    network.set_faults(NetworkFaults::default());
    env.sleep(Duration::from_secs(300)).await;

    let found = pods.list(&ListParams::default()).await.unwrap().items;
    let mut wanted = 0;
    for map in maps.list(&ListParams::default()).await.unwrap().items {
        let owned = |pod: &&Arc<Pod>| meta::is_controlled_by(&pod.metadata, meta::uid(&map.metadata));
        let count: usize = value(&map).parse().unwrap();
        assert_eq!(found.iter().filter(owned).count(), count, "{}", meta::name(&map.metadata));
        wanted += count;
    }
    assert_eq!(found.len(), wanted, "nothing is left over");
    let (writes, runs) = (api.writes().len(), metrics.runs());
    env.sleep(Duration::from_secs(3600)).await;
    assert_eq!((api.writes().len(), metrics.runs()), (writes, runs), "silence");
    assert_eq!((metrics.panics(), metrics.running(), metrics.queue_length()), (0, 0, 0));
    shutdown.cancel();
    task.join().await;
    caches.shutdown().await;
}

#[test]
fn it_converges_through_all_faults() {
    for seed in SEEDS {
        let simulation = Simulation::new(seed);
        let env = simulation.env();
        let api = FakeApi::new(&env);
        simulation.run(converges(env, api)).unwrap_or_else(|stuck| panic!("seed {seed}: {stuck}"));
    }
}
