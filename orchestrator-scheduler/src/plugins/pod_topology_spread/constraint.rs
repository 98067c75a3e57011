//! Constraints on how evenly pods are spread, worked out for a pod.

use k8s_openapi::{
    api::core::v1::{PodSpec, TopologySpreadConstraint},
    apimachinery::pkg::apis::meta::v1::LabelSelector as Written,
};
use orchestrator_core::{
    scheduler::{
        NodeState, PodInfo,
        matching::{node_affinity_matches, tolerations, untolerated_taint},
    },
    selector::LabelSelector,
};

pub(super) const HOSTNAME: &str = "kubernetes.io/hostname";

/// One constraint, worked out.
#[derive(Clone, Debug)]
pub(super) struct Constraint {
    pub(super) key: String,
    pub(super) max_skew: i64,
    pub(super) min_domains: usize,
    /// `None` matches no pods.
    selector: Option<LabelSelector>,
    pub(super) matches_itself: bool,
    honors_affinity: bool,
    pub(super) honors_taints: bool,
}

impl Constraint {
    /// A constraint of a pod, which speaks of the pods that the selector matches.
    pub(super) fn new(written: &TopologySpreadConstraint, selector: Option<&Written>, pod: &PodInfo) -> Self {
        let selector = selector.and_then(|selector| {
            let mut selector = selector.clone();
            let keys = written.match_label_keys.iter().flatten();
            let own = keys.filter_map(|key| Some((key.clone(), pod.labels().get(key)?.clone())));
            selector.match_labels.get_or_insert_default().extend(own);
            LabelSelector::from_meta(&selector).ok()
        });
        Self {
            key: written.topology_key.clone(),
            max_skew: written.max_skew.into(),
            min_domains: written.min_domains.and_then(|least| usize::try_from(least).ok()).unwrap_or(1),
            matches_itself: selector.as_ref().is_some_and(|selector| selector.matches(pod.labels())),
            selector,
            honors_affinity: written.node_affinity_policy.as_deref() != Some("Ignore"),
            honors_taints: written.node_taints_policy.as_deref() == Some("Honor"),
        }
    }

    /// Whether the node's pods count.
    pub(super) fn includes(&self, spec: Option<&PodSpec>, node: &NodeState) -> bool {
        let Some(spec) = spec else { return true };
        (!self.honors_affinity || node_affinity_matches(spec, node.node()))
            && (!self.honors_taints || untolerated_taint(tolerations(spec), node.node()).is_none())
    }

    /// Whether a pod counts that is in the namespace.
    pub(super) fn counts(&self, labels: &std::collections::BTreeMap<String, String>) -> bool {
        self.selector.as_ref().is_some_and(|selector| selector.matches(labels))
    }

    /// How many pods of a namespace count on a node.
    pub(super) fn count(&self, node: &NodeState, namespace: &str) -> i64 {
        if self.selector.as_ref().is_none_or(LabelSelector::is_empty) {
            return 0;
        }
        let pods = node.pods().iter().filter(|pod| !pod.is_terminating() && pod.key().namespace == namespace);
        pods.filter(|pod| self.counts(pod.labels())).count() as i64
    }
}

pub(super) fn has_all_keys(node: &NodeState, constraints: &[Constraint]) -> bool {
    constraints.iter().all(|constraint| node.label(&constraint.key).is_some())
}
