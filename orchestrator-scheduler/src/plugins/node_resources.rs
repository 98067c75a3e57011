//! `NodeResourcesFit` and `NodeResourcesBalancedAllocation`: room on nodes, and how evenly it is used.

use orchestrator_core::scheduler::{ClusterChange, NodeState, PodInfo, Rejection, Resources, Snapshot};

use crate::framework::{MAX_SCORE, Plugin, PreFilter, PreScore, Prepared, Score};

/// The resources that scores look at.
const SCORED: [fn(&Resources) -> i64; 2] = [|resources| resources.milli_cpu, |resources| resources.memory];

/// Which nodes are better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// Those with more room: pods are spread.
    #[default]
    LeastAllocated,
    /// Those with less room: pods are packed.
    MostAllocated,
}

/// Refuses nodes without enough room.
#[derive(Clone, Copy, Debug)]
pub struct NodeResourcesFit {
    strategy: Strategy,
}

/// Prefers nodes whose CPU and memory become used more alike (Kubernetes 1.36; before, those where they were).
#[derive(Clone, Copy, Debug)]
pub struct NodeResourcesBalancedAllocation;

impl NodeResourcesFit {
    /// With a preference among nodes that have enough.
    pub fn new(strategy: Strategy) -> Self {
        Self { strategy }
    }
}

impl Plugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn may_help(&self, change: &ClusterChange<'_>, _pod: &PodInfo) -> bool {
        match change {
            ClusterChange::Node { new: Some(_), .. } | ClusterChange::WaitingPod { .. } => true,
            ClusterChange::AssignedPod { old, .. } => old.is_some(),
            _ => false,
        }
    }
}

impl PreFilter for NodeResourcesFit {
    fn pre_filter<'a>(&'a self, pod: &'a PodInfo, _cluster: &'a Snapshot) -> Prepared<'a> {
        Prepared::per_node(|node| lacking(self.name(), pod.requests(), node))
    }
}

/// What a node lacks for these requests.
fn lacking(plugin: &'static str, wanted: &Resources, node: &NodeState) -> Option<Rejection> {
    let (has, used) = (node.allocatable(), node.requested());
    let mut rejection = Rejection { plugin, ..Rejection::default() };
    if node.pods().len() as i64 + 1 > has.pods {
        rejection.reasons.push("Too many pods".to_owned());
    }
    let mut check = |name: &str, wanted: i64, has: i64, used: i64| {
        if wanted > 0 && wanted > has.saturating_sub(used) {
            rejection.reasons.push(format!("Insufficient {name}"));
            rejection.unresolvable |= wanted > has;
        }
    };
    check("cpu", wanted.milli_cpu, has.milli_cpu, used.milli_cpu);
    check("memory", wanted.memory, has.memory, used.memory);
    check("ephemeral-storage", wanted.ephemeral_storage, has.ephemeral_storage, used.ephemeral_storage);
    for (name, wanted) in &wanted.scalar {
        check(name, *wanted, has.get(name), used.get(name));
    }
    (!rejection.reasons.is_empty()).then_some(rejection)
}

impl PreScore for NodeResourcesFit {
    fn pre_score<'a>(&'a self, pod: &'a PodInfo, _: &'a Snapshot, _: &[&'a NodeState]) -> Option<Box<dyn Score + 'a>> {
        Some(Box::new(Room { strategy: self.strategy, pod }))
    }
}

struct Room<'a> {
    strategy: Strategy,
    pod: &'a PodInfo,
}

impl Score for Room<'_> {
    fn score(&self, node: &NodeState) -> i64 {
        let shares = SCORED.iter().filter_map(|of| {
            let has = of(node.allocatable());
            let used = of(node.usual_requested()) + of(self.pod.usual_requests());
            match self.strategy {
                _ if has == 0 => None,
                Strategy::LeastAllocated => Some((has - used).max(0) * MAX_SCORE / has),
                Strategy::MostAllocated => Some(used.min(has) * MAX_SCORE / has),
            }
        });
        let (sum, count) = shares.fold((0, 0), |(sum, count), share| (sum + share, count + 1));
        if count == 0 { 0 } else { sum / count }
    }
}

impl Plugin for NodeResourcesBalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }
}

impl PreScore for NodeResourcesBalancedAllocation {
    fn pre_score<'a>(&'a self, pod: &'a PodInfo, _: &'a Snapshot, _: &[&'a NodeState]) -> Option<Box<dyn Score + 'a>> {
        let asks_for_nothing = SCORED.iter().all(|of| of(pod.requests()) == 0);
        (!asks_for_nothing).then(|| Box::new(Balance { pod }) as Box<dyn Score>)
    }
}

struct Balance<'a> {
    pod: &'a PodInfo,
}

impl Score for Balance<'_> {
    fn score(&self, node: &NodeState) -> i64 {
        let before = unevenness(node, &Resources::default());
        let after = unevenness(node, self.pod.requests());
        ((0.75 + (before - after) / 2.0) * MAX_SCORE as f64) as i64
    }
}

/// How differently CPU and memory of a node are used, between 0 and a half: the standard deviation of the shares.
fn unevenness(node: &NodeState, added: &Resources) -> f64 {
    let share = |of: fn(&Resources) -> i64| {
        let has = of(node.allocatable());
        (has != 0).then(|| ((of(node.requested()) + of(added)) as f64 / has as f64).min(1.0))
    };
    match SCORED.map(share) {
        [Some(a), Some(b)] => ((a - b) / 2.0).abs(),
        _ => 0.0,
    }
}
