//! Schemas of custom kinds: each part says what type it has, and nothing is said that nobody can hold objects against.
//!
//! Upstream: `ValidateCustomResourceDefinitionOpenAPISchema` and `apiserver/schema/validation.go`.

use orchestrator_core::status::{FieldError, FieldErrorKind};
use serde_json::Value;

use crate::{
    field::{Errors, Field},
    kinds::custom_schema,
    limits,
};

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const LIST_TYPE: &str = "x-kubernetes-list-type";
const LIST_KEYS: &str = "x-kubernetes-list-map-keys";
const MAP_TYPE: &str = "x-kubernetes-map-type";
const KEEPS: &str = "x-kubernetes-preserve-unknown-fields";
/// What may stand beside `type` at the root where the status is apart, in upstream's words and order.
const AT_ROOT: [&str; 22] = [
    "Description",
    "Type",
    "Format",
    "Title",
    "Maximum",
    "ExclusiveMaximum",
    "Minimum",
    "ExclusiveMinimum",
    "MaxLength",
    "MinLength",
    "Pattern",
    "MaxItems",
    "MinItems",
    "UniqueItems",
    "MultipleOf",
    "Required",
    "Items",
    "Properties",
    "ExternalDocs",
    "Example",
    "XPreserveUnknownFields",
    "XValidations",
];
/// Members of JSON schemas that OpenAPI does not have.
const UNSUPPORTED: [&str; 6] = ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"];

/// The rules of the schema of a version.
pub(super) fn validate(schema: &Field<'_>, has_status: bool, errors: &mut Errors) {
    if has_status {
        root_of_status(schema, errors);
    }
    if schema.get("nullable").bool() == Some(true) {
        schema.get("nullable").forbidden(errors, "nullable cannot be true at the root");
    }
    let mut broken = Errors::default();
    structural(schema, Level::Root, &mut broken);
    let mut broken = broken.into_vec();
    broken.sort_by(|left, right| shown(left).cmp(&shown(right)));
    broken.into_iter().for_each(|error| errors.add(error.field, error.kind, error.detail));
    standard(schema, errors);
    patterns(schema, errors);
}

fn shown(error: &FieldError) -> (&str, &str) {
    (&error.field, &error.detail)
}

/// Where the status is held against its part of the schema alone, nothing else at the root may speak of it.
fn root_of_status(schema: &Field<'_>, errors: &mut Errors) {
    let of = schema.get("type");
    if !matches!(of.text(), "" | "object") {
        let detail =
            "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
        return of.invalid(errors, detail);
    }
    let name_of = |member: &str| member.replacen("x-kubernetes-", "x", 1).replace('-', "").to_lowercase();
    let is_allowed = |member: &str| AT_ROOT.iter().any(|allowed| allowed.to_lowercase() == name_of(member));
    if schema.entries().iter().any(|(member, value)| value.exists() && !is_allowed(member)) {
        let detail = format!(
            "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
            AT_ROOT.join(" ")
        );
        schema.invalid(errors, &detail);
    }
}

/// Where in a schema a part stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Member,
}

/// Every part of a schema says what type it has.
fn structural(schema: &Field<'_>, level: Level, errors: &mut Errors) {
    let free = ["x-kubernetes-int-or-string", KEEPS].iter().any(|flag| schema.get(flag).bool() == Some(true));
    let (of, items) = (schema.get("type"), schema.get("items"));
    match (of.text(), level) {
        ("", Level::Root) => of.required(errors, "must not be empty at the root"),
        ("", _) if free => {}
        ("", Level::Item) => of.required(errors, "must not be empty for specified array items"),
        ("", Level::Member) => of.required(errors, "must not be empty for specified object fields"),
        ("object", _) => {}
        (_, Level::Root) => of.invalid(errors, "must be object at the root"),
        ("array", _) if !items.exists() => items.required(errors, "must be specified"),
        _ => {}
    }
    for (_, property) in schema.get("properties").entries() {
        structural(&property, Level::Member, errors);
    }
    if items.value().is_some_and(Value::is_object) {
        structural(&items, Level::Item, errors);
    }
    let additional = schema.get("additionalProperties");
    if additional.exists() && level == Level::Root {
        additional.forbidden(errors, "must not be used at the root");
    }
    if additional.value().is_some_and(Value::is_object) {
        structural(&additional, Level::Member, errors);
    }
}

