//! `NodeAffinity`: the nodes a pod must have and those it likes, by their labels.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    Node, NodeAffinity as Added, NodeSelector, NodeSelectorTerm, PodSpec, PreferredSchedulingTerm,
};
use orchestrator_core::scheduler::{
    ClusterChange, NodeState, PodInfo, Rejection, Snapshot,
    matching::{node_affinity_matches, node_preference, node_selector_matches, required_node_affinity, terms_weight},
};

use crate::framework::{Filter, Lasting, Plugin, PreFilter, PreScore, Prepared, Scaling, Score};

/// Refuses nodes that the pod's node selector or affinity does not match; prefers those it likes.
#[derive(Clone, Debug, Default)]
pub struct NodeAffinity {
    /// What all pods have besides their own.
    added: Option<Added>,
}

impl NodeAffinity {
    /// With an affinity that all pods have besides their own.
    pub fn new(added: Option<Added>) -> Self {
        Self { added }
    }

    fn added_selector(&self) -> Option<&NodeSelector> {
        self.added.as_ref()?.required_during_scheduling_ignored_during_execution.as_ref()
    }

    fn added_preferences(&self) -> Option<&[PreferredSchedulingTerm]> {
        self.added.as_ref()?.preferred_during_scheduling_ignored_during_execution.as_deref()
    }
}

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn may_help(&self, change: &ClusterChange<'_>, pod: &PodInfo) -> bool {
        let ClusterChange::Node { old, new: Some(new) } = change else { return false };
        let right = |node: &Node| {
            self.added_selector().is_none_or(|selector| node_selector_matches(selector, node))
                && pod.spec.as_ref().is_none_or(|spec| node_affinity_matches(spec, node))
        };
        right(new) && !old.is_some_and(right)
    }

    fn waits_for(&self) -> &'static [&'static str] {
        &["Node/Add", "Node/UpdateNodeLabel"]
    }

    fn lasting(&self, _pod: &PodInfo, _cluster: &Snapshot) -> Option<&dyn Lasting> {
        Some(self)
    }
}

impl Lasting for NodeAffinity {
    fn alike(&self, a: &PodInfo, b: &PodInfo) -> bool {
        let wishes = |pod: &PodInfo| {
            let spec = pod.spec.as_ref()?;
            let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.clone());
            Some((spec.node_selector.clone(), affinity))
        };
        wishes(a) == wishes(b)
    }
}

impl PreFilter for NodeAffinity {
    fn pre_filter<'a>(&'a self, pod: &'a PodInfo, _cluster: &'a Snapshot) -> Prepared<'a> {
        let Some(spec) = &pod.spec else { return Prepared::Skip };
        let required = required_node_affinity(spec);
        if required.is_none()
            && self.added_selector().is_none()
            && spec.node_selector.as_ref().is_none_or(|selector| selector.is_empty())
        {
            return Prepared::Skip;
        }
        let only = required.and_then(|selector| named_nodes(&selector.node_selector_terms));
        if only.as_ref().is_some_and(BTreeSet::is_empty) {
            return Prepared::Refuse(Rejection::unresolvable(self.name(), "pod affinity terms conflict"));
        }
        Prepared::Filter { only, filter: Box::new(Matches { plugin: self, spec }) }
    }
}

struct Matches<'a> {
    plugin: &'a NodeAffinity,
    spec: &'a PodSpec,
}

impl Filter for Matches<'_> {
    fn filter(&self, node: &NodeState) -> Option<Rejection> {
        let reason = if self.plugin.added_selector().is_some_and(|added| !node_selector_matches(added, node.node())) {
            "node(s) didn't match scheduler-enforced node affinity"
        } else if !node_affinity_matches(self.spec, node.node()) {
            "node(s) didn't match Pod's node affinity/selector"
        } else {
            return None;
        };
        Some(Rejection::unresolvable(self.plugin.name(), reason))
    }
}

/// The nodes that terms name, if every term names some.
fn named_nodes(terms: &[NodeSelectorTerm]) -> Option<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    for term in terms {
        let fields = term.match_fields.iter().flatten();
        let named = fields.filter(|field| field.key == "metadata.name" && field.operator == "In");
        let named = named.map(|field| field.values.iter().flatten().cloned().collect::<BTreeSet<_>>());
        all.extend(named.reduce(|a, b| a.intersection(&b).cloned().collect())?);
    }
    (!terms.is_empty()).then_some(all)
}

impl PreScore for NodeAffinity {
    fn pre_score<'a>(&'a self, pod: &'a PodInfo, _: &'a Snapshot, _: &[&'a NodeState]) -> Option<Box<dyn Score + 'a>> {
        let spec = pod.spec.as_ref()?;
        let own = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        let own = own.and_then(|affinity| affinity.preferred_during_scheduling_ignored_during_execution.as_ref());
        let added = self.added_preferences();
        (own.is_some() || added.is_some()).then(|| Box::new(Preference { spec, added }) as Box<dyn Score>)
    }
}

struct Preference<'a> {
    spec: &'a PodSpec,
    added: Option<&'a [PreferredSchedulingTerm]>,
}

impl Score for Preference<'_> {
    fn score(&self, node: &NodeState) -> i64 {
        node_preference(self.spec, node.node()) + terms_weight(self.added.unwrap_or_default(), node.node())
    }

    fn scaling(&self) -> Scaling {
        Scaling::ToLargest { reverse: false }
    }
}
