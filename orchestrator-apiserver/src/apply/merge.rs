//! The structured merge: a configuration laid over a live value.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{
    compare::{items, members},
    path::PathElement,
    types::{Form, ListType, MapType, Relation, TypeRef},
};

/// The live value with the configuration laid over it. What the configuration does not name stays as it is; nothing is
/// taken away. Both must be valid for the type; of live lists, items may be there twice.
pub(crate) fn merge(live: &Value, configuration: &Value, of: TypeRef<'_>) -> Value {
    merge_values(Some(live), Some(configuration), of).unwrap_or(Value::Null)
}

fn merge_values(live: Option<&Value>, configuration: Option<&Value>, of: TypeRef<'_>) -> Option<Value> {
    if configuration.is_none() {
        return live.cloned();
    }
    match of.form(configuration) {
        Some(Form::List(list)) if list.relation != Relation::Atomic => {
            let (old, new) = (items(live), items(configuration));
            if old.is_empty() && new.is_empty() {
                return configuration.cloned();
            }
            let merged = merge_items(old, new, list, of);
            (!merged.is_empty()).then_some(merged.into())
        }
        Some(Form::Map(map)) if !map.atomic => {
            let (old, new) = (members(live), members(configuration));
            if old.is_none_or(Map::is_empty) && new.is_none_or(Map::is_empty) {
                return configuration.cloned();
            }
            let merged = merge_members(old, new, map, of);
            (!merged.is_empty()).then_some(merged.into())
        }
        _ => configuration.cloned(),
    }
}

fn merge_members(
    live: Option<&Map<String, Value>>,
    configuration: Option<&Map<String, Value>>,
    map: &MapType,
    of: TypeRef<'_>,
) -> Map<String, Value> {
    let mut merged = live.cloned().unwrap_or_default();
    for (name, value) in configuration.into_iter().flatten() {
        let Some(id) = map.fields.get(name).copied().or(map.others) else { continue };
        match merge_values(merged.get(name), Some(value), of.to(id)) {
            Some(value) => drop(merged.insert(name.clone(), value)),
            None => drop(merged.remove(name)),
        }
    }
    merged
}

/// Items of both stand in the order of the configuration, those of one alone as near as can be to where they stood.
fn merge_items(live: &[Value], configuration: &[Value], list: &ListType, of: TypeRef<'_>) -> Vec<Value> {
    let (old, new) = (named(live, list), named(configuration, list));
    let mut first: BTreeMap<&PathElement, Option<&Value>> = BTreeMap::new();
    for (element, item) in &old {
        // Of items that are there twice none is the one to merge with.
        first.entry(element).and_modify(|seen| *seen = None).or_insert(Some(item));
    }
    let wanted: BTreeSet<&PathElement> = new.iter().map(|(element, _)| element).collect();
    let mut shared = new.iter().map(|(element, _)| element).filter(|element| first.contains_key(element)).peekable();
    let mut taken: BTreeSet<&PathElement> = BTreeSet::new();
    let mut out = Vec::with_capacity(old.len().max(new.len()));
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    loop {
        if let (Some((left, _)), Some((right, _))) = (old.peek(), new.peek()) {
            // An item of both that is not the next one of both comes later.
            if left != right && wanted.contains(left) && shared.peek().is_some_and(|next| *next != left) {
                old.next();
                continue;
            }
        }
        match (old.peek(), new.peek()) {
            (Some((left, item)), _) if !wanted.contains(left) => {
                out.push((*item).clone());
                old.next();
                continue;
            }
            (None, None) => return out,
            (Some((left, _)), Some((right, _))) if left == right || taken.contains(left) => drop(old.next()),
            (Some(_), None) => drop(old.next()),
            _ => {}
        }
        let Some((element, item)) = new.next() else { continue };
        let before = first.get(element).copied().flatten();
        out.extend(merge_values(before, Some(item), of.to(list.items)));
        taken.insert(element);
        shared.next_if(|next| *next == element);
    }
}

/// The items with what tells them apart; what nothing tells apart cannot be there, since both sides are valid.
fn named<'v>(items: &'v [Value], list: &ListType) -> Vec<(PathElement, &'v Value)> {
    let items = items.iter().enumerate();
    items.filter_map(|(index, item)| list.element(index, item).ok().map(|element| (element, item))).collect()
}
