//! Autoscalers in their two versions: the older one knows one metric, and what else there is stands in annotations.
//!
//! Upstream: `pkg/apis/autoscaling/v1/conversion.go` and `pkg/apis/autoscaling/annotations.go`.

use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscalerBehavior, HorizontalPodAutoscalerCondition, MetricSpec, MetricStatus,
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::field::{member, remove, set_default};

/// The version that knows one metric only.
pub(super) const OLDER: &str = "autoscaling/v1";
/// The version that objects are stored in.
pub(super) const NEWER: &str = "autoscaling/v2";

/// Metrics beside the processor's utilization.
pub(super) const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// Utilization of the processor that is aimed at when nothing is said, in percent.
pub(super) const USUAL_UTILIZATION: i64 = 80;

/// When the older version writes a field.
#[derive(Clone, Copy, PartialEq)]
enum Written {
    /// When it has a value.
    Given,
    /// As `0` without a value, too.
    Always,
    /// The same, but in the status only.
    InStatus,
}
use Written::{Always, Given, InStatus};

/// A field of a metric's source: its path in the newer version, its name in the older one. `@` is `target` or `current`.
type SourceField = (&'static str, &'static str, Written);

/// The sources of metrics: type, member, and fields in the order that the older version writes them in.
const SOURCES: [(&str, &str, &[SourceField]); 5] = [
    (
        "Object",
        "object",
        &[
            ("describedObject", "target", Given),
            ("metric.name", "metricName", Given),
            ("@.value", "@Value", Always),
            ("metric.selector", "selector", Given),
            ("@.averageValue", "averageValue", Given),
        ],
    ),
    (
        "Pods",
        "pods",
        &[
            ("metric.name", "metricName", Given),
            ("@.averageValue", "@AverageValue", Always),
            ("metric.selector", "selector", Given),
        ],
    ),
    (
        "Resource",
        "resource",
        &[
            ("name", "name", Given),
            ("@.averageUtilization", "@AverageUtilization", Given),
            ("@.averageValue", "@AverageValue", InStatus),
        ],
    ),
    (
        "ContainerResource",
        "containerResource",
        &[
            ("name", "name", Given),
            ("@.averageUtilization", "@AverageUtilization", Given),
            ("@.averageValue", "@AverageValue", InStatus),
            ("container", "container", Given),
        ],
    ),
    (
        "External",
        "external",
        &[
            ("metric.name", "metricName", Given),
            ("metric.selector", "metricSelector", Given),
            ("@.value", "@Value", InStatus),
            ("@.averageValue", "@AverageValue", Given),
        ],
    ),
];

/// Orders of members in the texts of annotations.
const OBJECT_REFERENCE: [&str; 3] = ["kind", "name", "apiVersion"];
const CONDITION: [&str; 5] = ["type", "status", "lastTransitionTime", "reason", "message"];
const RULES: [&str; 4] = ["stabilizationWindowSeconds", "selectPolicy", "policies", "tolerance"];
const POLICY: [&str; 3] = ["type", "value", "periodSeconds"];

/// An autoscaler in the other version.
pub(super) fn convert(autoscaler: &Value, api_version: &str) -> Value {
    let mut converted = autoscaler.clone();
    match api_version {
        OLDER => to_older(&mut converted),
        _ => to_newer(&mut converted),
    }
    *member(&mut converted, "apiVersion") = api_version.into();
    converted
}

fn to_older(autoscaler: &mut Value) {
    let mut texts = Vec::new();
    let spec = member(autoscaler, "spec");
    let mut metrics = list(remove(spec, "metrics"));
    if let Some(first) = metrics.iter().position(|metric| utilization(metric, "target").is_some()) {
        let shown = metrics.remove(first);
        *member(spec, "targetCPUUtilizationPercentage") = utilization(&shown, "target").cloned().unwrap_or_default();
    }
    texts.push((METRICS, metrics.iter().map(|metric| older_metric(metric, "target")).collect::<Vec<_>>()));
    let behavior = remove(spec, "behavior").filter(Value::is_object);

    let status = member(autoscaler, "status");
    let current = list(remove(status, "currentMetrics"));
    if let Some(last) = current.iter().rev().find_map(|metric| utilization(metric, "current")) {
        *member(status, "currentCPUUtilizationPercentage") = last.clone();
    }
    texts.push((CURRENT_METRICS, current.iter().map(|metric| older_metric(metric, "current")).collect()));
    let conditions = list(remove(status, "conditions"));
    texts.push((CONDITIONS, conditions.iter().map(|condition| ordered(condition, &CONDITION)).collect()));
    set_default(status, "currentReplicas", 0);
    set_default(status, "desiredReplicas", 0);

    for (name, items) in texts.into_iter().filter(|(_, items)| !items.is_empty()) {
        annotate(autoscaler, name, format!("[{}]", items.join(",")));
    }
    if let Some(behavior) = behavior {
        annotate(autoscaler, BEHAVIOR, behavior_text(&behavior));
    }
}

