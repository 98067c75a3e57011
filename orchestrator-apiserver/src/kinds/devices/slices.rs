//! What a driver has on a node: a ResourceSlice's pool, its nodes, its devices and the counters that they share.

use std::collections::BTreeSet;

use orchestrator_core::status::FieldErrorKind;
use serde_json::Value;

use super::{capacity, claims, driver_name, each, each_once, identifier_of, label, pool_name, too_many};
use crate::{
    field::{Errors, Field},
    kinds::{check, go, podspec},
    names,
};

/// Devices of one slice, and of one whose devices have taints or draw on counters.
const DEVICES_MAX: usize = 128;
const ELABORATE_DEVICES_MAX: usize = 64;
const COUNTER_SETS_MAX: usize = 8;
const COUNTERS_MAX: usize = 32;
const COUNTER_NAME_BYTES: usize = 63;
const CONSUMED_SETS_MAX: usize = 2;
const ATTRIBUTES_AND_CAPACITIES_MAX: usize = 32;
/// A domain, a slash, a name.
const ATTRIBUTE_NAME_BYTES: usize = 63 + 1 + 32;
const ATTRIBUTE_BYTES: usize = 64;
const TAINTS_MAX: usize = 16;
const CONDITIONS_MAX: usize = 4;
const NODES: &str = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when \
                     `perDeviceNodeSelection` is set to true in the ResourceSlice spec";

/// The rules of a slice, new or changed.
pub(super) fn validate(spec: &Field<'_>, old: Option<&Field<'_>>, errors: &mut Errors) {
    driver_name(&spec.get("driver"), errors);
    pool(&spec.get("pool"), errors);
    if let Some(old) = old {
        check::immutable(&spec.get("pool"), &old.get("pool"), "name", errors);
        for name in ["driver", "nodeName"] {
            check::immutable(spec, old, name, errors);
        }
    }
    nodes_of_slice(spec, errors);
    let (devices, shared) = (spec.get("devices"), spec.get("sharedCounters"));
    if devices.exists() && shared.exists() {
        spec.wrong(errors, "\"\"", "only one of `sharedCounters` or `devices` is allowed");
    }
    let is_elaborate = |device: &Field<'_>| device.get("taints").len() + device.get("consumesCounters").len() > 0;
    let most = if devices.items().iter().any(is_elaborate) { ELABORATE_DEVICES_MAX } else { DEVICES_MAX };
    let before = old.map(|old| old.get("devices").items()).unwrap_or_default();
    let one_by_one = spec.get("perDeviceNodeSelection").bool().unwrap_or(false);
    let name = |named: &Field<'_>| named.get("name").text().to_owned();
    each_once(&devices, most, name, errors, |new, errors| {
        let old = before.iter().find(|old| old.get("name").text() == new.get("name").text());
        device(new, old, one_by_one, errors);
    });
    each_once(&shared, COUNTER_SETS_MAX, name, errors, |set, errors| {
        check::needed(&set.get("name"), names::label, errors);
        counters(&set.get("counters"), errors);
    });
}

fn pool(pool: &Field<'_>, errors: &mut Errors) {
    let (generation, slices) = (pool.get("generation"), pool.get("resourceSliceCount"));
    pool_name(&pool.get("name"), errors);
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
    let chosen = chosen_nodes(spec, &ways, "must be either unset or set to a non-empty string", errors);
    let all = ways.map(|way| format!("`{way}`")).join(", ");
    match chosen.as_slice() {
        [] => spec.required(errors, &format!("exactly one of {all} is required")),
        [_] => {}
        many => {
            let detail = format!("exactly one of {all} is required, but multiple fields are set");
            spec.wrong(errors, shown_ways(many), &detail);
        }
    }
}

fn shown_ways(ways: &[String]) -> String {
    format!("\"{{{}}}\"", ways.join(", "))
}

