//! Dynamic resources: DeviceClass, ResourceClaim, ResourceClaimTemplate, ResourceSlice.
//!
//! Upstream: `pkg/apis/resource/validation`.

mod allocations;
mod capacity;
mod claims;
mod slices;

use std::collections::BTreeSet;

use orchestrator_core::status::FieldErrorKind;
use serde_json::{Value, json};

use super::{
    check,
    podspec::{self, driver_name},
    rules::Rules,
};
use crate::{
    field::{Errors, Field, items_mut, member, set_default},
    names,
    strategy::Generation,
};

const POOL_NAME_BYTES: usize = 253;
const IDENTIFIER_BYTES: usize = 32;
const IDENTIFIER: &str = "a valid C identifier must start with alphabetic character or '_', followed by a string of \
                          alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for \
                          validation is '[A-Za-z_][A-Za-z0-9_]*')";

/// Device classes.
pub(super) const DEVICE_CLASSES: Rules = Rules {
    generation: Generation::Intent,
    default: |class| {
        if class.get("spec").is_none() {
            *member(class, "spec") = json!({});
        }
    },
    validate: |class, errors| {
        let spec = class.get("spec");
        claims::selectors(&spec.get("selectors"), errors);
        each(&spec.get("config"), claims::CONFIGURATIONS_MAX, errors, claims::configuration);
        let name = spec.get("extendedResourceName");
        if name.exists() && !podspec::is_extended(name.text()) {
            name.invalid(errors, "must be a valid extended resource name");
        }
    },
    ..Rules::NONE
};

/// Claims of devices. What they ask for stays, and is not looked at again.
pub(super) const RESOURCE_CLAIMS: Rules = Rules {
    status: true,
    default: |claim| default_device_claim(member(claim, "spec")),
    create: |claim| *member(claim, "status") = json!({}),
    validate_create: |claim, errors| claims::validate(&claim.get("spec"), errors),
    validate_update: |new, old, errors| check::immutable(new, old, "spec", errors),
    validate_status: allocations::validate_status,
    ..Rules::NONE
};

/// Templates of claims of devices.
pub(super) const RESOURCE_CLAIM_TEMPLATES: Rules = Rules {
    default: |template| {
        let spec = member(template, "spec");
        set_default(spec, "metadata", json!({}));
        default_device_claim(member(spec, "spec"));
    },
    validate_create: |template, errors| {
        podspec::template_metadata(&template.at("spec.metadata"), errors);
        claims::validate(&template.at("spec.spec"), errors);
    },
    validate_update: |new, old, errors| check::immutable(new, old, "spec", errors),
    ..Rules::NONE
};

/// What a driver has on a node.
pub(super) const RESOURCE_SLICES: Rules = Rules {
    generation: Generation::Intent,
    validate_create: |slice, errors| slices::validate(&slice.get("spec"), None, errors),
    validate_update: |new, old, errors| slices::validate(&new.get("spec"), Some(&old.get("spec")), errors),
    ..Rules::NONE
};

fn default_device_claim(spec: &mut Value) {
    let devices = member(spec, "devices");
    set_default(devices, "requests", Value::Null);
    let ask = |request: &mut Value| {
        set_default(request, "allocationMode", "ExactCount");
        if request["allocationMode"] == "ExactCount" && request["count"].as_i64().unwrap_or(0) == 0 {
            *member(request, "count") = 1.into();
        }
        for toleration in items_mut(request, "tolerations") {
            set_default(toleration, "operator", "Equal");
        }
    };
    for request in items_mut(devices, "requests") {
        if let Some(exactly) = request.get_mut("exactly") {
            ask(exactly);
        }
        items_mut(request, "firstAvailable").for_each(ask);
    }
}

/// Whether a list or map is too long, which is said; then nothing else is said about it.
fn too_many(list: &Field<'_>, most: usize, errors: &mut Errors) -> bool {
    let is_too_long = list.len() > most;
    if is_too_long {
        let detail = format!("{}: must have at most {most} items", list.len());
        list.error(errors, FieldErrorKind::TooMany, detail);
    }
    is_too_long
}

/// Checks the items of a list that is not too long; whether it did.
fn each<'a>(
    list: &Field<'a>,
    most: usize,
    errors: &mut Errors,
    mut check: impl FnMut(&Field<'a>, &mut Errors),
) -> bool {
    if too_many(list, most, errors) {
        return false;
    }
    list.items().iter().for_each(|item| check(item, errors));
    true
}

