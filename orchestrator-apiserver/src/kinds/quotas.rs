//! Limits of what namespaces may use: LimitRange and ResourceQuota.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{check, podspec, rules::Rules};
use crate::field::{Errors, Field, items_mut, member, set_default};

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
    validate_update: |new, old, errors| {
        let scopes = |quota: &Field<'_>| {
            quota.at("spec.scopes").items().iter().map(|scope| scope.text().to_owned()).collect::<BTreeSet<_>>()
        };
        if scopes(new) != scopes(old) {
            new.at("spec.scopes").invalid(errors, check::IMMUTABLE);
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
    let mut seen = Vec::new();
    for limit in range.at("spec.limits").items() {
        let of = limit.get("type");
        if of.text().is_empty() {
            of.required(errors, "");
        }
        if seen.contains(&of.text()) {
            of.duplicate(errors);
        }
        seen.push(of.text());
        if of.text() == "Pod" {
            for name in ["default", "defaultRequest"] {
                if limit.get(name).len() > 0 {
                    limit.get(name).forbidden(errors, "may not be specified when `type` is 'Pod'");
                }
            }
        }
        if of.text() == "PersistentVolumeClaim"
            && !limit.get("min").get("storage").exists()
            && !limit.get("max").get("storage").exists()
        {
            limit.required(errors, "either minimum or maximum storage value is required, but neither was provided");
        }
        for resource in resources(&limit) {
            one_resource(&limit, &resource, errors);
        }
    }
}

fn resources(limit: &Field<'_>) -> BTreeSet<String> {
    let lists = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];
    lists.iter().flat_map(|list| limit.get(list).entries()).map(|(name, _)| name.to_owned()).collect()
}

/// The amounts of one resource must stand in order: min, default request, default, max.
fn one_resource(limit: &Field<'_>, resource: &str, errors: &mut Errors) {
    let place = |list: &str| limit.get(list).key(resource);
    let amount = |list: &str| check::quantity(&place(list));
    for list in ["min", "max", "default", "defaultRequest"] {
        check::quantity_not_negative(&place(list), errors);
    }
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
            let (least, most) = (place(low).text().to_owned(), place(high).text().to_owned());
            let detail = format!("{low_words} value {least} is greater than {high_words} value {most}");
            // Here upstream shows the wrong one of the two.
            let shown = if (at, low) == ("default", "min") { place(low).shown() } else { place(at).shown() };
            place(at).wrong(errors, shown, &detail);
        }
    }
    let ratio = place("maxLimitRequestRatio");
    if check::quantity(&ratio).is_some_and(|ratio| ratio.milli_value() < 1000) {
        ratio.invalid(errors, &format!("ratio {} is less than 1", ratio.text()));
    }
}

fn validate_quota(quota: &Field<'_>, errors: &mut Errors) {
    for list in ["spec.hard", "status.hard", "status.used"] {
        let list = quota.at(list);
        for (name, _) in list.entries() {
            let amount = list.key(name);
            let counted = name.starts_with("count/");
            if !counted {
                podspec::resource_name(&amount, name, errors);
            }
            podspec::amount(&amount, name, errors);
            if counted && check::quantity(&amount).is_some_and(|amount| amount.milli_value() % 1000 != 0) {
                amount.invalid(errors, "must be an integer");
            }
        }
    }
    let scopes = quota.at("spec.scopes");
    let known =
        ["BestEffort", "CrossNamespacePodAffinity", "NotBestEffort", "NotTerminating", "PriorityClass", "Terminating"];
    for scope in scopes.items() {
        if !known.contains(&scope.text()) && scope.text() != "VolumeAttributesClass" {
            scopes.invalid(errors, "unsupported scope");
        }
    }
}
