//! PodDisruptionBudget and HorizontalPodAutoscaler.

use serde_json::{Value, json};

use super::{check, rules::Rules};
use crate::{
    field::{Errors, Field, member, set_default},
    names::NameRule,
};

/// Disruption budgets.
pub(super) const DISRUPTION_BUDGETS: Rules = Rules {
    names: NameRule::PathSegment,
    generation: true,
    status: true,
    needs_version: true,
    default: |budget| {
        if budget.get("spec").is_none() {
            *member(budget, "spec") = json!({});
        }
    },
    create: |budget| {
        *member(budget, "status") =
            json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0});
    },
    validate: validate_budget,
    ..Rules::NONE
};

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
                "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
            }]),
        );
        default_behavior(spec);
    },
    create: |autoscaler| {
        let newer = autoscaler["apiVersion"] == "autoscaling/v2";
        let counts = if newer {
            json!({"currentMetrics": null, "desiredReplicas": 0})
        } else {
            json!({"currentReplicas": 0, "desiredReplicas": 0})
        };
        *member(autoscaler, "status") = counts;
        default_utilization(autoscaler);
    },
    update: |autoscaler, _| default_utilization(autoscaler),
    validate: validate_autoscaler,
    ..Rules::NONE
};

/// The version that knows one metric only.
const OLDER: &str = "autoscaling/v1";

/// Upstream stores the newer version, where a metric is given by default. The older one shows it, and nobody manages it.
fn default_utilization(autoscaler: &mut Value) {
    if autoscaler["apiVersion"] == OLDER {
        set_default(member(autoscaler, "spec"), "targetCPUUtilizationPercentage", 80);
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

fn validate_budget(budget: &Field<'_>, errors: &mut Errors) {
    let spec = budget.get("spec");
    let (least, most) = (spec.get("minAvailable"), spec.get("maxUnavailable"));
    if least.exists() && most.exists() {
        let shown = spec.value().map(Value::to_string).unwrap_or_default();
        spec.wrong(errors, shown, "minAvailable and maxUnavailable cannot be both set");
    }
    for bound in [least, most] {
        check::number_or_percent(&bound, errors);
        check::at_most_all(&bound, errors);
    }
    check::label_selector(&spec.get("selector"), errors);
    spec.get("unhealthyPodEvictionPolicy").one_of(errors, &["AlwaysAllow", "IfHealthyBudget"]);
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
    for metric in spec.get("metrics").items() {
        validate_metric(&metric, errors);
    }
    for direction in ["scaleUp", "scaleDown"] {
        rules(&spec.get("behavior").get(direction), errors);
    }
}

fn reference(target: &Field<'_>, errors: &mut Errors) {
    for name in ["kind", "name"] {
        let field = target.get(name);
        if field.text().is_empty() {
            field.required(errors, "");
        } else if let [problem, ..] = crate::names::path_segment(field.text()).as_slice() {
            field.invalid(errors, problem);
        }
    }
}

fn validate_metric(metric: &Field<'_>, errors: &mut Errors) {
    let of = metric.get("type");
    let member = match of.text() {
        "" => return of.required(errors, "must specify a metric source type"),
        "Object" => "object",
        "Pods" => "pods",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        "External" => "external",
        _ => return of.not_supported(errors, &["ContainerResource", "External", "Object", "Pods", "Resource"]),
    };
    let source = metric.get(member);
    if !source.exists() {
        return source.required(errors, "must populate information for the given metric source");
    }
    let target = source.get("target");
    if matches!(member, "resource" | "containerResource") {
        check::required(&source.get("name"), errors);
        let (utilization, value) = (target.get("averageUtilization"), target.get("averageValue"));
        if !utilization.exists() && !value.exists() {
            utilization.required(errors, "must set either a target raw value or a target utilization");
        }
        if utilization.int().is_some_and(|percent| percent < 1) {
            utilization.invalid(errors, "must be greater than 0");
        }
    }
    for name in ["value", "averageValue"] {
        if check::quantity(&target.get(name)).is_some_and(|amount| amount.sign() != 1) {
            target.get(name).invalid(errors, "must be positive");
        }
    }
}

fn rules(rules: &Field<'_>, errors: &mut Errors) {
    let window = rules.get("stabilizationWindowSeconds");
    if window.int().is_some_and(|seconds| seconds < 0) {
        window.invalid(errors, "must be greater than or equal to zero");
    }
    if window.int().is_some_and(|seconds| seconds > 3600) {
        window.invalid(errors, "must be less than or equal to 3600");
    }
    rules.get("selectPolicy").one_of(errors, &["Disabled", "Max", "Min"]);
    for policy in rules.get("policies").items() {
        policy.get("type").one_of(errors, &["Percent", "Pods"]);
        for name in ["value", "periodSeconds"] {
            if policy.get(name).int().unwrap_or(0) <= 0 {
                policy.get(name).wrong(errors, policy.get(name).int().unwrap_or(0), "must be greater than zero");
            }
        }
    }
}
