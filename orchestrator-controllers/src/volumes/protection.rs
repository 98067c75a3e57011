//! Keeps claims that pods use, and volumes that are bound, until nobody needs them.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/storage/persistent-volumes/#storage-object-in-use-protection>.

use std::sync::Arc;

use k8s_openapi::{
    api::core::v1::{PersistentVolume, Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use orchestrator_core::meta::{has_finalizer, is_controlled_by, is_deleting, name, uid};

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
pub(crate) fn is_used(claim: &ObjectMeta, pods: &[Arc<Pod>]) -> bool {
    let on_node = |pod: &&Arc<Pod>| {
        pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).is_some_and(|node| !node.is_empty())
    };
    pods.iter().filter(on_node).any(|pod| uses(pod, claim))
}

/// A claim that comes and goes with a pod is of no use to it any longer once the pod has ended.
fn uses(pod: &Pod, claim: &ObjectMeta) -> bool {
    let is_own = is_controlled_by(claim, uid(&pod.metadata));
    let has_ended = is_deleting(&pod.metadata) && pod.metadata.deletion_grace_period_seconds == Some(0);
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    volumes.iter().any(|volume| match &volume.persistent_volume_claim {
        Some(source) => source.claim_name == name(claim),
        None => volume.ephemeral.is_some() && is_own && !has_ended && claim_name(pod, volume) == name(claim),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_claim_is_used_by_pods_on_nodes() {
        let pod = |spec: serde_json::Value| -> Arc<Pod> {
            let metadata = json!({"name": "p", "namespace": "n", "uid": "pod-uid"});
            Arc::new(serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap())
        };
        let claim = |name: &str, owner: Option<&str>| -> ObjectMeta {
            let owner = owner
                .map(|uid| json!([{"uid": uid, "controller": true, "kind": "Pod", "name": "p", "apiVersion": "v1"}]));
            serde_json::from_value(json!({"name": name, "ownerReferences": owner})).unwrap()
        };
        let named = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]);
        assert!(is_used(&claim("c", None), &[pod(json!({"nodeName": "n", "containers": [], "volumes": named}))]));
        assert!(!is_used(&claim("c", None), &[pod(json!({"containers": [], "volumes": named}))]));
        let mut own = pod(json!({"nodeName": "n", "containers": [], "volumes": [{"name": "v", "ephemeral": {}}]}));
        assert!(is_used(&claim("p-v", Some("pod-uid")), &[own.clone()]));
        assert!(!is_used(&claim("p-v", Some("other")), &[own.clone()]));
        let ended = &mut Arc::make_mut(&mut own).metadata;
        (ended.deletion_timestamp, ended.deletion_grace_period_seconds) =
            (serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap(), Some(0));
        assert!(!is_used(&claim("p-v", Some("pod-uid")), &[own]));
    }
}
