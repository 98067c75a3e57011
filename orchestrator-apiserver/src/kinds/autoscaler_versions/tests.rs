//! Both ways, by example and by law.

use proptest::prelude::*;

use super::*;

fn newer_object(metrics: Value) -> Value {
    json!({
        "apiVersion": NEWER, "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"},
        "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d"}, "metrics": metrics},
        "status": {"currentMetrics": null, "desiredReplicas": 0},
    })
}

fn older_object(spec: Value) -> Value {
    json!({
        "apiVersion": OLDER, "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"}, "spec": spec,
        "status": {"currentReplicas": 0, "desiredReplicas": 0},
    })
}

#[test]
fn the_only_metric_of_the_older_version() {
    let older = older_object(json!({"maxReplicas": 3, "targetCPUUtilizationPercentage": 50}));
    let newer = convert(&older, NEWER);
    let target = json!({"type": "Utilization", "averageUtilization": 50});
    let metrics = json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]);
    assert_eq!(newer["spec"], json!({"maxReplicas": 3, "metrics": metrics}));
    assert_eq!(newer["status"], json!({"currentMetrics": null, "desiredReplicas": 0}));
    assert_eq!(convert(&newer, OLDER), older);
    let bare = convert(&older_object(json!({"maxReplicas": 3})), NEWER);
    assert_eq!(bare["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], USUAL_UTILIZATION);
}

#[test]
fn what_the_older_version_cannot_say_stands_in_annotations() {
    let mut newer = newer_object(json!([
        {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}},
        {"type": "Object", "object": {
            "describedObject": {"apiVersion": "v1", "kind": "Service", "name": "s"},
            "metric": {"name": "hits"}, "target": {"type": "AverageValue", "averageValue": "3"},
        }},
    ]));
    newer["spec"]["behavior"] = json!({"scaleDown": {
        "selectPolicy": "Max", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
    }});
    newer["status"]["conditions"] = json!([{"type": "AbleToScale", "status": "True", "reason": "r", "message": "m"}]);
    newer["status"]["currentMetrics"] =
        json!([{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 7}}}]);
    let older = convert(&newer, OLDER);
    let annotations = json!({
        METRICS: "[{\"type\":\"Resource\",\"resource\":{\"name\":\"memory\",\"targetAverageValue\":\"1Gi\"}},\
                  {\"type\":\"Object\",\"object\":{\"target\":{\"kind\":\"Service\",\"name\":\"s\",\"apiVersion\":\"v1\"},\
                  \"metricName\":\"hits\",\"targetValue\":\"0\",\"averageValue\":\"3\"}}]",
        BEHAVIOR: "{\"ScaleUp\":null,\"ScaleDown\":{\"StabilizationWindowSeconds\":null,\"SelectPolicy\":\"Max\",\
                   \"Policies\":[{\"Type\":\"Percent\",\"Value\":100,\"PeriodSeconds\":15}],\"Tolerance\":null}}",
        CONDITIONS: "[{\"type\":\"AbleToScale\",\"status\":\"True\",\"reason\":\"r\",\"message\":\"m\"}]",
        CURRENT_METRICS: "[{\"type\":\"Resource\",\"resource\":{\"name\":\"cpu\",\"currentAverageUtilization\":7,\
                          \"currentAverageValue\":\"0\"}}]",
    });
    assert_eq!(older["metadata"]["annotations"], annotations);
    assert_eq!(older["spec"], json!({"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d"}}));
    assert_eq!(older["status"]["currentCPUUtilizationPercentage"], 7);
    assert_eq!(convert(&older, NEWER), newer);
}

#[test]
fn what_cannot_be_read_was_not_said() {
    let unsaid = convert(&older_object(json!({"maxReplicas": 3})), NEWER);
    let annotated = |annotations: Value| {
        let mut older = older_object(json!({"maxReplicas": 3}));
        older["metadata"]["annotations"] = annotations;
        convert(&older, NEWER)
    };
    for text in ["{", "7", "[[]]"] {
        let annotations = json!({METRICS: text, BEHAVIOR: text, CONDITIONS: text, CURRENT_METRICS: text});
        assert_eq!(annotated(annotations), unsaid, "{text}");
    }
    let metric = "[{\"type\":\"Resource\",\"resource\":{\"name\":7}}]";
    assert_eq!(annotated(json!({METRICS: metric, CURRENT_METRICS: metric})), unsaid);
}

fn quantities() -> impl Strategy<Value = String> {
    (1_u32..1000).prop_map(|number| number.to_string())
}

/// Metrics beside the processor's utilization.
fn metrics() -> impl Strategy<Value = Value> {
    prop_oneof![
        (1_i64..100).prop_map(|share| json!({"type": "Resource", "resource": {
            "name": "memory", "target": {"type": "Utilization", "averageUtilization": share}}})),
        quantities().prop_map(|value| json!({"type": "Resource", "resource": {
            "name": "cpu", "target": {"type": "AverageValue", "averageValue": value}}})),
        quantities().prop_map(|value| json!({"type": "ContainerResource", "containerResource": {
            "name": "cpu", "container": "c", "target": {"type": "AverageValue", "averageValue": value}}})),
        quantities().prop_map(|value| json!({"type": "Pods", "pods": {
            "metric": {"name": "m", "selector": {"matchLabels": {"a": "b"}}},
            "target": {"type": "AverageValue", "averageValue": value}}})),
        quantities().prop_map(|value| json!({"type": "Object", "object": {
            "describedObject": {"kind": "Service", "name": "s"}, "metric": {"name": "m"},
            "target": {"type": "Value", "value": value}}})),
        quantities().prop_map(|value| json!({"type": "External", "external": {
            "metric": {"name": "m"}, "target": {"type": "Value", "value": value}}})),
    ]
}

proptest! {
    #[test]
    fn there_and_back_is_the_same(others in prop::collection::vec(metrics(), 1..5), share in prop::option::of(1_i64..100)) {
        let mut all = others;
        if let Some(share) = share {
            all.push(processor(json!({"target": {"type": "Utilization", "averageUtilization": share}})));
        }
        let newer = newer_object(all.into());
        prop_assert_eq!(convert(&convert(&newer, OLDER), NEWER), newer);
    }
}
