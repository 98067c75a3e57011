//! What holds for all objects and configurations.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{ApplyError, Kind, anything, entry, fields, specs};
use crate::apply::{
    builtin,
    compare::compare,
    field_set::field_set,
    fields_v1, managers,
    merge::merge,
    remove::remove,
    set::FieldSet,
    validate::{Duplicates, validate},
};

/// The fields that an entry of `managedFields` has, as a set.
fn owned(object: &Value, manager: &str) -> FieldSet {
    match entry(object, manager) {
        Some(entry) => fields_v1::parse(&entry["fieldsV1"]).unwrap(),
        None => FieldSet::default(),
    }
}

fn without_times(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(entries) = object["metadata"]["managedFields"].as_array_mut() {
        entries.iter_mut().for_each(|entry| drop(entry.as_object_mut().unwrap().remove("time")));
    }
    object
}

/// The configuration's fields, without those that nobody manages.
fn tracked(kind: &Kind, applied: &Value) -> FieldSet {
    field_set(&json!({ "spec": applied["spec"] }), kind.of())
}

/// Whether an object holds everything that a configuration says.
fn holds(kind: &Kind, object: &Value, applied: &Value) -> bool {
    let merged = merge(object, applied, kind.of());
    let changes = compare(object, &merged, kind.of()).unwrap();
    changes.is_same()
}

