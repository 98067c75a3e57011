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
    validate_status: |new, old, errors| {
        validate(new, errors);
        validate_update(new, old, errors);
    },
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
    let spec = node.get("spec");
    let mut seen = BTreeSet::new();
    // Taints are named as if they stood in the metadata, where they once did.
    for taint in spec.get("taints").shown_at("metadata.taints").items() {
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
    for list in ["status.capacity", "status.allocatable"] {
        for (name, amount) in node.at(list).entries() {
            podspec::amount(&amount.shown_at(format!("{list}.{name}")), name, errors);
        }
    }
    pod_ranges(&spec.get("podCIDRs"), errors);
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
    let mut seen = BTreeSet::new();
    for range in items {
        if !seen.insert(range.text()) {
            range.duplicate(errors);
        }
    }
}

fn validate_update(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for address in new.at("status.addresses").items() {
        let shown = go::show("NodeAddress", address.value().unwrap_or(&Value::Null));
        if seen.contains(&shown) {
            address.error(errors, FieldErrorKind::Duplicate, shown.clone());
        }
        seen.insert(shown);
    }
    let (new, old) = (new.get("spec"), old.get("spec"));
    for (name, shown) in [("podCIDRs", "podCIDR"), ("providerID", "providerID")] {
        if old.get(name).exists() && new.get(name).value() != old.get(name).value() {
            let detail = format!("node updates may not change {shown} except from \"\" to valid");
            new.get(name).forbidden(errors, &detail);
        }
    }
}
