//! A profile: plugins put together, as a scheduler.

use std::{fmt, sync::Arc};

use orchestrator_core::scheduler::{
    ClusterChange, NodeState, PodInfo, Refusals, Scheduler, Snapshot, Unschedulable, Verdict,
};

use super::{
    Afterwards, Bind, Filters, Permit, PostBind, PostFilter, PreBind, PreEnqueue, PreFilter, PreScore, QueueSort,
    Reserve,
};
use crate::{
    extender::{Advice, Answers, Extender, Question, Stop},
    plugins,
};

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
    /// Programs beside the scheduler, asked in order by the running one; who decides without it does without them.
    pub extenders: Vec<Arc<dyn Extender>>,
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

    /// Whether extenders have to be asked before it is decided about a pod.
    pub(crate) fn asks_about(&self, pod: &PodInfo) -> bool {
        self.extenders.iter().any(|extender| {
            let duties = extender.duties();
            (duties.filters || duties.preempts || duties.prioritizes.is_some()) && extender.is_interested(pod)
        })
    }

    /// The verdict that follows from what extenders have said so far, or what one has to be asked first.
    pub(crate) fn decide(
        &self,
        pod: &PodInfo,
        cluster: &Snapshot,
        tie: u64,
        answers: &Answers,
    ) -> Result<Verdict, Question> {
        match self.verdict(pod, cluster, tie, &Advice::new(&self.extenders, pod, answers)) {
            Ok(verdict) => Ok(verdict),
            Err(Stop::Ask(question)) => Err(question),
            Err(Stop::Failed(failure)) => {
                Ok(Unschedulable { failure: Some(failure), ..Unschedulable::new(cluster.len()) }.into())
            }
        }
    }

    fn verdict(&self, pod: &PodInfo, cluster: &Snapshot, tie: u64, advice: &Advice<'_>) -> Result<Verdict, Stop> {
        if self.is_gated(pod, cluster) {
            return Ok(Verdict::Gated);
        }
        let mut why = Unschedulable::new(cluster.len());
        if cluster.is_empty() {
            return Ok(why.into());
        }
        let (mut filters, refusal) = Filters::prepare(&self.filters, pod, cluster);
        if let Some(refusal) = refusal {
            if refusal.failed {
                let (plugin, reasons) = (refusal.plugin, refusal.reasons.join(", "));
                why.failure = Some(format!("running PreFilter plugin {plugin:?}: {reasons}"));
                return Ok(why.into());
            }
            why.whole = Some(refusal);
            return self
                .unschedulable(why, |_, plugin, why| make_room(plugin, pod, cluster, why, &mut filters, tie, advice));
        }
        if let Some(promised) = filters.promised_node().and_then(|name| cluster.node(&name)) {
            match advice.filter(vec![promised], &mut Refusals::default()) {
                Ok(right) if !right.is_empty() => return Ok(Verdict::Node(promised.name().to_owned())),
                Err(Stop::Ask(question)) => return Err(Stop::Ask(question)),
                // It is looked at again with all others.
                Ok(_) | Err(Stop::Failed(_)) => {}
            }
        }
        let nodes: Vec<&NodeState> = match filters.only() {
            Some((only, others)) => {
                why.others = Some(others);
                only.iter().filter_map(|name| cluster.node(name)).map(AsRef::as_ref).collect()
            }
            None => cluster.nodes().map(AsRef::as_ref).collect(),
        };
        let (right, mut refused) = filters.feasible(&nodes);
        if let Some((failed, _)) = refused.reasons().find(|(rejection, _)| rejection.failed) {
            why.failure = Some(format!("running {:?} filter plugin: {}", failed.plugin, failed.reasons.join(", ")));
            return Ok(why.into());
        }
        let right = advice.filter(right, &mut refused)?;
        match self.best(pod, cluster, &right, tie, advice)? {
            Some(node) => Ok(Verdict::Node(node.name().to_owned())),
            None => {
                why.per_node = refused;
                self.unschedulable(why, |_, plugin, why| {
                    make_room(plugin, pod, cluster, why, &mut filters, tie, advice)
                })
            }
        }
    }

    /// The verdict on a pod that no node is right for. `ask` asks a post-filter, by its place.
    pub(super) fn unschedulable(
        &self,
        mut why: Unschedulable,
        mut ask: impl FnMut(usize, &dyn PostFilter, &Unschedulable) -> Result<Afterwards, Stop>,
    ) -> Result<Verdict, Stop> {
        let mut words = Vec::new();
        for (at, plugin) in self.post_filters.iter().enumerate() {
            match ask(at, plugin.as_ref(), &why)? {
                Afterwards::Preempt(preemption) => {
                    why.preemption = Some(preemption);
                    return Ok(why.into());
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
        Ok(why.into())
    }

    /// The best of some nodes, and any of the best by `tie`.
    fn best<'a>(
        &self,
        pod: &PodInfo,
        cluster: &Snapshot,
        nodes: &[&'a NodeState],
        tie: u64,
        advice: &Advice<'_>,
    ) -> Result<Option<&'a NodeState>, Stop> {
        if let [] | [_] = nodes {
            return Ok(nodes.first().copied());
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
        let advised = advice.scores(nodes)?;
        for (total, node) in totals.iter_mut().zip(nodes) {
            *total = total.saturating_add(advised.get(node.name()).copied().unwrap_or(0));
        }
        let best = totals.iter().copied().max();
        let best: Vec<_> =
            nodes.iter().zip(totals).filter(|(_, total)| Some(*total) == best).map(|(node, _)| *node).collect();
        Ok(best.get((tie % best.len() as u64) as usize).copied())
    }
}

/// What a post-filter can do, with the say that extenders have in it.
fn make_room(
    plugin: &dyn PostFilter,
    pod: &PodInfo,
    cluster: &Snapshot,
    why: &Unschedulable,
    filters: &mut Filters<'_>,
    tie: u64,
    advice: &Advice<'_>,
) -> Result<Afterwards, Stop> {
    let afterwards = plugin.post_filter(pod, cluster, why, filters, tie);
    if !advice.preempts() || !matches!(afterwards, Afterwards::Preempt(_)) {
        return Ok(afterwards);
    }
    match advice.preempt(plugin.offers(pod, cluster, why, filters, tie), cluster) {
        Ok(left) => Ok(match plugin.choose(left) {
            Some(preemption) => Afterwards::Preempt(preemption),
            None => Afterwards::Nothing("preemption: no candidate node for preemption".to_owned()),
        }),
        Err(Stop::Failed(failure)) => Ok(Afterwards::Nothing(format!("preemption: {failure}"))),
        Err(question) => Err(question),
    }
}

impl Scheduler for Profile {
    fn schedule(&self, pod: &PodInfo, cluster: &Snapshot, tie: u64) -> Verdict {
        let answers = Answers::default();
        let verdict = self.verdict(pod, cluster, tie, &Advice::new(&[], pod, &answers));
        // Nobody is there to be asked.
        verdict.unwrap_or_else(|_| Unschedulable::new(cluster.len()).into())
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