/// The ways in which something names its nodes, each checked for itself.
fn chosen_nodes(of: &Field<'_>, ways: &[&'static str], empty: &str, errors: &mut Errors) -> Vec<String> {
    let mut chosen = Vec::new();
    for way in ways {
        let field = of.get(way);
        match field.value() {
            None | Some(Value::Null) => continue,
            Some(Value::Bool(false)) => {
                field.invalid(errors, "must be either unset or set to true");
                continue;
            }
            Some(Value::String(name)) if name.is_empty() => {
                field.invalid(errors, empty);
                continue;
            }
            Some(Value::String(name)) => check::problems(&field, &names::subdomain(name), errors),
            Some(Value::Object(_)) => podspec::node_selector(&field, errors),
            Some(_) => {}
        }
        // That of a slice is merged with others.
        let terms = field.get("nodeSelectorTerms");
        if field.value().is_some_and(Value::is_object) && ways.contains(&"perDeviceNodeSelection") && terms.len() != 1 {
            terms.wrong(errors, shown_terms(&terms), "must have exactly one node selector term");
        }
        chosen.push(format!("`{way}`"));
    }
    chosen
}

fn shown_terms(terms: &Field<'_>) -> String {
    match terms.value() {
        None | Some(Value::Null) => "null".to_owned(),
        Some(_) => {
            let shown =
                terms.items().iter().filter_map(|term| Some(go::show("NodeTerm", term.value()?))).collect::<Vec<_>>();
            format!("[{}]", shown.join(","))
        }
    }
}

fn device(device: &Field<'_>, old: Option<&Field<'_>>, one_by_one: bool, errors: &mut Errors) {
    label(&device.get("name"), errors);
    let (attributes, capacities) = (device.get("attributes"), device.get("capacity"));
    let total = attributes.len() + capacities.len();
    if total > ATTRIBUTES_AND_CAPACITIES_MAX {
        let detail =
            format!("the total number of attributes and capacities must not exceed {ATTRIBUTES_AND_CAPACITIES_MAX}");
        device.wrong(errors, total, &detail);
    }
    for (name, value) in attributes.entries() {
        let value = shortened(&attributes, name, value, ATTRIBUTE_NAME_BYTES);
        identifier_of(name, &value, errors);
        attribute(&value, errors);
    }
    let is_shared = device.get("allowMultipleAllocations").bool().unwrap_or(false);
    for (name, value) in capacities.entries() {
        let value = shortened(&capacities, name, value, ATTRIBUTE_NAME_BYTES);
        identifier_of(name, &value, errors);
        capacity::validate(&value, is_shared, errors);
    }
    let taints = device.get("taints");
    if old.is_none_or(|old| old.get("taints").value() != taints.value()) {
        each(&taints, TAINTS_MAX, errors, claims::taint);
    }
    let set = |consumed: &Field<'_>| consumed.get("counterSet").text().to_owned();
    each_once(&device.get("consumesCounters"), CONSUMED_SETS_MAX, set, errors, |consumed, errors| {
        check::needed(&consumed.get("counterSet"), names::label, errors);
        counters(&consumed.get("counters"), errors);
    });
    nodes_of_device(device, one_by_one, errors);
    binding_conditions(device, errors);
}

/// A member of a map, its name in errors no longer than this: the middle is left out.
fn shortened<'a>(map: &Field<'a>, name: &str, value: Field<'a>, most: usize) -> Field<'a> {
    if name.len() <= most || !name.is_ascii() {
        return value;
    }
    let kept = most - 3;
    let (start, end) = (&name[..kept.div_ceil(2)], &name[name.len() - kept / 2..]);
    value.shown_at(format!("{}[{start}...{end}]", map.path()))
}

fn counters(counters: &Field<'_>, errors: &mut Errors) {
    if counters.len() == 0 {
        return counters.required(errors, "");
    }
    if too_many(counters, COUNTERS_MAX, errors) {
        return;
    }
    for (name, value) in counters.entries() {
        let value = shortened(counters, name, value, COUNTER_NAME_BYTES);
        for problem in names::label(name) {
            value.wrong(errors, format!("{name:?}"), &problem);
        }
    }
}

/// An attribute has one value, of one type.
fn attribute(attribute: &Field<'_>, errors: &mut Errors) {
    let (text, version) = (attribute.get("string"), attribute.get("version"));
    let at_most = |value: &Field<'_>, errors: &mut Errors| {
        if value.len() > ATTRIBUTE_BYTES {
            value.error(errors, FieldErrorKind::TooLong, format!("may not be more than {ATTRIBUTE_BYTES} bytes"));
        }
    };
    at_most(&text, errors);
    if version.exists() {
        if !is_semantic_version(version.text()) {
            version.invalid(errors, "must be a string compatible with semver.org spec 2.0.0");
        }
        at_most(&version, errors);
    }
    let values = ["bool", "int", "string", "version"].iter().filter(|of| attribute.get(of).exists()).count();
    match values {
        0 => attribute.wrong(errors, "\"\"", "exactly one value must be specified"),
        1 => {}
        _ => attribute.invalid(errors, "exactly one value must be specified"),
    }
}

