//! Why a pod goes where it goes: every filter's verdict on every node, every score, and what would have to happen.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use orchestrator_core::scheduler::{NodeState, PodInfo, Rejection, Scheduler, Snapshot, Verdict};

use crate::framework::{Filters, Prepared, Profile};

/// Why a pod goes where it goes.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// What keeps the pod out of the queue.
    pub gates: Vec<Rejection>,
    /// The nodes, by name.
    pub nodes: BTreeMap<String, NodeExplanation>,
    /// The decision.
    pub verdict: Verdict,
    /// The kinds of events after which the pod is tried again, if it was refused.
    pub waits_for: BTreeSet<&'static str>,
}

/// What a pod means to one node.
#[derive(Clone, Debug, Default)]
pub struct NodeExplanation {
    /// Every filter that refuses the node, not only the first, in their order.
    pub refusals: Vec<Rejection>,
    /// Every score, if no filter refuses the node.
    pub scores: Vec<ScoreExplanation>,
}

/// What one plugin thinks of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScoreExplanation {
    /// The plugin.
    pub plugin: &'static str,
    /// In its own unit.
    pub raw: i64,
    /// Between 0 and 100.
    pub normalized: i64,
    /// Times its weight: what counts.
    pub weighted: i64,
}

impl NodeExplanation {
    /// The sum that is compared with that of other nodes; `None` if the node is refused.
    pub fn total(&self) -> Option<i64> {
        self.refusals.is_empty().then(|| self.scores.iter().map(|score| score.weighted).sum())
    }
}

/// Explains the decision about a pod. What ties is broken by `tie`, as in the decision itself.
///
/// ```
/// use orchestrator_core::scheduler::{PodInfo, Snapshot};
/// use orchestrator_scheduler::{explain::explain, framework::Profile};
///
/// let explanation = explain(&Profile::default(), &PodInfo::default(), &Snapshot::default(), 0);
/// assert!(explanation.nodes.is_empty());
/// assert_eq!(explanation.waits_for.first(), Some(&"Node/Add"));
/// ```
pub fn explain(profile: &Profile, pod: &PodInfo, cluster: &Snapshot, tie: u64) -> Explanation {
    let gates = profile.pre_enqueue.iter().filter_map(|plugin| plugin.pre_enqueue(pod, cluster)).collect();
    let mut nodes: BTreeMap<_, _> =
        cluster.nodes().map(|node| (node.name().to_owned(), NodeExplanation::default())).collect();
    refuse(profile, pod, cluster, &mut nodes);
    score(profile, pod, cluster, &mut nodes);
    let verdict = profile.schedule(pod, cluster, tie);
    let waits_for = match &verdict {
        Verdict::Unschedulable(why) => waits_for(profile, &why.plugins()),
        _ => BTreeSet::new(),
    };
    Explanation { gates, nodes, verdict, waits_for }
}

/// Asks every filter about every node. Pods to which a node is promised count as in the decision.
fn refuse(profile: &Profile, pod: &PodInfo, cluster: &Snapshot, nodes: &mut BTreeMap<String, NodeExplanation>) {
    for plugin in &profile.filters {
        match plugin.pre_filter(pod, cluster) {
            Prepared::Skip => {}
            Prepared::Refuse(rejection) => {
                nodes.values_mut().for_each(|node| node.refusals.push(rejection.clone()));
            }
            Prepared::Filter { only, .. } => {
                let alone = std::slice::from_ref(plugin);
                let (mut filters, _) = Filters::prepare(alone, pod, cluster);
                for node in cluster.nodes() {
                    let candidate = only.as_ref().is_none_or(|only| only.contains(node.name()));
                    let rejection = if candidate { filters.refusal(node) } else { filters.only().map(|(_, why)| why) };
                    let explanation = nodes.entry(node.name().to_owned()).or_default();
                    explanation.refusals.extend(rejection);
                }
            }
        }
    }
}

/// Asks every score about the nodes that are left.
fn score(profile: &Profile, pod: &PodInfo, cluster: &Snapshot, nodes: &mut BTreeMap<String, NodeExplanation>) {
    let is_right = |node: &&Arc<NodeState>| nodes.get(node.name()).is_some_and(|node| node.refusals.is_empty());
    let right: Vec<&NodeState> = cluster.nodes().filter(is_right).map(AsRef::as_ref).collect();
    for (weight, plugin) in &profile.scores {
        let Some(score) = plugin.pre_score(pod, cluster, &right) else { continue };
        let raw: Vec<_> = right.iter().map(|node| score.score(node)).collect();
        let mut normalized = raw.clone();
        score.normalize(&right, &mut normalized);
        for ((node, raw), normalized) in right.iter().zip(raw).zip(normalized) {
            let explanation =
                ScoreExplanation { plugin: plugin.name(), raw, normalized, weighted: weight * normalized };
            nodes.entry(node.name().to_owned()).or_default().scores.push(explanation);
        }
    }
}

/// The kinds of events that the plugins which refused say may help.
fn waits_for(profile: &Profile, refused: &[&'static str]) -> BTreeSet<&'static str> {
    if refused.is_empty() {
        return BTreeSet::from(["Node/Add"]);
    }
    let asked = profile.filters.iter().filter(|plugin| refused.contains(&plugin.name()));
    asked.flat_map(|plugin| plugin.waits_for().iter().copied()).collect()
}

impl fmt::Display for Explanation {
    /// A table: a line for each node.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.nodes.keys().map(String::len).max().unwrap_or(0).max(4);
        for gate in &self.gates {
            writeln!(f, "{}: {}", gate.plugin, gate.reasons.join(", "))?;
        }
        for (name, node) in &self.nodes {
            match node.total() {
                Some(total) => {
                    write!(f, "{name:width$}  {total:>5}")?;
                    for score in &node.scores {
                        write!(f, "  {} {}→{}→{}", score.plugin, score.raw, score.normalized, score.weighted)?;
                    }
                    writeln!(f)?;
                }
                None => {
                    let reasons = node.refusals.iter().map(|refusal| {
                        let resolvable = if refusal.unresolvable { "" } else { " (removing pods may help)" };
                        format!("{}: {}{resolvable}", refusal.plugin, refusal.reasons.join(", "))
                    });
                    writeln!(f, "{name:width$}      -  {}", reasons.collect::<Vec<_>>().join("; "))?;
                }
            }
        }
        match &self.verdict {
            Verdict::Node(node) => writeln!(f, "it runs on {node}"),
            Verdict::Gated => writeln!(f, "it must not be scheduled yet"),
            Verdict::Unschedulable(why) => {
                writeln!(f, "{}", why.message())?;
                if let Some(preemption) = &why.preemption {
                    let victims: Vec<_> = preemption.victims.iter().map(|victim| victim.key().to_string()).collect();
                    writeln!(f, "room is made on {} by removing {}", preemption.node, victims.join(", "))?;
                }
                let events: Vec<_> = self.waits_for.iter().copied().collect();
                writeln!(f, "it is tried again after {}", events.join(", "))
            }
            other => writeln!(f, "{other:?}"),
        }
    }
}
