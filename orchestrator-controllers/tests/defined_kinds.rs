//! The garbage collector and kinds that are defined while it runs, in virtual time.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use k8s_openapi::{
    api::core::v1::Secret, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube_core::params::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use orchestrator_controllers::Controllers;
use orchestrator_core::{
    client::{Api, Resource, ResourceDiscovery, ResourceInfo},
    controller::Caches,
    env::{Env, Simulation},
    meta,
    status::ApiResult,
};
use orchestrator_testkit::fake_api::FakeApi;
use serde_json::{Value, json};

/// How long the server takes to serve what is established.
const SERVED_AFTER: Duration = Duration::from_millis(300);

/// Serves secrets, and sites once they are defined.
#[derive(Debug)]
struct Served {
    env: Env,
    definitions: Api<CustomResourceDefinition>,
}

fn info(group: &'static str, kind: &str, plural: &'static str) -> ResourceInfo {
    let verbs = ["get", "list", "watch", "delete"].map(str::to_owned).to_vec();
    ResourceInfo { resource: Resource::new(group, "v1", plural), kind: kind.to_owned(), namespaced: true, verbs }
}

#[async_trait]
impl ResourceDiscovery for Served {
    async fn resources(&self) -> ApiResult<Vec<ResourceInfo>> {
        let mut resources = vec![info("", "Secret", "secrets")];
        let definition = self.definitions.get_opt("sites.example.com").await?;
        let conditions = definition.and_then(|definition| definition.status.clone()?.conditions).unwrap_or_default();
        let now = self.env.now();
        let served = |since: jiff::Timestamp| since + SERVED_AFTER <= now;
        if conditions.iter().any(|condition| condition.last_transition_time.as_ref().is_some_and(|time| served(time.0)))
        {
            resources.push(info("example.com", "Site", "sites"));
        }
        Ok(resources)
    }
}

struct World {
    env: Env,
    api: FakeApi,
}

impl World {
    async fn wait(&self, milliseconds: u64) {
        self.env.sleep(Duration::from_millis(milliseconds)).await;
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(&self.api.client(), "a")
    }

    async fn names(&self) -> Vec<String> {
        let list = self.secrets().list(&ListParams::default()).await.unwrap();
        list.items.iter().map(|secret| meta::name(&secret.metadata).to_owned()).collect()
    }

    /// A secret that belongs to a site.
    async fn secret(&self, name: &str, site: &str, uid: &str) {
        let owner = json!([{"apiVersion": "example.com/v1", "kind": "Site", "name": site, "uid": uid}]);
        let secret = json!({"metadata": {"name": name, "ownerReferences": owner}});
        self.secrets().create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    }

    fn definitions(&self) -> Api<CustomResourceDefinition> {
        Api::all(&self.api.client())
    }

    /// Defines sites; they are established a second later.
    async fn define_sites(&self) {
        let definition = json!({
            "metadata": {"name": "sites.example.com"},
            "spec": {
                "group": "example.com", "names": {"kind": "Site", "plural": "sites"}, "scope": "Namespaced",
                "versions": [],
            },
        });
        let definition = serde_json::from_value(definition).unwrap();
        self.definitions().create(&PostParams::default(), &definition).await.unwrap();
        self.wait(1000).await;
        let established = json!({"status": {"conditions": [
            {"type": "Established", "status": "True", "lastTransitionTime": self.env.now().to_string()},
        ]}});
        let (params, patch) = (PatchParams::default(), Patch::Merge(established));
        self.definitions().patch_status("sites.example.com", &params, &patch).await.unwrap();
    }
}

fn simulate(test: impl AsyncFn(&World)) {
    for seed in 0..10 {
        let simulation = Simulation::new(seed);
        let env = simulation.env();
        let api = FakeApi::new(&env);
        let world = World { env: env.clone(), api: api.clone() };
        let caches = Caches::new(&api.client(), &env);
        let served = Served { env: env.clone(), definitions: world.definitions() };
        let builder = Controllers::builder(&caches, Arc::new(served));
        let controllers = builder.controllers(&["garbage-collector-controller"]).unwrap().start();
        let done = simulation.run(async {
            test(&world).await;
            controllers.shutdown().await;
            caches.shutdown().await;
        });
        done.unwrap_or_else(|stuck| panic!("seed {seed}: {stuck}"));
        assert_eq!(simulation.tasks(), 0);
    }
}

#[test]
fn dependents_of_a_kind_that_is_defined_later_are_looked_at_at_once() {
    simulate(async |world| {
        let sites = Api::<Value>::of_resource(
            &world.api.client(),
            Resource::new("example.com", "v1", "sites"),
            Some("a".to_owned()),
        );
        let site = json!({"apiVersion": "example.com/v1", "kind": "Site", "metadata": {"name": "lives"}});
        let site = sites.create(&PostParams::default(), &site).await.unwrap();
        world.secret("kept", "lives", site["metadata"]["uid"].as_str().unwrap()).await;
        world.secret("garbage", "never-was", "none").await;
        world.wait(2000).await;
        assert_eq!(world.names().await, ["garbage", "kept"], "nobody knows the kind");
        world.define_sites().await;
        world.wait(1200).await;
        assert_eq!(world.names().await, ["kept"]);
        sites.delete("lives", &DeleteParams::default()).await.unwrap();
        world.wait(100).await;
        assert!(world.names().await.is_empty(), "the kind is followed");
        assert!(world.env.monotonic() < Duration::from_secs(10), "before the kinds are asked for without a reason");
    });
}

#[test]
fn owners_of_a_kind_that_is_gone_are_not_missed() {
    simulate(async |world| {
        world.define_sites().await;
        world.wait(2000).await;
        world.definitions().delete("sites.example.com", &DeleteParams::default()).await.unwrap();
        world.wait(6000).await;
        world.secret("kept", "was-there", "uid").await;
        world.wait(60_000).await;
        assert_eq!(world.names().await, ["kept"]);
        world.define_sites().await;
        world.wait(1200).await;
        assert!(world.names().await.is_empty());
    });
}
