//! The short way of an update: what nobody else manages changes, and by no other schema than before, so that one entry alone
//! does.

use serde_json::{Map, Value};

use super::{
    compare::Comparison,
    fields_v1::{self, SELF},
    managers::{self, Managed, ManagerId, Operation},
    set::{FieldSet, Node},
};
use crate::limits;

/// The entries after such an update, without reading the field sets of others; `None` when the long way is needed.
///
/// The entries have to be as this server writes them.
pub(super) fn update(
    entries: &Value,
    comparison: &Comparison,
    manager: &ManagerId,
    now: Option<&str>,
) -> Option<Value> {
    let entries = entries.as_array()?;
    // Who wrote nothing gets no new time.
    if comparison.added.is_empty() && comparison.modified.is_empty() || manager.operation != Operation::Update {
        return None;
    }
    let now = now?;
    let changes = [&comparison.modified, &comparison.added, &comparison.removed];
    let mut own = None;
    for (index, entry) in entries.iter().enumerate() {
        let fields = entry.get("fieldsV1")?;
        if text(entry, "apiVersion") != manager.api_version || changes.iter().any(|set| crosses(fields, set)) {
            return None;
        }
        if is_entry_of(entry, manager) {
            if own.is_some() {
                return None;
            }
            own = Some(index);
        } else if changes.iter().any(|set| meets(fields, set)) {
            return None;
        }
    }
    let mut entries = entries.clone();
    match own {
        Some(own) => {
            let entry = entries.get_mut(own)?.as_object_mut()?;
            entry.insert("time".to_owned(), now.into());
            let fields = entry.get_mut("fieldsV1")?;
            take_away(fields, &comparison.removed);
            add(fields, &comparison.modified);
            add(fields, &comparison.added);
        }
        None => {
            let updates = entries.iter().filter(|entry| text(entry, "operation") == Operation::Update.name());
            if updates.count() >= limits::UPDATE_MANAGERS {
                return None;
            }
            let (time, set) = (Some(now.to_owned()), comparison.set());
            entries
                .push(managers::print_entry(manager, &Managed { api_version: manager.api_version.clone(), time, set }));
        }
    }
    entries.sort_by_cached_key(|entry| {
        ["operation", "time", "manager", "apiVersion", "subresource"].map(|name| text(entry, name).to_owned())
    });
    Some(entries.into())
}

fn text<'v>(entry: &'v Value, name: &str) -> &'v str {
    entry.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn is_entry_of(entry: &Value, manager: &ManagerId) -> bool {
    text(entry, "operation") == manager.operation.name()
        && text(entry, "manager") == manager.name
        && text(entry, "subresource") == manager.subresource
}

/// Whether any path of a set is in a field set in its JSON form.
fn meets(fields: &Value, set: &FieldSet) -> bool {
    set.nodes().any(|(element, node)| {
        fields
            .get(fields_v1::print_element(element))
            // What is below goes or is replaced with it.
            .is_some_and(|below| node.member || meets(below, &node.below))
    })
}

/// Whether a path of a set leads below the end of one in a field set, or ends above one.
pub(super) fn crosses(fields: &Value, set: &FieldSet) -> bool {
    set.nodes().any(|(element, node)| {
        let Some(below) = fields.get(fields_v1::print_element(element)) else { return false };
        let is_end = below.as_object().is_none_or(Map::is_empty);
        let is_above = below.as_object().is_some_and(|members| members.keys().any(|name| name != SELF));
        is_end && !node.below.is_empty() || is_above && node.member || crosses(below, &node.below)
    })
}

/// Adds the paths of a set to a field set in its JSON form.
pub(super) fn add(fields: &mut Value, set: &FieldSet) {
    let Some(members) = fields.as_object_mut() else { return };
    for (element, node) in set.nodes() {
        match members.get_mut(&fields_v1::print_element(element)) {
            Some(below) => {
                if let Some(members) = below.as_object_mut() {
                    // An end is in the set, and has to say so once it is none any more.
                    let is_said = if members.is_empty() { !node.below.is_empty() } else { node.member };
                    if is_said {
                        members.insert(SELF.to_owned(), Map::new().into());
                    }
                }
                add(below, &node.below);
            }
            None => drop(members.insert(fields_v1::print_element(element), fields_v1::print_node(node))),
        }
    }
}

/// Takes the paths of a set out of a field set in its JSON form.
pub(super) fn take_away(fields: &mut Value, set: &FieldSet) {
    let Some(members) = fields.as_object_mut() else { return };
    for (element, node) in set.nodes() {
        let name = fields_v1::print_element(element);
        if members.get_mut(&name).is_some_and(|below| !remains(below, node)) {
            members.remove(&name);
        }
    }
}

/// The same at one path; whether anything is left there.
fn remains(fields: &mut Value, taken: &Node) -> bool {
    if taken.member {
        return false;
    }
    take_away(fields, &taken.below);
    let Some(members) = fields.as_object_mut() else { return false };
    let any = !members.is_empty();
    if members.len() == 1 {
        // The path itself, which is an end now.
        members.remove(SELF);
    }
    any
}
