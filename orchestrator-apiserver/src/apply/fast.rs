//! The short way of an update: a manager writes again what it manages alone, so that only the time of its entry changes.

use serde_json::{Map, Value};

use super::{
    compare::Comparison,
    fields_v1,
    managers::{ManagerId, Operation},
    set::FieldSet,
};

/// The entries after such an update, without reading their field sets; `None` when the long way is needed.
pub(crate) fn update(
    entries: &Value,
    comparison: &Comparison,
    manager: &ManagerId,
    now: Option<&str>,
) -> Option<Value> {
    let entries = entries.as_array()?;
    // Who wrote nothing gets no new time, and what is gone goes from all.
    if comparison.added.is_empty() && comparison.modified.is_empty() || !comparison.removed.is_empty() {
        return None;
    }
    let mut own = None;
    for (index, entry) in entries.iter().enumerate() {
        let fields = entry.get("fieldsV1")?;
        if text(entry, "apiVersion") != manager.api_version {
            return None;
        }
        if is_entry_of(entry, manager) {
            if !covers(fields, &comparison.modified) || !covers(fields, &comparison.added) || own.is_some() {
                return None;
            }
            own = Some(index);
        } else if meets(fields, &comparison.modified) || meets(fields, &comparison.added) {
            return None;
        }
    }
    let (own, now) = (own?, now?);
    let mut entries = entries.clone();
    entries.get_mut(own)?.as_object_mut()?.insert("time".to_owned(), now.into());
    entries.sort_by_cached_key(|entry| {
        ["operation", "time", "manager", "apiVersion", "subresource"].map(|name| text(entry, name).to_owned())
    });
    Some(entries.into())
}

fn text<'v>(entry: &'v Value, name: &str) -> &'v str {
    entry.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn is_entry_of(entry: &Value, manager: &ManagerId) -> bool {
    manager.operation == Operation::Update
        && text(entry, "operation") == "Update"
        && text(entry, "manager") == manager.name
        && text(entry, "subresource") == manager.subresource
}

/// Whether every path of a set is in a field set in its JSON form.
fn covers(fields: &Value, set: &FieldSet) -> bool {
    set.nodes().all(|(element, node)| {
        fields
            .get(fields_v1::print_element(element))
            .is_some_and(|below| (!node.member || is_member(below)) && covers(below, &node.below))
    })
}

/// Whether any path of a set is in a field set in its JSON form.
fn meets(fields: &Value, set: &FieldSet) -> bool {
    set.nodes().any(|(element, node)| {
        fields
            .get(fields_v1::print_element(element))
            // Who manages only what is below may do so by an older schema, by which the path was no piece.
            .is_some_and(|below| node.member || meets(below, &node.below))
    })
}

fn is_member(below: &Value) -> bool {
    below.as_object().is_none_or(Map::is_empty) || below.get(".").is_some()
}
