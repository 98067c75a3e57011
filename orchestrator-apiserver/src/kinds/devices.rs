//! Dynamic resources: DeviceClass, ResourceClaim, ResourceClaimTemplate, ResourceSlice.
//!
//! Upstream: `pkg/apis/resource/validation`.

use std::collections::BTreeSet;

use orchestrator_core::status::FieldErrorKind;
use serde_json::{Value, json};

use super::{check, rules::Rules};
use crate::{
    field::{Errors, Field, items_mut, member, set_default},
    names,
    strategy::Generation,
};

/// Users of one claim.
const RESERVED_FOR_MAX: usize = 256;
/// Devices of one slice.
const DEVICES_MAX: usize = 128;
const DRIVER_NAME_BYTES: usize = 63;
const POOL_NAME_BYTES: usize = 253;

/// Device classes.
pub(super) const DEVICE_CLASSES: Rules = Rules {
    generation: Generation::Intent,
    default: |class| {
        if class.get("spec").is_none() {
            *member(class, "spec") = json!({});
        }
    },
    validate: |class, errors| {
        for selector in class.at("spec.selectors").items() {
            let expression = selector.get("cel");
            if !expression.exists() {
                expression.required(errors, "");
            } else {
                check::required(&expression.get("expression"), errors);
            }
        }
        for config in class.at("spec.config").items() {
            let opaque = config.get("opaque");
            if opaque.exists() {
                driver_name(&opaque.get("driver"), errors);
            } else {
                opaque.required(errors, "");
            }
        }
    },
    ..Rules::NONE
};

/// Claims of devices.
pub(super) const RESOURCE_CLAIMS: Rules = Rules {
    status: true,
    default: |claim| default_device_claim(member(claim, "spec")),
    create: |claim| *member(claim, "status") = json!({}),
    validate: |claim, errors| validate_device_claim(&claim.get("spec"), errors),
    validate_update: |new, old, errors| check::immutable(new, old, "spec", errors),
    validate_status: validate_claim_status,
    ..Rules::NONE
};

/// What a driver has on a node.
pub(super) const RESOURCE_SLICES: Rules = Rules {
    generation: Generation::Intent,
    validate: |slice, errors| validate_slice(&slice.get("spec"), errors),
    validate_update: |new, old, errors| {
        let (new, old) = (new.get("spec"), old.get("spec"));
        check::immutable(&new.get("pool"), &old.get("pool"), "name", errors);
        for name in ["driver", "nodeName"] {
            check::immutable(&new, &old, name, errors);
        }
    },
    ..Rules::NONE
};

/// Templates of claims of devices.
pub(super) const RESOURCE_CLAIM_TEMPLATES: Rules = Rules {
    default: |template| {
        let spec = member(template, "spec");
        set_default(spec, "metadata", json!({}));
        default_device_claim(member(spec, "spec"));
    },
    validate: |template, errors| validate_device_claim(&template.at("spec.spec"), errors),
    validate_update: |new, old, errors| check::immutable(new, old, "spec", errors),
    ..Rules::NONE
};

fn default_device_claim(spec: &mut Value) {
    let devices = member(spec, "devices");
    set_default(devices, "requests", Value::Null);
    let ask = |request: &mut Value| {
        set_default(request, "allocationMode", "ExactCount");
        if request["allocationMode"] == "ExactCount" {
            set_default(request, "count", 1);
        }
    };
    for request in items_mut(devices, "requests") {
        if let Some(exactly) = request.get_mut("exactly") {
            ask(exactly);
        }
        items_mut(request, "firstAvailable").for_each(ask);
    }
}

fn validate_device_claim(spec: &Field<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for request in spec.at("devices.requests").items() {
        let name = request.get("name");
        check::needed(&name, names::label, errors);
        if seen.contains(&name.text()) {
            name.duplicate(errors);
        }
        seen.insert(name.text());
        let (exactly, first) = (request.get("exactly"), request.get("firstAvailable"));
        match (exactly.exists(), first.len() > 0) {
            (true, true) => request.invalid(errors, "exactly one of `exactly` or `firstAvailable` must be specified"),
            (false, false) => request.required(errors, "exactly one of `exactly` or `firstAvailable` is required"),
            (true, false) => check::needed(&exactly.get("deviceClassName"), names::subdomain, errors),
            (false, true) => {
                for choice in first.items() {
                    check::needed(&choice.get("deviceClassName"), names::subdomain, errors);
                }
            }
        }
    }
}

