//! Limits of what namespaces may use: LimitRange and ResourceQuota.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{check, go, podspec, rules::Rules};
use crate::{
    field::{Errors, Field, items_mut, member, set_default},
    names,
};

const SCOPES: [&str; 7] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];
/// So many scopes are looked at: there are seven, and each complaint shows them all.
const SCOPES_TOLD: usize = 64;
const EXISTS_ONLY: &str = "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, \
ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
ResourceQuotaScopeCrossNamespacePodAffinity";

/// Limit ranges.
pub(super) const LIMIT_RANGES: Rules =
    Rules { default: default_limit_range, validate: validate_limit_range, ..Rules::NONE };

/// Quotas.
pub(super) const RESOURCE_QUOTAS: Rules = Rules {
    status: true,
    returns_deleted: true,
    default: |quota| {
        if quota.get("spec").is_none() {
            *member(quota, "spec") = json!({});
        }
    },
    create: |quota| *member(quota, "status") = json!({}),
    validate: validate_quota,
    validate_status: |new, _, errors| validate_quota_status(new, errors),
    validate_update: |new, old, errors| {
        let scopes = |quota: &Field<'_>| {
            quota.at("spec.scopes").items().iter().map(|scope| scope.text().to_owned()).collect::<BTreeSet<_>>()
        };
        if scopes(new) != scopes(old) {
            let place = new.at("spec.scopes");
            place.wrong(errors, place.value().unwrap_or(&Value::Null), check::IMMUTABLE);
        }
    },
    ..Rules::NONE
};

/// Where a limit says nothing, it says what the others imply.
fn default_limit_range(range: &mut Value) {
    let spec = member(range, "spec");
    set_default(spec, "limits", Value::Null);
    for item in items_mut(spec, "limits") {
        if item["type"] != "Container" {
            continue;
        }
        fill(item, "default", "max");
        fill(item, "defaultRequest", "default");
        fill(item, "defaultRequest", "min");
    }
}

fn fill(item: &mut Value, name: &str, from: &str) {
    let Some(values) = item.get(from).and_then(Value::as_object).cloned() else { return };
    let target = member(item, name);
    for (resource, amount) in values {
        set_default(target, &resource, amount);
    }
}

fn validate_limit_range(range: &Field<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for limit in range.at("spec.limits").items() {
        let of = limit.get("type");
        limit_type(&of, errors);
        if seen.contains(&of.text()) {
            of.duplicate(errors);
        }
        seen.insert(of.text());
        for list in ["max", "min"] {
            resource_names(&limit.get(list), of.text(), errors);
        }
        for list in ["default", "defaultRequest"] {
            if of.text() != "Pod" {
                resource_names(&limit.get(list), of.text(), errors);
            } else if limit.get(list).len() > 0 {
                limit.get(list).forbidden(errors, "may not be specified when `type` is 'Pod'");
            }
        }
        let bounded = ["min", "max"].iter().any(|list| limit.get(list).get("storage").exists());
        if of.text() == "PersistentVolumeClaim" && !bounded {
            let detail = "either minimum or maximum storage value is required, but neither was provided";
            limit.get("limits").required(errors, detail);
        }
        resource_names(&limit.get("maxLimitRequestRatio"), of.text(), errors);
        for resource in resources(&limit) {
            one_resource(&limit, &resource, errors);
        }
    }
}

fn limit_type(of: &Field<'_>, errors: &mut Errors) {
    let problems = names::qualified_name(of.text());
    let shown = Value::from(of.text());
    for problem in &problems {
        of.wrong(errors, &shown, problem);
    }
    let standard = of.text().contains('/') || matches!(of.text(), "Pod" | "Container" | "PersistentVolumeClaim");
    if problems.is_empty() && !standard {
        of.wrong(errors, &shown, "must be a standard limit type or fully qualified");
    }
}

fn resource_names(list: &Field<'_>, of: &str, errors: &mut Errors) {
    for (name, amount) in list.entries() {
        if matches!(of, "Pod" | "Container") {
            podspec::container_resource(&amount, name, errors);
        } else {
            podspec::resource_name(&amount, name, errors);
        }
    }
}

fn resources(limit: &Field<'_>) -> BTreeSet<String> {
    let of_pod = limit.get("type").text() == "Pod";
    let lists = ["max", "min", "maxLimitRequestRatio", "default", "defaultRequest"];
    let counted = if of_pod { &lists[..3] } else { &lists };
    counted.iter().flat_map(|list| limit.get(list).entries()).map(|(name, _)| name.to_owned()).collect()
}

