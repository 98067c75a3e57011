//! What a silent node's machine means for it.
//!
//! Upstream: `k8s.io/cloud-provider/controllers/nodelifecycle`.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};
use orchestrator_core::meta;

use crate::{
    cloud::{UNINITIALIZED, has_taint},
    limits::UNINITIALIZED_NODE_TIME,
};

/// Tells that the machine of a node is switched off.
const SHUT_DOWN: &str = "node.cloudprovider.kubernetes.io/shutdown";

/// What to do about a node before anybody asks the cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum First {
    /// It is ready: it is not switched off, whatever its taints say.
    Untaint,
    /// It is too young to be judged.
    Wait,
    /// The cloud has to say.
    Ask,
}

pub(super) fn first(node: &Node, now: Timestamp) -> First {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    if meta::is_condition_true(conditions, "Ready") {
        return First::Untaint;
    }
    let is_named = node.spec.as_ref().and_then(|spec| spec.provider_id.as_ref()).is_some_and(|id| !id.is_empty());
    let created = node.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let age = created.and_then(|created| std::time::Duration::try_from(now.duration_since(created)).ok());
    let is_young = age.is_some_and(|age| age < UNINITIALIZED_NODE_TIME);
    if !is_named && is_young && has_taint(node, UNINITIALIZED) { First::Wait } else { First::Ask }
}

/// The taints of a node whose machine is switched off, or is not; nothing where they are as they should be.
pub(super) fn taints(node: &Node, is_shut_down: bool) -> Option<Vec<Taint>> {
    if has_taint(node, SHUT_DOWN) == is_shut_down {
        return None;
    }
    let mut taints = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    taints.retain(|taint| taint.key != SHUT_DOWN);
    if is_shut_down {
        taints.push(Taint { key: SHUT_DOWN.to_owned(), effect: "NoSchedule".to_owned(), ..Default::default() });
    }
    Some(taints)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::pods::fixtures::at;

    fn node(ready: &str, provider_id: &str, taint: &str) -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": "n", "creationTimestamp": at(0).to_string()},
            "spec": {"providerID": provider_id, "taints": [{"key": taint, "effect": "NoSchedule"}]},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }))
        .unwrap()
    }

    #[test]
    fn the_cloud_is_asked_about_nodes_that_are_not_ready() {
        for (node, second, expected) in [
            (node("True", "", UNINITIALIZED), 1, First::Untaint),
            (node("Unknown", "", UNINITIALIZED), 1, First::Wait),
            (node("Unknown", "", UNINITIALIZED), 3600, First::Ask),
            (node("Unknown", "cloud://n", UNINITIALIZED), 1, First::Ask),
            (node("False", "", "other"), 1, First::Ask),
        ] {
            assert_eq!(first(&node, at(second)), expected, "{node:?} at {second}");
        }
    }

    proptest! {
        #[test]
        fn the_taint_comes_and_goes_and_leaves_others(shut_down in prop::collection::vec(any::<bool>(), 1..6)) {
            let mut node = node("False", "cloud://n", "other");
            for is_shut_down in shut_down {
                if let Some(taints) = taints(&node, is_shut_down) {
                    node.spec.as_mut().unwrap().taints = Some(taints);
                }
                prop_assert_eq!(taints(&node, is_shut_down), None);
                prop_assert!(has_taint(&node, "other"));
            }
        }
    }
}