/// A claim is used only while it is allocated, and its allocation does not change until it is given back.
fn validate_claim_status(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    let deleted = new.at("metadata.deletionTimestamp").exists();
    let (new, old) = (new.get("status"), old.get("status"));
    let reserved = new.get("reservedFor");
    if reserved.len() > RESERVED_FOR_MAX {
        let detail = format!("{}: must have at most {RESERVED_FOR_MAX} items", reserved.len());
        reserved.error(errors, FieldErrorKind::TooMany, detail);
    }
    let mut seen = BTreeSet::new();
    for user in reserved.items() {
        for name in ["resource", "name", "uid"] {
            check::required(&user.get(name), errors);
        }
        if !seen.insert(user.get("uid").text()) {
            user.get("uid").duplicate(errors);
        }
    }
    let (allocation, before) = (new.get("allocation"), old.get("allocation"));
    if reserved.len() > 0 && !allocation.exists() {
        reserved.forbidden(errors, "may not be specified when `allocated` is not set");
    } else if deleted {
        let known = old.get("reservedFor").items();
        let is_known = |user: &Field<'_>| known.iter().any(|known| known.value() == user.value());
        if !reserved.items().iter().all(is_known) {
            let detail = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
            reserved.forbidden(errors, detail);
        }
    }
    if before.exists() && allocation.exists() {
        check::immutable(&new, &old, "allocation", errors);
    }
}

fn driver_name(driver: &Field<'_>, errors: &mut Errors) {
    if driver.text().is_empty() {
        driver.required(errors, "");
        return;
    }
    if driver.text().len() > DRIVER_NAME_BYTES {
        let detail = format!("may not be more than {DRIVER_NAME_BYTES} bytes");
        driver.error(errors, FieldErrorKind::TooLong, detail);
    }
    check::problems(driver, &names::subdomain(&driver.text().to_lowercase()), errors);
}

fn validate_slice(spec: &Field<'_>, errors: &mut Errors) {
    driver_name(&spec.get("driver"), errors);
    validate_pool(&spec.get("pool"), errors);
    nodes_of_slice(spec, errors);
    let devices = spec.get("devices");
    if devices.len() > DEVICES_MAX {
        let detail = format!("{}: must have at most {DEVICES_MAX} items", devices.len());
        devices.error(errors, FieldErrorKind::TooMany, detail);
    }
    let mut seen = BTreeSet::new();
    for device in devices.items() {
        let name = device.get("name");
        check::needed(&name, names::label, errors);
        if !seen.insert(name.text()) {
            name.duplicate(errors);
        }
    }
}

fn validate_pool(pool: &Field<'_>, errors: &mut Errors) {
    let (name, generation, slices) = (pool.get("name"), pool.get("generation"), pool.get("resourceSliceCount"));
    if name.text().is_empty() {
        name.required(errors, "");
    } else {
        if name.text().len() > POOL_NAME_BYTES {
            let detail = format!("may not be more than {POOL_NAME_BYTES} bytes");
            name.error(errors, FieldErrorKind::TooLong, detail);
        }
        for part in name.text().split('/') {
            for problem in names::subdomain(part) {
                name.wrong(errors, format!("{part:?}"), &problem);
            }
        }
    }
    if slices.int().unwrap_or(0) <= 0 {
        slices.wrong(errors, slices.int().unwrap_or(0), "must be greater than zero");
    }
    if generation.int().is_some_and(|generation| generation < 0) {
        generation.invalid(errors, "must be greater than or equal to zero");
    }
}

