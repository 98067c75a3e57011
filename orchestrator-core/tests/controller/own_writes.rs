//! A reconciler is not kept running by what it writes itself.

use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::ConfigMap;
use kube_core::params::{Patch, PatchParams, PostParams};
use orchestrator_core::{
    client::Api,
    controller::{Action, Caches, Cause, Context, Controller, Reconciler, limits},
    env::Env,
    object::ObjectKey,
    status::ApiError,
};
use orchestrator_testkit::fake_api::FakeApi;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{config_map, simulate};

/// Writes a status in every run, without looking whether that is needed.
struct Reporter {
    /// Something else each time.
    restless: bool,
}

#[async_trait]
impl Reconciler for Reporter {
    type Object = ConfigMap;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> Result<Action, ApiError> {
        let seen = if self.restless { context.env().random().to_string() } else { "yes".to_owned() };
        let status = Patch::Merge(json!({"status": {"seen": seen}}));
        let maps = Api::<ConfigMap>::namespaced(context.client(), &key.namespace);
        maps.patch_status(&key.name, &PatchParams::default(), &status).await?;
        Ok(Action::Done)
    }
}

async fn with_reporter(
    env: Env,
    api: FakeApi,
    restless: bool,
    test: impl AsyncFnOnce(&Api<ConfigMap>, &dyn Fn() -> u64),
) {
    let caches = Caches::new(&api.client(), &env);
    let controller = Controller::new("reporter", &caches).reconciles::<ConfigMap>();
    let (metrics, shutdown) = (controller.metrics(), CancellationToken::new());
    let task = env.spawn("controller", controller.run(Reporter { restless }, shutdown.clone()));
    let maps = Api::<ConfigMap>::namespaced(&api.client(), "default");
    maps.create(&PostParams::default(), &config_map("x", "1")).await.unwrap();
    test(&maps, &|| metrics.runs()).await;
    if restless {
        assert_eq!(metrics.last_run().unwrap().causes.items(), [Cause::OwnWrites]);
    }
    shutdown.cancel();
    task.join().await;
    caches.shutdown().await;
}

#[test]
fn one_that_writes_the_same_settles() {
    simulate(async |env, api| {
        let clock = env.clone();
        with_reporter(env, api, false, async |_, runs| {
            clock.sleep(Duration::from_secs(3600)).await;
            assert_eq!(runs(), 2);
        })
        .await;
    });
}

#[test]
fn one_that_always_writes_something_else_is_slowed_down_but_hears_of_others_at_once() {
    simulate(async |env, api| {
        let clock = env.clone();
        with_reporter(env, api, true, async |maps, runs| {
            clock.sleep(Duration::from_secs(1)).await;
            assert!((5..15).contains(&runs()), "{} runs in the first second", runs());
            clock.sleep(Duration::from_secs(3600)).await;
            let slow = runs();
            assert!((60..90).contains(&slow), "{slow} runs in an hour");
            let change = Patch::Merge(json!({"data": {"value": "2"}}));
            maps.patch("x", &PatchParams::default(), &change).await.unwrap();
            clock.sleep(limits::OWN_WRITES_PAUSE_FIRST).await;
            assert!(runs() > slow, "what somebody else wrote is not put off");
            clock.sleep(Duration::from_secs(3600)).await;
        })
        .await;
    });
}
