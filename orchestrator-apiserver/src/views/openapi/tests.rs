//! What clients look for in the documents.

use std::collections::BTreeSet;

use orchestrator_core::store::Revision;

use super::*;
use crate::registry::custom_kinds;

/// All references of a document.
fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        Value::Object(members) => {
            for (name, member) in members {
                match member.as_str() {
                    Some(reference) if name == "$ref" => {
                        found.insert(reference);
                    }
                    _ => references(member, found),
                }
            }
        }
        _ => {}
    }
}

fn assert_complete(document: &Value) {
    let mut found = BTreeSet::new();
    references(document, &mut found);
    assert!(found.len() > 5);
    for reference in found {
        assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference} leads nowhere");
    }
}

#[test]
fn the_index_names_documents_that_are_complete() {
    let registry = Registry::new();
    let index = v3_index(&registry);
    let paths = index["paths"].as_object().unwrap();
    assert_eq!(paths.len(), 22);
    for (path, entry) in paths {
        assert!(entry["serverRelativeURL"].as_str().unwrap().starts_with(&format!("/openapi/v3/{path}?hash=")));
        let parts: Vec<&str> = path.split('/').collect();
        let (group, version) = if parts.len() == 2 { ("", parts[1]) } else { (parts[1], parts[2]) };
        assert_complete(&v3(&registry, group, version).unwrap());
    }
    assert_eq!(v3(&registry, "apps", "v2"), None);
    assert_complete(&v2(&registry));
}

#[test]
fn every_kind_that_can_be_patched_says_that_fields_are_validated() {
    let registry = Registry::new();
    let document = v2(&registry);
    let patches = document["paths"].as_object().unwrap().values().filter_map(|item| item.get("patch"));
    let mut validated = Vec::new();
    // What is sent to the other side of a proxy is not for this one to look at.
    for patch in patches.filter(|patch| patch["x-kubernetes-action"] == "patch") {
        let parameters = patch["parameters"].as_array().unwrap();
        let of_query = |parameter: &&Value| parameter["name"] == "fieldValidation" && parameter["in"] == "query";
        assert!(parameters.iter().any(|parameter| of_query(&parameter)), "{patch}");
        validated.push(&patch["x-kubernetes-group-version-kind"]);
    }
    for kind in registry.kinds().iter().filter(|kind| kind.verbs.iter().any(|verb| verb == "patch")) {
        let (group, version) = (&kind.resource.group, &kind.resource.version);
        let wanted = json!({"group": group, "version": version, "kind": kind.kind});
        assert!(validated.contains(&&wanted), "{wanted}");
    }
}

#[test]
fn schemas_say_how_objects_are_made_up_and_merged() {
    let registry = Registry::new();
    let document = v3(&registry, "", "v1").unwrap();
    let schemas = &document["components"]["schemas"];
    let pod = &schemas["io.k8s.api.core.v1.Pod"];
    assert_eq!(pod["x-kubernetes-group-version-kind"], json!([{"group": "", "version": "v1", "kind": "Pod"}]));
    assert_eq!(pod["properties"]["kind"]["type"], "string");
    let spec = json!([{"$ref": "#/components/schemas/io.k8s.api.core.v1.PodSpec"}]);
    assert_eq!(pod["properties"]["spec"]["allOf"], spec);
    let spec = &schemas["io.k8s.api.core.v1.PodSpec"];
    assert_eq!(spec["required"], json!(["containers"]));
    let containers = &spec["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["items"]["$ref"], "#/components/schemas/io.k8s.api.core.v1.Container");
    let ports = &schemas["io.k8s.api.core.v1.Container"]["properties"]["ports"];
    assert_eq!(ports["x-kubernetes-list-type"], "map");
    assert_eq!(ports["x-kubernetes-list-map-keys"], json!(["containerPort", "protocol"]));
    assert_eq!(schemas["io.k8s.api.core.v1.LocalObjectReference"]["x-kubernetes-map-type"], "atomic");
    let create = &document["paths"]["/api/v1/namespaces/{namespace}/pods"]["post"];
    assert_eq!(create["operationId"], "createCoreV1NamespacedPod");
    assert_eq!(create["x-kubernetes-action"], "post");
    assert_eq!(document["paths"]["/api/v1/pods"]["get"]["operationId"], "listCoreV1PodForAllNamespaces");
}

#[test]
fn streams_are_operations_without_objects() {
    let registry = Registry::new();
    let document = v3(&registry, "", "v1").unwrap();
    let pod = "/api/v1/namespaces/{namespace}/pods/{name}";
    let log = &document["paths"][format!("{pod}/log")];
    assert_eq!(log["get"]["operationId"], "readCoreV1NamespacedPodLog");
    assert_eq!(log["get"]["responses"]["200"], json!({"description": "OK"}));
    let follow = json!({"name": "follow", "in": "query", "schema": {"type": "boolean", "uniqueItems": true}});
    assert!(log["parameters"].as_array().unwrap().contains(&follow), "{log}");
    let exec = &document["paths"][format!("{pod}/exec")];
    assert_eq!(exec["post"]["operationId"], "connectCoreV1PostNamespacedPodExec");
    assert_eq!(exec["post"]["x-kubernetes-group-version-kind"]["kind"], "PodExecOptions");
    let proxy = &document["paths"][format!("{pod}/proxy/{{path}}")];
    assert_eq!(proxy["delete"]["operationId"], "connectCoreV1DeleteNamespacedPodProxyWithPath");
    let node = &v2(&registry)["paths"]["/api/v1/nodes/{name}/proxy"];
    assert_eq!(node["get"]["operationId"], "connectCoreV1GetNodeProxy");
}

#[test]
fn operations_name_the_codes_and_types_that_they_answer_with_and_take() {
    let document = v2(&Registry::new());
    let codes = |path: &str, method: &str| -> Vec<String> {
        document["paths"][path][method]["responses"].as_object().unwrap().keys().cloned().collect()
    };
    let pods = "/api/v1/namespaces/{namespace}/pods";
    assert_eq!(codes(pods, "post"), ["200", "201", "202", "401"]);
    assert_eq!(codes(&format!("{pods}/{{name}}"), "put"), ["200", "201", "401"]);
    assert_eq!(codes(&format!("{pods}/{{name}}"), "delete"), ["200", "202", "401"]);
    let patch = document["paths"][format!("{pods}/{{name}}")]["patch"]["consumes"].as_array().unwrap();
    assert!(patch.contains(&"application/strategic-merge-patch+json".into()) && patch.len() == 4);
}

#[test]
fn custom_kinds_bring_their_schema_and_change_the_index() {
    let registry = Registry::new();
    let define = |schema: Value| {
        let definition = json!({"spec": {
            "group": "stable.example.com",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{
                "name": "v1",
                "served": true,
                "storage": true,
                "schema": {"openAPIV3Schema": schema},
                "subresources": {"status": {}, "scale": {}},
            }],
        }});
        registry.define("widgets.stable.example.com", Revision(1), custom_kinds(&definition));
        v3_index(&registry)["paths"]["apis/stable.example.com/v1"]["serverRelativeURL"].clone()
    };
    let without = define(Value::Null);
    let with = define(json!({"type": "object", "properties": {"spec": {"type": "object"}}}));
    assert_ne!(with, without);
    let document = v3(&registry, "stable.example.com", "v1").unwrap();
    assert_complete(&document);
    let widget = &document["components"]["schemas"]["com.example.stable.v1.Widget"];
    assert_eq!(widget["properties"]["spec"], json!({"type": "object"}));
    assert_eq!(widget["x-kubernetes-group-version-kind"][0]["kind"], "Widget");
}
