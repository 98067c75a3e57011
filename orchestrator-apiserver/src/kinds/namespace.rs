//! Namespaces: a finalizer in the spec, a phase in the status.

use serde_json::{Value, json};

use crate::{
    field::{Errors, Field, member, remove},
    kinds::check,
    names::{self, NameRule},
    strategy::Strategy,
};

/// The finalizer that the namespace controller takes away when a namespace is empty.
const FINALIZER: &str = "kubernetes";

/// Finalizers that may do without a domain.
const STANDARD_FINALIZERS: [&str; 3] = [FINALIZER, "foregroundDeletion", "orphan"];

/// The label that every namespace carries its name in.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// What a namespace asks of its pods: for each of the three modes a level.
const POD_SECURITY: [&str; 3] =
    ["pod-security.kubernetes.io/enforce", "pod-security.kubernetes.io/audit", "pod-security.kubernetes.io/warn"];

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

    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        for label in POD_SECURITY {
            let level = object.at("metadata.labels").key(label);
            if level.exists() && !matches!(level.text(), "privileged" | "baseline" | "restricted") {
                level.invalid(errors, "must be one of privileged, baseline, restricted");
            }
        }
    }

    fn validate_create(&self, object: &Field<'_>, errors: &mut Errors) {
        let finalizers = object.at("spec.finalizers");
        for finalizer in finalizers.items() {
            let finalizer = finalizer.shown_at(finalizers.path());
            let name = finalizer.text();
            check::problems(&finalizer, &names::qualified_name(name), errors);
            if !name.contains('/') && !STANDARD_FINALIZERS.contains(&name) {
                finalizer.invalid(errors, "name is neither a standard finalizer name nor is it fully qualified");
            }
        }
    }

    fn validate_status(&self, new: &Field<'_>, _old: &Field<'_>, errors: &mut Errors) {
        let phase = new.at("status.phase").shown_at("status.Phase");
        let is_deleted = new.at("metadata.deletionTimestamp").exists();
        if is_deleted && phase.text() != "Terminating" {
            phase.invalid(errors, "may only be 'Terminating' if `deletionTimestamp` is not empty");
        }
        if !is_deleted && phase.text() != "Active" {
            phase.invalid(errors, "may only be 'Active' if `deletionTimestamp` is empty");
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
