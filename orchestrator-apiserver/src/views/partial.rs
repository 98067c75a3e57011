//! Objects cut down to their metadata: `PartialObjectMetadata`.

use serde_json::{Value, json};

use crate::field::remove;

/// What an object shows of itself when only its metadata is asked for.
pub(crate) fn object(object: &Value) -> Value {
    let mut metadata = object.get("metadata").cloned().unwrap_or_else(|| json!({}));
    if object["kind"] == "DaemonSet" {
        hide(&mut metadata, "deprecated.daemonset.template.generation");
    }
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
    })
}

/// Takes away an annotation that is none to upstream: whole objects carry a member of theirs in it.
fn hide(metadata: &mut Value, annotation: &str) {
    let Some(Value::Object(annotations)) = metadata.get_mut("annotations") else { return };
    annotations.remove(annotation);
    if annotations.is_empty() {
        remove(metadata, "annotations");
    }
}

/// A list of them. `metadata` is that of the list: version, continue token, remaining items.
pub(crate) fn list(objects: &[&Value], metadata: &Value) -> Value {
    let items: Vec<Value> = objects.iter().map(|item| object(item)).collect();
    json!({
        "kind": "PartialObjectMetadataList",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "items": items,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_metadata_is_left() {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}});
        let partial =
            json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": {"name": "a"}});
        assert_eq!(object(&map), partial);
        let list = list(&[&map], &json!({"resourceVersion": "7"}));
        assert_eq!(
            list,
            json!({
                "apiVersion": "meta.k8s.io/v1",
                "kind": "PartialObjectMetadataList",
                "metadata": {"resourceVersion": "7"},
                "items": [partial],
            })
        );
    }
}