/// Whether a text is a version as <https://semver.org> has it.
fn is_semantic_version(text: &str) -> bool {
    let (text, build) = text.split_once('+').map_or((text, None), |(text, build)| (text, Some(build)));
    let (numbers, early) = text.split_once('-').map_or((text, None), |(numbers, early)| (numbers, Some(early)));
    let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let is_number = |part: &str| !part.is_empty() && is_digits(part) && (part == "0" || !part.starts_with('0'));
    let is_word =
        |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    numbers.split('.').count() == 3
        && numbers.split('.').all(is_number)
        && early.is_none_or(|early| early.split('.').all(|part| is_word(part) && (is_number(part) || !is_digits(part))))
        && build.is_none_or(|build| build.split('.').all(is_word))
}

/// A device names nodes only where its slice leaves that to its devices.
fn nodes_of_device(device: &Field<'_>, one_by_one: bool, errors: &mut Errors) {
    let ways = ["nodeName", "nodeSelector", "allNodes"];
    if !one_by_one {
        if ways.iter().any(|way| device.get(way).exists()) {
            let detail = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is \
                          set to true in the ResourceSlice spec";
            device.wrong(errors, "null", detail);
        }
        return;
    }
    match chosen_nodes(device, &ways, "must not be empty", errors).as_slice() {
        [] => device.required(errors, NODES),
        [_] => {}
        many => device.wrong(errors, shown_ways(many), NODES),
    }
}