proptest! {
    #[test]
    fn comparing_finds_all_and_only_differences(old in specs(), new in specs()) {
        let kind = Kind::thing();
        let (old, new) = (kind.object(&old), kind.object(&new));
        prop_assert!(compare(&old, &old, kind.of()).unwrap().is_same());
        let there = compare(&old, &new, kind.of()).unwrap();
        let back = compare(&new, &old, kind.of()).unwrap();
        prop_assert_eq!(&there.added, &back.removed);
        prop_assert_eq!(&there.modified, &back.modified);
        prop_assert!(there.added.intersection(&there.removed).is_empty());
        prop_assert!(there.added.intersection(&there.modified).is_empty());
        prop_assert!(there.removed.intersection(&there.modified).is_empty());
    }

    #[test]
    fn merging_lays_one_value_over_the_other(live in specs(), applied in specs()) {
        let kind = Kind::thing();
        let (live, applied) = (kind.object(&live), kind.object(&applied));
        let merged = merge(&live, &applied, kind.of());
        prop_assert_eq!(validate(&merged, kind.of(), Duplicates::Refuse), Ok(()));
        prop_assert!(holds(&kind, &merged, &applied));
        prop_assert_eq!(&merge(&merged, &applied, kind.of()), &merged);
        prop_assert_eq!(&merge(&live, &live, kind.of()), &live);
        let changes = compare(&live, &merged, kind.of()).unwrap();
        prop_assert!(changes.removed.is_empty());
    }

    #[test]
    fn what_is_taken_out_is_gone(value in specs(), fields in specs()) {
        let kind = Kind::thing();
        let (value, fields) = (kind.object(&value), field_set(&kind.object(&fields), kind.of()));
        let left = remove(&value, &fields, kind.of()).unwrap_or_default();
        let left_fields = field_set(&left, kind.of());
        let gone = field_set(&value, kind.of()).difference(&left_fields);
        prop_assert!(left_fields.intersection(&fields).is_empty());
        prop_assert!(compare(&value, &left, kind.of()).unwrap().added.is_empty());
        prop_assert!(gone.contains_all(&fields.intersection(&field_set(&value, kind.of()))));
    }

    #[test]
    fn applying_twice_changes_nothing(first in specs(), second in specs(), applied in specs()) {
        let kind = Kind::thing();
        let live = kind.apply(None, &kind.object(&first), "a", false).unwrap();
        let live = kind.apply(Some(&live), &kind.object(&second), "b", true).unwrap();
        let once = kind.apply(Some(&live), &kind.object(&applied), "a", true).unwrap();
        // What nobody manages yet, such as empty lists alone, belongs to a manager of old at the next apply.
        prop_assume!(once["metadata"]["managedFields"].is_array());
        let twice = kind.apply(Some(&once), &kind.object(&applied), "a", false).unwrap();
        prop_assert_eq!(twice, once);
    }

    #[test]
    fn a_forced_apply_always_wins(first in specs(), second in specs(), updated in specs()) {
        let kind = Kind::thing();
        let live = kind.apply(None, &kind.object(&first), "a", false).unwrap();
        let live = kind.update(Some(&live), &kind.object(&updated), "u");
        let applied = kind.object(&second);
        let object = kind.apply(Some(&live), &applied, "b", true).unwrap();
        prop_assert!(holds(&kind, &object, &applied));
        prop_assert_eq!(owned(&object, "b"), tracked(&kind, &applied));
    }

    #[test]
    fn managers_of_disjoint_fields_never_conflict(spec in specs(), split in any::<u8>()) {
        let kind = Kind::thing();
        let members = spec.as_object().unwrap().iter().enumerate();
        let (left, right): (Vec<_>, Vec<_>) = members.partition(|(index, _)| split & (1 << index) != 0);
        let object = |members: Vec<(usize, (&String, &Value))>| {
            let members = members.into_iter().map(|(_, (name, value))| (name.clone(), value.clone()));
            kind.object(&Value::Object(members.collect()))
        };
        let (left, right) = (object(left), object(right));
        let live = kind.apply(None, &left, "a", false).unwrap();
        // An empty structure is a field of its own; nobody shares it.
        if left["spec"] == json!({}) || right["spec"] == json!({}) {
            return Ok(());
        }
        let both = kind.apply(Some(&live), &right, "b", false).unwrap();
        let again = kind.apply(Some(&both), &left, "a", false).unwrap();
        prop_assert_eq!(&again, &both);
        prop_assert_eq!(&both["spec"], &spec);
    }

    #[test]
    fn what_is_not_applied_any_more_is_gone(spec in specs(), other in specs(), kept in specs()) {
        let kind = Kind::thing();
        let live = kind.apply(None, &kind.object(&other), "other", false).unwrap();
        let live = kind.apply(Some(&live), &kind.object(&spec), "a", true).unwrap();
        let object = kind.apply(Some(&live), &kind.object(&kept), "a", true).unwrap();
        let others = owned(&object, "other");
        let lost = owned(&live, "a").difference(&owned(&object, "a")).leaves();
        let left = field_set(&object, kind.of());
        for path in lost.paths() {
            let above = (1..path.len()).any(|length| others.contains(&path[..length]) && left.contains(&path[..length]));
            prop_assert!(!left.contains(&path) || others.contains(&path) || above, "{:?}", path);
        }
        prop_assert!(holds(&kind, &object, &kind.object(&kept)));
    }

    #[test]
    fn an_update_moves_what_it_changes(first in specs(), second in specs(), again in specs()) {
        let kind = Kind::thing();
        let live = kind.update(None, &kind.object(&first), "u1");
        let next = kind.update(Some(&live), &kind.object(&second), "u2");
        let changes = compare(&kind.object(&first), &kind.object(&second), kind.of()).unwrap();
        prop_assert!(owned(&next, "u2").contains_all(&changes.set()));
        prop_assert!(owned(&next, "u1").intersection(&changes.set().union(&changes.removed)).is_empty());
        // The short way and the long way lead to the same, for who manages some of it and for who is new.
        for writer in ["u1", "u2", "u3"] {
            let short = kind.update(Some(&next), &kind.object(&again), writer);
            let mut parsed = managers::parse(Some(&next["metadata"]["managedFields"])).unwrap();
            kind.tracked("2026-01-02T00:00:00Z", |tracker| {
                let updater = &tracker.updater;
                let comparison = updater.compare(&next, &short).unwrap().without(&FieldSet::of_fields(&["metadata"]));
                let writer = managers::ManagerId::new(writer, managers::Operation::Update, kind.api_version, "");
                updater.update(&next, &short, &comparison, &mut parsed, (writer, tracker.now)).unwrap();
            });
            prop_assert_eq!(managers::print(&parsed), short["metadata"].get("managedFields").cloned());
        }
    }

    #[test]
    fn an_update_without_change_leaves_the_entries(first in specs()) {
        let kind = Kind::thing();
        let live = kind.update(None, &kind.object(&first), "u1");
        prop_assert_eq!(&kind.update(Some(&live), &kind.object(&first), "u2"), &live);
        prop_assert_eq!(&kind.update(Some(&live), &live, "u2"), &live);
    }

    #[test]
    fn applied_values_may_be_shared(spec in specs()) {
        let kind = Kind::thing();
        let live = kind.apply(None, &kind.object(&spec), "a", false).unwrap();
        let shared = kind.apply(Some(&live), &kind.object(&spec), "b", false).unwrap();
        prop_assert_eq!(fields(&shared, "a"), fields(&shared, "b"));
        let left = kind.apply(Some(&shared), &kind.object(&json!({})), "b", true).unwrap();
        prop_assert_eq!(fields(&left, "a"), fields(&live, "a"));
        prop_assert_eq!(&left["spec"], &live["spec"]);
        prop_assert_eq!(&without_times(&left)["metadata"]["name"], "x");
    }

    #[test]
    fn nothing_breaks_on_anything(live in anything(), new in anything(), entries in anything()) {
        let pod = builtin("", "v1", "Pod").unwrap();
        for kind in [Kind::thing(), Kind::custom(None)] {
            for of in [kind.of(), pod] {
                let merged = merge(&live, &new, of);
                let _ = compare(&live, &merged, of);
                let _ = validate(&live, of, Duplicates::Refuse);
                let _ = remove(&merged, &field_set(&new, of), of);
            }
            let mut live = live.clone();
            if let Some(members) = live.as_object_mut() {
                members.insert("metadata".to_owned(), json!({ "managedFields": entries }));
            }
            let _ = kind.update(Some(&live), &new, "u");
            let result = kind.apply(Some(&live), &new, "kubectl", true);
            prop_assert!(!matches!(result, Err(ApplyError::Conflicts(_))));
        }
    }
}
