//! Nodes.

use std::collections::BTreeSet;

use orchestrator_core::status::FieldErrorKind;
use serde_json::{Value, json};

use super::{check, go, podspec, rules::Rules};
use crate::{
    field::{Errors, Field, member, remove, set_default},
    names,
};

/// What a node that has just come is marked with.
const NOT_READY: &str = "node.kubernetes.io/not-ready";

const FEATURE_BYTES: usize = 253;

/// Nodes.
pub(super) const NODES: Rules = Rules {
    status: true,
    begins_with_status: true,
    default: |node| {
        if node.get("spec").is_none() {
            *member(node, "spec") = json!({});
        }
        let status = &node["status"];
        if status["allocatable"].is_null() && status["capacity"].is_object() {
            let all = status["capacity"].clone();
            *member(member(node, "status"), "allocatable") = all;
        }
        let spec = member(node, "spec");
        // Both ways of writing the ranges of pods say the same.
        match (spec["podCIDR"].as_str().map(str::to_owned), spec["podCIDRs"].get(0).cloned()) {
            (Some(first), None) if !first.is_empty() => *member(spec, "podCIDRs") = json!([first]),
            (None, Some(first)) => *member(spec, "podCIDR") = first,
            _ => {}
        }
    },
    create,
    validate,
    validate_update,
    validate_status: validate_update,
    ..Rules::NONE
};

/// A node comes with its status, as its agent knows it. Settings that it is to fetch are no more.
fn create(node: &mut Value) {
    remove(member(node, "spec"), "configSource");
    let status = member(node, "status");
    remove(status, "config");
    set_default(member(member(status, "daemonEndpoints"), "kubeletEndpoint"), "Port", 0);
    let information = member(status, "nodeInfo");
    for name in [
        "architecture",
        "bootID",
        "containerRuntimeVersion",
        "kernelVersion",
        "kubeProxyVersion",
        "kubeletVersion",
        "machineID",
        "operatingSystem",
        "osImage",
        "systemUUID",
    ] {
        set_default(information, name, "");
    }
    let taints = member(member(node, "spec"), "taints");
    let taint = json!({"key": NOT_READY, "effect": "NoSchedule"});
    match taints.as_array_mut() {
        Some(taints) if taints.iter().any(|taint| taint["key"] == NOT_READY && taint["effect"] == "NoSchedule") => {}
        Some(taints) => taints.push(taint),
        None => *taints = json!([taint]),
    }
}

fn validate(node: &Field<'_>, errors: &mut Errors) {
    taints(node, errors);
    amounts(node, errors);
    swap(&node.at("status.nodeInfo.swap"), errors);
    features(&node.at("status.declaredFeatures"), errors);
    pod_ranges(&node.at("spec.podCIDRs"), errors);
}

