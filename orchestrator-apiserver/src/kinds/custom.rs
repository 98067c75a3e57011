//! Custom kinds: what the schema of their definition fills in where an object says nothing, and what it refuses.
//!
//! Upstream: `apiextensions-apiserver/pkg/apiserver/schema/defaulting`.

use std::sync::OnceLock;

use serde_json::{Map, Value};

use super::custom_schema::Schema;
use crate::{
    field::{Errors, Field},
    names::NameRule,
    strategy::{Generation, Plain, Strategy},
};

/// A kind of a definition: plain but for its schema.
#[derive(Debug)]
pub(crate) struct Custom {
    plain: Plain,
    schema: Value,
    /// Compiled for the first object: definitions come and go without any.
    compiled: OnceLock<Schema>,
}

impl Custom {
    /// `schema` is `openAPIV3Schema`, or nothing.
    pub(crate) fn new(has_status: bool, schema: Option<&Value>) -> Self {
        let plain = Plain { generation: Generation::Intent, status: has_status, names: NameRule::Subdomain };
        Self { plain, schema: schema.cloned().unwrap_or_default(), compiled: OnceLock::new() }
    }

    fn validate_change(&self, new: &Field<'_>, old: Option<&Field<'_>>, errors: &mut Errors) {
        self.compiled.get_or_init(|| Schema::new(self.schema.clone())).validate(new, old, errors);
    }
}

impl Strategy for Custom {
    fn names(&self) -> NameRule {
        self.plain.names()
    }

    fn generation(&self) -> Generation {
        self.plain.generation()
    }

    fn has_status(&self) -> bool {
        self.plain.has_status()
    }

    fn default(&self, object: &mut Value) {
        fill(object, &self.schema);
    }

    fn validate_create(&self, object: &Field<'_>, errors: &mut Errors) {
        self.validate_change(object, None, errors);
    }

    fn validate_update(&self, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        self.validate_change(new, Some(old), errors);
    }

    fn validate_status(&self, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        self.validate_change(new, Some(old), errors);
    }
}

/// Writes the defaults of a schema into a tree.
fn fill(tree: &mut Value, schema: &Value) {
    match tree {
        Value::Object(members) => fill_members(members, schema),
        Value::Array(items) => {
            for item in items {
                let schema = &schema["items"];
                if is_missing(item, schema) {
                    *item = schema["default"].clone();
                }
                fill(item, schema);
            }
        }
        _ => {}
    }
}

fn fill_members(members: &mut Map<String, Value>, schema: &Value) {
    let (properties, others) = (schema["properties"].as_object(), &schema["additionalProperties"]);
    let of = |name: &str| properties.and_then(|properties| properties.get(name)).unwrap_or(others);
    // A null that may be none is as good as absent.
    members.retain(|name, value| !is_missing(value, of(name)) || !of(name)["default"].is_null());
    for (name, value) in members.iter_mut() {
        if is_missing(value, of(name)) {
            *value = of(name)["default"].clone();
        }
    }
    for (name, property) in properties.into_iter().flatten() {
        if !property["default"].is_null() && !members.contains_key(name) {
            members.insert(name.clone(), property["default"].clone());
        }
    }
    for (name, value) in members.iter_mut() {
        fill(value, of(name));
    }
}

/// A null where the schema knows of a value and allows no null.
fn is_missing(value: &Value, schema: &Value) -> bool {
    value.is_null() && schema.is_object() && schema["nullable"] != true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn schema() -> Value {
        json!({"type": "object", "properties": {"spec": {"type": "object", "default": {}, "properties": {
            "litres": {"type": "integer", "default": 1},
            "maybe": {"type": "integer", "default": 2, "nullable": true},
            "none": {"type": "integer"},
            "cups": {"type": "array", "items": {"type": "object", "properties": {"size": {"type": "string", "default": "m"}}}},
            "by": {"type": "object", "additionalProperties": {
                "type": "object", "default": {}, "properties": {"on": {"type": "boolean", "default": false}},
            }},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }}}})
    }

    fn filled(mut tree: Value) -> Value {
        fill(&mut tree, &schema());
        tree
    }

    #[test]
    fn defaults_are_filled_at_every_depth() {
        assert_eq!(filled(json!({})), json!({"spec": {"litres": 1, "maybe": 2}}));
        assert_eq!(
            filled(json!({"spec": {"litres": 3, "cups": [{}, {"size": "l"}], "by": {"a": {}, "b": {"on": true}}}})),
            json!({"spec": {
                "litres": 3, "maybe": 2, "cups": [{"size": "m"}, {"size": "l"}], "by": {"a": {"on": false}, "b": {"on": true}},
            }})
        );
    }

    #[test]
    fn nulls_are_absent_unless_they_are_allowed() {
        assert_eq!(
            filled(
                json!({"spec": {"litres": null, "maybe": null, "none": null, "by": {"a": null}, "free": {"x": null}}})
            ),
            json!({"spec": {"litres": 1, "maybe": null, "by": {"a": {"on": false}}, "free": {"x": null}}})
        );
    }

    proptest! {
        #[test]
        fn what_is_filled_is_full_and_what_was_said_stays(litres in proptest::option::of(0..9_i64), cups in 0..3_usize) {
            let mut tree = json!({"spec": {"cups": vec![json!({"colour": "red"}); cups]}});
            if let Some(litres) = litres {
                tree["spec"]["litres"] = json!(litres);
            }
            let once = filled(tree);
            prop_assert_eq!(&once["spec"]["litres"], &json!(litres.unwrap_or(1)));
            prop_assert_eq!(once["spec"]["cups"].as_array().map(Vec::len), Some(cups));
            prop_assert_eq!(filled(once.clone()), once);
        }
    }
}
