//! HorizontalPodAutoscaler.
//!
//! Upstream: `pkg/apis/autoscaling/validation/validation.go`.

use serde_json::{Value, json};

use super::{
    autoscaler_versions::{METRICS as OTHER_METRICS, NEWER, OLDER, USUAL_UTILIZATION, convert},
    check,
    rules::Rules,
};
use crate::{
    field::{Errors, Field, member, set_default},
    names,
};

/// The kinds of metrics, each with the member that describes it, in upstream's order.
const METRICS: [(&str, &str); 5] = [
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];
const METRIC_TYPES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];
const WINDOW_SECONDS_MAX: i64 = 3600;
const PERIOD_SECONDS_MAX: i64 = 1800;

/// Autoscalers, in their newer version.
pub(super) const AUTOSCALERS: Rules = Rules {
    status: true,
    default: |autoscaler| {
        let spec = member(autoscaler, "spec");
        target(spec);
        set_default(spec, "minReplicas", 1);
        if autoscaler["apiVersion"] == OLDER {
            return;
        }
        let spec = member(autoscaler, "spec");
        set_default(
            spec,
            "metrics",
            json!([{
                "type": "Resource",
                "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": USUAL_UTILIZATION}},
            }]),
        );
        default_behavior(spec);
    },
    create: |autoscaler| {
        let newer = autoscaler["apiVersion"] == NEWER;
        let counts = if newer {
            json!({"currentMetrics": null, "desiredReplicas": 0})
        } else {
            json!({"currentReplicas": 0, "desiredReplicas": 0})
        };
        *member(autoscaler, "status") = counts;
        default_utilization(autoscaler);
    },
    validate_status: |new, _, errors| {
        for count in ["currentReplicas", "desiredReplicas"] {
            new.get("status").get(count).not_negative(errors);
        }
    },
    update: |autoscaler, _| default_utilization(autoscaler),
    // Upstream checks what is stored, whatever version was written.
    validate: |autoscaler, errors| match autoscaler.value() {
        Some(older) if older["apiVersion"] == OLDER => {
            validate_autoscaler(&Field::root(&convert(older, NEWER)), errors);
        }
        _ => validate_autoscaler(autoscaler, errors),
    },
    ..Rules::NONE
};

/// The newer version is stored, where a metric is given by default. The older one shows it, and nobody manages it.
fn default_utilization(autoscaler: &mut Value) {
    if autoscaler["apiVersion"] == OLDER && autoscaler["metadata"]["annotations"].get(OTHER_METRICS).is_none() {
        set_default(member(autoscaler, "spec"), "targetCPUUtilizationPercentage", USUAL_UTILIZATION);
    }
}

fn target(spec: &mut Value) {
    let target = member(spec, "scaleTargetRef");
    set_default(target, "kind", "");
    set_default(target, "name", "");
    set_default(spec, "maxReplicas", 0);
}

/// What an autoscaler does by itself is written down once a behaviour is given.
fn default_behavior(spec: &mut Value) {
    let Some(behavior) = spec.get_mut("behavior") else { return };
    let policy = |of: &str, value: i64| json!({"type": of, "value": value, "periodSeconds": 15});
    let up = member(behavior, "scaleUp");
    set_default(up, "stabilizationWindowSeconds", 0);
    set_default(up, "selectPolicy", "Max");
    set_default(up, "policies", json!([policy("Pods", 4), policy("Percent", 100)]));
    let down = member(behavior, "scaleDown");
    set_default(down, "selectPolicy", "Max");
    set_default(down, "policies", json!([policy("Percent", 100)]));
}

fn validate_autoscaler(autoscaler: &Field<'_>, errors: &mut Errors) {
    let spec = autoscaler.get("spec");
    let (least, most) = (spec.get("minReplicas"), spec.get("maxReplicas"));
    if least.int().is_some_and(|number| number < 1) {
        least.invalid(errors, "must be greater than or equal to 1");
    }
    if most.int().unwrap_or(0) < 1 {
        most.required(errors, "must be set and greater than 0");
    }
    if most.int().unwrap_or(0) < least.int().unwrap_or(1) {
        most.wrong(errors, most.int().unwrap_or(0), "must be greater than or equal to `minReplicas`");
    }
    reference(&spec.get("scaleTargetRef"), errors);
    let group = spec.at("scaleTargetRef.apiVersion");
    let core_kind = spec.at("scaleTargetRef.kind").text() == "ReplicationController";
    if !group.text().contains('/') && (group.text() != "v1" || !core_kind) {
        group.wrong(errors, group.shown(), "apiVersion must specify API group");
    }
    let metrics = spec.get("metrics");
    for metric in metrics.items() {
        validate_metric(&metric, errors);
    }
    let is_counted_elsewhere = |metric: &Field<'_>| matches!(metric.get("type").text(), "Object" | "External");
    if least.int() == Some(0) && !metrics.items().iter().any(is_counted_elsewhere) {
        let detail = "must specify at least one Object or External metric to support scaling to zero replicas";
        metrics.forbidden(errors, detail);
    }
    for direction in ["scaleUp", "scaleDown"] {
        let rules = spec.get("behavior").get(direction);
        if rules.exists() {
            scaling_rules(&rules, errors);
        }
    }
}

fn reference(target: &Field<'_>, errors: &mut Errors) {
    for name in ["kind", "name"] {
        let field = target.get(name);
        check::needed(&field, names::path_segment, errors);
    }
}

