//! Strategic merge patch: a merge that knows by which key the items of a list are the same.
//!
//! Upstream: `k8s.io/apimachinery/pkg/util/strategicpatch` and
//! <https://kubernetes.io/docs/tasks/manage-kubernetes-objects/update-api-object-kubectl-patch/>.

use std::collections::{BTreeMap, BTreeSet};

use orchestrator_core::status::{ApiError, ApiResult, Reason};
use serde_json::{Map, Value};

use super::{order::in_order, shown};
use crate::decode::{self, FieldSchema, MergeStrategy, Message, Schema, Shape, Type};

/// What to do with the object or item that it stands in.
const DIRECTIVE: &str = "$patch";

/// The members that survive.
const RETAIN_KEYS: &str = "$retainKeys";

/// Plain values to take out of a list; the list's name follows.
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";

/// The order that a list is to have; the list's name follows.
const ORDER: &str = "$setElementOrder/";

/// Merges a patch into an object of a known structure.
pub(super) fn merge(tree: Value, patch: &Value, schema: &Message) -> ApiResult<Value> {
    let (Value::Object(mut members), Value::Object(patch)) = (tree, patch) else {
        return Err(ApiError::bad_request("a strategic merge patch needs an object"));
    };
    merge_object(&mut members, patch, Some(schema))?;
    Ok(Value::Object(members))
}

fn merge_object(
    members: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    schema: Option<&Message>,
) -> ApiResult<()> {
    match patch.get(DIRECTIVE).and_then(Value::as_str) {
        None | Some("merge") => {}
        Some("replace") => {
            *members = patch.iter().filter(|(name, _)| !is_directive(name)).map(clone_pair).collect();
            return Ok(());
        }
        Some("delete") => {
            members.clear();
            return Ok(());
        }
        Some(other) => return Err(bad_directive(other, patch)),
    }
    if let Some(kept) = patch.get(RETAIN_KEYS) {
        let kept: BTreeSet<&str> = kept.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        members.retain(|name, _| kept.contains(name.as_str()));
    }
    let served = served_lists(members, patch);
    for (name, value) in patch {
        if let Some(list) = name.strip_prefix(DELETE_FROM) {
            delete_plain(members, list, value);
        } else if !is_directive(name) {
            let field = schema.and_then(|schema| schema.fields.get(name.as_str()));
            merge_member(members, name, value, field)?;
        }
    }
    // An order may be given for a list that has no patch of its own.
    for (name, order) in patch {
        if let Some(list) = name.strip_prefix(ORDER)
            && let Some(Value::Array(items)) = members.get_mut(list)
        {
            let key = schema.and_then(|schema| schema.fields.get(list)).map_or("", |field| field.merge.key);
            let served = served.get(list).map_or(&[][..], Vec::as_slice);
            *items = in_order(std::mem::take(items), order.as_array().map_or(&[], Vec::as_slice), served, key);
        }
    }
    Ok(())
}

/// The lists that a patch gives an order for, as they are before it.
fn served_lists<'a>(members: &Map<String, Value>, patch: &'a Map<String, Value>) -> BTreeMap<&'a str, Vec<Value>> {
    let lists = patch.keys().filter_map(|name| name.strip_prefix(ORDER));
    lists.filter_map(|list| Some((list, members.get(list)?.as_array()?.clone()))).collect()
}

/// A refusal without a reason of its own, as upstream has it for patches that it cannot follow.
fn refused(message: String) -> ApiError {
    ApiError::new(Reason::Unknown, message)
}

fn bad_directive(directive: &str, patch: &Map<String, Value>) -> ApiError {
    refused(format!("unknown patch type: {directive} in map: {}", shown(&Value::Object(patch.clone()))))
}

/// What an item of a patch says is to be done with it.
fn directive(item: &Value) -> Option<&str> {
    item.get(DIRECTIVE).and_then(Value::as_str)
}

fn is_directive(name: &str) -> bool {
    name.starts_with('$')
}

fn clone_pair((name, value): (&String, &Value)) -> (String, Value) {
    (name.clone(), value.clone())
}

fn merge_member(
    members: &mut Map<String, Value>,
    name: &str,
    patch: &Value,
    field: Option<&FieldSchema>,
) -> ApiResult<()> {
    match (members.get_mut(name), patch) {
        (_, Value::Null) => {
            members.remove(name);
        }
        (Some(Value::Object(old)), Value::Object(patch)) => {
            merge_object(old, patch, field.and_then(message_of_one))?;
            if patch.get(DIRECTIVE).and_then(Value::as_str) == Some("delete") {
                members.remove(name);
            }
        }
        (Some(Value::Array(old)), Value::Array(patch)) if field.is_some_and(|field| field.merge.merge) => {
            let Some(field) = field else { return Ok(()) };
            merge_list(old, patch, &field.merge, message_of(field))?;
        }
        (_, patch) => match without_directives(patch) {
            Some(value) => drop(members.insert(name.to_owned(), value)),
            None => drop(members.remove(name)),
        },
    }
    Ok(())
}

