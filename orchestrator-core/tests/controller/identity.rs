//! What is deleted and made again under its name is another object.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use k8s_openapi::{
    api::core::v1::{ConfigMap, Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube_core::params::{DeleteParams, PostParams};
use orchestrator_core::{
    client::Api,
    controller::{Action, Caches, Context, Controller, Reconciler},
    meta,
    object::ObjectKey,
    status::ApiError,
};
use orchestrator_testkit::network::{Network, NetworkFaults};
use tokio_util::sync::CancellationToken;

use crate::{config_map, simulate};

#[test]
fn a_change_is_never_of_two_objects() {
    simulate(async |env, api| {
        let network = Network::new(&api.client(), &env);
        network.set_faults(NetworkFaults::all(50));
        let caches = Caches::new(&network.client(), &env);
        let cache = caches.cache::<ConfigMap>();
        let known = Arc::new(Mutex::new(None));
        let _subscription = cache.on_change({
            let known = known.clone();
            move |change| {
                let uid = |map: &Option<Arc<ConfigMap>>| map.as_ref().and_then(|map| map.metadata.uid.clone());
                let (old, new) = (uid(&change.old), uid(&change.new));
                assert!(old.is_none() || new.is_none() || old == new, "{old:?} became {new:?}");
                let before = std::mem::replace(&mut *known.lock().unwrap(), new);
                assert_eq!(before, old, "nothing is left out in between");
            }
        });
        let maps = Api::<ConfigMap>::namespaced(&api.client(), "default");
        for round in 0..40 {
            maps.create(&PostParams::default(), &config_map("x", &round.to_string())).await.unwrap();
            env.sleep(Duration::from_millis(env.random_below(2000))).await;
            maps.delete("x", &DeleteParams::default()).await.unwrap();
            env.sleep(Duration::from_millis(env.random_below(500))).await;
        }
        let last = maps.create(&PostParams::default(), &config_map("x", "last")).await.unwrap();
        network.set_faults(NetworkFaults::default());
        env.sleep(Duration::from_secs(60)).await;
        assert_eq!(*known.lock().unwrap(), last.metadata.uid);
        caches.shutdown().await;
    });
}

/// Replaces its pod in every run by another one of the same name.
struct Replacing {
    last: Mutex<Option<String>>,
}

#[async_trait]
impl Reconciler for Replacing {
    type Object = ConfigMap;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> Result<Action, ApiError> {
        let found = context.caches().cache::<Pod>().get(key);
        let found = found.map(|pod| meta::uid(&pod.metadata).to_owned());
        let last = self.last.lock().unwrap().clone();
        assert_eq!(found, last, "the pod that the last run made, and not the one before");
        let pods = Api::<Pod>::namespaced(context.client(), &key.namespace);
        if found.is_some() {
            pods.delete(&key.name, &DeleteParams::default()).await?;
        }
        let metadata = ObjectMeta { name: Some(key.name.clone()), ..Default::default() };
        let pod = pods.create(&PostParams::default(), &Pod { metadata, ..Default::default() }).await?;
        *self.last.lock().unwrap() = pod.metadata.uid.clone();
        Ok(Action::RequeueAfter(Duration::from_nanos(1)))
    }
}

#[test]
fn own_writes_are_waited_for_by_uid() {
    simulate(async |env, api| {
        // Events are late; nothing is lost.
        let network = Network::new(&api.client(), &env);
        network.set_faults(NetworkFaults { events_late: 300, watches_closed: 50, ..Default::default() });
        let caches = Caches::new(&network.client(), &env);
        let maps = Api::<ConfigMap>::namespaced(&api.client(), "default");
        maps.create(&PostParams::default(), &config_map("x", "")).await.unwrap();
        let controller = Controller::new("replacing", &caches).reconciles::<ConfigMap>().reads::<Pod>();
        let (metrics, shutdown) = (controller.metrics(), CancellationToken::new());
        let task = env.spawn("controller", controller.run(Replacing { last: Mutex::default() }, shutdown.clone()));
        env.sleep(Duration::from_secs(60)).await;
        assert!(metrics.runs() > 10);
        assert_eq!((metrics.panics(), metrics.failures()), (0, 0), "{:?}", metrics.last_run());
        shutdown.cancel();
        task.join().await;
        caches.shutdown().await;
    });
}

/// Notes what it is called for.
struct Noting(Arc<Mutex<Vec<ObjectKey>>>);

#[async_trait]
impl Reconciler for Noting {
    type Object = ConfigMap;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, _: &Context) -> Result<Action, ApiError> {
        self.0.lock().unwrap().push(key.clone());
        Ok(Action::Done)
    }
}

#[test]
fn a_child_belongs_to_the_owner_of_its_uid_only() {
    simulate(async |env, api| {
        let caches = Caches::new(&api.client(), &env);
        let runs = Arc::new(Mutex::new(Vec::new()));
        let controller = Controller::new("noting", &caches).reconciles::<ConfigMap>().owns::<Pod>();
        let shutdown = CancellationToken::new();
        let task = env.spawn("controller", controller.run(Noting(runs.clone()), shutdown.clone()));
        let maps = Api::<ConfigMap>::namespaced(&api.client(), "default");
        let pods = Api::<Pod>::namespaced(&api.client(), "default");
        let first = maps.create(&PostParams::default(), &config_map("x", "")).await.unwrap();
        maps.delete("x", &DeleteParams::default()).await.unwrap();
        let second = maps.create(&PostParams::default(), &config_map("x", "")).await.unwrap();
        env.sleep(Duration::from_secs(1)).await;
        let runs_so_far = runs.lock().unwrap().len();
        let child = |name: &str, owner: &ConfigMap| {
            let owners = Some(vec![meta::owner_reference(owner, true)]);
            let metadata = ObjectMeta { name: Some(name.to_owned()), owner_references: owners, ..Default::default() };
            Pod { metadata, ..Default::default() }
        };
        pods.create(&PostParams::default(), &child("of-the-first", &first)).await.unwrap();
        env.sleep(Duration::from_secs(1)).await;
        assert_eq!(runs.lock().unwrap().len(), runs_so_far);
        pods.create(&PostParams::default(), &child("of-the-second", &second)).await.unwrap();
        env.sleep(Duration::from_secs(1)).await;
        assert_eq!(runs.lock().unwrap().len(), runs_so_far + 1);
        shutdown.cancel();
        task.join().await;
        caches.shutdown().await;
    });
}