/// The amounts of one resource must stand in order: min, default request, default, max.
fn one_resource(limit: &Field<'_>, resource: &str, errors: &mut Errors) {
    let place = |list: &'static str| limit.get(list).key(resource);
    let amount = |list: &'static str| check::quantity(&place(list));
    for (at, low, low_words, high, high_words) in [
        ("min", "min", "min", "max", "max"),
        ("defaultRequest", "min", "min", "defaultRequest", "default request"),
        ("defaultRequest", "defaultRequest", "default request", "max", "max"),
        ("defaultRequest", "defaultRequest", "default request", "default", "default limit"),
        ("default", "min", "min", "default", "default"),
        ("default", "default", "default", "max", "max"),
    ] {
        let (Some(least), Some(most)) = (amount(low), amount(high)) else { continue };
        if least > most {
            // At the default, upstream shows the other one of the two.
            let shown = match (at, low) {
                ("default", "min") => place("min").shown(),
                ("default", _) => place("max").shown(),
                _ => place(at).shown(),
            };
            let (least, most) = (place(low).text().to_owned(), place(high).text().to_owned());
            place(at).wrong(
                errors,
                shown,
                &format!("{low_words} value {least} is greater than {high_words} value {most}"),
            );
        }
    }
    ratio(limit, resource, errors);
    let (default, request) = (amount("default"), amount("defaultRequest"));
    if !podspec::can_overcommit(resource) && default.is_some() && request.is_some() && default != request {
        let detail = format!(
            "default value {} must equal to defaultRequest value {} in {resource}",
            place("default").text(),
            place("defaultRequest").text()
        );
        place("defaultRequest").invalid(errors, &detail);
    }
}

/// How far a limit may go above a request; not further than the bounds of both allow.
fn ratio(limit: &Field<'_>, resource: &str, errors: &mut Errors) {
    let place = |list: &'static str| limit.get(list).key(resource);
    let amount = |list: &'static str| check::quantity(&place(list)).map(|amount| amount.as_f64());
    let ratio = place("maxLimitRequestRatio");
    let Some(most) = amount("maxLimitRequestRatio") else { return };
    if most < 1.0 {
        ratio.invalid(errors, &format!("ratio {} is less than 1", ratio.text()));
    }
    if let (Some(low), Some(high)) = (amount("min"), amount("max"))
        && most > high / low
    {
        ratio.invalid(errors, &format!("ratio {} is greater than max/min = {:.6}", ratio.text(), high / low));
    }
}

fn validate_quota(quota: &Field<'_>, errors: &mut Errors) {
    quota_amounts(&quota.at("spec.hard"), errors);
    let (scopes, selector) = (quota.at("spec.scopes"), quota.at("spec.scopeSelector"));
    let hard: Vec<&str> = quota.at("spec.hard").entries().iter().map(|(name, _)| *name).collect();
    let mut listed = Vec::new();
    for scope in scopes.items().into_iter().take(SCOPES_TOLD) {
        if !SCOPES.contains(&scope.text()) {
            scopes.invalid(errors, "unsupported scope");
        }
        for _ in hard.iter().filter(|resource| !is_scoped(scope.text(), resource)) {
            scopes.invalid(errors, "unsupported scope applied to resource");
        }
        listed.push(scope.text());
    }
    conflicts(&listed, &scopes, &scopes, errors);
    let expressions = selector.get("matchExpressions");
    let mut selected = Vec::new();
    for expression in expressions.items().into_iter().take(SCOPES_TOLD) {
        scope_requirement(&expression, &hard, &selector, errors);
        selected.push(expression.get("scopeName").text());
    }
    conflicts(&selected, &expressions, &scopes, errors);
    validate_quota_status(quota, errors);
}

fn validate_quota_status(quota: &Field<'_>, errors: &mut Errors) {
    quota_amounts(&quota.at("status.hard"), errors);
    quota_amounts(&quota.at("status.used"), errors);
}

fn quota_amounts(list: &Field<'_>, errors: &mut Errors) {
    for (name, amount) in list.entries() {
        podspec::resource_name(&amount, name, errors);
        if !name.contains('/') && !podspec::is_quota_resource(name) {
            amount.wrong(errors, format!("{name:?}"), "must be a standard resource for quota");
        }
        podspec::amount(&amount, name, errors);
    }
}