/// A slice says in one way only which nodes can use its devices.
fn nodes_of_slice(spec: &Field<'_>, errors: &mut Errors) {
    let ways = ["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"];
    let mut chosen = Vec::new();
    for way in ways {
        let field = spec.get(way);
        match field.value() {
            None | Some(Value::Null) => continue,
            Some(Value::Bool(false)) => field.invalid(errors, "must be either unset or set to true"),
            Some(Value::String(name)) if name.is_empty() => {
                field.invalid(errors, "must be either unset or set to a non-empty string");
            }
            Some(Value::String(name)) => {
                check::problems(&field, &names::subdomain(name), errors);
                chosen.push(format!("`{way}`"));
            }
            Some(_) => chosen.push(format!("`{way}`")),
        }
    }
    let terms = spec.at("nodeSelector.nodeSelectorTerms");
    if spec.get("nodeSelector").exists() && terms.len() != 1 {
        terms.invalid(errors, "must have exactly one node selector term");
    }
    let all = ways.map(|way| format!("`{way}`")).join(", ");
    match chosen.as_slice() {
        [] => spec.required(errors, &format!("exactly one of {all} is required")),
        [_] => {}
        many => {
            let shown = format!("\"{{{}}}\"", many.join(", "));
            spec.wrong(errors, shown, &format!("exactly one of {all} is required, but multiple fields are set"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(new: Value, old: Value, deleted: bool) -> Vec<String> {
        let claim = |status: Value| {
            let metadata = if deleted { json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}) } else { json!({}) };
            json!({"metadata": metadata, "status": status})
        };
        let (new, old, mut errors) = (claim(new), claim(old), Errors::default());
        validate_claim_status(&Field::root(&new), &Field::root(&old), &mut errors);
        errors.into_vec().into_iter().map(|error| format!("{}: {}", error.field, error.detail)).collect()
    }

    fn user(name: &str) -> Value {
        json!({"resource": "pods", "name": name, "uid": name})
    }

    #[test]
    fn claims_are_reserved_while_they_are_allocated() {
        let allocated = |users: Vec<Value>| json!({"allocation": {"devices": {}}, "reservedFor": users});
        assert_eq!(status(allocated(vec![user("a")]), json!({}), false), [""; 0]);
        assert_eq!(
            status(json!({"reservedFor": [user("a")]}), json!({}), false),
            ["status.reservedFor: may not be specified when `allocated` is not set"]
        );
        assert_eq!(
            status(allocated(vec![user("a"), user("a"), json!({"name": "b", "uid": "b"})]), json!({}), false),
            ["status.reservedFor[1].uid: \"a\"", "status.reservedFor[2].resource: "]
        );
        assert_eq!(status(allocated(vec![user("a")]), allocated(vec![user("a"), user("b")]), true), [""; 0]);
        assert_eq!(status(allocated(vec![user("a")]), allocated(vec![]), true).len(), 1);
        assert_eq!(
            status(allocated(vec![user("a"); RESERVED_FOR_MAX + 1]), json!({}), false)[0],
            format!("status.reservedFor: {}: must have at most {RESERVED_FOR_MAX} items", RESERVED_FOR_MAX + 1)
        );
    }

    #[test]
    fn an_allocation_stays_until_it_is_given_back() {
        let (one, two) = (json!({"allocation": {"a": 1}}), json!({"allocation": {"a": 2}}));
        assert_eq!(status(two.clone(), one.clone(), false), ["status.allocation: {\"a\":2}: field is immutable"]);
        assert_eq!(status(json!({}), one, false), [""; 0]);
        assert_eq!(status(two, json!({}), false), [""; 0]);
    }

    #[test]
    fn slices_say_in_one_way_where_they_are() {
        let slice = |more: Value| {
            let mut spec = json!({
                "driver": "d.example.com", "pool": {"name": "a/b", "generation": 1, "resourceSliceCount": 1},
            });
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let (tree, mut errors) = (json!({ "spec": spec }), Errors::default());
            (RESOURCE_SLICES.validate)(&Field::root(&tree), &mut errors);
            errors.into_vec().into_iter().map(|error| format!("{}: {}", error.field, error.detail)).collect::<Vec<_>>()
        };
        let all = "`nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection`";
        assert_eq!(slice(json!({"nodeName": "n"})), [""; 0]);
        assert_eq!(slice(json!({})), [format!("spec: exactly one of {all} is required")]);
        assert_eq!(
            slice(json!({"nodeName": "n", "allNodes": true})),
            [format!(
                "spec: \"{{`nodeName`, `allNodes`}}\": exactly one of {all} is required, but multiple fields are set"
            )]
        );
        assert_eq!(
            slice(json!({"nodeName": "n", "devices": [{"name": "x"}, {"name": "x"}], "driver": ""})),
            ["spec.driver: ", "spec.devices[1].name: \"x\""]
        );
    }
}