/// The conditions that a device must meet before pods that use it are bound, and those by which that fails.
pub(super) fn binding_conditions(of: &Field<'_>, errors: &mut Errors) {
    let (needed, failed) = (of.get("bindingConditions"), of.get("bindingFailureConditions"));
    each(&needed, CONDITIONS_MAX, errors, check::label_key);
    each(&failed, CONDITIONS_MAX, errors, check::label_key);
    let mut seen = BTreeSet::new();
    for condition in needed.items() {
        if !seen.insert(condition.text()) {
            condition.duplicate(errors);
        }
    }
    let mut seen_failed = BTreeSet::new();
    for condition in failed.items() {
        if !seen_failed.insert(condition.text()) {
            condition.duplicate(errors);
        }
        if seen.contains(condition.text()) {
            condition.invalid(errors, "bindingFailureConditions must not overlap with bindingConditions");
        }
    }
    let shown = |list: &Field<'_>| list.value().map_or_else(|| "null".to_owned(), Value::to_string);
    match (needed.len(), failed.len()) {
        (0, 1..) => {
            needed.wrong(errors, shown(&needed), "bindingConditions are required to use bindingFailureConditions");
        }
        (1.., 0) => {
            failed.wrong(errors, shown(&failed), "bindingFailureConditions are required to use bindingConditions");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::{devices::RESOURCE_SLICES, testing};

    fn whole(more: &Value) -> Value {
        let mut spec = json!({
            "driver": "d.example.com", "pool": {"name": "a/b", "generation": 1, "resourceSliceCount": 1},
        });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "spec": spec })
    }

    fn slice(more: Value) -> Vec<String> {
        testing::broken(&RESOURCE_SLICES, whole(&more))
    }

    fn one(device: Value) -> Vec<String> {
        slice(json!({"nodeName": "n", "devices": [device]}))
    }

    #[test]
    fn slices_say_in_one_way_where_they_are() {
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
            ["spec.driver: ", "spec.devices[1]: \"x\""]
        );
        assert_eq!(
            slice(json!({"nodeSelector": {}})),
            [
                "spec.nodeSelector.nodeSelectorTerms: must have at least one node selector term",
                "spec.nodeSelector.nodeSelectorTerms: null: must have exactly one node selector term",
            ]
        );
    }

    #[test]
    fn the_driver_and_the_node_of_a_slice_stay() {
        let changed =
            |more: Value| testing::broken_by_change(&RESOURCE_SLICES, whole(&json!({"nodeName": "n"})), whole(&more));
        assert_eq!(changed(json!({"nodeName": "n"})), [""; 0]);
        assert_eq!(changed(json!({"nodeName": "m"})), ["spec.nodeName: \"m\": field is immutable"]);
        assert_eq!(
            changed(json!({"nodeName": "n", "driver": "e.example.com"})),
            ["spec.driver: \"e.example.com\": field is immutable"]
        );
    }

    #[test]
    fn devices_name_nodes_where_the_slice_leaves_it_to_them() {
        assert_eq!(
            one(json!({"name": "x", "allNodes": true})),
            ["spec.devices[0]: null: `nodeName`, `nodeSelector` and `allNodes` can only be set if \
              `perDeviceNodeSelection` is set to true in the ResourceSlice spec"]
        );
        let each = |device: Value| slice(json!({"perDeviceNodeSelection": true, "devices": [device]}));
        assert_eq!(each(json!({"name": "x", "allNodes": true})), [""; 0]);
        assert_eq!(each(json!({"name": "x"})), [format!("spec.devices[0]: {NODES}")]);
        assert_eq!(
            each(json!({"name": "x", "nodeName": "n", "allNodes": true})),
            [format!("spec.devices[0]: \"{{`nodeName`, `allNodes`}}\": {NODES}")]
        );
    }

    #[test]
    fn attributes_have_one_value_and_a_name() {
        let attribute = |value: Value| one(json!({"name": "x", "attributes": {"a": value}}));
        assert_eq!(attribute(json!({"version": "1.2.3-rc.1+b.01"})), [""; 0]);
        assert_eq!(
            attribute(json!({"version": "1.02.3"})),
            ["spec.devices[0].attributes[a].version: \"1.02.3\": must be a string compatible with semver.org spec \
                 2.0.0"]
        );
        assert_eq!(attribute(json!({})), ["spec.devices[0].attributes[a]: \"\": exactly one value must be specified"]);
        assert_eq!(
            attribute(json!({"string": "s".repeat(65)})),
            ["spec.devices[0].attributes[a].string: may not be more than 64 bytes"]
        );
        assert_eq!(
            one(json!({"name": "x", "attributes": {"/a": {"int": 1}}})),
            ["spec.devices[0].attributes[/a]: \"\": the domain must not be empty"]
        );
        let many = (0..33).map(|index| (format!("a{index}"), json!({"int": 1}))).collect::<serde_json::Map<_, _>>();
        assert_eq!(
            one(json!({"name": "x", "attributes": many})),
            ["spec.devices[0]: 33: the total number of attributes and capacities must not exceed 32"]
        );
    }

    #[test]
    fn devices_draw_on_counters_and_have_taints() {
        assert_eq!(
            one(json!({"name": "x", "consumesCounters": [{"counterSet": "s"}], "taints": [{"key": "k"}]})),
            ["spec.devices[0].taints[0].effect: ", "spec.devices[0].consumesCounters[0].counters: "]
        );
        assert_eq!(
            slice(json!({"nodeName": "n", "devices": [], "sharedCounters": [{"counters": {"c": {"value": "1"}}}]})),
            ["spec: \"\": only one of `sharedCounters` or `devices` is allowed", "spec.sharedCounters[0].name: "]
        );
        let tainted = |name: usize| json!({"name": format!("d{name}"), "taints": [{"key": "k", "effect": "None"}]});
        assert_eq!(
            slice(json!({"nodeName": "n", "devices": (0..65).map(tainted).collect::<Vec<_>>()})),
            ["spec.devices: 65: must have at most 64 items"]
        );
    }

    #[test]
    fn conditions_of_binding_come_in_pairs() {
        assert_eq!(
            one(json!({"name": "x", "bindingConditions": ["a", "a"]})),
            [
                "spec.devices[0].bindingConditions[1]: \"a\"",
                "spec.devices[0].bindingFailureConditions: null: bindingFailureConditions are required to use \
                 bindingConditions",
            ]
        );
        assert_eq!(
            one(json!({"name": "x", "bindingConditions": ["a"], "bindingFailureConditions": ["a"]})),
            ["spec.devices[0].bindingFailureConditions[0]: \"a\": bindingFailureConditions must not overlap with \
              bindingConditions"]
        );
    }
}
