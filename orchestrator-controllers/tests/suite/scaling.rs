//! Replication controllers, and the autoscaler that scales them, as a workload grows and shrinks.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use async_trait::async_trait;
use k8s_openapi::api::{
    autoscaling::v2::{CrossVersionObjectReference, HorizontalPodAutoscaler, MetricIdentifier},
    core::v1::{Event, Pod, ReplicationController},
};
use orchestrator_controllers::{MetricsError, MetricsSource, PodMetric};
use orchestrator_core::{
    client::{
        Backend, Call, Client, PatchBody, Reply, Request, Resource, ResourceDiscovery, ResourceInfo, WatchRequest,
        WatchStream,
    },
    controller::Kind,
    meta,
    object::Object,
    selector::LabelSelector,
    status::ApiResult,
};
use serde_json::{Value, json};

use crate::world::{self, Setup, World};

const NAMESPACE: &str = "default";

/// The fake server, with scales.
#[derive(Debug)]
struct Scaled(Client);

#[async_trait]
impl Backend for Scaled {
    async fn request(&self, mut request: Request) -> ApiResult<Reply> {
        if request.subresource.as_deref() != Some("scale") {
            return self.0.request(request).await;
        }
        request.subresource = None;
        if let Call::Replace { object, options } = request.call {
            let replicas = object.to_tree()?["spec"]["replicas"].clone();
            let patch = PatchBody::Merge(json!({"spec": {"replicas": replicas}}));
            request.call = Call::Patch { patch, options };
        }
        let Reply::Object { object, created, warnings } = self.0.request(request).await? else { unreachable!() };
        let tree = object.to_tree()?;
        let scale = json!({
            "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": tree["metadata"],
            "spec": {"replicas": tree["spec"]["replicas"]},
            "status": {"replicas": tree["status"]["replicas"].as_i64().unwrap_or(0), "selector": "app=a"},
        });
        Ok(Reply::Object { object: Object::from_tree(scale), created, warnings })
    }

    async fn watch(&self, request: WatchRequest) -> ApiResult<WatchStream> {
        self.0.watch(request).await
    }
}

#[derive(Debug)]
struct Served;

#[async_trait]
impl ResourceDiscovery for Served {
    async fn resources(&self) -> ApiResult<Vec<ResourceInfo>> {
        let resource = Resource::of::<ReplicationController>(&());
        Ok(vec![ResourceInfo {
            resource,
            kind: "ReplicationController".to_owned(),
            namespaced: true,
            verbs: Vec::new(),
        }])
    }
}

/// A queue whose length is set by the test, beside nothing else that is measured.
#[derive(Debug, Default)]
struct QueueLength(AtomicI64);

#[async_trait]
impl MetricsSource for QueueLength {
    async fn resource(
        &self,
        _: &str,
        _: &LabelSelector,
        _: &str,
        _: Option<&str>,
    ) -> Result<BTreeMap<String, PodMetric>, MetricsError> {
        Err(MetricsError("nothing is measured".to_owned()))
    }

    async fn pods(
        &self,
        _: &str,
        _: &LabelSelector,
        _: &MetricIdentifier,
    ) -> Result<BTreeMap<String, PodMetric>, MetricsError> {
        Err(MetricsError("nothing is measured".to_owned()))
    }

    async fn object(
        &self,
        _: &str,
        _: &CrossVersionObjectReference,
        _: &MetricIdentifier,
    ) -> Result<i64, MetricsError> {
        Err(MetricsError("nothing is measured".to_owned()))
    }

    async fn external(&self, _: &str, _: &MetricIdentifier) -> Result<Vec<i64>, MetricsError> {
        Ok(vec![self.0.load(Ordering::Relaxed) * 1000])
    }
}

async fn events(world: &World) -> Vec<String> {
    let text = |event: &Arc<Event>| {
        format!("{} {}", event.reason.as_deref().unwrap_or_default(), event.message.as_deref().unwrap_or_default())
    };
    world.list::<Event>(NAMESPACE).await.iter().map(text).collect()
}

