//! Objects cut down to their metadata: `PartialObjectMetadata`.

use serde_json::{Value, json};

use crate::field::remove;

/// What an object shows of itself when only its metadata is asked for, in a version of the group `meta.k8s.io`.
pub(crate) fn object(object: &Value, meta_version: &str) -> Value {
    let mut metadata = object.get("metadata").cloned().unwrap_or_else(|| json!({}));
    if object["kind"] == "DaemonSet" {
        hide(&mut metadata, "deprecated.daemonset.template.generation");
    }
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": meta_version,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_metadata_is_left() {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}});
        let partial =
            json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": {"name": "a"}});
        assert_eq!(object(&map, "meta.k8s.io/v1"), partial);
    }
}