fn to_newer(autoscaler: &mut Value) {
    let others = annotated::<Vec<MetricSpec>>(autoscaler, METRICS, |value| newer_metrics(value, "target"));
    let current = annotated::<Vec<MetricStatus>>(autoscaler, CURRENT_METRICS, |value| newer_metrics(value, "current"));
    let conditions = annotated::<Vec<HorizontalPodAutoscalerCondition>>(autoscaler, CONDITIONS, newer_conditions);
    let behavior = annotated::<HorizontalPodAutoscalerBehavior>(autoscaler, BEHAVIOR, |value| renamed(&value));
    drop_empty_annotations(autoscaler);

    let spec = member(autoscaler, "spec");
    let utilization = remove(spec, "targetCPUUtilizationPercentage").filter(|value| !value.is_null());
    let mut metrics = list(others);
    if let Some(utilization) = utilization.or_else(|| metrics.is_empty().then(|| USUAL_UTILIZATION.into())) {
        metrics.push(processor(json!({"target": {"type": "Utilization", "averageUtilization": utilization}})));
    }
    *member(spec, "metrics") = metrics.into();
    if let Some(behavior) = behavior.filter(|behavior| behavior.as_object().is_some_and(|rules| !rules.is_empty())) {
        *member(spec, "behavior") = behavior;
    }

    let status = member(autoscaler, "status");
    let utilization = remove(status, "currentCPUUtilizationPercentage").filter(|value| !value.is_null());
    let of_utilization =
        utilization.map(|utilization| json!([processor(json!({"current": {"averageUtilization": utilization}}))]));
    *member(status, "currentMetrics") = current.or(of_utilization).unwrap_or_default();
    if let Some(conditions) = conditions {
        *member(status, "conditions") = conditions;
    }
    if status["currentReplicas"] == 0 {
        remove(status, "currentReplicas");
    }
    set_default(status, "desiredReplicas", 0);
}

fn list(value: Option<Value>) -> Vec<Value> {
    match value {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

/// The utilization that a metric about the processor has as its target, or at present.
fn utilization<'a>(metric: &'a Value, side: &str) -> Option<&'a Value> {
    let is_processor = metric["type"] == "Resource" && metric["resource"]["name"] == "cpu";
    metric["resource"][side].get("averageUtilization").filter(|share| is_processor && !share.is_null())
}

/// A metric about the processor.
fn processor(mut source: Value) -> Value {
    *member(&mut source, "name") = "cpu".into();
    json!({"type": "Resource", "resource": source})
}

fn annotate(autoscaler: &mut Value, name: &str, text: String) {
    *member(member(member(autoscaler, "metadata"), "annotations"), name) = text.into();
}

/// Takes out an annotation of the older version. What is no such thing in the newer version counts as not said.
fn annotated<T: DeserializeOwned>(
    autoscaler: &mut Value,
    name: &str,
    convert: impl FnOnce(Value) -> Value,
) -> Option<Value> {
    let annotations = autoscaler.get_mut("metadata")?.get_mut("annotations")?;
    let text = remove(annotations, name)?;
    let converted = convert(serde_json::from_str(text.as_str()?).ok()?);
    let says_something = converted.as_array().is_none_or(|items| !items.is_empty());
    (says_something && T::deserialize(&converted).is_ok()).then_some(converted)
}

fn drop_empty_annotations(autoscaler: &mut Value) {
    let metadata = member(autoscaler, "metadata");
    if metadata["annotations"].as_object().is_some_and(Map::is_empty) {
        remove(metadata, "annotations");
    }
}