/// The structure of a member that is one object. The values of a map have no names of their own to look up.
fn message_of_one(field: &FieldSchema) -> Option<&'static Message> {
    (field.shape == Shape::One).then(|| message_of(field)).flatten()
}

fn message_of(field: &FieldSchema) -> Option<&'static Message> {
    match field.of {
        Type::Message(index) => Schema::get().message(index),
        _ => None,
    }
}

/// A patch that meets nothing to merge with: what it adds. What carries a directive is about something old, and adds nothing.
fn without_directives(patch: &Value) -> Option<Value> {
    Some(match patch {
        Value::Object(members) if members.contains_key(DIRECTIVE) => return None,
        Value::Object(members) => added(members),
        Value::Array(items) => items.iter().filter_map(without_directives).collect(),
        other => other.clone(),
    })
}

/// The members of a patch that add something.
fn added(members: &Map<String, Value>) -> Value {
    let members = members.iter().filter(|(name, value)| !is_directive(name) && !value.is_null());
    members.filter_map(|(name, value)| Some((name.clone(), without_directives(value)?))).collect::<Map<_, _>>().into()
}

fn merge_list(
    old: &mut Vec<Value>,
    patch: &[Value],
    strategy: &MergeStrategy,
    schema: Option<&Message>,
) -> ApiResult<()> {
    if patch.iter().any(|item| directive(item) == Some("replace")) {
        *old = patch.iter().filter_map(without_directives).collect();
        return Ok(());
    }
    let served = old.clone();
    if strategy.key.is_empty() {
        let known: BTreeSet<String> = served.iter().map(Value::to_string).collect();
        old.extend(patch.iter().filter(|item| !known.contains(&item.to_string())).cloned());
    } else {
        *old = merge_items(std::mem::take(old), patch, strategy.key, schema)?;
    }
    *old = in_order(std::mem::take(old), patch, &served, strategy.key);
    Ok(())
}

/// Merges items that are the same where they have the same key.
fn merge_items(old: Vec<Value>, patch: &[Value], key: &str, schema: Option<&Message>) -> ApiResult<Vec<Value>> {
    let mut list = KeyedList::new(old, key);
    for item in patch {
        let Value::Object(change) = item else {
            let kind = decode::go_kind(item);
            return Err(refused(format!("expected a map[string]interface {{}}, but received a {kind}")));
        };
        let Some(name) = change.get(key) else {
            return Err(refused(format!("map: {} does not contain declared merge key: {key}", shown(item))));
        };
        match directive(item) {
            Some("delete") => list.delete(name),
            None | Some("merge") => match list.first(name) {
                Some(Value::Object(old)) => merge_object(old, change, schema)?,
                _ => list.push(name, added(change)),
            },
            Some(other) => return Err(bad_directive(other, change)),
        }
    }
    Ok(list.items.into_iter().flatten().collect())
}

/// A list whose items are found by their keys, however many there are.
struct KeyedList {
    /// Nothing where an item was deleted.
    items: Vec<Option<Value>>,
    places: BTreeMap<String, Vec<usize>>,
}

impl KeyedList {
    fn new(items: Vec<Value>, key: &str) -> Self {
        let mut places: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (place, item) in items.iter().enumerate() {
            if let Some(key) = item.get(key) {
                places.entry(key.to_string()).or_default().push(place);
            }
        }
        Self { items: items.into_iter().map(Some).collect(), places }
    }

    fn first(&mut self, key: &Value) -> Option<&mut Value> {
        let place = *self.places.get(&key.to_string())?.first()?;
        self.items.get_mut(place)?.as_mut()
    }

    fn push(&mut self, key: &Value, item: Value) {
        self.places.entry(key.to_string()).or_default().push(self.items.len());
        self.items.push(Some(item));
    }

    fn delete(&mut self, key: &Value) {
        for place in self.places.remove(&key.to_string()).unwrap_or_default() {
            if let Some(item) = self.items.get_mut(place) {
                *item = None;
            }
        }
    }
}

