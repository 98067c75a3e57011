//! Examples of what upstream documents of server-side apply.

use serde_json::{Value, json};

use super::{ApplyError, Kind, entry, fields};
use crate::apply::{Tracker, Updater};

fn conflict(result: Result<Value, ApplyError>) -> String {
    match result {
        Err(ApplyError::Conflicts(conflicts)) => conflicts.to_string(),
        other => panic!("no conflict but {other:?}"),
    }
}

#[test]
fn a_changed_field_conflicts_until_it_is_forced_or_given_up() {
    let kind = Kind::thing();
    let live = kind.apply(None, &kind.object(&json!({"count": 3, "labels": {"a": "1"}})), "a", false).unwrap();
    let other = kind.object(&json!({"count": 5}));
    assert_eq!(
        conflict(kind.apply(Some(&live), &other, "b", false)),
        "Apply failed with 1 conflict: conflict with \"a\": .spec.count"
    );
    let forced = kind.apply(Some(&live), &other, "b", true).unwrap();
    assert_eq!(forced["spec"], json!({"count": 5, "labels": {"a": "1"}}));
    assert_eq!(fields(&forced, "a"), json!({"f:spec": {"f:labels": {"f:a": {}}}}));
    assert_eq!(fields(&forced, "b"), json!({"f:spec": {"f:count": {}}}));
    let given_up = kind.apply(Some(&forced), &kind.object(&json!({"labels": {"a": "1"}})), "a", false).unwrap();
    assert_eq!(given_up["spec"], forced["spec"]);
}

#[test]
fn an_updater_takes_what_it_changes_without_a_conflict() {
    let kind = Kind::thing();
    let live = kind.apply(None, &kind.object(&json!({"count": 3})), "a", false).unwrap();
    let updated = kind.update(Some(&live), &kind.object(&json!({"count": 4})), "u");
    assert_eq!(entry(&updated, "a"), None);
    assert_eq!(fields(&updated, "u"), json!({"f:spec": {"f:count": {}}}));
    let back = kind.apply(Some(&updated), &kind.object(&json!({"count": 3})), "a", false);
    assert_eq!(conflict(back), "Apply failed with 1 conflict: conflict with \"u\" using a.example/v1: .spec.count");
    // Giving the field up leaves it to its new manager.
    let left = kind.apply(Some(&updated), &kind.object(&json!({"labels": {}})), "a", false).unwrap();
    assert_eq!(left["spec"], json!({"count": 4, "labels": {}}));
}

#[test]
fn items_of_lists_have_managers_of_their_own() {
    let kind = Kind::thing();
    let items = |items: Value| kind.object(&json!({ "items": items }));
    let first = items(json!([{"name": "a", "value": 1}, {"name": "b", "value": 2}]));
    let live = kind.apply(None, &first, "m1", false).unwrap();
    let second = items(json!([{"name": "c", "value": 3}, {"name": "a", "side": "right"}]));
    let live = kind.apply(Some(&live), &second, "m2", false).unwrap();
    assert_eq!(
        live["spec"]["items"],
        json!([
            {"name": "a", "value": 1}, {"name": "b", "value": 2},
            {"name": "c", "value": 3}, {"name": "a", "side": "right"},
        ])
    );
    assert_eq!(
        fields(&live, "m2")["f:spec"]["f:items"],
        json!({
            "k:{\"name\":\"a\",\"side\":\"right\"}": {".": {}, "f:name": {}, "f:side": {}},
            "k:{\"name\":\"c\",\"side\":\"left\"}": {".": {}, "f:name": {}, "f:value": {}},
        })
    );
    // The one's items go, the other's stay; the order is that of what is applied.
    let live = kind.apply(Some(&live), &items(json!([{"name": "b", "value": 2}])), "m1", false).unwrap();
    let names: Vec<_> = live["spec"]["items"].as_array().unwrap().iter().map(|item| item["name"].clone()).collect();
    assert_eq!(names, ["b", "c", "a"]);
    let turned = items(json!([{"name": "a", "side": "right"}, {"name": "c", "value": 3}]));
    let live = kind.apply(Some(&live), &turned, "m2", false).unwrap();
    let names: Vec<_> = live["spec"]["items"].as_array().unwrap().iter().map(|item| item["name"].clone()).collect();
    assert_eq!(names, ["b", "a", "c"]);
}

#[test]
fn sets_are_shared_and_atomic_things_are_not() {
    let kind = Kind::thing();
    let live = kind.apply(None, &kind.object(&json!({"set": ["a"], "whole": {"a": "1"}})), "m1", false).unwrap();
    let live = kind.apply(Some(&live), &kind.object(&json!({"set": ["b"]})), "m2", false).unwrap();
    assert_eq!(live["spec"]["set"], json!(["a", "b"]));
    assert_eq!(fields(&live, "m2"), json!({"f:spec": {"f:set": {"v:\"b\"": {}}}}));
    assert_eq!(
        conflict(kind.apply(Some(&live), &kind.object(&json!({"whole": {"b": "2"}})), "m2", false)),
        "Apply failed with 1 conflict: conflict with \"m1\": .spec.whole"
    );
    let live = kind.apply(Some(&live), &kind.object(&json!({"whole": {"a": "1"}})), "m1", false).unwrap();
    assert_eq!(live["spec"], json!({"set": ["b"], "whole": {"a": "1"}}));
}

