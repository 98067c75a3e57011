//! Prefers nodes on which requests get what they would rather have.

use k8s_openapi::api::resource::v1::{AllocationResult, ResourceClaim};
use orchestrator_core::scheduler::{NodeState, PodInfo, Snapshot};

use super::{
    Allocating, DynamicResources,
    allocator::{Allocator, requests_of},
    claims::results,
};
use crate::{
    framework::{PreScore, Scaling, Score},
    limits::ALTERNATIVES,
};

impl PreScore for DynamicResources {
    /// All nodes are alike to pods whose claims leave no choice.
    fn pre_score<'a>(
        &'a self,
        pod: &'a PodInfo,
        cluster: &'a Snapshot,
        _: &[&'a NodeState],
    ) -> Option<Box<dyn Score + 'a>> {
        let allocating = Allocating::of(pod, &cluster.devices, self.steps_per_node).ok().flatten()?;
        let claims = allocating.without_devices();
        let has_choice = |claim: &&ResourceClaim| requests_of(claim).iter().any(|request| request.exactly.is_none());
        let allocator = allocating.allocator.filter(|_| claims.iter().any(has_choice))?;
        Some(Box::new(Preferred { allocator, claims }))
    }
}

struct Preferred<'a> {
    allocator: Allocator<'a>,
    claims: Vec<&'a ResourceClaim>,
}

impl Score for Preferred<'_> {
    fn score(&self, node: &NodeState) -> i64 {
        let allocations = self.allocator.allocate(node.node()).unwrap_or_default();
        self.claims.iter().zip(&allocations).map(|(claim, allocation)| rank(claim, allocation)).sum()
    }

    fn scaling(&self) -> Scaling {
        Scaling::ToLargest { reverse: false }
    }
}

/// How early in their lists the alternatives stand that a claim gets: more is better.
fn rank(claim: &ResourceClaim, allocation: &AllocationResult) -> i64 {
    let requests = requests_of(claim).iter().filter(|request| request.exactly.is_none());
    let alternatives = requests.flat_map(|request| {
        let alternatives = request.first_available.iter().flatten().enumerate();
        alternatives.map(move |(at, choice)| (at, format!("{}/{}", request.name, choice.name)))
    });
    let chosen = |name: &str| results(allocation).iter().any(|result| result.request == name);
    let ranks = alternatives.filter(|(_, name)| chosen(name)).map(|(at, _)| ALTERNATIVES.saturating_sub(at));
    ranks.sum::<usize>() as i64
}
