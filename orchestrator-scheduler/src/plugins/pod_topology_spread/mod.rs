//! `PodTopologySpread`: pods of a kind evenly over zones, hosts or other domains.
//!
//! <https://kubernetes.io/docs/concepts/scheduling-eviction/topology-spread-constraints/>

mod constraint;
mod defaults;
mod score;
mod standing;

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Node, Pod, TopologySpreadConstraint},
    apimachinery::pkg::apis::meta::v1::LabelSelector as Written,
};
use orchestrator_core::scheduler::{ClusterChange, NodeState, PodInfo, Rejection, Snapshot, matching::taints};

use self::constraint::{Constraint, has_all_keys};
pub use self::defaults::Defaults;
use crate::framework::{
    Filter, Indifferent, Lasting, Plugin, PreFilter, PreScore, Prepared, Score, StandingFilter, StandingScore,
};

const MISSING_LABEL: &str = "node(s) didn't match pod topology spread constraints (missing required label)";
const TOO_UNEVEN: &str = "node(s) didn't match pod topology spread constraints";
const HARD: &str = "DoNotSchedule";
const SOFT: &str = "ScheduleAnyway";

/// Refuses nodes that would make pods too unevenly spread; prefers those that make it more even.
#[derive(Clone, Debug, Default)]
pub struct PodTopologySpread {
    defaults: Defaults,
}

/// What a pod's spread has to keep to.
struct Constraints {
    list: Vec<Constraint>,
    /// Nodes without all of the labels are left aside.
    all_keys: bool,
}

impl PodTopologySpread {
    /// With constraints for pods that have none.
    pub fn new(defaults: Defaults) -> Self {
        Self { defaults }
    }

    fn constraints(&self, pod: &PodInfo, cluster: &Snapshot, when: &str) -> Constraints {
        let own = own_constraints(pod);
        if !own.is_empty() {
            let of_kind = own.iter().filter(|constraint| constraint.when_unsatisfiable == when);
            let list = of_kind.map(|of| Constraint::new(of, of.label_selector.as_ref(), pod)).collect();
            return Constraints { list, all_keys: true };
        }
        let defaults = self.defaults.constraints();
        let of_kind: Vec<_> = defaults.iter().filter(|constraint| constraint.when_unsatisfiable == when).collect();
        let fellows = if of_kind.is_empty() { None } else { defaults::fellows(pod, &cluster.workloads) };
        let list = fellows.iter().flat_map(|fellows| of_kind.iter().map(|of| Constraint::new(of, Some(fellows), pod)));
        Constraints { list: list.collect(), all_keys: self.defaults != Defaults::System }
    }

    /// Whether a change of another pod changes how many count.
    fn recounts(&self, pod: &PodInfo, old: Option<&Pod>, new: Option<&Pod>) -> bool {
        let constraints = self.hard(pod);
        let labels = |of: &Pod| of.metadata.labels.clone().unwrap_or_default();
        let counts = |of: &Pod| {
            let labels = labels(of);
            constraints.iter().map(|constraint| constraint.counts(&labels)).collect::<Vec<_>>()
        };
        let elsewhere = |of: &Pod| of.metadata.namespace.as_deref() != Some(&pod.key().namespace);
        match (old, new) {
            (Some(either), _) | (None, Some(either)) if elsewhere(either) => false,
            (Some(old), Some(new)) => counts(old) != counts(new),
            (Some(either), None) | (None, Some(either)) => counts(either).contains(&true),
            (None, None) => false,
        }
    }

    /// Constraints that refuse nodes; those that are the default are taken for such that count every pod.
    fn hard(&self, pod: &PodInfo) -> Vec<Constraint> {
        let own = own_constraints(pod);
        let everybody = Written::default();
        if own.is_empty() {
            let hard = self.defaults.constraints().into_iter().filter(|of| of.when_unsatisfiable == HARD);
            return hard.map(|of| Constraint::new(&of, Some(&everybody), pod)).collect();
        }
        let hard = own.iter().filter(|of| of.when_unsatisfiable == HARD);
        hard.map(|of| Constraint::new(of, of.label_selector.as_ref(), pod)).collect()
    }
}

fn own_constraints(pod: &PodInfo) -> &[TopologySpreadConstraint] {
    pod.spec.as_ref().and_then(|spec| spec.topology_spread_constraints.as_deref()).unwrap_or_default()
}

