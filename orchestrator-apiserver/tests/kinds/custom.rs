//! Objects of custom kinds are held against their schema, and found by the fields that their definition names.

use serde_json::json;

use super::support::{Api, THINGS, thing};

#[tokio::test]
async fn objects_keep_their_schema() {
    let api = Api::start().await;
    let schema = json!({"type": "object", "required": ["size"], "properties": {
        "size": {"type": "integer", "minimum": 1}, "colour": {"type": "string", "pattern": "^[a-z]+$"},
    }});
    api.define(schema, json!({"subresources": {"status": {}}})).await.object();
    api.post(THINGS, &thing("a", json!({"size": 0, "colour": "RED"}))).await.assert_refused(
        422,
        "Thing.example.com \"a\" is invalid: [spec.colour: Invalid value: \"RED\": spec.colour in body should match \
         '^[a-z]+$', spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1]",
    );
    api.post(THINGS, &thing("a", json!({})))
        .await
        .assert_refused(422, "Thing.example.com \"a\" is invalid: spec.size: Required value");
    api.post(THINGS, &thing("a", json!({"size": 1}))).await.object();
    let refused = api.merge(&format!("{THINGS}/a"), &json!({"spec": {"size": "two"}})).await;
    refused.assert_refused(
        422,
        "Thing.example.com \"a\" is invalid: spec.size: Invalid value: \"string\": spec.size in body must be of type \
         integer: \"string\"",
    );
    let applied = thing("a", json!({"size": 0})).to_string();
    let path = format!("{THINGS}/a?fieldManager=m&force=true");
    assert_eq!(api.send("PATCH", &path, "application/apply-patch+yaml", applied).await.code, 422);
}

#[tokio::test]
async fn an_older_object_may_keep_what_a_new_schema_forbids() {
    let api = Api::start().await;
    let schema = |most: i64| json!({"type": "object", "properties": {"size": {"type": "integer", "maximum": most}}});
    api.define(schema(9), json!({})).await.object();
    api.post(THINGS, &thing("a", json!({"size": 9}))).await.object();
    let path = format!("{}/things.example.com", super::support::DEFINITIONS);
    let tight = json!([{"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec", "value": schema(1)}]);
    api.send("PATCH", &path, "application/json-patch+json", tight.to_string()).await.object();
    let path = format!("{THINGS}/a");
    api.merge(&path, &json!({"metadata": {"labels": {"x": "y"}}})).await.object();
    assert_eq!(api.merge(&path, &json!({"spec": {"size": 8}})).await.code, 422);
    assert_eq!(api.merge(&path, &json!({"spec": {"size": 1}})).await.object()["spec"]["size"], 1);
}

#[tokio::test]
async fn objects_are_selected_by_the_fields_of_their_definition() {
    let api = Api::start().await;
    let schema = json!({"type": "object", "properties": {"colour": {"type": "string"}, "size": {"type": "integer"}}});
    let fields = json!({"selectableFields": [{"jsonPath": ".spec.colour"}, {"jsonPath": ".spec.size"}]});
    api.define(schema, fields).await.object();
    for (name, colour, size) in [("a", "red", 1), ("b", "blue", 1), ("c", "red", 2)] {
        api.post(THINGS, &thing(name, json!({"colour": colour, "size": size}))).await.object();
    }
    for (selector, expected) in
        [("spec.colour=red", &["a", "c"][..]), ("spec.colour=red,spec.size!=1", &["c"]), ("spec.colour=", &[])]
    {
        let list = api.get(&format!("{THINGS}?fieldSelector={}", selector.replace('=', "%3D"))).await.object();
        let names: Vec<&str> =
            list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect();
        assert_eq!(names, expected, "{selector}");
    }
    assert_eq!(api.get(&format!("{THINGS}?fieldSelector=spec.lid%3Dx")).await.code, 400);
}

#[tokio::test]
async fn rules_that_are_not_evaluated_are_told_of() {
    let api = Api::start().await;
    let rule = json!({"rule": "self.size > 1"});
    let schema =
        json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "x-kubernetes-validations": [rule]});
    let defined = api.define(schema, json!({})).await;
    assert_eq!(defined.warnings, ["299 - \"spec.versions[0].schema: x-kubernetes-validations are not evaluated\""]);
    assert_eq!(defined.code, 201);
}

#[tokio::test]
async fn a_pattern_that_is_none_is_refused() {
    let api = Api::start().await;
    let refused = api.define(json!({"type": "string", "pattern": "("}), json!({})).await;
    assert_eq!(refused.code, 422);
    let place = "spec.validation.openAPIV3Schema";
    assert_eq!(refused.body["details"]["causes"][0]["field"], place, "{}", refused.body);
}
