//! `DefaultPreemption`: room for a pod by removing less important ones, as few and as unimportant as possible.
//!
//! <https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/>

use std::{
    cmp::{Ordering, Reverse},
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use orchestrator_core::{
    scheduler::{NodeState, PodInfo, Preemption, Rejection, Snapshot, Unschedulable},
    selector::LabelSelector,
};

use crate::{
    framework::{Afterwards, Filters, Plugin, PostFilter},
    limits::{FEWEST_PREEMPTION_CANDIDATES, FEWEST_PREEMPTION_PERCENT},
};

/// Makes room by removing less important pods.
#[derive(Clone, Copy, Debug)]
pub struct DefaultPreemption {
    fewest_percent: usize,
    fewest: usize,
}

impl Default for DefaultPreemption {
    fn default() -> Self {
        Self::new(FEWEST_PREEMPTION_PERCENT, FEWEST_PREEMPTION_CANDIDATES)
    }
}

impl DefaultPreemption {
    /// Compares at least so many percent of the nodes where room can be made, and at least so many nodes.
    pub fn new(fewest_percent: usize, fewest: usize) -> Self {
        Self { fewest_percent, fewest }
    }
}

impl Plugin for DefaultPreemption {
    fn name(&self) -> &'static str {
        "DefaultPreemption"
    }
}

/// What a node would lose.
struct Candidate {
    node: String,
    victims: Vec<Arc<PodInfo>>,
    violations: usize,
}

impl PostFilter for DefaultPreemption {
    fn post_filter(
        &self,
        pod: &PodInfo,
        cluster: &Snapshot,
        why: &Unschedulable,
        filters: &mut Filters<'_>,
        tie: u64,
    ) -> Afterwards {
        if let Some(reason) = not_eligible(pod, cluster, why) {
            return Afterwards::Nothing(format!("preemption: {reason}"));
        }
        let resolvable = |node: &&Arc<NodeState>| why.of_node(node.name()).is_some_and(|because| !because.unresolvable);
        let nodes: Vec<_> = cluster.nodes().filter(resolvable).collect();
        let enough = (nodes.len() * self.fewest_percent / 100).max(self.fewest);
        let start = if nodes.is_empty() { 0 } else { (tie % nodes.len() as u64) as usize };
        let (before, from) = nodes.split_at(start);
        let mut candidates = Vec::new();
        let mut refused = Unschedulable::new(cluster.len());
        for node in from.iter().chain(before) {
            match victims(pod, node, cluster, filters) {
                Ok((victims, violations)) => {
                    candidates.push(Candidate { node: node.name().to_owned(), victims, violations });
                }
                Err(rejection) => drop(refused.per_node.insert(node.name().to_owned(), rejection)),
            }
            // Not as long as each breaks a disruption budget.
            if candidates.len() >= enough && candidates.iter().any(|candidate| candidate.violations == 0) {
                break;
            }
        }
        match candidates.into_iter().min_by(order) {
            Some(best) => Afterwards::Preempt(Preemption { node: best.node, victims: best.victims }),
            None => {
                let reason = "Preemption is not helpful for scheduling";
                refused.others = Some(Rejection::unresolvable(self.name(), reason));
                Afterwards::Hopeless(format!("preemption: {}", refused.message()))
            }
        }
    }
}

fn not_eligible(pod: &PodInfo, cluster: &Snapshot, why: &Unschedulable) -> Option<&'static str> {
    if pod.spec.as_ref().and_then(|spec| spec.preemption_policy.as_deref()) == Some("Never") {
        return Some("not eligible due to preemptionPolicy=Never.");
    }
    let promised = pod.nominated_node_name()?;
    if why.of_node(promised).is_some_and(|because| because.unresolvable) {
        return None;
    }
    let going = |other: &Arc<PodInfo>| other.priority() < pod.priority() && is_being_preempted(other);
    let waits = cluster.node(promised)?.pods().iter().any(going);
    waits.then_some("not eligible due to a terminating pod on the nominated node.")
}

fn is_being_preempted(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let target = conditions.iter().find(|condition| condition.type_ == "DisruptionTarget");
    pod.metadata.deletion_timestamp.is_some()
        && target.is_some_and(|condition| {
            condition.status == "True" && condition.reason.as_deref() == Some("PreemptionByScheduler")
        })
}

type Victims = (Vec<Arc<PodInfo>>, usize);