#[test]
fn what_was_there_before_the_first_apply_has_a_manager() {
    let kind = Kind::thing();
    let untracked = kind.object(&json!({"count": 1}));
    let live = kind.apply(Some(&untracked), &kind.object(&json!({"labels": {"a": "1"}})), "m", false).unwrap();
    assert_eq!(fields(&live, "before-first-apply"), json!({"f:spec": {".": {}, "f:count": {}}}));
    assert_eq!(entry(&live, "before-first-apply").unwrap()["operation"], "Update");
    assert_eq!(
        kind.update(Some(&untracked), &kind.object(&json!({"count": 2})), "u")["metadata"],
        json!({"name": "x"})
    );
}

#[test]
fn managers_are_forgotten_on_demand() {
    let kind = Kind::thing();
    let live = kind.update(None, &kind.object(&json!({"count": 1})), "u");
    for reset in [json!([]), json!([{}])] {
        let mut new = kind.object(&json!({"count": 2}));
        new["metadata"]["managedFields"] = reset;
        assert_eq!(kind.update(Some(&live), &new, "u")["metadata"], json!({"name": "x"}));
    }
    // What cannot be read is as if it were not given.
    let mut new = live.clone();
    new["metadata"]["managedFields"] = json!([{"manager": "x", "operation": "Other"}]);
    assert_eq!(kind.update(Some(&live), &new, "u"), live);
    let given = json!([{"manager": "x", "operation": "Update", "apiVersion": "a.example/v1", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:spec": {"f:count": {}}}}]);
    new["metadata"]["managedFields"] = given.clone();
    assert_eq!(kind.update(Some(&live), &new, "u")["metadata"]["managedFields"], given);
    assert_eq!(kind.update(Some(&live), &new, "x")["metadata"]["managedFields"], given);
}

#[test]
fn a_subresource_has_managers_of_its_own() {
    let kind = Kind::thing();
    let live = kind.update(None, &kind.object(&json!({"count": 1})), "u");
    let mut new = live.clone();
    new["status"] = json!({"ready": true});
    new["metadata"]["managedFields"] = json!([{}]);
    let ignored = crate::apply::FieldSet::of_fields(&["spec"]);
    let updater = Updater { versions: &kind, api_version: kind.api_version, of: kind.of(), ignored: &ignored };
    let now = Some("2026-01-03T00:00:00Z");
    let tracker =
        Tracker { updater, kind: &kind.name, subresource: "status", now, schema_is_fixed: true, empty: &kind.empty };
    tracker.update(Some(&live), &mut new, "u");
    let entries = new["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[1]["subresource"], "status");
    assert_eq!(entries[1]["time"].as_str(), now);
    assert_eq!(entries[1]["fieldsV1"], json!({"f:status": {".": {}, "f:ready": {}}}));
}

#[test]
fn kubectl_takes_over_from_its_client_side() {
    let kind = Kind::thing();
    let annotation = "kubectl.kubernetes.io/last-applied-configuration";
    let applied = kind.object(&json!({"count": 3}));
    let mut created = applied.clone();
    created["metadata"]["annotations"] = json!({ annotation: applied.to_string() });
    let live = kind.update(None, &created, "kubectl-client-side-apply");
    let next = kind.object(&json!({"count": 4}));
    assert!(kind.apply(Some(&live), &next, "somebody", false).is_err());
    let taken = kind.apply(Some(&live), &next, "kubectl", false).unwrap();
    assert_eq!(taken["spec"]["count"], 4);
    assert_eq!(fields(&taken, "kubectl"), json!({"f:spec": {"f:count": {}}}));
    assert_eq!(taken["metadata"]["annotations"][annotation], format!("{next}\n"));
    // What changed since client-side apply is not its to give.
    let scaled = kind.update(
        Some(&live),
        &{
            let mut scaled = live.clone();
            scaled["spec"]["count"] = 9.into();
            scaled
        },
        "hpa",
    );
    assert!(kind.apply(Some(&scaled), &next, "kubectl", false).is_err());
}

#[test]
fn configurations_that_do_not_fit_are_refused_in_upstreams_words() {
    let kind = Kind::thing();
    let refused = |spec: Value| match kind.apply(None, &kind.object(&spec), "m", false) {
        Err(ApplyError::Failed(why)) => why,
        other => panic!("{other:?}"),
    };
    let prefix = "failed to create typed patch object (/x; a.example/v1, Kind=Thing): ";
    for (spec, why) in [
        (json!({"nosuch": 1}), ".spec.nosuch: field not declared in schema"),
        (json!({"count": "1"}), ".spec.count: expected numeric (int or float), got string"),
        (json!({"labels": {"a": 1}}), ".spec.labels.a: expected string, got &value.valueUnstructured{Value:1}"),
        (json!({"items": {"a": 1}}), ".spec.items: expected list, got &{map[a:1]}"),
        (json!({"labels": [1, "b"]}), ".spec.labels: expected map, got &{[1 b]}"),
        (json!({"set": ["a", "a"]}), ".spec.set: duplicate entries for key [=\"a\"]"),
        (
            json!({"items": [{"name": "a"}, {"name": "a", "side": "left"}]}),
            ".spec.items: duplicate entries for key [name=\"a\",side=\"left\"]",
        ),
        (json!({"set": [{}]}), ".spec.set: element 0: associative list without keys has an element that's a map type"),
        (
            json!({"count": true, "x": 1}),
            "errors:\n  .spec.count: expected numeric (int or float), got bool\n  .spec.x: field not declared in schema",
        ),
    ] {
        assert_eq!(refused(spec), format!("{prefix}{why}"));
    }
    let mut owned = kind.object(&json!({}));
    owned["metadata"]["managedFields"] = json!([]);
    let error = kind.apply(None, &owned, "m", false).unwrap_err();
    assert_eq!(error, ApplyError::Refused("metadata.managedFields must be nil".to_owned()));
}

#[test]
fn objects_without_a_schema_are_taken_as_they_look() {
    let kind = Kind::custom(None);
    let live = kind.apply(None, &kind.object(&json!({"a": {"b": [1, 2]}, "c": 1})), "m1", false).unwrap();
    assert_eq!(fields(&live, "m1"), json!({"f:spec": {".": {}, "f:a": {".": {}, "f:b": {}}, "f:c": {}}}));
    let live = kind.apply(Some(&live), &kind.object(&json!({"a": {"d": true}})), "m2", false).unwrap();
    assert_eq!(live["spec"], json!({"a": {"b": [1, 2], "d": true}, "c": 1}));
    assert_eq!(
        conflict(kind.apply(Some(&live), &kind.object(&json!({"a": {"b": [2]}})), "m2", false)),
        "Apply failed with 1 conflict: conflict with \"m1\": .spec.a.b"
    );
}

/// A kind whose `spec` is a structure with a list, each of them one piece or not.
fn with_spec(map_type: &str, list_type: &str) -> Kind {
    let kind = Kind::custom(Some(&json!({"type": "object", "properties": {"spec": {
        "type": "object", "x-kubernetes-map-type": map_type, "properties": {
            "a": {"type": "string"},
            "b": {"type": "string"},
            "list": {"type": "array", "x-kubernetes-list-type": list_type, "items": {"type": "string"}},
        },
    }}})));
    Kind { schema_is_fixed: false, ..kind }
}

#[test]
fn what_becomes_one_piece_is_managed_as_a_whole() {
    let (parts, whole) = (with_spec("granular", "set"), with_spec("atomic", "set"));
    let live = parts.apply(None, &parts.object(&json!({"a": "1"})), "m1", false).unwrap();
    let live = parts.apply(Some(&live), &parts.object(&json!({"b": "2"})), "m2", false).unwrap();
    // Nobody changes anything, and yet the managers are as the new schema has them.
    let same = whole.apply(Some(&live), &whole.object(&live["spec"]), "m3", false).unwrap();
    for manager in ["m1", "m2", "m3"] {
        assert_eq!(fields(&same, manager), json!({"f:spec": {}}), "{manager}");
    }
    let other = whole.object(&json!({"a": "3"}));
    assert_eq!(
        conflict(whole.apply(Some(&live), &other, "m3", false)),
        "Apply failed with 2 conflicts: conflicts with \"m1\":\n- .spec\nconflicts with \"m2\":\n- .spec"
    );
    let updated = whole.update(Some(&live), &other, "u");
    assert_eq!((entry(&updated, "m1"), entry(&updated, "m2")), (None, None));
    assert_eq!(fields(&updated, "u"), json!({"f:spec": {}}));
}

#[test]
fn a_list_that_becomes_one_piece_is_managed_as_a_whole() {
    let (parts, whole) = (with_spec("granular", "set"), with_spec("granular", "atomic"));
    let live = parts.apply(None, &parts.object(&json!({"list": ["x"]})), "m1", false).unwrap();
    assert_eq!(fields(&live, "m1"), json!({"f:spec": {"f:list": {"v:\"x\"": {}}}}));
    let updated = whole.update(Some(&live), &whole.object(&json!({"list": ["x"], "a": "1"})), "u");
    assert_eq!(fields(&updated, "m1"), json!({"f:spec": {"f:list": {}}}));
    // What comes apart again stays managed as a whole until somebody writes it.
    let apart = parts.update(Some(&updated), &parts.object(&json!({"list": ["x"], "a": "2"})), "u");
    assert_eq!(fields(&apart, "m1"), json!({"f:spec": {"f:list": {}}}));
}
