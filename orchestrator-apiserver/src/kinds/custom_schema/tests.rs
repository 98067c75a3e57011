//! Every rule by example, and what may stay although it is broken.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn changed(spec: Value, new: Value, old: Option<Value>) -> Vec<String> {
    let schema = Schema::new(json!({"type": "object", "properties": {"spec": spec}}));
    let object = |spec: Value| json!({"metadata": {"name": "a"}, "spec": spec});
    let (new, old, mut errors) = (object(new), old.map(object), Errors::default());
    let old = old.as_ref().map(Field::root);
    schema.validate(&Field::root(&new), old.as_ref(), &mut errors);
    errors.into_vec().into_iter().map(|error| format!("{}: {}", error.field, error.message())).collect()
}

fn broken(spec: Value, value: Value) -> Vec<String> {
    changed(spec, value, None)
}

#[test]
fn every_rule_is_told_in_the_words_of_upstream() {
    let invalid = |value: &str, why: &str| vec![format!("spec: Invalid value: {value}: spec in body {why}")];
    for (schema, value, expected) in [
        (json!({"type": "string"}), json!(7), invalid("\"integer\"", "must be of type string: \"integer\"")),
        (json!({"type": "integer"}), json!("x"), invalid("\"string\"", "must be of type integer: \"string\"")),
        (json!({"type": "integer"}), json!(1.5), invalid("\"number\"", "must be of type integer: \"number\"")),
        (json!({"type": "integer"}), json!(2.0), vec![]),
        (json!({"type": "number"}), json!(2), vec![]),
        (json!({"type": "boolean"}), json!(null), invalid("\"null\"", "must be of type boolean: \"null\"")),
        (json!({"type": "boolean", "nullable": true}), json!(null), vec![]),
        (
            json!({"x-kubernetes-int-or-string": true}),
            json!([]),
            invalid("\"array\"", "must be of type integer,string: \"array\""),
        ),
        (
            json!({"type": "string", "enum": ["a", "b"]}),
            json!("c"),
            vec!["spec: Unsupported value: \"c\": supported values: \"a\", \"b\"".to_owned()],
        ),
        (json!({"type": "string", "pattern": "^a+$"}), json!("ab"), invalid("\"ab\"", "should match '^a+$'")),
        (
            json!({"type": "string", "maxLength": 1}),
            json!("éé"),
            vec!["spec: Too long: may not be more than 1 bytes".to_owned()],
        ),
        (json!({"type": "string", "minLength": 2}), json!("é"), invalid("\"é\"", "should be at least 2 chars long")),
        (
            json!({"type": "string", "format": "date-time"}),
            json!("now"),
            invalid("\"now\"", "must be of type date-time: \"now\""),
        ),
        (
            json!({"type": "string", "format": "ipv4"}),
            json!("::1"),
            invalid("\"::1\"", "must be of type ipv4: \"::1\""),
        ),
        (json!({"type": "string", "format": "something"}), json!("x"), vec![]),
        (json!({"type": "integer", "maximum": 3}), json!(4), invalid("4", "should be less than or equal to 3")),
        (
            json!({"type": "integer", "minimum": 3, "exclusiveMinimum": true}),
            json!(3),
            invalid("3", "should be greater than 3"),
        ),
        (json!({"type": "integer", "multipleOf": 2}), json!(3), invalid("3", "should be a multiple of 2")),
        (json!({"type": "array", "minItems": 1}), json!([]), invalid("0", "should have at least 1 items")),
        (
            json!({"type": "array", "maxItems": 1}),
            json!([1, 2]),
            vec!["spec: Too many: 2: must have at most 1 items".to_owned()],
        ),
        (json!({"type": "object", "required": ["a"]}), json!({}), vec!["spec.a: Required value".to_owned()]),
        (
            json!({"type": "object", "additionalProperties": {"type": "integer"}}),
            json!({"a": {}}),
            vec!["spec.a: Invalid value: \"object\": spec.a in body must be of type integer: \"object\"".to_owned()],
        ),
        (
            json!({"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}}),
            json!([{}, {"a": 1}]),
            vec![
                "spec[1].a: Invalid value: \"integer\": spec[1].a in body must be of type string: \"integer\""
                    .to_owned(),
            ],
        ),
        (
            json!({"type": "object", "x-kubernetes-embedded-resource": true}),
            json!({"apiVersion": "v1"}),
            vec!["spec.kind: Required value: must not be empty".to_owned()],
        ),
        (
            json!({"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}),
            json!({}),
            vec!["<nil>: Invalid value: \"\": \"spec\" must validate at least one schema (anyOf)".to_owned()],
        ),
        (
            json!({"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}),
            json!({"a": 1, "b": 1}),
            vec![
                "<nil>: Invalid value: \"\": \"spec\" must validate one and only one schema (oneOf). Found 2 valid \
                 alternatives"
                    .to_owned(),
            ],
        ),
        (
            json!({"not": {"required": ["a"]}}),
            json!({"a": 1}),
            vec!["<nil>: Invalid value: \"\": \"spec\" must not validate the schema (not)".to_owned()],
        ),
        (json!({"allOf": [{"minimum": 2}]}), json!(1), invalid("1", "should be greater than or equal to 2")),
    ] {
        assert_eq!(broken(schema.clone(), value.clone()), expected, "{schema} {value}");
    }
}

#[test]
fn items_of_sets_and_maps_come_once() {
    let set = json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}});
    assert_eq!(broken(set, json!(["a", "b", "a"])), ["spec[2]: Duplicate value: \"a\""]);
    let map = json!({
        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
        "items": {"type": "object"},
    });
    assert_eq!(
        broken(map, json!([{"name": "a"}, {"name": "a", "x": 1}])),
        ["spec[1]: Duplicate value: {\"name\":\"a\"}"]
    );
}

#[test]
fn what_was_broken_before_may_stay_and_not_come_back() {
    let schema = json!({"type": "object", "properties": {
        "size": {"type": "integer", "maximum": 3},
        "list": {
            "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "properties": {"size": {"type": "integer", "maximum": 3}}},
        },
        "plain": {"type": "array", "items": {"type": "integer", "maximum": 3}},
    }});
    let with = |size: i64, item: i64, first: i64| {
        json!({
            "size": size, "list": [{"name": "x", "size": first}, {"name": "a", "size": item}], "plain": [size],
        })
    };
    let old = with(9, 9, 1);
    assert_eq!(changed(schema.clone(), with(9, 9, 2), Some(old.clone())), [""; 0]);
    let found = changed(schema.clone(), with(8, 8, 1), Some(old.clone()));
    assert_eq!(found.len(), 3, "{found:?}");
    // Nothing tells items of plain lists from others.
    let mut longer = old.clone();
    longer["plain"] = json!([9, 1]);
    assert_eq!(changed(schema.clone(), longer, Some(old)).len(), 1);
    assert_eq!(broken(schema, with(9, 9, 1)).len(), 3);
}

#[test]
fn no_schema_is_looked_at_for_ever() {
    let mut alternatives = vec![json!({"type": "string"}); 1000];
    alternatives.push(json!({"type": "integer"}));
    let schema = json!({"type": "array", "items": {"anyOf": alternatives}});
    let found = broken(schema, vec![json!(1); 10_000].into());
    assert_eq!(found, ["<nil>: Invalid value: \"\": the object is too large for its schema to be checked"]);
}

proptest! {
    #[test]
    fn an_unchanged_object_is_never_refused(size in any::<i64>(), text in "\\PC{0,8}") {
        let schema = json!({"type": "object", "required": ["no"], "properties": {
            "size": {"type": "integer", "minimum": 0, "maximum": 1}, "text": {"type": "string", "pattern": "^a"},
        }});
        let spec = json!({"size": size, "text": text});
        prop_assert_eq!(changed(schema, spec.clone(), Some(spec)), [""; 0]);
    }
}