/// Whether a scope has a say in a resource. Resources that are not Kubernetes' own are left alone.
fn is_scoped(scope: &str, resource: &str) -> bool {
    let computed =
        matches!(resource, "cpu" | "memory" | "limits.cpu" | "limits.memory" | "requests.cpu" | "requests.memory");
    let claimed = matches!(resource, "persistentvolumeclaims" | "requests.storage");
    match scope {
        _ if !podspec::is_quota_resource(resource) => true,
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => claimed,
        _ if SCOPES.contains(&scope) => resource == "pods" || computed,
        _ => true,
    }
}

fn conflicts(scopes: &[&str], place: &Field<'_>, shown: &Field<'_>, errors: &mut Errors) {
    for (one, other) in [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")] {
        if scopes.contains(&one) && scopes.contains(&other) {
            let shown = shown.value().unwrap_or(&Value::Null);
            place.wrong(errors, shown, "conflicting scopes");
        }
    }
}

/// Errors name the list of expressions, not the one that is wrong; so does upstream.
fn scope_requirement(expression: &Field<'_>, hard: &[&str], selector: &Field<'_>, errors: &mut Errors) {
    let list = selector.get("matchExpressions");
    let named = |name: &'static str| expression.get(name).shown_at(format!("{}.{name}", list.path()));
    let (scope, operator, values) = (named("scopeName"), named("operator"), named("values"));
    if !SCOPES.contains(&scope.text()) {
        scope.wrong(errors, Value::from(scope.text()), "unsupported scope");
    }
    for _ in hard.iter().filter(|resource| !is_scoped(scope.text(), resource)) {
        let shown = go::show("ScopeSelector", selector.value().unwrap_or(&Value::Null));
        list.wrong(errors, shown, "unsupported scope applied to resource");
    }
    let by_name = matches!(scope.text(), "PriorityClass" | "VolumeAttributesClass");
    if SCOPES.contains(&scope.text()) && !by_name && operator.text() != "Exists" {
        operator.wrong(errors, Value::from(operator.text()), EXISTS_ONLY);
    }
    match operator.text() {
        "In" | "NotIn" if values.len() == 0 => {
            values.required(errors, "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector");
        }
        "Exists" | "DoesNotExist" if values.len() > 0 => {
            values.invalid(errors, "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector");
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        _ => operator.wrong(errors, Value::from(operator.text()), "not a valid selector operator"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(validate: fn(&Field<'_>, &mut Errors), object: &Value) -> Vec<String> {
        let mut errors = Errors::default();
        validate(&Field::root(object), &mut errors);
        errors.into_vec().into_iter().map(|error| format!("{} {}", error.field, error.detail)).collect()
    }

    #[test]
    fn scopes_fit_their_resources_and_each_other() {
        let quota = |scopes: Value, hard: Value| json!({"spec": {"scopes": scopes, "hard": hard}});
        assert_eq!(broken(validate_quota, &quota(json!(["BestEffort"]), json!({"pods": "1"}))), [] as [&str; 0]);
        assert_eq!(
            broken(validate_quota, &quota(json!(["BestEffort"]), json!({"cpu": "1"}))),
            ["spec.scopes [\"BestEffort\"]: unsupported scope applied to resource"]
        );
        assert_eq!(
            broken(validate_quota, &quota(json!(["Terminating", "NotTerminating"]), json!({}))),
            ["spec.scopes [\"Terminating\",\"NotTerminating\"]: conflicting scopes"]
        );
    }

    #[test]
    fn limits_stand_in_order() {
        let range = |limit: Value| json!({"spec": {"limits": [limit]}});
        let limit = json!({"type": "Container", "max": {"cpu": "1"}, "default": {"cpu": "2"}});
        assert_eq!(
            broken(validate_limit_range, &range(limit)),
            ["spec.limits[0].default[cpu] \"1\": default value 2 is greater than max value 1"]
        );
        let limit =
            json!({"type": "Pod", "min": {"cpu": "1"}, "max": {"cpu": "2"}, "maxLimitRequestRatio": {"cpu": "4"}});
        assert_eq!(
            broken(validate_limit_range, &range(limit)),
            ["spec.limits[0].maxLimitRequestRatio[cpu] \"4\": ratio 4 is greater than max/min = 2.000000"]
        );
    }
}
