//! The field set of a value: which fields somebody who applies it has an opinion on.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    compare::{items, members},
    path::PathElement,
    set::{FieldSet, Node},
    types::{Form, ListType, MapType, Relation, TypeRef},
};

/// The fields of a value of a type. Items that nothing tells from others are left out.
pub(crate) fn field_set(value: &Value, of: TypeRef<'_>) -> FieldSet {
    fields(value, of).below
}

/// The set with every structure member that something in the set is below of.
pub(crate) fn with_named_fields(set: &FieldSet, of: Option<TypeRef<'_>>) -> FieldSet {
    let mut out = FieldSet::default();
    for (element, node) in set.nodes() {
        let (named, below) = match element {
            PathElement::Field(name) => (of.is_some_and(|of| of.names(name)), of.and_then(|of| of.member(name))),
            PathElement::Key(_) => (false, of.and_then(TypeRef::items)),
            PathElement::Value(_) | PathElement::Index(_) => (false, None),
        };
        let member = node.member || named && !node.below.is_empty();
        out.add(element.clone(), Node { member, below: with_named_fields(&node.below, below) });
    }
    out
}

fn fields(value: &Value, of: TypeRef<'_>) -> Node {
    match of.form(Some(value)) {
        None => Node::default(),
        Some(Form::Scalar(_)) => Node::member(),
        Some(Form::List(list)) if list.relation == Relation::Atomic => Node::member(),
        Some(Form::List(list)) => Node { member: false, below: of_items(items(Some(value)), list, of) },
        Some(Form::Map(map)) if map.atomic => Node::member(),
        Some(Form::Map(map)) => Node {
            member: false,
            below: members(Some(value)).map(|members| of_members(members, map, of)).unwrap_or_default(),
        },
    }
}

fn of_members(members: &Map<String, Value>, map: &MapType, of: TypeRef<'_>) -> FieldSet {
    let mut set = FieldSet::default();
    for (name, value) in members {
        let named = map.fields.get(name).copied();
        let Some(id) = named.or(map.others) else { continue };
        let mut node = fields(value, of.to(id));
        let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
        node.member |= empty || named.is_none();
        set.add(PathElement::field(name), node);
    }
    set
}

fn of_items(items: &[Value], list: &ListType, of: TypeRef<'_>) -> FieldSet {
    let mut by_element: BTreeMap<PathElement, Vec<&Value>> = BTreeMap::new();
    for (index, item) in items.iter().enumerate() {
        if let Ok(element) = list.element(index, item) {
            by_element.entry(element).or_default().push(item);
        }
    }
    let mut set = FieldSet::default();
    for (element, found) in by_element {
        let below = match found.as_slice() {
            [item] => fields(item, of.to(list.items)).below,
            // Items that cannot be told apart are one piece.
            _ => FieldSet::default(),
        };
        set.add(element, Node { member: true, below });
    }
    set
}
