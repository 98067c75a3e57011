//! A profile: plugins put together, as a scheduler.

use std::{fmt, sync::Arc};

use orchestrator_core::scheduler::{ClusterChange, NodeState, PodInfo, Scheduler, Snapshot, Unschedulable, Verdict};

use super::{
    Afterwards, Bind, Filters, Permit, PostBind, PostFilter, PreBind, PreEnqueue, PreFilter, PreScore, QueueSort,
    Reserve,
};
use crate::plugins;

/// The name of the scheduler that pods ask for unless they say otherwise.
pub const DEFAULT_SCHEDULER_NAME: &str = "default-scheduler";

/// Plugins put together under a name. Change the lists to change what it does.
#[derive(Clone)]
pub struct Profile {
    /// Pods ask for it by this name, in `spec.schedulerName`.
    pub name: String,
    /// Keep pods out of the queue.
    pub pre_enqueue: Vec<Arc<dyn PreEnqueue>>,
    /// Orders the waiting pods.
    pub queue_sort: Arc<dyn QueueSort>,
    /// Filters, in order: the first that refuses gives the reason.
    pub filters: Vec<Arc<dyn PreFilter>>,
    /// Asked in order when no node is right, until one makes room.
    pub post_filters: Vec<Arc<dyn PostFilter>>,
    /// Scores and their weights.
    pub scores: Vec<(i64, Arc<dyn PreScore>)>,
    /// Asked in order once a node is chosen.
    pub reserve: Vec<Arc<dyn Reserve>>,
    /// Waited for, in order.
    pub permit: Vec<Arc<dyn Permit>>,
    /// Done, in order, before the pod is bound.
    pub pre_bind: Vec<Arc<dyn PreBind>>,
    /// Asked in order until one binds.
    pub bind: Vec<Arc<dyn Bind>>,
    /// Told, in order, that the pod is bound.
    pub post_bind: Vec<Arc<dyn PostBind>>,
}

impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.filters.iter().map(|plugin| plugin.name()).collect();
        f.debug_struct("Profile").field("name", &self.name).field("filters", &names).finish_non_exhaustive()
    }
}

impl Default for Profile {
    /// Upstream's default profile.
    fn default() -> Self {
        plugins::default_profile(DEFAULT_SCHEDULER_NAME, plugins::Strategy::LeastAllocated)
    }
}

impl Profile {
    /// As the default, but fills nodes up before it uses others.
    pub fn packing(name: &str) -> Self {
        plugins::default_profile(name, plugins::Strategy::MostAllocated)
    }

    /// Whether a pod must not be scheduled yet.
    pub fn is_gated(&self, pod: &PodInfo, cluster: &Snapshot) -> bool {
        self.pre_enqueue.iter().any(|plugin| plugin.pre_enqueue(pod, cluster).is_some())
    }

    /// The verdict on a pod that no node is right for. `ask` asks a post-filter, by its place.
    pub(super) fn unschedulable(
        &self,
        mut why: Unschedulable,
        mut ask: impl FnMut(usize, &dyn PostFilter, &Unschedulable) -> Afterwards,
    ) -> Verdict {
        let mut words = Vec::new();
        for (at, plugin) in self.post_filters.iter().enumerate() {
            match ask(at, plugin.as_ref(), &why) {
                Afterwards::Preempt(preemption) => {
                    why.preemption = Some(preemption);
                    return why.into();
                }
                Afterwards::GiveBack(claim, text) => {
                    why.give_back = Some(claim);
                    words.push(text);
                }
                Afterwards::Nothing(text) => words.push(text),
                Afterwards::Hopeless(text) => {
                    why.clear_nomination = true;
                    words.push(text);
                }
            }
        }
        why.afterwards = words.join(", ");
        why.into()
    }

    /// The best of some nodes, and any of the best by `tie`.
    fn best<'a>(&self, pod: &PodInfo, cluster: &Snapshot, nodes: &[&'a NodeState], tie: u64) -> Option<&'a NodeState> {
        if let [only] = nodes {
            return Some(only);
        }
        let mut totals = vec![0_i64; nodes.len()];
        for (weight, plugin) in &self.scores {
            let Some(score) = plugin.pre_score(pod, cluster, nodes) else { continue };
            let mut scores: Vec<_> = nodes.iter().map(|node| score.score(node)).collect();
            score.normalize(nodes, &mut scores);
            for (total, score) in totals.iter_mut().zip(scores) {
                *total += weight * score;
            }
        }
        let best = totals.iter().copied().max()?;
        let best: Vec<_> =
            nodes.iter().zip(totals).filter(|(_, total)| *total == best).map(|(node, _)| *node).collect();
        best.get((tie % best.len() as u64) as usize).copied()
    }
}

impl Scheduler for Profile {
    fn schedule(&self, pod: &PodInfo, cluster: &Snapshot, tie: u64) -> Verdict {
        if self.is_gated(pod, cluster) {
            return Verdict::Gated;
        }
        let mut why = Unschedulable::new(cluster.len());
        if cluster.is_empty() {
            return why.into();
        }
        let (mut filters, refusal) = Filters::prepare(&self.filters, pod, cluster);
        if let Some(refusal) = refusal {
            if refusal.failed {
                why.failure =
                    Some(format!("running PreFilter plugin {:?}: {}", refusal.plugin, refusal.reasons.join(", ")));
                return why.into();
            }
            why.whole = Some(refusal);
            return self.unschedulable(why, |_, plugin, why| plugin.post_filter(pod, cluster, why, &mut filters, tie));
        }
        if let Some(node) = filters.promised_node() {
            return Verdict::Node(node);
        }
        let nodes: Vec<&NodeState> = match filters.only() {
            Some((only, others)) => {
                why.others = Some(others);
                only.iter().filter_map(|name| cluster.node(name)).map(AsRef::as_ref).collect()
            }
            None => cluster.nodes().map(AsRef::as_ref).collect(),
        };
        let (right, refused) = filters.feasible(&nodes);
        if let Some((failed, _)) = refused.reasons().find(|(rejection, _)| rejection.failed) {
            why.failure = Some(format!("running {:?} filter plugin: {}", failed.plugin, failed.reasons.join(", ")));
            return why.into();
        }
        match self.best(pod, cluster, &right, tie) {
            Some(node) => Verdict::Node(node.name().to_owned()),
            None => {
                why.per_node = refused;
                self.unschedulable(why, |_, plugin, why| plugin.post_filter(pod, cluster, why, &mut filters, tie))
            }
        }
    }

    fn may_help(&self, change: &ClusterChange<'_>, pod: &PodInfo, why: &Unschedulable) -> bool {
        let refused = why.plugins();
        let mut asked = self.filters.iter().filter(|plugin| refused.contains(&plugin.name()));
        // Refusals by whom this profile does not know may end by anything.
        let known = |name: &&&str| self.filters.iter().any(|plugin| plugin.name() == **name);
        refused.iter().any(|name| !known(&name))
            || refused.is_empty()
            || asked.any(|plugin| plugin.may_help(change, pod))
    }

    fn wait_alike(&self, a: &PodInfo, b: &PodInfo, why: &Unschedulable, cluster: &Snapshot) -> bool {
        let refused = why.plugins();
        let mut asked = self.filters.iter().filter(|plugin| refused.contains(&plugin.name()));
        asked.all(|plugin| {
            let lasting = plugin.lasting(a, cluster).zip(plugin.lasting(b, cluster));
            lasting.is_some_and(|(plugin, _)| plugin.alike(a, b))
        })
    }
}