fn delete_plain(members: &mut Map<String, Value>, list: &str, values: &Value) {
    let values: BTreeSet<String> = values.as_array().into_iter().flatten().map(Value::to_string).collect();
    if let Some(Value::Array(items)) = members.get_mut(list) {
        items.retain(|item| !values.contains(&item.to_string()));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn check(old: Value, patch: Value, expected: Value) {
        let schema = Schema::get().kind("", "v1", "Pod").unwrap();
        assert_eq!(merge(old, &patch, schema).unwrap(), expected);
    }

    fn names() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(0..8_u8, 0..10)
    }

    fn containers(names: &[u8]) -> Vec<Value> {
        names.iter().enumerate().map(|(at, name)| json!({"name": name.to_string(), "image": at.to_string()})).collect()
    }

    proptest! {
        /// Item by item, as one would do it with little to do. The order is another matter.
        #[test]
        fn a_long_list_is_merged_like_a_short_one(old in names(), patch in prop::collection::vec((0..8_u8, any::<bool>()), 0..10)) {
            let mut expected = containers(&old);
            let mut changes = Vec::new();
            for (at, (name, deletes)) in patch.into_iter().enumerate() {
                let (name, image) = (name.to_string(), format!("new {at}"));
                if deletes {
                    expected.retain(|item| item["name"] != name);
                    changes.push(json!({"name": name, "$patch": "delete"}));
                    continue;
                }
                changes.push(json!({"name": name, "image": image}));
                match expected.iter_mut().find(|item| item["name"] == name) {
                    Some(item) => item["image"] = image.into(),
                    None => expected.push(json!({"name": name, "image": image})),
                }
            }
            let schema = Schema::get().kind("", "v1", "Pod").unwrap();
            let patch = json!({"spec": {"containers": changes}});
            let merged = merge(json!({"spec": {"containers": containers(&old)}}), &patch, schema).unwrap();
            let sorted = |items: &[Value]| {
                let mut items: Vec<_> = items.iter().map(Value::to_string).collect();
                items.sort();
                items
            };
            prop_assert_eq!(sorted(merged["spec"]["containers"].as_array().unwrap()), sorted(&expected));
        }
    }

    #[test]
    fn containers_are_merged_by_name() {
        check(
            json!({"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]}}),
            json!({"spec": {"containers": [{"name": "b", "image": "2"}, {"name": "c", "image": "3"}]}}),
            json!({"spec": {"containers": [
                {"name": "a", "image": "1"}, {"name": "b", "image": "2"}, {"name": "c", "image": "3"},
            ]}}),
        );
    }

    #[test]
    fn what_a_patch_adds_comes_first() {
        check(
            json!({"spec": {"containers": [{"name": "a"}]}}),
            json!({"spec": {"containers": [{"name": "b"}]}}),
            json!({"spec": {"containers": [{"name": "b"}, {"name": "a"}]}}),
        );
    }

    #[test]
    fn items_are_deleted_and_lists_replaced() {
        let old = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        check(
            old.clone(),
            json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}]}}),
            json!({"spec": {"containers": [{"name": "b"}]}}),
        );
        check(
            old,
            json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "z"}]}}),
            json!({"spec": {"containers": [{"name": "z"}]}}),
        );
    }

    #[test]
    fn directives_about_nothing_add_nothing() {
        check(
            json!({"metadata": {"name": "x"}}),
            json!({"metadata": {"labels": {"$patch": "replace", "a": "1"}, "annotations": {"b": "2"}}}),
            json!({"metadata": {"name": "x", "annotations": {"b": "2"}}}),
        );
    }

    #[test]
    fn what_cannot_be_followed_is_refused_in_the_words_of_go() {
        let schema = Schema::get().kind("", "v1", "Pod").unwrap();
        let old = json!({"spec": {"containers": [{"name": "a"}]}});
        let message = |item: Value| {
            let patch = json!({"spec": {"containers": [item]}});
            merge(old.clone(), &patch, schema).unwrap_err().message().to_owned()
        };
        assert_eq!(message(json!({"image": "b"})), "map: map[image:b] does not contain declared merge key: name");
        let unknown = message(json!({"name": "a", "$patch": "frob"}));
        assert_eq!(unknown, "unknown patch type: frob in map: map[$patch:frob name:a]");
    }

    #[test]
    fn an_order_is_kept() {
        check(
            json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}}),
            json!({"spec": {
                "$setElementOrder/containers": [{"name": "c"}, {"name": "b"}, {"name": "a"}],
                "containers": [{"name": "c"}],
            }}),
            json!({"spec": {"containers": [{"name": "c"}, {"name": "b"}, {"name": "a"}]}}),
        );
    }

    #[test]
    fn volumes_keep_only_the_retained_source() {
        check(
            json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}),
            json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]}}),
            json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}}),
        );
    }

    #[test]
    fn plain_lists_are_joined_and_pruned() {
        check(
            json!({"metadata": {"finalizers": ["a/b", "c/d"]}}),
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a/b"], "finalizers": ["e/f"]}}),
            json!({"metadata": {"finalizers": ["e/f", "c/d"]}}),
        );
    }

    #[test]
    fn null_removes() {
        check(
            json!({"metadata": {"labels": {"a": "1", "b": "2"}}}),
            json!({"metadata": {"labels": {"a": null}}}),
            json!({"metadata": {"labels": {"b": "2"}}}),
        );
    }
}
