//! `InterPodAffinity`: pods that want to be near each other, or far from each other.

mod hints;
mod standing;

use std::collections::BTreeMap;

use orchestrator_core::scheduler::{AffinityTerm, ClusterChange, NodeState, PodInfo, Rejection, Snapshot};

use crate::framework::{
    Filter, Indifferent, Lasting, MAX_SCORE, Plugin, PreFilter, PreScore, Prepared, Score, StandingFilter,
    StandingScore,
};

/// Refuses nodes that break wishes of the pod or of pods that are there; prefers those that fulfil more of them.
#[derive(Clone, Copy, Debug)]
pub struct InterPodAffinity {
    weights: Weights,
}

/// How much the wishes of other pods count for the score.
#[derive(Clone, Copy, Debug)]
struct Weights {
    /// That a pod requires pods like this one near it.
    required: i64,
    /// What pods would like only.
    ignore_preferred: bool,
}

impl Default for InterPodAffinity {
    fn default() -> Self {
        Self::new(1, false)
    }
}

impl InterPodAffinity {
    /// How much it speaks for a node that a pod there requires pods like this one near it, from 0 to 100; and whether
    /// what other pods would like does not count for pods that would like nothing themselves.
    pub fn new(required_weight: i64, ignore_preferred: bool) -> Self {
        Self { weights: Weights { required: required_weight, ignore_preferred } }
    }

    /// Whether nothing is said for or against any node.
    fn has_no_likings(&self, pod: &PodInfo, cluster: &Snapshot) -> bool {
        let own = pod.affinity();
        let has_own = !own.preferred.is_empty() || !own.anti_preferred.is_empty();
        !has_own && (self.weights.ignore_preferred || !cluster.any_affinity())
    }
}

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn may_help(&self, change: &ClusterChange<'_>, pod: &PodInfo) -> bool {
        match change {
            ClusterChange::AssignedPod { old, new } => hints::after_pod(pod, *old, *new),
            ClusterChange::Node { old, new: Some(new) } => hints::after_node(pod, *old, new),
            ClusterChange::WaitingPod { old, new } => old.metadata.labels != new.metadata.labels,
            ClusterChange::Namespace(_) => true,
            _ => false,
        }
    }

    fn waits_for(&self) -> &'static [&'static str] {
        &[
            "AssignedPod/Add",
            "AssignedPod/Delete",
            "AssignedPod/UpdatePodLabel",
            "Namespace/Update",
            "Node/Add",
            "Node/UpdateNodeLabel",
            "Pod/UpdatePodLabel",
        ]
    }

    fn lasting(&self, pod: &PodInfo, cluster: &Snapshot) -> Option<&dyn Lasting> {
        Some(if pod.affinity().is_empty() && !cluster.any_affinity() { &Indifferent } else { self })
    }
}

impl Lasting for InterPodAffinity {
    fn alike(&self, a: &PodInfo, b: &PodInfo) -> bool {
        let wishes = |pod: &PodInfo| {
            let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref());
            affinity.map(|affinity| (affinity.pod_affinity.clone(), affinity.pod_anti_affinity.clone()))
        };
        a.key().namespace == b.key().namespace && a.labels() == b.labels() && wishes(a) == wishes(b)
    }

    fn facts(&self, _pod: &PodInfo, _cluster: &Snapshot) -> Vec<i64> {
        // Not to be taken for pods in a cluster without wishes.
        vec![1]
    }

    fn standing_filter(&self, pod: &PodInfo, _cluster: &Snapshot) -> Option<Box<dyn StandingFilter>> {
        Some(Box::new(standing::Nearness::new(pod)))
    }

    fn standing_score(&self, pod: &PodInfo, cluster: &Snapshot) -> Option<Box<dyn StandingScore>> {
        if self.weights.ignore_preferred && self.has_no_likings(pod, cluster) {
            return Some(Box::new(standing::Indifference));
        }
        Some(Box::new(standing::Liking::new(self.weights, pod)))
    }
}

/// A number for each value of each topology key.
#[derive(Default)]
struct Counts(BTreeMap<String, BTreeMap<String, i64>>);

impl Counts {
    fn add(&mut self, key: &str, node: &NodeState, by: i64) {
        let Some(value) = node.label(key) else { return };
        let values = self.0.entry(key.to_owned()).or_default();
        *values.entry(value.to_owned()).or_default() += by;
    }

    fn at(&self, key: &str, node: &NodeState) -> i64 {
        node.label(key).and_then(|value| self.0.get(key)?.get(value)).copied().unwrap_or(0)
    }

    fn is_zero(&self) -> bool {
        self.0.values().flat_map(BTreeMap::values).all(|count| *count == 0)
    }
}

struct Nearness<'a> {
    plugin: &'static str,
    pod: &'a PodInfo,
    cluster: &'a Snapshot,
    /// Pods that the pod wants near.
    wanted: Counts,
    /// Pods that the pod wants far.
    unwanted: Counts,
    /// Pods that want the pod far.
    unwelcome: Counts,
}