/// As [`each`], and then refuses items that are there twice.
fn each_once<'a>(
    list: &Field<'a>,
    most: usize,
    key: impl Fn(&Field<'a>) -> String,
    errors: &mut Errors,
    check: impl FnMut(&Field<'a>, &mut Errors),
) -> bool {
    if !each(list, most, errors, check) {
        return false;
    }
    let mut seen = BTreeSet::new();
    for item in list.items() {
        let shown = format!("{:?}", key(&item));
        if !seen.insert(shown.clone()) {
            item.error(errors, FieldErrorKind::Duplicate, shown);
        }
    }
    true
}

fn label(name: &Field<'_>, errors: &mut Errors) {
    check::problems(name, &names::label(name.text()), errors);
}

fn pool_name(name: &Field<'_>, errors: &mut Errors) {
    if name.text().is_empty() {
        return name.required(errors, "");
    }
    if name.text().len() > POOL_NAME_BYTES {
        name.error(errors, FieldErrorKind::TooLong, format!("may not be more than {POOL_NAME_BYTES} bytes"));
    }
    for part in name.text().split('/') {
        for problem in names::subdomain(part) {
            name.wrong(errors, format!("{part:?}"), &problem);
        }
    }
}

/// The name of an attribute or a capacity, with or without the domain that it belongs to.
fn identifier_of(name: &str, place: &Field<'_>, errors: &mut Errors) {
    let parts = name.split('/').collect::<Vec<_>>();
    match parts.as_slice() {
        [name] => identifier(name, place, errors),
        [domain, name] => {
            let whose = Value::from(*domain);
            if domain.is_empty() {
                place.wrong(errors, "\"\"", "the domain must not be empty");
            } else {
                driver_name(&Field::root(&whose).shown_at(place.path()), errors);
            }
            if name.is_empty() {
                place.wrong(errors, "\"\"", "the name must not be empty");
            } else {
                identifier(name, place, errors);
            }
        }
        // Upstream lets names with more slashes pass.
        _ => {}
    }
}

/// A name of an attribute that says whose it is.
fn fully_qualified(name: &Field<'_>, errors: &mut Errors) {
    identifier_of(name.text(), name, errors);
    if !name.text().contains('/') {
        name.invalid(errors, "a fully qualified name must be a domain and a name separated by a slash");
    }
}

fn identifier(name: &str, place: &Field<'_>, errors: &mut Errors) {
    if name.len() > IDENTIFIER_BYTES {
        place.error(errors, FieldErrorKind::TooLong, format!("may not be more than {IDENTIFIER_BYTES} bytes"));
    }
    let is_identifier = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !is_identifier {
        place.wrong(errors, format!("{name:?}"), IDENTIFIER);
    }
}

/// An object that only a driver understands.
fn raw(data: &Field<'_>, most: usize, errors: &mut Errors) {
    let bytes = data.value().map_or(0, |value| value.to_string().len());
    match data.value() {
        None | Some(Value::Null) => data.required(errors, ""),
        Some(_) if bytes > most => {
            data.error(errors, FieldErrorKind::TooLong, format!("may not be more than {most} bytes"));
        }
        Some(Value::Object(_)) => {}
        Some(_) => data.wrong(errors, "\"<value omitted>\"", "must be a valid JSON object"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing;

    fn claim(devices: Value) -> Value {
        json!({"spec": {"devices": devices}})
    }

    fn claimed(devices: Value) -> Vec<String> {
        testing::broken(&RESOURCE_CLAIMS, claim(devices))
    }

    fn requested(request: Value) -> Vec<String> {
        claimed(json!({"requests": [request]}))
    }

    #[test]
    fn requests_are_exact_or_a_choice() {
        let exactly = json!({"deviceClassName": "c"});
        assert_eq!(requested(json!({"name": "r", "exactly": exactly})), [""; 0]);
        assert_eq!(
            requested(json!({"name": "r"})),
            ["spec.devices.requests[0]: exactly one of `exactly` or `firstAvailable` is required"]
        );
        assert_eq!(
            requested(json!({"name": "r", "exactly": exactly, "firstAvailable": [{"name": "s"}]})),
            ["spec.devices.requests[0]: null: exactly one of `exactly` or `firstAvailable` is required, but multiple \
              fields are set"]
        );
        let choice = json!({"name": "s", "deviceClassName": "c"});
        assert_eq!(
            requested(json!({"name": "r", "firstAvailable": vec![choice.clone(); 9]})),
            ["spec.devices.requests[0].firstAvailable: 9: must have at most 8 items"]
        );
        assert_eq!(
            requested(json!({"name": "r", "firstAvailable": [choice, choice]})),
            ["spec.devices.requests[0].firstAvailable[1]: \"s\""]
        );
    }

    #[test]
    fn requests_say_how_many_devices_and_with_which_taints() {
        let exactly = |more: Value| {
            let mut exactly = json!({"deviceClassName": "c"});
            exactly.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            requested(json!({"name": "r", "exactly": exactly}))
        };
        let path = "spec.devices.requests[0].exactly";
        assert_eq!(exactly(json!({"count": 0})), [""; 0]);
        assert_eq!(exactly(json!({"count": -1})), [format!("{path}.count: -1: must be greater than zero")]);
        assert_eq!(
            exactly(json!({"allocationMode": "All", "count": 2})),
            [format!("{path}.count: 2: must not be specified when allocationMode is 'All'")]
        );
        assert_eq!(
            exactly(json!({"allocationMode": "Some"})),
            [format!("{path}.allocationMode: \"Some\": supported values: \"All\", \"ExactCount\"")]
        );
        assert_eq!(
            exactly(json!({"tolerations": [{"operator": "Exists", "value": "v"}, {"key": "k", "effect": "No"}]})),
            [
                format!("{path}.tolerations[0].value: \"v\": must be empty for operator `Exists`"),
                format!(
                    "{path}.tolerations[1].effect: \"No\": supported values: \"NoExecute\", \"NoSchedule\", \"None\""
                ),
            ]
        );
        assert_eq!(exactly(json!({"selectors": [{}]})), [format!("{path}.selectors[0].cel: ")]);
    }

    #[test]
    fn constraints_and_configurations_are_of_requests_of_the_claim() {
        let claimed = |more: Value| {
            let choice = json!({"name": "s", "deviceClassName": "c"});
            let mut devices = json!({"requests": [{"name": "r", "firstAvailable": [choice]}]});
            devices.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            claimed(devices)
        };
        let good = json!({"requests": ["r", "r/s"], "matchAttribute": "d.example.com/a"});
        assert_eq!(claimed(json!({"constraints": [good]})), [""; 0]);
        assert_eq!(
            claimed(json!({"constraints": [{"requests": ["r/t"], "matchAttribute": "a"}, {}]})),
            [
                "spec.devices.constraints[0].requests[0]: \"r/t\": must be the name of a request in the claim or the \
                 name of a request and a subrequest separated by '/'",
                "spec.devices.constraints[0].matchAttribute: \"a\": a fully qualified name must be a domain and a \
                 name separated by a slash",
                "spec.devices.constraints[1]: exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, \
                 but multiple fields are set",
            ]
        );
        assert_eq!(
            claimed(
                json!({"config": [{}, {"opaque": {"driver": "d", "parameters": []}}, {"opaque": {"driver": "d"}}]})
            ),
            [
                "spec.devices.config[0].opaque: ",
                "spec.devices.config[1].opaque.parameters: \"<value omitted>\": must be a valid JSON object",
                "spec.devices.config[2].opaque.parameters: ",
            ]
        );
    }

    #[test]
    fn what_a_claim_asks_for_stays() {
        let ask = |class: &str| claim(json!({"requests": [{"name": "r", "exactly": {"deviceClassName": class}}]}));
        assert_eq!(testing::broken_by_change(&RESOURCE_CLAIMS, ask("a"), ask("a")), [""; 0]);
        let errors = testing::broken_by_change(&RESOURCE_CLAIMS, ask("a"), ask("B"));
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].ends_with("field is immutable"), "{errors:?}");
    }

    #[test]
    fn classes_stand_for_extended_resources() {
        let class = |name: &str| testing::broken(&DEVICE_CLASSES, json!({"spec": {"extendedResourceName": name}}));
        assert_eq!(class("example.com/gpu"), [""; 0]);
        assert_eq!(class("cpu"), ["spec.extendedResourceName: \"cpu\": must be a valid extended resource name"]);
    }
}