/// What no schema may say, and what it must say if it says something else.
fn standard(schema: &Field<'_>, errors: &mut Errors) {
    for name in UNSUPPORTED.into_iter().filter(|name| schema.get(name).exists()) {
        schema.get(name).forbidden(errors, &format!("{name} is not supported"));
    }
    let (of, items) = (schema.get("type"), schema.get("items"));
    if of.text() == "null" {
        of.forbidden(errors, "type cannot be set to null, use nullable as an alternative");
    } else if !of.text().is_empty() {
        of.one_of(errors, &TYPES);
    }
    if items.value().is_some_and(Value::is_array) {
        items.forbidden(errors, "items must be a schema object and not an array");
    }
    if schema.get("uniqueItems").bool() == Some(true) {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        schema.get("uniqueItems").forbidden(errors, detail);
    }
    let additional = schema.get("additionalProperties");
    if schema.get("properties").len() > 0 && additional.exists() && additional.bool() != Some(true) {
        additional.forbidden(errors, "additionalProperties and properties are mutual exclusive");
    }
    parts(schema, errors);
    if schema.get(KEEPS).bool() == Some(false) {
        schema.get(KEEPS).invalid(errors, "must be true or undefined");
    }
    map_type(schema, errors);
    list_type(schema, errors);
}

fn parts(schema: &Field<'_>, errors: &mut Errors) {
    let is_schema = |part: &Field<'_>| part.value().is_some_and(Value::is_object);
    let mut parts = vec![schema.get("additionalProperties")];
    parts.extend(schema.get("properties").entries().into_iter().map(|(_, property)| property));
    parts.push(schema.get("not"));
    parts.extend(["allOf", "oneOf", "anyOf"].iter().flat_map(|list| schema.get(list).items()));
    parts.push(schema.get("items"));
    parts.iter().filter(|part| is_schema(part)).for_each(|part| standard(part, errors));
}

/// A type that a part of a schema must have because of what else it says.
fn must_be(schema: &Field<'_>, wanted: &str, why: &str, errors: &mut Errors) {
    let of = schema.get("type");
    let detail = format!("must be {wanted} if {why} is specified");
    match of.text() {
        "" => of.required(errors, &detail),
        text if text == wanted => {}
        _ => of.invalid(errors, &detail),
    }
}

fn map_type(schema: &Field<'_>, errors: &mut Errors) {
    if schema.get(MAP_TYPE).exists() {
        must_be(schema, "object", MAP_TYPE, errors);
        schema.get(MAP_TYPE).one_of(errors, &["atomic", "granular"]);
    }
}

fn list_type(schema: &Field<'_>, errors: &mut Errors) {
    let (list, keys, items) = (schema.get(LIST_TYPE), schema.get(LIST_KEYS), schema.get("items"));
    if list.exists() && schema.get("type").text() != "array" {
        must_be(schema, "array", LIST_TYPE, errors);
    } else if list.text() == "set" {
        atomic_items(&items, errors);
    }
    list.one_of(errors, &["atomic", "set", "map"]);
    if keys.len() > 0 && list.text() != "map" {
        let detail = format!("must be map if {LIST_KEYS} is non-empty");
        if list.exists() {
            list.invalid(errors, &detail);
        } else {
            list.required(errors, &detail);
        }
    }
    if list.text() == "map" {
        map_items(&items, &keys, errors);
    }
}

/// What is in a set is compared as a whole.
fn atomic_items(items: &Field<'_>, errors: &mut Errors) {
    let (list, map) = (items.get(LIST_TYPE), items.get(MAP_TYPE));
    let detail = format!("must be atomic as item of a list with {LIST_TYPE}=set");
    match items.get("type").text() {
        "array" if list.exists() && list.text() != "atomic" => list.invalid(errors, &detail),
        "object" if map.text() != "atomic" => map.wrong(errors, list.value().unwrap_or(&Value::Null), &detail),
        _ => {}
    }
}

