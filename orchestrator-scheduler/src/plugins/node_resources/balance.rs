//! `NodeResourcesBalancedAllocation`: nodes whose resources become used more alike.

use orchestrator_core::scheduler::{NodeState, PodInfo, Snapshot};

use super::{ScoredResource, use_of};
use crate::framework::{Lasting, MAX_SCORE, Plugin, PreScore, Scaling, Score};

/// Prefers nodes whose resources become used more alike (Kubernetes 1.36; before, those where they were).
#[derive(Clone, Debug)]
pub struct NodeResourcesBalancedAllocation {
    resources: Vec<ScoredResource>,
}

impl NodeResourcesBalancedAllocation {
    /// Looks at these resources. Their weights do not count.
    pub fn new(resources: Vec<ScoredResource>) -> Self {
        Self { resources }
    }
}

impl Default for NodeResourcesBalancedAllocation {
    fn default() -> Self {
        Self::new(ScoredResource::usual())
    }
}

impl Plugin for NodeResourcesBalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn lasting(&self, _pod: &PodInfo, _cluster: &Snapshot) -> Option<&dyn Lasting> {
        Some(self)
    }
}

impl Lasting for NodeResourcesBalancedAllocation {
    fn alike(&self, a: &PodInfo, b: &PodInfo) -> bool {
        a.requests() == b.requests()
    }
}

impl PreScore for NodeResourcesBalancedAllocation {
    fn pre_score<'a>(&'a self, pod: &'a PodInfo, _: &'a Snapshot, _: &[&'a NodeState]) -> Option<Box<dyn Score + 'a>> {
        let asks = self.resources.iter().any(|resource| pod.requests().get(&resource.name) != 0);
        asks.then(|| Box::new(Balance { resources: &self.resources, pod }) as Box<dyn Score>)
    }
}

struct Balance<'a> {
    resources: &'a [ScoredResource],
    pod: &'a PodInfo,
}

impl Score for Balance<'_> {
    fn score(&self, node: &NodeState) -> i64 {
        let uses = || self.resources.iter().filter_map(|resource| use_of(&resource.name, node, self.pod, false));
        let before = evenness(uses().map(|of| share(of.taken, of.has)));
        let after = evenness(uses().map(|of| share(of.with_pod, of.has)));
        MAX_SCORE / 2 + (MAX_SCORE / 2 + after - before) / 2
    }

    fn scaling(&self) -> Scaling {
        Scaling::None
    }
}

fn share(taken: i64, has: i64) -> f64 {
    (taken as f64 / has as f64).min(1.0)
}

/// How alike shares are: the best score less their standard deviation.
fn evenness(shares: impl Iterator<Item = f64> + Clone) -> i64 {
    let count = shares.clone().count() as f64;
    let mean = shares.clone().sum::<f64>() / count;
    let deviation = match (shares.clone().next(), shares.clone().nth(1)) {
        // Upstream's shortcut for the usual two, which rounds otherwise than the general way.
        (Some(a), Some(b)) if count == 2.0 => ((a - b) / 2.0).abs(),
        (Some(_), Some(_)) => (shares.map(|share| (share - mean) * (share - mean)).sum::<f64>() / count).sqrt(),
        _ => 0.0,
    };
    ((1.0 - deviation) * MAX_SCORE as f64) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_alike_is_best() {
        assert_eq!(evenness([].into_iter()), 100);
        assert_eq!(evenness([0.3].into_iter()), 100);
        assert_eq!(evenness([0.3125, 0.0].into_iter()), 84);
        assert_eq!(evenness([0.2, 0.2, 0.2].into_iter()), 100);
        assert_eq!(evenness([0.0, 1.0, 0.5].into_iter()), 59);
    }
}
