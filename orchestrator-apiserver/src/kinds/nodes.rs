//! Nodes.

use orchestrator_core::status::FieldErrorKind;
use serde_json::{Value, json};

use super::{check, rules::Rules};
use crate::{
    field::{Errors, Field, member, set_default},
    names,
};

/// What a node that has just come is marked with.
const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// Nodes.
pub(super) const NODES: Rules = Rules {
    status: true,
    default: |node| {
        if node.get("spec").is_none() {
            *member(node, "spec") = json!({});
        }
    },
    create,
    validate,
    validate_update: |new, old, errors| {
        let (new, old) = (new.get("spec"), old.get("spec"));
        for name in ["podCIDRs", "providerID"] {
            if old.get(name).exists() && new.get(name).value() != old.get(name).value() {
                let place = if name == "podCIDRs" { new.get("podCIDRs") } else { new.get(name) };
                place.forbidden(errors, "node updates may not change once set");
            }
        }
    },
    ..Rules::NONE
};

fn create(node: &mut Value) {
    let mut information = json!({});
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
        set_default(&mut information, name, "");
    }
    *member(node, "status") = json!({"daemonEndpoints": {"kubeletEndpoint": {"Port": 0}}, "nodeInfo": information});
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
    let mut seen = Vec::new();
    for taint in spec.get("taints").items() {
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
            taint.error(errors, FieldErrorKind::Duplicate, taint.shown());
        }
        seen.push(pair);
    }
    for range in spec.get("podCIDRs").items() {
        check::cidr(&range, errors);
    }
    for address in node.at("status.addresses").items() {
        check::required(&address.get("address"), errors);
    }
    for (_, amount) in node.at("status.capacity").entries() {
        check::quantity_not_negative(&amount, errors);
    }
}