fn taints(node: &Field<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    // Taints are named as if they stood in the metadata, where they once did.
    for taint in node.at("spec.taints").shown_at("metadata.taints").items() {
        let (key, effect) = (taint.get("key"), taint.get("effect"));
        check::label_key(&key, errors);
        let problems = names::label_value(taint.get("value").text());
        if !problems.is_empty() {
            taint.get("value").invalid(errors, &problems.join(";"));
        }
        if effect.text().is_empty() {
            effect.required(errors, "");
        } else {
            effect.one_of(errors, &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
        }
        let pair = (key.text(), effect.text());
        if seen.contains(&pair) {
            let shown = go::show("Taint", taint.value().unwrap_or(&Value::Null));
            let detail = format!("{shown}: taints must be unique by key and effect pair");
            taint.error(errors, FieldErrorKind::Duplicate, detail);
        }
        seen.insert(pair);
    }
}

fn amounts(node: &Field<'_>, errors: &mut Errors) {
    for list in ["status.capacity", "status.allocatable"] {
        for (name, amount) in node.at(list).entries() {
            podspec::amount(&amount.shown_at(format!("{list}.{name}")), name, errors);
        }
    }
}

/// A node that swaps has room for it. Upstream names the place as if it stood in the metadata.
fn swap(swap: &Field<'_>, errors: &mut Errors) {
    let capacity = swap.get("capacity").shown_at("metadata.nodeSwapStatus.capacity");
    if capacity.int().is_some_and(|bytes| bytes <= 0) {
        capacity.invalid(errors, "must be greater than zero");
    }
}

/// What the agent of a node can do: names in order, each once.
fn features(features: &Field<'_>, errors: &mut Errors) {
    let items = features.items();
    for (index, feature) in items.iter().enumerate() {
        if let Some(problem) = feature_problem(feature.text()) {
            feature.invalid(errors, &format!("invalid feature name {:?}: {problem}", feature.text()));
        }
        let Some(next) = items.get(index + 1) else { continue };
        if feature.text() == next.text() {
            next.duplicate(errors);
        } else if feature.text() > next.text() {
            next.invalid(errors, "list must be sorted alphabetically");
        }
    }
}

fn feature_problem(name: &str) -> Option<String> {
    let is_part = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if name.len() > FEATURE_BYTES {
        return Some(format!("must be no more than {FEATURE_BYTES} characters"));
    }
    let is_name = name.starts_with(|first: char| first.is_ascii_uppercase()) && name.split('/').all(is_part);
    (!is_name).then(|| {
        "must start with an UpperCamelCase segment, with subsequent segments separated by '/' (e.g., MyFeature or \
         MyFeature/mySubFeature), and contain only alphanumeric characters and slashes"
            .to_owned()
    })
}

/// One range for each family of addresses.
fn pod_ranges(ranges: &Field<'_>, errors: &mut Errors) {
    let items = ranges.items();
    let mut families = BTreeSet::new();
    for range in &items {
        check::cidr(range, errors);
        families.extend(check::parse_cidr(range.text()).map(|(address, _)| address.is_ipv4()));
    }
    if items.len() > 1 && (families.len() < 2 || items.len() > 2) {
        ranges.invalid(errors, "may specify no more than one CIDR for each IP family");
    }
}

/// The rules of a change. Upstream looks at amounts, features and taints once more.
fn validate_update(node: &Field<'_>, before: &Field<'_>, errors: &mut Errors) {
    amounts(node, errors);
    features(&node.at("status.declaredFeatures"), errors);
    let mut seen = BTreeSet::new();
    for address in node.at("status.addresses").items() {
        let shown = go::show("NodeAddress", address.value().unwrap_or(&Value::Null));
        if seen.contains(&shown) {
            address.error(errors, FieldErrorKind::Duplicate, shown.clone());
        }
        seen.insert(shown);
    }
    let (new, old) = (node.get("spec"), before.get("spec"));
    pod_ranges_stay(&new.get("podCIDRs"), &old.get("podCIDRs"), errors);
    if old.get("providerID").len() > 0 && new.get("providerID").text() != old.get("providerID").text() {
        let detail = "node updates may not change providerID except from \"\" to valid";
        new.get("providerID").forbidden(errors, detail);
    }
    taints(node, errors);
    if new.get("externalID").text() != old.get("externalID").text() {
        new.get("externalID").forbidden(errors, "may not be updated");
    }
}

/// Ranges of pods stay once they are there; each that changed is told of.
fn pod_ranges_stay(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    const STAYS: &str = "node updates may not change podCIDR except from \"\" to valid";
    let (now, before) = (new.items(), old.items());
    if before.is_empty() {
        return;
    }
    let same_number = now.len() == before.len();
    let changed = now.iter().zip(&before).filter(|(now, before)| now.text() != before.text()).count();
    for _ in 0..if same_number { changed } else { 1 } {
        new.forbidden(errors, STAYS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{broken, broken_by_change, broken_status};

    #[test]
    fn taints_of_a_changed_node_are_told_of_twice() {
        let node = |taints: Value| json!({"metadata": {"name": "n"}, "spec": {"taints": taints}});
        let wrong = node(json!([{"key": "a", "effect": "Never"}]));
        let why = "metadata.taints[0].effect: \"Never\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"";
        assert_eq!(broken(&NODES, wrong.clone()), [why]);
        assert_eq!(broken_by_change(&NODES, node(json!([])), wrong), [why, why]);
    }

    #[test]
    fn ranges_of_pods_stay_once_they_are_there() {
        let node = |ranges: Value| json!({"metadata": {"name": "n"}, "spec": {"podCIDRs": ranges}});
        let stays = "spec.podCIDRs: node updates may not change podCIDR except from \"\" to valid";
        let both = |third: &str| json!([format!("10.0.{third}.0/24"), format!("fd00:{third}::/64")]);
        assert_eq!(broken_by_change(&NODES, node(json!([])), node(both("1"))), [""; 0]);
        assert_eq!(broken_by_change(&NODES, node(both("1")), node(both("2"))), [stays, stays]);
        assert_eq!(broken_by_change(&NODES, node(both("1")), node(json!(["10.0.2.0/24"]))), [stays]);
    }

    #[test]
    fn features_are_named_in_order() {
        let node = |features: Value| json!({"metadata": {"name": "n"}, "status": {"declaredFeatures": features}});
        let told = |features: Value| broken_status(&NODES, &node(Value::Null), &node(features));
        assert_eq!(told(json!(["A/b", "B"])), [""; 0]);
        let place = "status.declaredFeatures";
        assert_eq!(told(json!(["B", "A"])), [format!("{place}[1]: \"A\": list must be sorted alphabetically")]);
        assert_eq!(told(json!(["A", "A"])), [format!("{place}[1]: \"A\"")]);
        assert!(
            told(json!(["a"]))[0].starts_with(&format!("{place}[0]: \"a\": invalid feature name \"a\": must start"))
        );
    }
}
