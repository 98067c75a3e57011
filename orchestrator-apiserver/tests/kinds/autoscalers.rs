//! Autoscalers are one object in two versions.

use futures::StreamExt;
use orchestrator_core::client::{
    Backend, Call, DeleteOptions, ListOptions, PatchBody, Resource, WatchEvent, WatchRequest,
};
use serde_json::{Value, json};

use crate::forms::Forms;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";

fn autoscalers(version: &'static str) -> Resource {
    Resource::new("autoscaling", version, "horizontalpodautoscalers")
}

fn run(test: impl AsyncFn(Forms)) {
    Forms::run(autoscalers, "a", test);
}

fn autoscaler(more: Value) -> Value {
    json!({"metadata": {"name": "a"}, "spec": spec(more)})
}

fn spec(more: Value) -> Value {
    let mut spec = json!({
        "maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
    });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

fn processor(utilization: i64) -> Value {
    let target = json!({"type": "Utilization", "averageUtilization": utilization});
    json!({"type": "Resource", "resource": {"name": "cpu", "target": target}})
}

fn memory() -> Value {
    let target = json!({"type": "AverageValue", "averageValue": "1Gi"});
    json!({"type": "Resource", "resource": {"name": "memory", "target": target}})
}

#[test]
fn each_version_shows_what_the_other_one_wrote() {
    run(async |api| {
        let created = api.create("v1", autoscaler(json!({"targetCPUUtilizationPercentage": 50}))).await.unwrap();
        assert_eq!(created["spec"]["targetCPUUtilizationPercentage"], 50);
        let newer = api.get("v2").await;
        assert_eq!(
            (&newer["apiVersion"], &newer["metadata"]["uid"]),
            (&json!("autoscaling/v2"), &created["metadata"]["uid"])
        );
        assert_eq!(newer["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 50);

        let more = json!({"spec": {"metrics": [newer["spec"]["metrics"][0], memory()]}});
        api.patch("v2", PatchBody::Merge(more), "m").await.unwrap();
        let older = api.get("v1").await;
        assert_eq!(older["spec"]["targetCPUUtilizationPercentage"], 50);
        assert!(older["metadata"]["annotations"][METRICS].as_str().unwrap().contains("memory"), "{older}");

        // What the older version does not know survives its writes.
        api.patch("v1", PatchBody::Merge(json!({"spec": {"targetCPUUtilizationPercentage": 60}})), "m").await.unwrap();
        let newer = api.get("v2").await;
        assert_eq!(newer["spec"]["metrics"][0], memory());
        assert_eq!(newer["spec"]["metrics"][1]["resource"]["target"]["averageUtilization"], 60);
        assert!(newer["metadata"]["annotations"].is_null());
        // Nothing but what was asked for is taken away.
        api.patch("v1", PatchBody::Merge(json!({"spec": {"targetCPUUtilizationPercentage": null}})), "m")
            .await
            .unwrap();
        assert_eq!(api.get("v2").await["spec"]["metrics"], json!([memory()]));
    });
}

#[test]
fn lists_watches_and_deletions_are_in_the_version_that_was_asked_for() {
    run(async |api| {
        api.create("v2", autoscaler(json!({"metrics": [memory()]}))).await.unwrap();
        for (version, api_version) in [("v1", "autoscaling/v1"), ("v2", "autoscaling/v2")] {
            let list = api.call(version, None, Call::List(ListOptions::default())).await.unwrap();
            assert_eq!(list[0]["apiVersion"], api_version);
        }
        let watch = WatchRequest::new(autoscalers("v1"), None);
        let mut events = api.server.watch(watch).await.unwrap();
        let WatchEvent::Added(object) = events.next().await.unwrap().unwrap() else { panic!("no addition") };
        assert_eq!(object.tree().unwrap()["apiVersion"], "autoscaling/v1");
        api.call("v2", Some("a"), Call::Delete(DeleteOptions::default())).await.unwrap();
        let WatchEvent::Deleted(object) = events.next().await.unwrap().unwrap() else { panic!("no deletion") };
        assert!(object.tree().unwrap()["metadata"]["annotations"][METRICS].is_string());
    });
}

#[test]
fn managers_of_both_versions_know_of_each_other() {
    run(async |api| {
        let older = json!({
            "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"},
            "spec": spec(json!({"targetCPUUtilizationPercentage": 50})),
        });
        api.patch("v1", PatchBody::Apply(older), "first").await.unwrap();
        let newer = json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"},
            "spec": spec(json!({"metrics": [processor(60)]})),
        });
        let error = api.patch("v2", PatchBody::Apply(newer), "second").await.unwrap_err();
        assert!(error.is_conflict(), "{error}");
        assert!(error.message().contains("conflict with \"first\""), "{error}");
        assert!(error.message().contains(".spec.targetCPUUtilizationPercentage"), "{error}");
    });
}

#[test]
fn what_annotations_say_is_checked() {
    run(async |api| {
        let metrics = "[{\"type\":\"Pods\",\"pods\":{\"metricName\":\"m\",\"targetAverageValue\":\"-1\"}}]";
        let object = json!({"metadata": {"name": "a", "annotations": {METRICS: metrics}}, "spec": spec(json!({}))});
        let error = api.create("v1", object).await.unwrap_err();
        assert!(error.message().contains("spec.metrics[0].pods.target.averageValue"), "{error}");
    });
}
