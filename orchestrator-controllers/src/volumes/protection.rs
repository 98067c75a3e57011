//! Keeps claims that pods use, and volumes that are bound, until nobody needs them.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/storage/persistent-volumes/#storage-object-in-use-protection>.

use std::sync::Arc;

use k8s_openapi::{
    api::core::v1::{PersistentVolume, Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use orchestrator_core::meta::{has_finalizer, is_deleting};

use super::matching::volume_phase;
use crate::ephemeral_volume::claim_name;

/// What keeps a claim while a pod uses it.
pub(crate) const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";

/// What to do about a finalizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protection {
    /// Nothing.
    Keep,
    /// Add it.
    Add,
    /// Take it away.
    Remove,
}

/// Decides on the finalizer of an object that is in use or not.
pub(crate) fn decide(metadata: &ObjectMeta, finalizer: &str, in_use: bool) -> Protection {
    match (is_deleting(metadata), has_finalizer(metadata, finalizer)) {
        (false, false) => Protection::Add,
        (true, true) if !in_use => Protection::Remove,
        _ => Protection::Keep,
    }
}

/// Whether a volume has a claim.
pub(crate) fn is_bound(volume: &PersistentVolume) -> bool {
    volume_phase(volume) == "Bound"
}

/// The claims that a pod uses, by name; those of ephemeral volumes are named after the pod.
pub(crate) fn claims_of(pod: &Pod) -> Vec<String> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    let claim = |volume: &k8s_openapi::api::core::v1::Volume| match &volume.persistent_volume_claim {
        Some(source) => Some(source.claim_name.clone()),
        None => volume.ephemeral.as_ref().map(|_| claim_name(pod, volume)),
    };
    volumes.iter().filter_map(claim).collect()
}

/// Whether one of the pods uses a claim. A pod without a node does not: no node starts it with a claim that goes away.
pub(crate) fn is_used(claim: &str, pods: &[Arc<Pod>]) -> bool {
    let on_node = |pod: &&Arc<Pod>| {
        pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).is_some_and(|node| !node.is_empty())
    };
    pods.iter().filter(on_node).any(|pod| claims_of(pod).iter().any(|used| used == claim))
}
