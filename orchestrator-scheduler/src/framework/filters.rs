//! The filters of one pod's scheduling, prepared, and the supposition that other pods came or went.

use std::{collections::BTreeSet, fmt, sync::Arc};

use orchestrator_core::scheduler::{NodeState, PodInfo, Refusals, Rejection, Snapshot};

use super::{Filter, PreFilter, Prepared};

/// The filters of one pod's scheduling.
pub struct Filters<'a> {
    pod: &'a PodInfo,
    cluster: &'a Snapshot,
    filters: Vec<Box<dyn Filter + 'a>>,
    only: Option<BTreeSet<String>>,
    limited_by: BTreeSet<&'static str>,
}

impl fmt::Debug for Filters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filters").field("pod", &self.pod).field("only", &self.only).finish_non_exhaustive()
    }
}

impl<'a> Filters<'a> {
    /// Lets plugins look at the pod. A refusal holds for all nodes.
    pub fn prepare(
        plugins: impl IntoIterator<Item = &'a Arc<dyn PreFilter>>,
        pod: &'a PodInfo,
        cluster: &'a Snapshot,
    ) -> (Self, Option<Rejection>) {
        let mut filters = Self { pod, cluster, filters: Vec::new(), only: None, limited_by: BTreeSet::new() };
        for plugin in plugins {
            match plugin.pre_filter(pod, cluster) {
                Prepared::Skip => {}
                Prepared::Refuse(rejection) => return (filters, Some(rejection)),
                Prepared::Filter { only, filter } => {
                    filters.filters.push(filter);
                    if let Some(rejection) = only.and_then(|only| filters.limit(plugin.name(), only)) {
                        return (filters, Some(rejection));
                    }
                }
            }
        }
        (filters, None)
    }

    fn limit(&mut self, plugin: &'static str, nodes: BTreeSet<String>) -> Option<Rejection> {
        self.limited_by.insert(plugin);
        let nodes = match self.only.take() {
            Some(before) => before.intersection(&nodes).cloned().collect(),
            None => nodes,
        };
        let nothing = nodes.is_empty();
        self.only = Some(nodes);
        nothing.then(|| {
            let reason = if self.limited_by.len() == 1 {
                format!("node(s) didn't satisfy plugin {plugin}")
            } else {
                format!("node(s) didn't satisfy plugin(s) {} simultaneously", self.limited_by())
            };
            Rejection::unresolvable(plugin, reason)
        })
    }

    fn limited_by(&self) -> String {
        format!("[{}]", self.limited_by.iter().copied().collect::<Vec<_>>().join(" "))
    }

    /// The only nodes that can be right, and why all others are not.
    pub fn only(&self) -> Option<(&BTreeSet<String>, Rejection)> {
        let plugin = self.limited_by.first().copied().unwrap_or_default();
        let reason = format!("node(s) didn't satisfy plugin(s) {}", self.limited_by());
        self.only.as_ref().map(|only| (only, Rejection::unresolvable(plugin, reason)))
    }

    /// Why a node is refused: by the first filter that does, with the pods on it and those it was promised to.
    pub fn refusal(&mut self, node: &NodeState) -> Option<Rejection> {
        let promised = self.promised(node);
        if promised.is_empty() {
            return self.refusal_as_is(node);
        }
        let mut with_promised = node.clone();
        for pod in &promised {
            self.suppose(pod, &mut with_promised);
        }
        let refusal = self.refusal_as_is(&with_promised);
        for pod in &promised {
            self.suppose_gone(pod, &mut with_promised);
        }
        // What is promised may never come, so the node must be right without it, too.
        refusal.or_else(|| self.refusal_as_is(node))
    }

    fn refusal_as_is(&self, node: &NodeState) -> Option<Rejection> {
        self.filters.iter().find_map(|filter| filter.filter(node))
    }

    /// The pods at least as important that the node was promised to.
    fn promised(&self, node: &NodeState) -> Vec<Arc<PodInfo>> {
        let pods = self.cluster.nominated(node.name());
        let counts = |pod: &&Arc<PodInfo>| pod.priority() >= self.pod.priority() && pod.key() != self.pod.key();
        pods.filter(counts).cloned().collect()
    }

    /// From now on, suppose that this pod were on the node.
    pub fn suppose(&mut self, pod: &Arc<PodInfo>, node: &mut NodeState) {
        node.add_pod(pod.clone());
        self.filters.iter_mut().for_each(|filter| filter.add_pod(pod, node));
    }

    /// From now on, suppose that this pod were not on the node.
    pub fn suppose_gone(&mut self, pod: &Arc<PodInfo>, node: &mut NodeState) {
        node.remove_pod(pod.key());
        self.filters.iter_mut().for_each(|filter| filter.remove_pod(pod, node));
    }

    /// The node that the pod was promised, if it is right.
    pub fn promised_node(&mut self) -> Option<String> {
        let node = self.cluster.node(self.pod.nominated_node_name()?)?;
        let candidate = self.only.as_ref().is_none_or(|only| only.contains(node.name()));
        (candidate && self.refusal(node).is_none()).then(|| node.name().to_owned())
    }

    /// Looks at nodes: those that are right, and why the others are not.
    pub fn feasible<'n>(&mut self, nodes: &[&'n NodeState]) -> (Vec<&'n NodeState>, Refusals) {
        let mut right = Vec::new();
        let mut refused = Refusals::default();
        for node in nodes {
            match self.refusal(node) {
                Some(rejection) => refused.insert(node.name(), rejection),
                None => right.push(*node),
            }
        }
        (right, refused)
    }
}
