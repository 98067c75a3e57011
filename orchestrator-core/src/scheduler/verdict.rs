//! What a scheduler says, and how it is told to users.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::resource::v1::ResourceClaim;

use super::{PodInfo, Refusals};

/// Where a pod runs, or why nowhere.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Verdict {
    /// On this node.
    Node(String),
    /// Nowhere at present.
    Unschedulable(Box<Unschedulable>),
    /// It must not be scheduled yet: scheduling gates are on it.
    Gated,
}

/// Why a pod runs nowhere at present, and what can be done about it.
#[derive(Clone, Debug, Default)]
pub struct Unschedulable {
    /// How many nodes there are.
    pub nodes: usize,
    /// What went wrong, so that nothing is known of any node: the pod is to be tried again after a while.
    pub failure: Option<String>,
    /// A reason that holds for the whole cluster.
    pub whole: Option<Rejection>,
    /// The reasons of single nodes.
    pub per_node: Refusals,
    /// The reason of all nodes that are not in `per_node`.
    pub others: Option<Rejection>,
    /// What was tried after no node fitted, in words.
    pub afterwards: String,
    /// Room that can be made by removing pods.
    pub preemption: Option<Preemption>,
    /// A claim whose devices are in the way, and which nobody uses: they are to be given back.
    pub give_back: Option<Arc<ResourceClaim>>,
    /// Nothing can be done, and what was promised before is void: the pod's `nominatedNodeName` is to be cleared.
    pub clear_nomination: bool,
}

/// Why a node (or the cluster) is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rejection {
    /// Who refused; empty for schedulers without plugins.
    pub plugin: &'static str,
    /// The reasons, in upstream's words.
    pub reasons: Vec<String>,
    /// Removing pods from the node cannot help.
    pub unresolvable: bool,
    /// Who refused could not find out whether the node is right, which ends the attempt.
    pub failed: bool,
}

/// Pods to remove from a node so that another fits.
#[derive(Clone, Debug)]
pub struct Preemption {
    /// The node.
    pub node: String,
    /// The pods, the most important first.
    pub victims: Vec<Arc<PodInfo>>,
}

impl Rejection {
    /// A refusal that removing pods may resolve.
    pub fn new(plugin: &'static str, reason: impl Into<String>) -> Self {
        Self { plugin, reasons: vec![reason.into()], ..Self::default() }
    }

    /// A refusal that removing pods cannot resolve.
    pub fn unresolvable(plugin: &'static str, reason: impl Into<String>) -> Self {
        Self { unresolvable: true, ..Self::new(plugin, reason) }
    }

    /// Not a refusal: something went wrong.
    pub fn failure(plugin: &'static str, what: impl Into<String>) -> Self {
        Self { failed: true, ..Self::unresolvable(plugin, what) }
    }
}

impl From<Unschedulable> for Verdict {
    fn from(why: Unschedulable) -> Self {
        Self::Unschedulable(Box::new(why))
    }
}

impl Unschedulable {
    /// No reasons yet, on so many nodes.
    pub fn new(nodes: usize) -> Self {
        Self { nodes, ..Self::default() }
    }

    /// Adds a reason of a node.
    pub fn reject(&mut self, node: &str, reason: impl Into<String>) {
        let mut rejection = self.per_node.get(node).cloned().unwrap_or_default();
        rejection.reasons.push(reason.into());
        self.per_node.insert(node, rejection);
    }

    /// Why a node is refused.
    pub fn of_node(&self, node: &str) -> Option<&Rejection> {
        self.per_node.get(node).or(self.others.as_ref()).or(self.whole.as_ref())
    }

    /// Who refused any node, each once and in order.
    pub fn plugins(&self) -> Vec<&'static str> {
        let rejections = self.per_node.reasons().map(|(rejection, _)| rejection).chain(&self.others).chain(&self.whole);
        let mut plugins: Vec<_> = rejections.map(|rejection| rejection.plugin).collect();
        plugins.sort_unstable();
        plugins.dedup();
        plugins
    }

    /// All of it in upstream's words, as in the `PodScheduled` condition.
    pub fn message(&self) -> String {
        if let Some(failure) = &self.failure {
            return failure.clone();
        }
        if self.nodes == 0 {
            return "no nodes available to schedule pods".to_owned();
        }
        let mut message = format!("0/{} nodes are available:", self.nodes);
        if let Some(whole) = &self.whole {
            message += &format!(" {}.", whole.reasons.join(", "));
        } else {
            let counted = self.counted_reasons();
            if !counted.is_empty() {
                message += &format!(" {}.", counted.join(", "));
            }
        }
        if !self.afterwards.is_empty() {
            message += &format!(" {}", self.afterwards);
        }
        message
    }

    /// `3 Insufficient cpu` for each reason, sorted as texts.
    fn counted_reasons(&self) -> Vec<String> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (rejection, nodes) in self.per_node.reasons() {
            rejection.reasons.iter().for_each(|reason| *counts.entry(reason).or_default() += nodes);
        }
        let absent = self.nodes.saturating_sub(self.per_node.len());
        for reason in self.others.iter().filter(|_| absent > 0).flat_map(|rejection| &rejection.reasons) {
            *counts.entry(reason).or_default() += absent;
        }
        let mut counted: Vec<_> = counts.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        counted.sort_unstable();
        counted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted_and_sorted_as_texts() {
        let mut why = Unschedulable::new(12);
        for node in 0..10 {
            why.reject(&format!("n{node}"), "Insufficient cpu");
        }
        why.reject("n0", "Insufficient memory");
        why.others = Some(Rejection::unresolvable("NodeName", "node(s) were unschedulable"));
        why.afterwards = "preemption: none.".to_owned();
        assert_eq!(
            why.message(),
            "0/12 nodes are available: 1 Insufficient memory, 10 Insufficient cpu, 2 node(s) were unschedulable. \
             preemption: none."
        );
        assert_eq!(why.plugins(), ["", "NodeName"]);
    }
}