impl PreFilter for InterPodAffinity {
    fn pre_filter<'a>(&'a self, pod: &'a PodInfo, cluster: &'a Snapshot) -> Prepared<'a> {
        let own = pod.affinity();
        let has_own = !own.required.is_empty() || !own.anti_required.is_empty();
        if !has_own && !cluster.any_affinity() {
            return Prepared::Skip;
        }
        let mut nearness = Nearness {
            plugin: self.name(),
            pod,
            cluster,
            wanted: Counts::default(),
            unwanted: Counts::default(),
            unwelcome: Counts::default(),
        };
        for node in cluster.nodes().filter(|node| has_own || node.any_affinity()) {
            for other in node.pods() {
                nearness.change(other, node, 1);
            }
        }
        Prepared::filter(nearness)
    }
}

impl Nearness<'_> {
    fn matches(&self, term: &AffinityTerm, pod: &PodInfo) -> bool {
        term.matches(pod, self.cluster.namespace_labels(&pod.key().namespace))
    }

    fn change(&mut self, other: &PodInfo, node: &NodeState, by: i64) {
        for term in &other.affinity().anti_required {
            if self.matches(term, self.pod) {
                self.unwelcome.add(&term.topology_key, node, by);
            }
        }
        let own = self.pod.affinity();
        if !own.required.is_empty() && own.required.iter().all(|term| self.matches(term, other)) {
            own.required.iter().for_each(|term| self.wanted.add(&term.topology_key, node, by));
        }
        for term in &own.anti_required {
            if self.matches(term, other) {
                self.unwanted.add(&term.topology_key, node, by);
            }
        }
    }

    fn has_wanted(&self, node: &NodeState) -> bool {
        let required = &self.pod.affinity().required;
        if required.iter().any(|term| node.label(&term.topology_key).is_none()) {
            return false;
        }
        // The first of pods that want to be near each other may go anywhere.
        required.iter().all(|term| self.wanted.at(&term.topology_key, node) > 0)
            || (self.wanted.is_zero() && required.iter().all(|term| self.matches(term, self.pod)))
    }
}

impl Filter for Nearness<'_> {
    fn filter(&self, node: &NodeState) -> Option<Rejection> {
        if !self.has_wanted(node) {
            return Some(Rejection::unresolvable(self.plugin, "node(s) didn't match pod affinity rules"));
        }
        let anti = &self.pod.affinity().anti_required;
        if anti.iter().any(|term| self.unwanted.at(&term.topology_key, node) > 0) {
            return Some(Rejection::new(self.plugin, "node(s) didn't match pod anti-affinity rules"));
        }
        let unwelcome = self.unwelcome.0.keys().any(|key| self.unwelcome.at(key, node) > 0);
        unwelcome.then(|| Rejection::new(self.plugin, "node(s) didn't satisfy existing pods anti-affinity rules"))
    }

    fn add_pod(&mut self, pod: &PodInfo, node: &NodeState) {
        self.change(pod, node, 1);
    }

    fn remove_pod(&mut self, pod: &PodInfo, node: &NodeState) {
        self.change(pod, node, -1);
    }
}

impl PreScore for InterPodAffinity {
    fn pre_score<'a>(
        &'a self,
        pod: &'a PodInfo,
        cluster: &'a Snapshot,
        _: &[&'a NodeState],
    ) -> Option<Box<dyn Score + 'a>> {
        let own = pod.affinity();
        let has_own = !own.preferred.is_empty() || !own.anti_preferred.is_empty();
        if self.has_no_likings(pod, cluster) {
            return None;
        }
        let mut weights = Counts::default();
        for node in cluster.nodes().filter(|node| has_own || node.any_affinity()) {
            for other in node.pods() {
                weigh(self.weights, pod, other, cluster, &mut |key, weight| weights.add(key, node, weight));
            }
        }
        (!weights.0.is_empty()).then(|| Box::new(weights) as Box<dyn Score>)
    }
}

/// What another pod says for and against the domains that it is in: a key, and by how much.
fn weigh(by: Weights, pod: &PodInfo, other: &PodInfo, cluster: &Snapshot, note: &mut dyn FnMut(&str, i64)) {
    let (own, others) = (pod.affinity(), other.affinity());
    let mut weigh = |term: &AffinityTerm, subject: &PodInfo, weight: i64| {
        if term.matches(subject, cluster.namespace_labels(&subject.key().namespace)) {
            note(&term.topology_key, weight);
        }
    };
    own.preferred.iter().for_each(|(weight, term)| weigh(term, other, *weight));
    own.anti_preferred.iter().for_each(|(weight, term)| weigh(term, other, -weight));
    others.required.iter().for_each(|term| weigh(term, pod, by.required));
    others.preferred.iter().for_each(|(weight, term)| weigh(term, pod, *weight));
    others.anti_preferred.iter().for_each(|(weight, term)| weigh(term, pod, -weight));
}

/// Scales scores so that the least becomes 0, and the largest [`MAX_SCORE`].
fn scale_between(scores: &mut [i64]) {
    let (least, most) = (scores.iter().copied().min().unwrap_or(0), scores.iter().copied().max().unwrap_or(0));
    for score in scores {
        let share = if most > least { (*score - least) as f64 / (most - least) as f64 } else { 0.0 };
        *score = (MAX_SCORE as f64 * share) as i64;
    }
}

impl Score for Counts {
    fn score(&self, node: &NodeState) -> i64 {
        self.0.keys().map(|key| self.at(key, node)).sum()
    }

    fn normalize(&self, _nodes: &[&NodeState], scores: &mut [i64]) {
        scale_between(scores);
    }
}
