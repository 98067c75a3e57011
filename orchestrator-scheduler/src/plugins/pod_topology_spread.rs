//! `PodTopologySpread`: pods of a kind evenly over zones, hosts or other domains.
//!
//! <https://kubernetes.io/docs/concepts/scheduling-eviction/topology-spread-constraints/>

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PodSpec, TopologySpreadConstraint};
use orchestrator_core::{
    scheduler::{
        ClusterChange, NodeState, PodInfo, Rejection, Snapshot,
        matching::{node_affinity_matches, tolerations, untolerated_taint},
    },
    selector::LabelSelector,
};

use crate::framework::{Filter, Indifferent, Local, MAX_SCORE, Plugin, PreFilter, PreScore, Prepared, Score};

const HOSTNAME: &str = "kubernetes.io/hostname";
const MISSING_LABEL: &str = "node(s) didn't match pod topology spread constraints (missing required label)";
const TOO_UNEVEN: &str = "node(s) didn't match pod topology spread constraints";

/// Refuses nodes that would make pods too unevenly spread; prefers those that make it more even.
#[derive(Clone, Copy, Debug)]
pub struct PodTopologySpread;

impl Plugin for PodTopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn may_help(&self, change: &ClusterChange<'_>, pod: &PodInfo) -> bool {
        match change {
            ClusterChange::Node { .. } | ClusterChange::WaitingPod { .. } => true,
            ClusterChange::AssignedPod { old, new } => {
                let namespace = |pod: &k8s_openapi::api::core::v1::Pod| pod.metadata.namespace.clone();
                old.or(*new).is_some_and(|other| namespace(other).as_deref() == Some(&pod.key().namespace))
            }
            _ => false,
        }
    }

    fn local(&self, pod: &PodInfo, _cluster: &Snapshot) -> Option<&dyn Local> {
        let constraints = pod.spec.as_ref().and_then(|spec| spec.topology_spread_constraints.as_deref());
        constraints.unwrap_or_default().is_empty().then_some(&Indifferent)
    }
}

/// One constraint, worked out.
struct Constraint<'a> {
    key: &'a str,
    max_skew: i64,
    min_domains: usize,
    /// `None` matches no pods.
    selector: Option<LabelSelector>,
    matches_itself: bool,
    honors_affinity: bool,
    honors_taints: bool,
}

fn constraints<'a>(pod: &'a PodInfo, when: &str) -> Vec<Constraint<'a>> {
    let all = pod.spec.as_ref().and_then(|spec| spec.topology_spread_constraints.as_deref()).unwrap_or_default();
    all.iter().filter(|constraint| constraint.when_unsatisfiable == when).map(|of| Constraint::new(of, pod)).collect()
}

impl<'a> Constraint<'a> {
    fn new(written: &'a TopologySpreadConstraint, pod: &PodInfo) -> Self {
        let selector = written.label_selector.as_ref().and_then(|selector| {
            let mut selector = selector.clone();
            let keys = written.match_label_keys.iter().flatten();
            let own = keys.filter_map(|key| Some((key.clone(), pod.labels().get(key)?.clone())));
            selector.match_labels.get_or_insert_default().extend(own);
            LabelSelector::from_meta(&selector).ok()
        });
        Self {
            key: &written.topology_key,
            max_skew: written.max_skew.into(),
            min_domains: written.min_domains.and_then(|least| usize::try_from(least).ok()).unwrap_or(1),
            matches_itself: selector.as_ref().is_some_and(|selector| selector.matches(pod.labels())),
            selector,
            honors_affinity: written.node_affinity_policy.as_deref() != Some("Ignore"),
            honors_taints: written.node_taints_policy.as_deref() == Some("Honor"),
        }
    }

    /// Whether the node's pods count.
    fn includes(&self, spec: Option<&PodSpec>, node: &NodeState) -> bool {
        let Some(spec) = spec else { return true };
        (!self.honors_affinity || node_affinity_matches(spec, node.node()))
            && (!self.honors_taints || untolerated_taint(tolerations(spec), node.node()).is_none())
    }

    /// Whether a pod counts that is in the namespace.
    fn counts(&self, pod: &PodInfo) -> bool {
        self.selector.as_ref().is_some_and(|selector| selector.matches(pod.labels()))
    }

    fn count(&self, node: &NodeState, namespace: &str) -> i64 {
        if self.selector.as_ref().is_none_or(LabelSelector::is_empty) {
            return 0;
        }
        let pods = node.pods().iter().filter(|pod| !pod.is_terminating() && pod.key().namespace == namespace);
        pods.filter(|pod| self.counts(pod)).count() as i64
    }
}

fn has_all_keys(node: &NodeState, constraints: &[Constraint<'_>]) -> bool {
    constraints.iter().all(|constraint| node.label(constraint.key).is_some())
}

/// How many pods count in each domain of each constraint.
struct Spread<'a> {
    plugin: &'static str,
    pod: &'a PodInfo,
    constraints: Vec<(Constraint<'a>, BTreeMap<&'a str, i64>)>,
}

