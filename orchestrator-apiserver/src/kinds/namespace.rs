//! Namespaces: a finalizer in the spec, a phase in the status.

use serde_json::{Value, json};

use crate::{
    field::{member, remove},
    names::NameRule,
    strategy::Strategy,
};

/// The finalizer that the namespace controller takes away when a namespace is empty.
const FINALIZER: &str = "kubernetes";

/// The label that every namespace carries its name in.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

#[derive(Debug)]
pub(crate) struct Namespaces;

impl Strategy for Namespaces {
    fn names(&self) -> NameRule {
        NameRule::Label
    }

    fn has_status(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        let Some(name) = object["metadata"]["name"].as_str().map(str::to_owned) else { return };
        *member(member(member(object, "metadata"), "labels"), NAME_LABEL) = name.into();
    }

    fn prepare_create(&self, object: &mut Value) {
        *member(object, "status") = json!({"phase": "Active"});
        let finalizers = member(member(object, "spec"), "finalizers");
        match finalizers.as_array_mut() {
            Some(finalizers) if finalizers.iter().any(|finalizer| finalizer == FINALIZER) => {}
            Some(finalizers) => finalizers.push(FINALIZER.into()),
            None => *finalizers = json!([FINALIZER]),
        }
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        // Only the `finalize` endpoint takes finalizers away.
        match old.get("spec") {
            Some(spec) => *member(new, "spec") = spec.clone(),
            None => drop(remove(new, "spec")),
        }
    }
}
