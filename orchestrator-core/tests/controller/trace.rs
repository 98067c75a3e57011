//! The trace of a run says why it ran, what it read and what it wrote.

use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube_core::params::{DeleteParams, Patch, PatchParams, PostParams};
use orchestrator_core::{
    client::{Api, Resource},
    controller::{
        Action, Cache, Caches, Cause, Context, Controller, Outcome, Reconciler, RunTrace, limits,
        trace::{Read, Scope},
    },
    object::ObjectKey,
    status::ApiError,
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{config_map, simulate, value};

/// Marks its object, and makes and removes as many pods as its value says.
struct Busy(Cache<ConfigMap>);

#[async_trait]
impl Reconciler for Busy {
    type Object = ConfigMap;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> Result<Action, ApiError> {
        let Some(map) = self.0.get(key) else { return Ok(Action::Done) };
        if map.metadata.annotations.is_some() {
            return Ok(Action::RequeueAfter(Duration::from_secs(3600)));
        }
        self.0.list_namespace(&key.namespace);
        let pods = Api::<Pod>::namespaced(context.client(), &key.namespace);
        assert!(pods.get_opt("absent").await?.is_none());
        for _ in 0..value(&map).parse().unwrap_or(1) {
            let pod = json!({"metadata": {"generateName": "pod-"}});
            let pod = pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await?;
            pods.delete(pod.metadata.name.as_deref().unwrap(), &DeleteParams::default()).await?;
        }
        let mark = Patch::Merge(json!({"metadata": {"annotations": {"marked": "yes"}}}));
        let maps = Api::<ConfigMap>::namespaced(context.client(), &key.namespace);
        maps.patch(&key.name, &PatchParams::default(), &mark).await?;
        Ok(Action::Done)
    }
}

fn causes(trace: &RunTrace) -> Vec<String> {
    trace.causes.items().iter().map(ToString::to_string).collect()
}

#[test]
fn a_trace_names_causes_reads_and_writes() {
    simulate(async |env, api| {
        let caches = Caches::new(&api.client(), &env);
        let controller = Controller::new("busy", &caches).reconciles::<ConfigMap>().reads::<Pod>();
        let (metrics, queue, shutdown) = (controller.metrics(), controller.queue(), CancellationToken::new());
        let task = env.spawn("controller", controller.run(Busy(caches.cache()), shutdown.clone()));
        let maps = Api::<ConfigMap>::namespaced(&api.client(), "default");
        maps.create(&PostParams::default(), &config_map("x", "1")).await.unwrap();
        env.sleep(Duration::from_secs(1)).await;
        let key = ObjectKey::new("default", "x");
        queue.add(key.clone());
        env.sleep(Duration::from_secs(3700)).await;
        let runs = metrics.recent_runs();
        assert_eq!(runs.len(), 4, "{runs:#?}");
        assert_eq!(causes(&runs[0]), ["configmaps default/x changed"]);
        let resource = |plural| std::sync::Arc::new(Resource::new("", "v1", plural));
        let read = |plural, from_server, scope| Read { resource: resource(plural), from_server, scope };
        assert_eq!(
            runs[0].reads.items(),
            [
                read("configmaps", false, Scope::Object(key.clone())),
                read("configmaps", false, Scope::Namespace("default".to_owned())),
                read("pods", true, Scope::Object(ObjectKey::new("default", "absent"))),
            ]
        );
        let writes: Vec<_> = runs[0].writes.items().iter().map(|write| (write.verb, &*write.resource.plural)).collect();
        assert_eq!(writes, [("create", "pods"), ("delete", "pods"), ("patch", "configmaps")]);
        assert!(runs[0].writes.items()[0].key.name.starts_with("pod-"), "the name that the server chose");
        let written = runs[0].writes.items()[2].revision;
        assert_eq!(written.unwrap().0, api.revision());
        assert_eq!(
            runs[1].causes.items(),
            [Cause::Changed { resource: resource("configmaps"), key, revision: written }],
            "its own write"
        );
        assert_eq!(runs[1].outcome, Outcome::RequeueAfter(Duration::from_secs(3600)));
        assert_eq!(
            (causes(&runs[2]), causes(&runs[3])),
            (vec!["added by hand".to_owned()], vec!["a run asked for it".to_owned()])
        );
        assert_eq!(metrics.writes(), 3);
        shutdown.cancel();
        task.join().await;
        caches.shutdown().await;
    });
}

#[test]
fn traces_are_bounded() {
    simulate(async |env, api| {
        let caches = Caches::new(&api.client(), &env);
        let controller = Controller::new("busy", &caches).reconciles::<ConfigMap>();
        let (metrics, shutdown) = (controller.metrics(), CancellationToken::new());
        let task = env.spawn("controller", controller.run(Busy(caches.cache()), shutdown.clone()));
        let maps = Api::<ConfigMap>::namespaced(&api.client(), "default");
        maps.create(&PostParams::default(), &config_map("writes-much", "20")).await.unwrap();
        env.sleep(Duration::from_secs(1)).await;
        let trace = metrics.recent_runs()[0].clone();
        assert_eq!((trace.writes.items().len(), trace.writes.count()), (limits::WRITES_PER_RUN, 41));
        for index in 0..limits::TRACED_RUNS {
            maps.create(&PostParams::default(), &config_map(&index.to_string(), "0")).await.unwrap();
        }
        env.sleep(Duration::from_secs(1)).await;
        assert_eq!(metrics.recent_runs().len(), limits::TRACED_RUNS);
        assert_eq!(metrics.writes(), 41 + limits::TRACED_RUNS as u64);
        shutdown.cancel();
        task.join().await;
        caches.shutdown().await;
    });
}
