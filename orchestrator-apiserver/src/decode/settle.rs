//! A tree as it comes out of upstream's store.

use serde_json::Value;

use super::schema::{Message, Schema, Shape, Type};

/// Lists that are always there and have nothing in them become null: the encoding of upstream's store knows no empty list.
/// Who wrote one manages it all the same, so this comes after the managers are known.
pub(crate) fn settle(tree: &mut Value, message: &Message) {
    if has_empty_list(tree) {
        settle_message(tree, message);
    }
}

/// Hardly any object has one, and that is seen without the schema.
fn has_empty_list(tree: &Value) -> bool {
    match tree {
        Value::Array(items) => items.is_empty() || items.iter().any(has_empty_list),
        Value::Object(members) => members.values().any(has_empty_list),
        _ => false,
    }
}

fn settle_message(tree: &mut Value, message: &Message) {
    for (name, value) in tree.as_object_mut().into_iter().flatten() {
        let Some(field) = message.fields.get(name.as_str()) else { continue };
        if value.as_array().is_some_and(Vec::is_empty) && message.always_has(name) {
            *value = Value::Null;
        }
        let Type::Message(index) = field.of else { continue };
        let Some(below) = Schema::get().message(index) else { continue };
        match (field.shape, value) {
            (Shape::List, Value::Array(items)) => items.iter_mut().for_each(|item| settle_message(item, below)),
            (Shape::Map, Value::Object(members)) => members.values_mut().for_each(|item| settle_message(item, below)),
            (_, value) => settle_message(value, below),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_lists_that_are_always_there_become_null() {
        let schema = Schema::get().kind("apps", "v1", "ControllerRevision").unwrap();
        let mut revision = json!({"data": {"containers": []}, "revision": 1});
        settle(&mut revision, schema);
        assert_eq!(revision, json!({"data": {"containers": []}, "revision": 1}));
        let schema = Schema::get().kind("storage.k8s.io", "v1", "CSINode").unwrap();
        let mut node = json!({"spec": {"drivers": []}});
        settle(&mut node, schema);
        assert_eq!(node, json!({"spec": {"drivers": null}}));
    }
}
