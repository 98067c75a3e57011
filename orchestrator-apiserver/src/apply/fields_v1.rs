//! FieldsV1: the JSON form of a field set, as `managedFields` holds it.
//!
//! Upstream: `sigs.k8s.io/structured-merge-diff`, `fieldpath/serialize.go`.

use serde_json::{Map, Value};
use thiserror::Error;

use super::{
    path::{PathElement, Scalar},
    set::{FieldSet, Node},
};
use crate::limits;

/// The member that says that the field itself is in the set, beside fields below it.
pub(super) const SELF: &str = ".";

/// Why something is no field set.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum FieldsError {
    #[error("a field set consists of objects")]
    NotAnObject,
    #[error("{0:?} is no path element")]
    UnknownElement(String),
    #[error("{0:?} does not hold what its first letter says")]
    BadElement(String),
    #[error("the field set is nested too deeply")]
    TooDeep,
    #[error("the field set has too many fields")]
    TooLarge,
}

/// Reads a field set, within bounds.
pub(crate) fn parse(fields: &Value) -> Result<FieldSet, FieldsError> {
    let mut room = limits::FIELD_SET_ELEMENTS;
    parse_node(fields, limits::FIELD_SET_DEPTH, &mut room).map(|node| node.below)
}

/// A field set in its JSON form.
pub(crate) fn print(set: &FieldSet) -> Value {
    let mut members = Map::new();
    for (element, node) in set.nodes() {
        members.insert(print_element(element), print_node(node));
    }
    members.into()
}

/// What a set holds at one path, in its JSON form.
pub(super) fn print_node(node: &Node) -> Value {
    let mut below = print(&node.below);
    if let (Value::Object(below), true, false) = (&mut below, node.member, node.below.is_empty()) {
        below.insert(SELF.to_owned(), Map::new().into());
    }
    below
}

fn parse_node(fields: &Value, depth: usize, room: &mut usize) -> Result<Node, FieldsError> {
    let members = fields.as_object().ok_or(FieldsError::NotAnObject)?;
    let depth = depth.checked_sub(1).ok_or(FieldsError::TooDeep)?;
    let mut node = Node::default();
    for (name, below) in members {
        if name == SELF {
            node.member = true;
            continue;
        }
        *room = room.checked_sub(1).ok_or(FieldsError::TooLarge)?;
        node.below.add(parse_element(name)?, parse_node(below, depth, room)?);
    }
    node.member |= node.below.is_empty();
    Ok(node)
}

fn parse_element(name: &str) -> Result<PathElement, FieldsError> {
    let bad = || FieldsError::BadElement(name.to_owned());
    let json = |text: &str| serde_json::from_str::<Value>(text).map_err(|_| bad());
    match name.split_at_checked(2) {
        Some(("f:", field)) => Ok(PathElement::field(field)),
        Some(("k:", key)) => {
            let Value::Object(members) = json(key)? else { return Err(bad()) };
            let mut key = Vec::with_capacity(members.len());
            for (name, value) in members {
                key.push((name, Scalar::of(&value).ok_or_else(bad)?));
            }
            key.sort();
            if key.is_empty() { Err(bad()) } else { Ok(PathElement::Key(key)) }
        }
        Some(("v:", value)) => Scalar::of(&json(value)?).map(PathElement::Value).ok_or_else(bad),
        Some(("i:", index)) => index.parse().map(PathElement::Index).map_err(|_| bad()),
        _ => Err(FieldsError::UnknownElement(name.to_owned())),
    }
}

pub(super) fn print_element(element: &PathElement) -> String {
    match element {
        PathElement::Field(name) => ["f:", name].concat(),
        PathElement::Key(members) => {
            let members = members.iter().map(|(name, value)| format!("{}:{value}", Value::from(name.as_str())));
            format!("k:{{{}}}", members.collect::<Vec<_>>().join(","))
        }
        PathElement::Value(value) => format!("v:{value}"),
        PathElement::Index(index) => format!("i:{index}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_set_is_read_and_printed() {
        let fields = json!({
            "f:metadata": {"f:finalizers": {".": {}, "v:\"a/b\"": {}}},
            "f:spec": {
                "f:ports": {".": {}, "k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}},
                "f:replicas": {},
                "i:3": {},
            },
        });
        let set = parse(&fields).unwrap();
        assert_eq!(print(&set), fields);
        assert!(set.contains(&[PathElement::field("spec"), PathElement::field("ports")]));
        assert!(!set.contains(&[PathElement::field("spec")]));
        assert_eq!(set.paths().len(), 7);
    }

    #[test]
    fn what_is_unknown_is_refused() {
        let refused = |fields: Value| parse(&fields).unwrap_err();
        assert_eq!(refused(json!([])), FieldsError::NotAnObject);
        assert_eq!(refused(json!({"f:a": 1})), FieldsError::NotAnObject);
        assert_eq!(refused(json!({"x:a": {}})), FieldsError::UnknownElement("x:a".to_owned()));
        assert_eq!(refused(json!({"": {}})), FieldsError::UnknownElement(String::new()));
        for name in ["k:1", "k:{}", "k:{\"a\":[]}", "k:{", "v:", "v:{}", "i:x"] {
            assert_eq!(refused(json!({ name: {} })), FieldsError::BadElement(name.to_owned()));
        }
    }

    #[test]
    fn what_is_too_large_is_refused() {
        let deep = (0..=limits::FIELD_SET_DEPTH).fold(json!({}), |below, _| json!({"f:a": below}));
        assert_eq!(parse(&deep), Err(FieldsError::TooDeep));
        let wide: Map<String, Value> =
            (0..=limits::FIELD_SET_ELEMENTS).map(|index| (format!("f:{index}"), json!({}))).collect();
        assert_eq!(parse(&wide.into()), Err(FieldsError::TooLarge));
    }
}
