//! The rules of `metadata`, which are the same for all kinds.
//!
//! Upstream: `k8s.io/apimachinery/pkg/api/validation/objectmeta.go`.

use std::collections::BTreeSet;

use orchestrator_core::status::FieldErrorKind;
use serde_json::Value;

use crate::{
    field::{Errors, Field},
    kinds::check,
    names,
    registry::Kind,
};

/// Finalizers that everyone may set although they have no domain.
const PLAIN_FINALIZERS: [&str; 3] = ["orphan", "foregroundDeletion", "kubernetes"];

/// The rules of an object's metadata by itself.
pub(super) fn validate(kind: &Kind, object: &Field<'_>, errors: &mut Errors) {
    let metadata = object.get("metadata");
    let name = metadata.get("name");
    if metadata.get("generateName").exists() && !metadata.get("generateName").text().is_empty() {
        let generate = metadata.get("generateName");
        for problem in kind.strategy.names().problems(&names::as_name(generate.text())) {
            generate.invalid(errors, &problem);
        }
    }
    if name.text().is_empty() {
        name.required(errors, "name or generateName is required");
    } else {
        for problem in kind.strategy.names().problems(name.text()) {
            name.invalid(errors, &problem);
        }
    }
    let namespace = metadata.get("namespace");
    if kind.namespaced && namespace.text().is_empty() {
        namespace.required(errors, "");
    }
    validate_maps(&metadata, errors);
    validate_owners(&metadata.get("ownerReferences"), errors);
    validate_finalizers(&metadata.get("finalizers"), errors);
}

fn validate_maps(metadata: &Field<'_>, errors: &mut Errors) {
    check::labels(&metadata.get("labels"), errors);
    check::annotations(&metadata.get("annotations"), errors);
}

fn validate_owners(owners: &Field<'_>, errors: &mut Errors) {
    let mut controllers = Vec::new();
    for owner in owners.items() {
        // Upstream does not say which of the owners it means.
        let version = owner.get("apiVersion");
        if version.text().is_empty() || version.text().matches('/').count() > 1 {
            version.shown_at(format!("{}.apiVersion", owners.path())).invalid(errors, "version must not be empty");
        }
        for name in ["kind", "name", "uid"] {
            if owner.get(name).text().is_empty() {
                owners.get(name).invalid(errors, "must not be empty");
            }
        }
        if version.text() == "v1" && owner.get("kind").text() == "Event" {
            owners.wrong(errors, shown_owner(&owner), "/v1, Kind=Event is disallowed from being an owner");
        }
        if owner.get("controller").bool() == Some(true) {
            controllers.push(format!("{}/{}", owner.get("kind").text(), owner.get("name").text()));
        }
    }
    if let [first, second, ..] = controllers.as_slice() {
        let value = shown_owners(owners);
        let detail = format!(
            "{value}: Only one reference can have Controller set to true. Found \"true\" in references for {first} and \
             {second}"
        );
        errors.add(owners.path(), FieldErrorKind::Invalid, detail);
    }
}

/// Owners as errors show them: their members in upstream's order.
fn shown_owners(owners: &Field<'_>) -> String {
    format!("[{}]", owners.items().iter().map(shown_owner).collect::<Vec<_>>().join(","))
}

fn shown_owner(owner: &Field<'_>) -> String {
    let order = ["apiVersion", "kind", "name", "uid", "controller", "blockOwnerDeletion"];
    let members = order.iter().filter_map(|name| Some(format!("{name:?}:{}", owner.get(name).value()?)));
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

/// Of owners that are named twice, once is enough. Tells the caller so; the words say when it was noticed, if late.
pub(super) fn unite_owners(tree: &mut Value, late: &str, warnings: &mut Vec<String>) {
    let Some(owners) = tree.get_mut("metadata").and_then(|metadata| metadata.get_mut("ownerReferences")) else {
        return;
    };
    let Some(owners) = owners.as_array_mut() else { return };
    let (mut seen, mut twice) = (BTreeSet::new(), Vec::new());
    owners.retain(|owner| {
        let first = seen.insert(owner.to_string());
        if !first {
            twice.push(owner["uid"].as_str().unwrap_or_default().to_owned());
        }
        first
    });
    if !twice.is_empty() {
        warnings.push(format!(
            ".metadata.ownerReferences contains duplicate entries{late}; API server dedups owner references in 1.20+, and \
             may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
            twice.join(", ")
        ));
    }
}

fn validate_finalizers(finalizers: &Field<'_>, errors: &mut Errors) {
    let items = finalizers.items();
    for finalizer in &items {
        validate_finalizer(finalizer, errors);
    }
    let has = |name: &str| items.iter().any(|finalizer| finalizer.text() == name);
    if has("orphan") && has("foregroundDeletion") {
        finalizers.invalid(errors, "finalizer orphan and foregroundDeletion cannot be both set");
    }
}

fn validate_finalizer(finalizer: &Field<'_>, errors: &mut Errors) {
    let name = finalizer.text();
    for problem in names::qualified_name(name) {
        finalizer.invalid(errors, &problem);
    }
    if !name.contains('/') && !PLAIN_FINALIZERS.contains(&name) {
        finalizer.invalid(errors, "name is neither a standard finalizer name nor is it fully qualified");
    }
}

/// The rules of a change of metadata.
pub(super) fn validate_update(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    let (new, old) = (new.get("metadata"), old.get("metadata"));
    for name in ["name", "namespace", "uid", "creationTimestamp"] {
        new.get(name).immutable(&old.get(name), errors);
    }
    let end = new.get("deletionTimestamp");
    if end.value() != old.get("deletionTimestamp").value() {
        // Go shows times in a notation of its own.
        let shown = end.text().replace('T', " ").replace('Z', " +0000 UTC");
        end.wrong(errors, shown, "field is immutable");
    }
    new.get("deletionGracePeriodSeconds").immutable(&old.get("deletionGracePeriodSeconds"), errors);
    if old.get("deletionTimestamp").exists() {
        let before: BTreeSet<&str> = old.get("finalizers").items().iter().map(Field::text).collect();
        let added: Vec<String> = new
            .get("finalizers")
            .items()
            .iter()
            .map(Field::text)
            .filter(|finalizer| !before.contains(finalizer))
            .map(|finalizer| format!("{finalizer:?}"))
            .collect();
        if !added.is_empty() {
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers \
                 []string{{{}}}",
                added.join(", ")
            );
            errors.add("metadata.finalizers", FieldErrorKind::Forbidden, detail);
        }
    }
}