impl PreFilter for PodTopologySpread {
    fn pre_filter<'a>(&'a self, pod: &'a PodInfo, cluster: &'a Snapshot) -> Prepared<'a> {
        let constraints = constraints(pod, "DoNotSchedule");
        if constraints.is_empty() {
            return Prepared::Skip;
        }
        let mut counts = vec![BTreeMap::new(); constraints.len()];
        for node in cluster.nodes().filter(|node| has_all_keys(node, &constraints)) {
            for (constraint, counts) in constraints.iter().zip(&mut counts) {
                if let Some(domain) =
                    node.label(constraint.key).filter(|_| constraint.includes(pod.spec.as_ref(), node))
                {
                    *counts.entry(domain).or_insert(0) += constraint.count(node, &pod.key().namespace);
                }
            }
        }
        Prepared::filter(Spread {
            plugin: self.name(),
            pod,
            constraints: constraints.into_iter().zip(counts).collect(),
        })
    }
}

impl Filter for Spread<'_> {
    fn filter(&self, node: &NodeState) -> Option<Rejection> {
        for (constraint, counts) in &self.constraints {
            let Some(domain) = node.label(constraint.key) else {
                return Some(Rejection::unresolvable(self.plugin, MISSING_LABEL));
            };
            let fewest = counts.values().copied().min().unwrap_or(i64::MAX);
            let fewest = if counts.len() < constraint.min_domains { 0 } else { fewest };
            let here = counts.get(domain).copied().unwrap_or(0) + i64::from(constraint.matches_itself);
            if here.saturating_sub(fewest) > constraint.max_skew {
                return Some(Rejection::new(self.plugin, TOO_UNEVEN));
            }
        }
        None
    }

    fn add_pod(&mut self, pod: &PodInfo, node: &NodeState) {
        self.change(pod, node, 1);
    }

    fn remove_pod(&mut self, pod: &PodInfo, node: &NodeState) {
        self.change(pod, node, -1);
    }
}

impl Spread<'_> {
    fn change(&mut self, pod: &PodInfo, node: &NodeState, by: i64) {
        if pod.key().namespace != self.pod.key().namespace {
            return;
        }
        if !self.constraints.iter().all(|(constraint, _)| node.label(constraint.key).is_some()) {
            return;
        }
        for (constraint, counts) in &mut self.constraints {
            let count = node.label(constraint.key).and_then(|domain| counts.get_mut(domain));
            if let Some(count) = count
                && constraint.counts(pod)
                && constraint.includes(self.pod.spec.as_ref(), node)
            {
                *count += by;
            }
        }
    }
}

impl PreScore for PodTopologySpread {
    fn pre_score<'a>(
        &'a self,
        pod: &'a PodInfo,
        cluster: &'a Snapshot,
        nodes: &[&'a NodeState],
    ) -> Option<Box<dyn Score + 'a>> {
        let constraints = constraints(pod, "ScheduleAnyway");
        if constraints.is_empty() {
            return None;
        }
        let scored = nodes.iter().filter(|node| has_all_keys(node, &constraints));
        let hosts = scored.clone().count();
        let mut counts: Vec<BTreeMap<&str, i64>> = vec![BTreeMap::new(); constraints.len()];
        for node in scored {
            for (constraint, counts) in constraints.iter().zip(&mut counts) {
                if let Some(domain) = node.label(constraint.key).filter(|_| constraint.key != HOSTNAME) {
                    counts.insert(domain, 0);
                }
            }
        }
        for node in cluster.nodes().filter(|node| has_all_keys(node, &constraints)) {
            for (constraint, counts) in constraints.iter().zip(&mut counts) {
                let count = node.label(constraint.key).and_then(|domain| counts.get_mut(domain));
                if let Some(count) = count
                    && constraint.includes(pod.spec.as_ref(), node)
                {
                    *count += constraint.count(node, &pod.key().namespace);
                }
            }
        }
        let weigh = |(constraint, counts): (Constraint<'a>, BTreeMap<&'a str, i64>)| {
            let domains = if constraint.key == HOSTNAME { hosts } else { counts.len() };
            // A domain counts more where there are many, or few would drown the many.
            (constraint, counts, ((domains + 2) as f64).ln())
        };
        let constraints = constraints.into_iter().zip(counts).map(weigh).collect();
        Some(Box::new(Evenness { namespace: &pod.key().namespace, constraints }))
    }
}

struct Evenness<'a> {
    namespace: &'a str,
    constraints: Vec<(Constraint<'a>, BTreeMap<&'a str, i64>, f64)>,
}

impl Evenness<'_> {
    fn ignores(&self, node: &NodeState) -> bool {
        self.constraints.iter().any(|(constraint, ..)| node.label(constraint.key).is_none())
    }
}

impl Score for Evenness<'_> {
    fn score(&self, node: &NodeState) -> i64 {
        if self.ignores(node) {
            return 0;
        }
        let parts = self.constraints.iter().map(|(constraint, counts, weight)| {
            let count = if constraint.key == HOSTNAME {
                constraint.count(node, self.namespace)
            } else {
                node.label(constraint.key).and_then(|domain| counts.get(domain)).copied().unwrap_or(0)
            };
            count as f64 * weight + (constraint.max_skew - 1) as f64
        });
        parts.sum::<f64>().round() as i64
    }

    fn normalize(&self, nodes: &[&NodeState], scores: &mut [i64]) {
        let counted =
            || nodes.iter().zip(scores.iter()).filter(|(node, _)| !self.ignores(node)).map(|(_, score)| *score);
        let (least, most) = (counted().min().unwrap_or(i64::MAX), counted().max().unwrap_or(0));
        for (node, score) in nodes.iter().zip(scores) {
            *score = match most {
                _ if self.ignores(node) => 0,
                0 => MAX_SCORE,
                most => MAX_SCORE * (most + least - *score) / most,
            };
        }
    }
}
