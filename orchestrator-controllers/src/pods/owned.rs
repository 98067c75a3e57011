//! Finding what belongs to an owner, or might, without looking at everything.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector as MetaSelector, ObjectMeta};
use kube_core::params::{DeleteParams, Preconditions};
use orchestrator_core::{
    controller::{Cache, Change, Kind},
    meta::controller_of,
    object::ObjectKey,
    selector::LabelSelector,
    status::ApiError,
};

const INDEX: &str = "controller or orphans";

/// Makes [`candidates`] quick.
pub(crate) fn index_by_controller<K: Kind>(cache: &Cache<K>) {
    cache.add_index(INDEX, |object| {
        let metadata = object.meta();
        vec![controller_of(metadata).map_or_else(|| orphans_of(metadata), |owner| owner.uid.clone())]
    });
}

/// The index's entry for objects without a controller. A UID has no slash.
fn orphans_of(metadata: &ObjectMeta) -> String {
    format!("/{}", metadata.namespace.as_deref().unwrap_or_default())
}

/// The objects that an owner controls, and those of its namespace that nobody controls.
pub(crate) fn candidates<K: Kind>(cache: &Cache<K>, owner: &ObjectMeta) -> Vec<Arc<K>> {
    let mut found = controlled_by(cache, owner);
    found.extend(cache.by_index(INDEX, &orphans_of(owner)));
    found.sort_by(|a, b| a.meta().name.cmp(&b.meta().name));
    found
}

/// The objects that an owner controls.
pub(crate) fn controlled_by<K: Kind>(cache: &Cache<K>, owner: &ObjectMeta) -> Vec<Arc<K>> {
    cache.by_index(INDEX, owner.uid.as_deref().unwrap_or_default())
}

/// The keys of the owners that might adopt what changed, if nobody controls it now.
pub(crate) fn possible_owners<O: Kind, K: Kind>(
    owners: &Cache<O>,
    change: &Change<K>,
    selects: impl Fn(&O, &ObjectMeta) -> bool,
) -> Vec<ObjectKey> {
    let Some(object) = change.new.as_ref().filter(|object| controller_of(object.meta()).is_none()) else {
        return Vec::new();
    };
    let namespace = object.meta().namespace.as_deref().unwrap_or_default();
    let owners = owners.list_namespace(namespace);
    owners.iter().filter(|owner| selects(owner, object.meta())).map(|owner| ObjectKey::of(owner.meta())).collect()
}

/// Whether a selector selects an object. An empty or unreadable one selects nothing: upstream refuses both.
pub(crate) fn selects(selector: Option<&MetaSelector>, object: &ObjectMeta) -> bool {
    let selector = selector.and_then(|selector| LabelSelector::from_meta(selector).ok());
    let empty = Default::default();
    selector.is_some_and(|selector| !selector.is_empty() && selector.matches(object.labels.as_ref().unwrap_or(&empty)))
}

/// Deletes the very object that was seen, not another one of its name.
pub(crate) fn only(object: &ObjectMeta) -> DeleteParams {
    DeleteParams {
        preconditions: Some(Preconditions { uid: object.uid.clone(), resource_version: None }),
        ..Default::default()
    }
}

/// Whether a write was refused because its namespace is going away: nothing is to be done about that.
pub(crate) fn is_namespace_terminating(error: &ApiError) -> bool {
    let causes = error.status().details.as_ref().and_then(|details| details.causes.as_ref());
    causes.into_iter().flatten().any(|cause| cause.reason.as_deref() == Some("NamespaceTerminating"))
}
