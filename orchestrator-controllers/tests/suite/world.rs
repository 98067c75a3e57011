//! A fake API server with some controllers on it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Event;
use kube_core::params::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use orchestrator_controllers::{Controllers, Options};
use orchestrator_core::{
    client::{Api, Client, Resource, ResourceDiscovery, ResourceInfo},
    controller::{Caches, Kind},
    env::{Env, Simulation},
    status::ApiResult,
};
use orchestrator_testkit::fake_api::FakeApi;
use serde_json::{Value, json};

/// What a test works with. What belongs to the cluster has an empty namespace.
pub(crate) struct World {
    pub(crate) env: Env,
    pub(crate) server: FakeApi,
    pub(crate) client: Client,
}

/// What controllers are started with.
pub(crate) struct Setup {
    pub(crate) client: Client,
    pub(crate) options: Options,
    pub(crate) discovery: Arc<dyn ResourceDiscovery>,
}

/// Most controllers ask for no kinds.
#[derive(Debug)]
struct Nothing;

#[async_trait]
impl ResourceDiscovery for Nothing {
    async fn resources(&self) -> ApiResult<Vec<ResourceInfo>> {
        Ok(Vec::new())
    }
}

impl World {
    pub(crate) fn api<K: Kind>(&self, namespace: &str) -> Api<K> {
        let namespace = Some(namespace.to_owned()).filter(|namespace| !namespace.is_empty());
        Api::of_resource(&self.client, Resource::of::<K>(&()), namespace)
    }

    pub(crate) async fn create<K: Kind>(&self, namespace: &str, tree: Value) -> Arc<K> {
        let object: K = serde_json::from_value(tree).unwrap();
        self.api::<K>(namespace).create(&PostParams::default(), &object).await.unwrap()
    }

    pub(crate) async fn get<K: Kind>(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.api::<K>(namespace).get_opt(name).await.unwrap()
    }

    pub(crate) async fn list<K: Kind>(&self, namespace: &str) -> Vec<Arc<K>> {
        self.api::<K>(namespace).list(&ListParams::default()).await.unwrap().items
    }

    pub(crate) async fn patch<K: Kind>(&self, namespace: &str, name: &str, body: Value) {
        self.api::<K>(namespace).patch(name, &PatchParams::default(), &Patch::Merge(body)).await.unwrap();
    }

    pub(crate) async fn patch_status<K: Kind>(&self, namespace: &str, name: &str, status: Value) {
        let body = Patch::Merge(json!({"status": status}));
        self.api::<K>(namespace).patch_status(name, &PatchParams::default(), &body).await.unwrap();
    }

    pub(crate) async fn delete<K: Kind>(&self, namespace: &str, name: &str) {
        self.api::<K>(namespace).delete(name, &DeleteParams::default()).await.unwrap();
    }

    pub(crate) fn tree<K: Kind>(&self, namespace: &str, name: &str) -> Option<Value> {
        self.server.tree(&Resource::of::<K>(&()), namespace, name)
    }

    pub(crate) async fn wait(&self, seconds: u64) {
        self.env.sleep(Duration::from_secs(seconds)).await;
    }

    /// The reasons of all Events.
    pub(crate) async fn reasons(&self) -> BTreeSet<String> {
        self.list::<Event>("default").await.iter().filter_map(|event| event.reason.clone()).collect()
    }

    /// Once it has settled, nothing but Events is written.
    async fn is_silent(&self) {
        let writes = self.server.writes().len();
        self.wait(600).await;
        let again = self.server.writes().split_off(writes);
        let busy: Vec<_> = again.iter().filter(|write| !write.contains("events")).collect();
        assert!(busy.is_empty(), "settled controllers are silent: {busy:?}");
    }
}

/// Runs some controllers and a test beside them, in several worlds. The test gets what was set up.
pub(crate) fn simulate<T>(controllers: &[&str], set_up: impl Fn(&mut Setup) -> T, test: impl AsyncFn(&World, &T)) {
    for seed in 0..4 {
        let simulation = Simulation::new(seed);
        let env = simulation.env();
        let server = FakeApi::new(&env);
        let mut setup = Setup { client: server.client(), options: Options::default(), discovery: Arc::new(Nothing) };
        let with = set_up(&mut setup);
        let world = World { client: setup.client, env: env.clone(), server };
        let caches = Caches::new(&world.client, &env);
        let builder = Controllers::builder(&caches, setup.discovery).controllers(controllers).unwrap();
        let controllers = builder.options(setup.options).start();
        let done = simulation.run(async {
            test(&world, &with).await;
            let states = controllers.states();
            assert!(states.values().all(|state| state.running && state.restarts == 0), "{states:?}");
            world.is_silent().await;
            controllers.shutdown().await;
            caches.shutdown().await;
        });
        done.unwrap_or_else(|stuck| panic!("seed {seed}: {stuck}"));
        assert_eq!(simulation.tasks(), 0, "nothing is left running");
    }
}