/// What is in a list that is a map has keys: some of its members, which are no structures.
fn map_items(items: &Field<'_>, keys: &Field<'_>, errors: &mut Errors) {
    if keys.len() == 0 {
        keys.required(errors, &format!("must not be empty if {LIST_TYPE} is map"));
    }
    if !items.exists() {
        return items.required(errors, &format!("must have a schema if {LIST_TYPE} is map"));
    }
    let of = items.get("type");
    if of.text() != "object" {
        return of.invalid(errors, &format!("must be object if parent array's {LIST_TYPE} is map"));
    }
    let mut seen = Vec::new();
    for key in keys.items() {
        let property = items.get("properties").key(key.text());
        if matches!(property.get("type").text(), "array" | "object") {
            let detail = format!("must be a scalar type if parent array's {LIST_TYPE} is map");
            property.get("type").wrong(errors, of.shown(), &detail);
        }
        if !property.exists() {
            keys.invalid(errors, "entries must all be names of item properties");
        }
        if seen.contains(&key.text()) {
            keys.invalid(errors, "must not contain duplicate entries");
        }
        seen.push(key.text());
    }
}

/// Every pattern must be one, and there may not be too many.
fn patterns(schema: &Field<'_>, errors: &mut Errors) {
    let patterns = schema.value().map(custom_schema::patterns).unwrap_or_default();
    if patterns.len() > limits::SCHEMA_PATTERNS {
        let detail = format!("{}: must have at most {} different patterns", patterns.len(), limits::SCHEMA_PATTERNS);
        return schema.error(errors, FieldErrorKind::TooMany, detail);
    }
    for pattern in patterns {
        if let Err(error) = custom_schema::compile(pattern) {
            // The last line says what is wrong, and those before it show where.
            let (all, why) = (error.to_string(), "must be a valid regular expression, but isn't");
            let detail = format!("{why}: {}", all.lines().last().unwrap_or_default());
            schema.wrong(errors, format!("{pattern:?}"), &detail);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::told;

    fn broken(schema: &Value, has_status: bool) -> Vec<String> {
        let mut errors = Errors::default();
        validate(&Field::root(schema).shown_at("s"), has_status, &mut errors);
        told(errors)
    }

    fn property(schema: Value) -> Vec<String> {
        broken(&json!({"type": "object", "properties": {"a": schema}}), true)
    }

    #[test]
    fn parts_say_what_type_they_have() {
        assert_eq!(property(json!({"type": "array", "items": {"type": "string"}})), [""; 0]);
        assert_eq!(broken(&json!({}), false), ["s.type: must not be empty at the root"]);
        for (schema, expected) in [
            (json!({}), "s.properties[a].type: must not be empty for specified object fields"),
            (json!({"type": "array"}), "s.properties[a].items: must be specified"),
            (
                json!({"type": "array", "items": {}}),
                "s.properties[a].items.type: must not be empty for specified array items",
            ),
            (
                json!({"type": "null"}),
                "s.properties[a].type: type cannot be set to null, use nullable as an alternative",
            ),
            (json!({"type": "string", "$ref": "x"}), "s.properties[a].$ref: $ref is not supported"),
            (
                json!({"type": "object", "properties": {}, "additionalProperties": false, "x-kubernetes-map-type": "whole"}),
                "s.properties[a].x-kubernetes-map-type: \"whole\": supported values: \"atomic\", \"granular\"",
            ),
        ] {
            assert_eq!(property(schema), [expected]);
        }
    }

    #[test]
    fn lists_that_are_maps_have_keys() {
        let list = |keys: Value, items: Value| {
            property(
                json!({"type": "array", "items": items, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": keys}),
            )
        };
        let item = json!({"type": "object", "properties": {"name": {"type": "string"}, "parts": {"type": "object"}}});
        assert_eq!(list(json!(["name"]), item.clone()), [""; 0]);
        let place = "s.properties[a].x-kubernetes-list-map-keys";
        assert_eq!(
            list(json!([]), item.clone()),
            [format!("{place}: must not be empty if x-kubernetes-list-type is map")]
        );
        assert_eq!(
            list(json!(["parts", "name", "name", "x"]), item),
            [
                "s.properties[a].items.properties[parts].type: \"object\": must be a scalar type if parent array's \
                 x-kubernetes-list-type is map"
                    .to_owned(),
                format!("{place}: [\"parts\",\"name\",\"name\",\"x\"]: must not contain duplicate entries"),
                format!("{place}: [\"parts\",\"name\",\"name\",\"x\"]: entries must all be names of item properties"),
            ]
        );
    }

    #[test]
    fn the_root_says_nothing_of_the_status() {
        let schema =
            json!({"type": "object", "description": "d", "x-kubernetes-preserve-unknown-fields": true, "anyOf": []});
        assert_eq!(broken(&schema, false), [""; 0]);
        let found = broken(&schema, true);
        assert!(found[0].contains("only [Description Type Format"), "{found:?}");
    }
}