/// The fewest pods that have to go from a node so that the pod fits, and how many of them break a disruption budget.
fn victims(
    pod: &PodInfo,
    node: &NodeState,
    cluster: &Snapshot,
    filters: &mut Filters<'_>,
) -> Result<Victims, Rejection> {
    let mut gone: Vec<_> = node.pods().iter().filter(|other| other.priority() < pod.priority()).cloned().collect();
    if gone.is_empty() {
        let reason = "No preemption victims found for incoming pod";
        return Err(Rejection::unresolvable("DefaultPreemption", reason));
    }
    let mut supposed = node.clone();
    gone.iter().for_each(|other| filters.suppose_gone(other, &mut supposed));
    let refusal = filters.refusal(&supposed);
    let result = match refusal {
        Some(rejection) => Err(rejection),
        None => {
            gone.sort_by(|a, b| more_important(a, b));
            Ok(reprieve(&mut gone, &mut supposed, cluster, filters))
        }
    };
    gone.iter().for_each(|other| filters.suppose(other, &mut supposed));
    result
}

/// Lets pods stay that need not go, those first whose going would break a disruption budget, then the more important.
/// Afterwards `gone` are those that have to go.
fn reprieve(
    gone: &mut Vec<Arc<PodInfo>>,
    node: &mut NodeState,
    cluster: &Snapshot,
    filters: &mut Filters<'_>,
) -> Victims {
    let violating = violating(gone, cluster);
    let in_turn = [true, false].into_iter().flat_map(|wanted| {
        gone.iter()
            .zip(&violating)
            .filter(move |(_, violates)| **violates == wanted)
            .map(|(pod, violates)| (pod.clone(), *violates))
    });
    let mut victims = Vec::new();
    let mut violations = 0;
    for (pod, violates) in in_turn {
        filters.suppose(&pod, node);
        if filters.refusal(node).is_some() {
            filters.suppose_gone(&pod, node);
            violations += usize::from(violates);
            victims.push(pod);
        }
    }
    victims.sort_by(|a, b| more_important(a, b));
    gone.clone_from(&victims);
    (victims, violations)
}

/// For each of these pods, whether removing it (after those before it) breaks a disruption budget.
fn violating(pods: &[Arc<PodInfo>], cluster: &Snapshot) -> Vec<bool> {
    let mut budgets: Vec<_> = cluster
        .budgets
        .values()
        .filter_map(|budget| {
            let selector = LabelSelector::from_meta(budget.spec.as_ref()?.selector.as_ref()?).ok()?;
            let allowed = budget.status.as_ref().and_then(|status| status.disruptions_allowed).unwrap_or(0);
            (!selector.is_empty()).then_some((budget, selector, allowed))
        })
        .collect();
    let breaks = |pod: &Arc<PodInfo>| {
        let mut violates = false;
        for (budget, selector, allowed) in &mut budgets {
            let disrupted = budget.status.as_ref().and_then(|status| status.disrupted_pods.as_ref());
            let counted = budget.metadata.namespace.as_deref() == Some(&pod.key().namespace)
                && !pod.labels().is_empty()
                && selector.matches(pod.labels())
                && !disrupted.is_some_and(|disrupted| disrupted.contains_key(&pod.key().name));
            if counted {
                *allowed -= 1;
                violates |= *allowed < 0;
            }
        }
        violates
    };
    pods.iter().map(breaks).collect()
}

/// The more important pod first: by priority, then the one that runs longer.
fn more_important(a: &PodInfo, b: &PodInfo) -> Ordering {
    b.priority().cmp(&a.priority()).then_with(|| started(a).cmp(&started(b)))
}

/// When a pod started; the far future if it has not.
fn started(pod: &Pod) -> Timestamp {
    pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map_or(Timestamp::MAX, |time| time.0)
}

/// The better candidate first.
fn order(a: &Candidate, b: &Candidate) -> Ordering {
    let measure = |candidate: &Candidate| {
        let highest = candidate.victims.first().map_or(i32::MIN, |pod| pod.priority());
        // Shifted to be positive, so that more victims are never better.
        let sum: i64 = candidate.victims.iter().map(|pod| i64::from(pod.priority()) + (1 << 31)).sum();
        let top = candidate.victims.iter().filter(|pod| pod.priority() == highest);
        let earliest = top.map(|pod| started(pod)).min();
        (candidate.violations, highest, sum, candidate.victims.len(), Reverse(earliest))
    };
    measure(a).cmp(&measure(b))
}
