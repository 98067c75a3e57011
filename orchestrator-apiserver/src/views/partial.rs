//! Objects cut down to their metadata: `PartialObjectMetadata`.

use std::borrow::Cow;

use bytes::Bytes;
use orchestrator_core::object::{DecodeError, Object};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use crate::field::remove;

/// The kind of which upstream keeps something in an annotation that is none.
const DAEMON_SET: &str = "DaemonSet";

/// What an object shows of itself when only its metadata is asked for, in a version of the group `meta.k8s.io`.
pub(crate) fn object(object: &Value, meta_version: &str) -> Value {
    let mut metadata = object.get("metadata").cloned().unwrap_or_else(|| json!({}));
    if object["kind"] == DAEMON_SET {
        hide(&mut metadata, "deprecated.daemonset.template.generation");
    }
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": meta_version,
        "metadata": metadata,
    })
}

/// The same in JSON. No more of the object is read than where its metadata is.
pub(crate) fn json(object: &Object, meta_version: &str) -> Result<Bytes, DecodeError> {
    #[derive(Deserialize)]
    struct Members<'a> {
        #[serde(borrow)]
        kind: Option<Cow<'a, str>>,
        #[serde(borrow)]
        metadata: Option<&'a RawValue>,
    }
    let whole = object.bytes()?;
    let members: Members<'_> = serde_json::from_slice(&whole)?;
    if members.kind.as_deref() == Some(DAEMON_SET) {
        return Ok(self::object(&object.to_tree()?, meta_version).to_string().into());
    }
    let metadata = members.metadata.map_or("{}", RawValue::get);
    let partial =
        ["{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"", meta_version, "\",\"metadata\":", metadata, "}"];
    Ok(partial.concat().into())
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

    #[test]
    fn the_metadata_is_the_same_when_it_is_only_cut_out() {
        let annotations = json!({"deprecated.daemonset.template.generation": "1"});
        let objects = [
            json!({"kind": "ConfigMap", "metadata": {"name": "a", "labels": {"metadata": "{}"}}, "data": {"metadata": "b"}}),
            json!({"kind": "DaemonSet", "metadata": {"name": "a", "annotations": annotations}, "spec": {"a": 1}}),
            json!({"kind": "Pod", "metadata": {"name": "a", "annotations": annotations}}),
            json!({"spec": {"metadata": {"name": "a"}}}),
        ];
        for tree in objects {
            let cut = json(&Object::from_tree(tree.clone()), "meta.k8s.io/v1").unwrap();
            assert_eq!(serde_json::from_slice::<Value>(&cut).unwrap(), object(&tree, "meta.k8s.io/v1"));
        }
    }
}