fn validate_metric(metric: &Field<'_>, errors: &mut Errors) {
    let of = metric.get("type");
    if of.text().is_empty() {
        of.required(errors, "must specify a metric source type");
    }
    if !METRIC_TYPES.contains(&of.text()) {
        let shown = Value::from(of.text()).to_string();
        of.not_supported_as(errors, &shown, &METRIC_TYPES);
    }
    let given: Vec<_> = METRICS.iter().filter(|(_, member)| metric.get(member).exists()).collect();
    if let Some((_, first)) = given.first() {
        source(first, &metric.get(first), errors);
    }
    let expected = METRICS.iter().find(|(name, _)| *name == of.text()).map(|(_, member)| *member);
    match expected {
        Some(member) if !metric.get(member).exists() => {
            metric.get(member).required(errors, "must populate information for the given metric source");
        }
        Some(_) => {}
        None => {
            let shown = Value::from(of.text()).to_string();
            of.not_supported_as(errors, &shown, &METRIC_TYPES);
        }
    }
    if given.len() > 1 {
        for (_, member) in given.iter().filter(|(_, member)| Some(*member) != expected) {
            metric.get(member).forbidden(errors, "must populate the given metric source only");
        }
    }
}

fn source(of: &str, source: &Field<'_>, errors: &mut Errors) {
    let target = source.get("target");
    let (value, average) = (target.get("value"), target.get("averageValue"));
    match of {
        "resource" | "containerResource" => {
            if of == "containerResource" && source.get("container").text().is_empty() {
                source.get("container").required(errors, "must specify a container");
            }
            if source.get("name").text().is_empty() {
                source.get("name").required(errors, "must specify a resource name");
            }
        }
        _ => {
            if of == "object" {
                reference(&source.get("describedObject"), errors);
            }
            let name = source.at("metric.name");
            if name.text().is_empty() {
                name.required(errors, "must specify a metric name");
            } else {
                check::problems(&name, &names::path_segment(name.text()), errors);
            }
        }
    }
    metric_target(&target, errors);
    match of {
        "object" if !value.exists() && !average.exists() => {
            average.required(errors, "must set either a target value or averageValue");
        }
        "external" if !value.exists() && !average.exists() => {
            average.required(errors, "must set either a target value for metric or a per-pod target");
        }
        "external" if value.exists() && average.exists() => {
            value.forbidden(errors, "may not set both a target value for metric and a per-pod target");
        }
        "pods" if !average.exists() => average.required(errors, "must specify a positive target averageValue"),
        "resource" | "containerResource" => {
            let utilization = target.get("averageUtilization");
            match (utilization.exists(), average.exists()) {
                (false, false) => {
                    utilization.required(errors, "must set either a target raw value or a target utilization");
                }
                (true, true) => {
                    average.forbidden(errors, "may not set both a target raw value and a target utilization");
                }
                _ => {}
            }
        }
        _ => {}
    }
}

fn metric_target(target: &Field<'_>, errors: &mut Errors) {
    let of = target.get("type");
    if of.text().is_empty() {
        of.required(errors, "must specify a metric target type");
    }
    if !matches!(of.text(), "Utilization" | "Value" | "AverageValue") {
        of.wrong(errors, Value::from(of.text()), "must be either Utilization, Value, or AverageValue");
    }
    for name in ["value", "averageValue"] {
        if check::quantity(&target.get(name)).is_some_and(|amount| amount.sign() != 1) {
            target.get(name).invalid(errors, "must be positive");
        }
    }
    at_least_one(&target.get("averageUtilization"), errors);
}

fn at_least_one(utilization: &Field<'_>, errors: &mut Errors) {
    if utilization.int().is_some_and(|percent| percent < 1) {
        utilization.invalid(errors, "must be greater than 0");
    }
}

fn scaling_rules(rules: &Field<'_>, errors: &mut Errors) {
    let window = rules.get("stabilizationWindowSeconds");
    if window.int().is_some_and(|seconds| seconds < 0) {
        window.invalid(errors, "must be greater than or equal to zero");
    }
    if window.int().is_some_and(|seconds| seconds > WINDOW_SECONDS_MAX) {
        window.invalid(errors, &format!("must be less than or equal to {WINDOW_SECONDS_MAX}"));
    }
    rules.get("selectPolicy").one_of(errors, &["Disabled", "Max", "Min"]);
    let policies = rules.get("policies");
    if policies.len() == 0 {
        policies.required(errors, "must specify at least one Policy");
    }
    for policy in policies.items() {
        if !matches!(policy.get("type").text(), "Percent" | "Pods") {
            policy.get("type").not_supported(errors, &["Percent", "Pods"]);
        }
        for name in ["value", "periodSeconds"] {
            if policy.get(name).int().unwrap_or(0) <= 0 {
                policy.get(name).wrong(errors, policy.get(name).int().unwrap_or(0), "must be greater than zero");
            }
        }
        let period = policy.get("periodSeconds");
        if period.int().is_some_and(|seconds| seconds > PERIOD_SECONDS_MAX) {
            period.invalid(errors, &format!("must be less than or equal to {PERIOD_SECONDS_MAX}"));
        }
    }
    let tolerance = rules.get("tolerance");
    check::quantity_not_negative(&tolerance, errors);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::broken;

    #[test]
    fn none_at_all_needs_a_metric_from_elsewhere() {
        let spec = json!({
            "minReplicas": 0, "maxReplicas": 1,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
        });
        assert_eq!(
            broken(&AUTOSCALERS, json!({"apiVersion": NEWER, "spec": spec})),
            [
                "spec.minReplicas: 0: must be greater than or equal to 1",
                "spec.metrics: must specify at least one Object or External metric to support scaling to zero replicas",
            ]
        );
    }
}
