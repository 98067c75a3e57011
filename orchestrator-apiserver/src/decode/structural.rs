//! Pruning of custom objects: what the schema of their definition does not know is taken out and named.
//!
//! Upstream: `apiextensions-apiserver/pkg/apiserver/schema/pruning`.

use serde_json::Value;

/// Members that every resource has, and that no definition's schema decides about.
const OF_EVERY_RESOURCE: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Takes the unknown members out of an object, and gives their paths in order.
pub(crate) fn prune_structural(object: &mut Value, schema: &Value) -> Vec<String> {
    let mut unknown = Vec::new();
    prune(object, schema, true, "", &mut unknown);
    unknown.sort();
    unknown
}

fn prune(tree: &mut Value, schema: &Value, is_resource: bool, path: &str, unknown: &mut Vec<String>) {
    let keeps_all = schema["x-kubernetes-preserve-unknown-fields"] == true;
    let is_resource = is_resource || schema["x-kubernetes-embedded-resource"] == true;
    match tree {
        Value::Object(members) => members.retain(|name, value| {
            if is_resource && OF_EVERY_RESOURCE.contains(&name.as_str()) {
                return true;
            }
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let known = schema["properties"].get(name).or_else(|| schema.get("additionalProperties"));
            match known {
                Some(schema) => prune(value, schema, false, &path, unknown),
                None if keeps_all => {}
                None => unknown.push(path),
            }
            known.is_some() || keeps_all
        }),
        Value::Array(items) if schema["items"].is_object() || !keeps_all => {
            for (index, item) in items.iter_mut().enumerate() {
                prune(item, &schema["items"], false, &format!("{path}[{index}]"), unknown);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn schema() -> Value {
        json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "litres": {"type": "integer"},
            "cups": {"type": "array", "items": {"type": "object", "properties": {"size": {"type": "string"}}}},
            "by": {"type": "object", "additionalProperties": {"type": "object", "properties": {"on": {"type": "boolean"}}}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {
                "closed": {"type": "object", "properties": {}},
            }},
            "pod": {"type": "object", "x-kubernetes-embedded-resource": true},
        }}}})
    }

    #[test]
    fn what_is_unknown_goes_and_is_named() {
        let mut object = json!({
            "apiVersion": "example.com/v1", "kind": "Kettle", "metadata": {"name": "a"}, "more": 1,
            "spec": {
                "litres": 1, "lid": true, "cups": [{"size": "m", "colour": "red"}], "by": {"a": {"on": true, "off": 1}},
                "free": {"x": {"y": [{"z": 1}]}, "closed": {"a": 1}},
                "pod": {"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": {}},
            },
        });
        let unknown = prune_structural(&mut object, &schema());
        let expected =
            ["more", "spec.by.a.off", "spec.cups[0].colour", "spec.free.closed.a", "spec.lid", "spec.pod.spec"];
        assert_eq!(unknown, expected);
        assert_eq!(
            object,
            json!({
                "apiVersion": "example.com/v1", "kind": "Kettle", "metadata": {"name": "a"},
                "spec": {
                    "litres": 1, "cups": [{"size": "m"}], "by": {"a": {"on": true}},
                    "free": {"x": {"y": [{"z": 1}]}, "closed": {}},
                    "pod": {"apiVersion": "v1", "kind": "Pod", "metadata": {}},
                },
            })
        );
    }

    proptest! {
        #[test]
        fn what_is_left_is_known(names in proptest::collection::btree_set("[a-z]{1,6}", 0..6)) {
            let members: serde_json::Map<_, _> = names.into_iter().map(|name| (name, json!({}))).collect();
            let mut object = json!({"spec": members, "metadata": {"x": 1}});
            let before = object["spec"].as_object().map_or(0, serde_json::Map::len);
            let unknown = prune_structural(&mut object, &schema());
            prop_assert_eq!(object["spec"].as_object().map_or(0, serde_json::Map::len) + unknown.len(), before);
            prop_assert!(prune_structural(&mut object, &schema()).is_empty());
        }
    }
}