/// A metric as the older version writes it; `side` is `target` in the spec and `current` in the status.
fn older_metric(metric: &Value, side: &str) -> String {
    let of = metric["type"].as_str().unwrap_or_default();
    let mut members = vec![format!("\"type\":{}", metric["type"])];
    if let Some((_, name, fields)) = SOURCES.iter().find(|(known, ..)| *known == of) {
        let source = fields.iter().filter_map(|(path, older, written)| {
            let older = older.replace('@', side);
            let value = metric[name].pointer(&format!("/{}", path.replace('@', side).replace('.', "/")));
            let zero = *written == Always || (*written == InStatus && side == "current");
            let text = match value {
                Some(reference) if older == "target" => ordered(reference, &OBJECT_REFERENCE),
                Some(value) => value.to_string(),
                None if zero => "\"0\"".to_owned(),
                None => return None,
            };
            Some(format!("\"{older}\":{text}"))
        });
        members.push(format!("\"{name}\":{{{}}}", source.collect::<Vec<_>>().join(",")));
    }
    format!("{{{}}}", members.join(","))
}

fn newer_metrics(metrics: Value, side: &str) -> Value {
    list(Some(metrics)).iter().map(|metric| newer_metric(metric, side)).collect()
}

fn newer_metric(metric: &Value, side: &str) -> Value {
    if !metric.is_object() {
        return metric.clone();
    }
    let mut newer = json!({"type": metric["type"]});
    let of = metric["type"].as_str().unwrap_or_default();
    let Some((_, name, fields)) = SOURCES.iter().find(|(known, ..)| *known == of) else { return newer };
    let source = member(&mut newer, name);
    *member(source, side) = json!({});
    for (path, older, written) in *fields {
        let Some(value) = metric[name].get(older.replace('@', side)).filter(|value| !value.is_null()) else { continue };
        // A quantity that is not there is written as 0.
        if *written == Given || value != "0" {
            let place = path.split('.').fold(&mut *source, |place, part| member(place, &part.replace('@', side)));
            *place = value.clone();
        }
    }
    if side == "target" {
        let target = member(source, side);
        let of = match (target.get("averageUtilization"), target.get("averageValue")) {
            (Some(_), _) => "Utilization",
            (None, Some(_)) => "AverageValue",
            (None, None) => "Value",
        };
        *member(target, "type") = of.into();
    }
    newer
}

fn newer_conditions(conditions: Value) -> Value {
    let known = |condition: &Value| -> Value {
        let Some(members) = condition.as_object() else { return condition.clone() };
        let members = members.iter().filter(|(name, _)| CONDITION.contains(&name.as_str()));
        members.map(|(name, value)| (name.clone(), value.clone())).collect::<Map<_, _>>().into()
    };
    list(Some(conditions)).iter().map(known).collect()
}

/// An object's members in this order.
fn ordered(object: &Value, names: &[&str]) -> String {
    let members = names.iter().filter_map(|name| Some(format!("\"{name}\":{}", object.get(name)?)));
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

/// A behaviour as upstream writes it: by the names that its program has for the members, all of them.
fn behavior_text(behavior: &Value) -> String {
    let rules = |rules: &Value| {
        if !rules.is_object() {
            return "null".to_owned();
        }
        let policies = rules["policies"].as_array().map(|policies| {
            let policies = policies.iter().map(|policy| named(&POLICY, |name| policy[name].to_string()));
            format!("[{}]", policies.collect::<Vec<_>>().join(","))
        });
        named(&RULES, |name| match name {
            "policies" => policies.clone().unwrap_or_else(|| "null".to_owned()),
            name => rules[name].to_string(),
        })
    };
    named(&["scaleUp", "scaleDown"], |name| rules(&behavior[name]))
}

fn named(names: &[&str], text: impl Fn(&str) -> String) -> String {
    let members = names.iter().map(|name| format!("\"{}\":{}", with_first(name, char::to_uppercase), text(name)));
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

/// The same by the names of the API; members without a value are none.
fn renamed(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let known = |name: &str| {
                name == "scaleUp" || name == "scaleDown" || RULES.contains(&name) || POLICY.contains(&name)
            };
            let members = members.iter().filter(|(_, value)| !value.is_null());
            let members = members.map(|(name, value)| (with_first(name, char::to_lowercase), renamed(value)));
            members.filter(|(name, _)| known(name)).collect::<Map<_, _>>().into()
        }
        Value::Array(items) => items.iter().map(renamed).collect(),
        other => other.clone(),
    }
}

fn with_first<I: Iterator<Item = char>>(name: &str, change: impl Fn(char) -> I) -> String {
    let mut letters = name.chars();
    letters.next().map(change).into_iter().flatten().chain(letters).collect()
}

#[cfg(test)]
mod tests;
