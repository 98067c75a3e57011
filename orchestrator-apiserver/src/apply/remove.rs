//! Taking fields out of a value.

use serde_json::{Map, Value};

use super::{
    path::PathElement,
    set::FieldSet,
    types::{Form, ListType, MapType, Relation, TypeRef},
};

/// The value without the members and items of a set. What becomes empty by that goes, too.
pub(crate) fn remove(value: &Value, fields: &FieldSet, of: TypeRef<'_>) -> Option<Value> {
    if fields.is_empty() {
        return Some(value.clone());
    }
    match (of.form(Some(value)), value) {
        (Some(Form::List(list)), Value::Array(items)) if list.relation != Relation::Atomic => {
            let kept = remove_items(items, fields, list, of);
            (!kept.is_empty()).then_some(kept.into())
        }
        (Some(Form::Map(map)), Value::Object(members)) if !map.atomic => {
            let kept = remove_members(members, fields, map, of);
            (!kept.is_empty()).then_some(kept.into())
        }
        (Some(Form::List(_) | Form::Map(_)), _) => None,
        _ => Some(value.clone()),
    }
}

fn remove_members(
    members: &Map<String, Value>,
    fields: &FieldSet,
    map: &MapType,
    of: TypeRef<'_>,
) -> Map<String, Value> {
    let kept = members.iter().filter_map(|(name, value)| {
        let id = map.fields.get(name).copied().or(map.others);
        let kept = match (fields.get(&PathElement::field(name)), id) {
            (Some(node), _) if node.member => None,
            (Some(node), Some(id)) => remove(value, &node.below, of.to(id)),
            _ => Some(value.clone()),
        };
        kept.map(|kept| (name.clone(), kept))
    });
    kept.collect()
}

fn remove_items(items: &[Value], fields: &FieldSet, list: &ListType, of: TypeRef<'_>) -> Vec<Value> {
    let kept = items.iter().enumerate().filter_map(|(index, item)| {
        let element = list.element(index, item).ok();
        match element.and_then(|element| fields.get(&element)) {
            Some(node) if node.member => None,
            Some(node) => remove(item, &node.below, of.to(list.items)),
            None => Some(item.clone()),
        }
    });
    kept.collect()
}