/// The tree of an object's status.
fn status_of<K: Kind>(world: &World, name: &str) -> Value {
    world.tree::<K>(NAMESPACE, name).unwrap()["status"].clone()
}

fn simulate(test: impl AsyncFn(&World, &QueueLength)) {
    let names = ["horizontal-pod-autoscaler-controller", "replicationcontroller-controller"];
    let set_up = |setup: &mut Setup| {
        let queue = Arc::new(QueueLength::default());
        setup.client = Client::new(Arc::new(Scaled(setup.client.clone())));
        setup.options.metrics = Some(queue.clone());
        setup.discovery = Arc::new(Served);
        queue
    };
    world::simulate(&names, set_up, async |world, queue| test(world, queue).await);
}

fn replication(replicas: i32) -> Value {
    json!({
        "metadata": {"name": "rc"},
        "spec": {
            "replicas": replicas, "selector": {"app": "a"},
            "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        },
    })
}

#[test]
fn a_replication_controller_adopts_replaces_and_releases() {
    simulate(async |world, _| {
        let orphan = json!({"metadata": {"name": "orphan", "labels": {"app": "a"}}, "spec": {"containers": []}});
        world.create::<Pod>(NAMESPACE, orphan).await;
        world.create::<ReplicationController>(NAMESPACE, replication(3)).await;
        world.wait(2).await;
        let pods = world.list::<Pod>(NAMESPACE).await;
        assert_eq!(pods.len(), 3);
        for pod in &pods {
            let owner = meta::controller_of(&pod.metadata).unwrap();
            assert_eq!((&*owner.api_version, &*owner.kind, &*owner.name), ("v1", "ReplicationController", "rc"));
        }
        let status = status_of::<ReplicationController>(world, "rc");
        assert_eq!(status, json!({"replicas": 3, "fullyLabeledReplicas": 3, "observedGeneration": 1}));
        world.patch::<Pod>(NAMESPACE, "orphan", json!({"metadata": {"labels": {"app": "b"}}})).await;
        world.wait(2).await;
        let pods = world.list::<Pod>(NAMESPACE).await;
        assert_eq!(pods.len(), 4, "the one that is let go is replaced");
        assert!(pods.iter().any(|pod| meta::controller_of(&pod.metadata).is_none()));
        world.patch::<ReplicationController>(NAMESPACE, "rc", json!({"spec": {"replicas": 1}})).await;
        world.wait(2).await;
        assert_eq!(world.list::<Pod>(NAMESPACE).await.len(), 2);
        let events = events(world).await;
        assert!(events.iter().any(|event| event.starts_with("SuccessfulCreate Created pod: rc-")), "{events:?}");
        assert!(events.iter().any(|event| event.starts_with("SuccessfulDelete Deleted pod: ")), "{events:?}");
    });
}

#[test]
fn pods_on_one_node_are_no_crowd_where_the_set_has_no_owner() {
    simulate(async |world, _| {
        for (name, node) in [("a", "n1"), ("b", "n2"), ("c", "n2")] {
            let spec = json!({"nodeName": node, "containers": []});
            world
                .create::<Pod>(NAMESPACE, json!({"metadata": {"name": name, "labels": {"app": "a"}}, "spec": spec}))
                .await;
            let ready = json!([{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
            world.patch_status::<Pod>(NAMESPACE, name, json!({"phase": "Running", "conditions": ready})).await;
        }
        world.create::<ReplicationController>(NAMESPACE, replication(2)).await;
        world.wait(2).await;
        let left = world.list::<Pod>(NAMESPACE).await;
        assert_eq!(left.iter().map(|pod| meta::name(&pod.metadata)).collect::<Vec<_>>(), ["b", "c"]);
    });
}

#[test]
fn an_autoscaler_follows_its_metric_within_its_bounds() {
    simulate(async |world, queue| {
        world.create::<ReplicationController>(NAMESPACE, replication(1)).await;
        let target = json!({"type": "AverageValue", "averageValue": "10"});
        let autoscaler = json!({
            "metadata": {"name": "h"},
            "spec": {
                "scaleTargetRef": {"apiVersion": "v1", "kind": "ReplicationController", "name": "rc"},
                "minReplicas": 2, "maxReplicas": 6,
                "metrics": [{"type": "External", "external": {"metric": {"name": "q"}, "target": target}}],
            },
        });
        queue.0.store(20, Ordering::Relaxed);
        world.create::<HorizontalPodAutoscaler>(NAMESPACE, autoscaler).await;
        world.wait(14).await;
        assert_eq!(world.list::<Pod>(NAMESPACE).await.len(), 1, "the first look is after a period");
        world.wait(5).await;
        assert_eq!(world.list::<Pod>(NAMESPACE).await.len(), 2);
        queue.0.store(1000, Ordering::Relaxed);
        world.wait(60).await;
        assert_eq!(world.list::<Pod>(NAMESPACE).await.len(), 6);
        let status = status_of::<HorizontalPodAutoscaler>(world, "h");
        assert_eq!((&status["currentReplicas"], &status["desiredReplicas"]), (&json!(6), &json!(6)));
        assert_eq!(status["conditions"][2]["reason"], "TooManyReplicas");
        queue.0.store(30, Ordering::Relaxed);
        world.wait(200).await;
        assert_eq!(world.list::<Pod>(NAMESPACE).await.len(), 6, "what was recommended lately is kept");
        assert_eq!(status_of::<HorizontalPodAutoscaler>(world, "h")["conditions"][0]["reason"], "ScaleDownStabilized");
        world.wait(150).await;
        assert_eq!(world.list::<Pod>(NAMESPACE).await.len(), 3);
        let events = events(world).await;
        for reason in [
            "SuccessfulRescale New size: 2; reason: Current number of replicas below Spec.MinReplicas",
            "SuccessfulRescale New size: 4; reason: external metric q(nil) above target",
            "SuccessfulRescale New size: 3; reason: All metrics below target",
        ] {
            assert!(events.iter().any(|event| event == reason), "{reason}: {events:?}");
        }
        world.patch::<ReplicationController>(NAMESPACE, "rc", json!({"spec": {"replicas": 0}})).await;
        world.wait(20).await;
        assert_eq!(world.list::<Pod>(NAMESPACE).await.len(), 0);
        assert_eq!(status_of::<HorizontalPodAutoscaler>(world, "h")["conditions"][1]["reason"], "ScalingDisabled");
    });
}

#[test]
fn an_autoscaler_without_a_target_says_so_and_goes_with_its_memory() {
    simulate(async |world, _| {
        let autoscaler = |kind: &str| {
            json!({
                "metadata": {"name": "h"},
                "spec": {"scaleTargetRef": {"apiVersion": "v1", "kind": kind, "name": "rc"}, "maxReplicas": 6},
            })
        };
        for (kind, expected) in [
            ("Unknown", "no matches for kind \"Unknown\" in group \"\""),
            ("ReplicationController", "replicationcontrollers \"rc\" not found"),
        ] {
            world.create::<HorizontalPodAutoscaler>(NAMESPACE, autoscaler(kind)).await;
            world.wait(20).await;
            let condition = status_of::<HorizontalPodAutoscaler>(world, "h")["conditions"][0].clone();
            let message = format!("the HPA controller was unable to get the target's current scale: {expected}");
            assert_eq!((&condition["reason"], &condition["message"]), (&json!("FailedGetScale"), &json!(message)));
            world.delete::<HorizontalPodAutoscaler>(NAMESPACE, "h").await;
            world.wait(20).await;
        }
    });
}
