//! Field sets after a schema changed: what became one piece is managed as a whole by whoever managed a part of it.
//!
//! Upstream: `sigs.k8s.io/structured-merge-diff`, `typed/reconcile_schema.go`. What came apart again stays managed as a whole.

use serde_json::Value;

use super::{
    path::PathElement,
    set::{FieldSet, Node},
    types::{Form, Relation, TypeRef},
};

/// The set as it is by the present type of an object; `None` where nothing changed.
pub(crate) fn reconciled(set: &FieldSet, object: &Value, of: TypeRef<'_>) -> Option<FieldSet> {
    below(set, Some(object), of)
}

fn node(node: &Node, value: Option<&Value>, of: TypeRef<'_>) -> Option<Node> {
    let is_whole = node.below.is_empty();
    match of.form(value)? {
        Form::Scalar(_) => None,
        // Nobody says of values without a type which are one piece.
        Form::Map(map) if map.is_deduced() => None,
        Form::Map(map) if map.atomic => (!is_whole).then(Node::member),
        Form::List(list) if list.relation == Relation::Atomic => (!is_whole).then(Node::member),
        Form::Map(_) | Form::List(_) => below(&node.below, value, of).map(|below| Node { member: node.member, below }),
    }
}

fn below(set: &FieldSet, value: Option<&Value>, of: TypeRef<'_>) -> Option<FieldSet> {
    let changed = |element: &PathElement, at: &Node| match element {
        PathElement::Field(name) => node(at, value.and_then(|value| value.get(name)), of.member(name)?),
        PathElement::Key(_) | PathElement::Value(_) | PathElement::Index(_) => node(at, None, of.items()?),
    };
    let all: Vec<_> = set.nodes().map(|(element, at)| (element, at, changed(element, at))).collect();
    all.iter().any(|(_, _, changed)| changed.is_some()).then(|| {
        let mut reconciled = FieldSet::default();
        for (element, at, changed) in all {
            reconciled.add(element.clone(), changed.unwrap_or_else(|| at.clone()));
        }
        reconciled
    })
}