impl Plugin for PodTopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn may_help(&self, change: &ClusterChange<'_>, pod: &PodInfo) -> bool {
        match change {
            ClusterChange::Node { old, new } => {
                let constraints = self.hard(pod);
                let domains = |node: &Node| {
                    let labels = node.metadata.labels.as_ref();
                    let domain = |constraint: &Constraint| labels?.get(&constraint.key).cloned();
                    constraints.iter().map(domain).collect::<Option<Vec<_>>>()
                };
                let (was, is) = (old.and_then(domains), new.and_then(domains));
                let taints = |node: &Option<&Node>| node.map(|node| taints(node).to_vec());
                was != is || (is.is_some() && taints(old) != taints(new))
            }
            ClusterChange::WaitingPod { old, new } => {
                let tolerations = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.tolerations.clone());
                let honored = self.hard(pod).iter().any(|constraint| constraint.honors_taints);
                (honored && tolerations(old) != tolerations(new)) || self.recounts(pod, Some(old), Some(new))
            }
            ClusterChange::AssignedPod { old, new } => self.recounts(pod, *old, *new),
            _ => false,
        }
    }

    fn waits_for(&self) -> &'static [&'static str] {
        &[
            "AssignedPod/Add",
            "AssignedPod/Delete",
            "AssignedPod/UpdatePodLabel",
            "Node/Add",
            "Node/Delete",
            "Node/UpdateNodeLabel",
            "Node/UpdateNodeTaint",
            "Pod/UpdatePodLabel",
            "Pod/UpdatePodToleration",
        ]
    }

    fn lasting(&self, pod: &PodInfo, cluster: &Snapshot) -> Option<&dyn Lasting> {
        let none = own_constraints(pod).is_empty() && defaults::fellows(pod, &cluster.workloads).is_none();
        Some(if none { &Indifferent } else { self })
    }
}

impl Lasting for PodTopologySpread {
    fn alike(&self, a: &PodInfo, b: &PodInfo) -> bool {
        let looks_at = |pod: &PodInfo| {
            let spec = pod.spec.as_ref()?;
            let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.clone());
            Some((affinity, spec.node_selector.clone(), spec.tolerations.clone()))
        };
        own_constraints(a) == own_constraints(b)
            && a.key().namespace == b.key().namespace
            && a.labels() == b.labels()
            && looks_at(a) == looks_at(b)
    }

    fn facts(&self, pod: &PodInfo, cluster: &Snapshot) -> Vec<i64> {
        // Not to be taken for pods without constraints; default constraints follow from services and sets.
        let fellows = defaults::fellows(pod, &cluster.workloads).filter(|_| own_constraints(pod).is_empty());
        let fellows = fellows.and_then(|fellows| serde_json::to_vec(&fellows).ok()).unwrap_or_default();
        std::iter::once(1).chain(fellows.into_iter().map(i64::from)).collect()
    }

    fn standing_filter(&self, pod: &PodInfo, cluster: &Snapshot) -> Option<Box<dyn StandingFilter>> {
        Some(Box::new(standing::Skew::new(pod, self.constraints(pod, cluster, HARD))))
    }

    fn standing_score(&self, pod: &PodInfo, cluster: &Snapshot) -> Option<Box<dyn StandingScore>> {
        Some(Box::new(standing::Evenness::new(pod, self.constraints(pod, cluster, SOFT))))
    }
}

/// How many pods count in each domain of each constraint.
struct Spread<'a> {
    plugin: &'static str,
    pod: &'a PodInfo,
    constraints: Vec<(Constraint, BTreeMap<&'a str, i64>)>,
}

impl PreFilter for PodTopologySpread {
    fn pre_filter<'a>(&'a self, pod: &'a PodInfo, cluster: &'a Snapshot) -> Prepared<'a> {
        let constraints = self.constraints(pod, cluster, HARD).list;
        if constraints.is_empty() {
            return Prepared::Skip;
        }
        let mut counts = vec![BTreeMap::new(); constraints.len()];
        for node in cluster.nodes().filter(|node| has_all_keys(node, &constraints)) {
            for (constraint, counts) in constraints.iter().zip(&mut counts) {
                if let Some(domain) =
                    node.label(&constraint.key).filter(|_| constraint.includes(pod.spec.as_ref(), node))
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
            let Some(domain) = node.label(&constraint.key) else {
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
        if !self.constraints.iter().all(|(constraint, _)| node.label(&constraint.key).is_some()) {
            return;
        }
        for (constraint, counts) in &mut self.constraints {
            let count = node.label(&constraint.key).and_then(|domain| counts.get_mut(domain));
            if let Some(count) = count
                && constraint.counts(pod.labels())
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
        let constraints = self.constraints(pod, cluster, SOFT);
        (!constraints.list.is_empty())
            .then(|| Box::new(score::Evenness::new(constraints, pod, cluster, nodes)) as Box<dyn Score>)
    }
}
