//! Room on nodes: whether there is enough of it, how much is left, and how evenly it is used.

mod balance;
mod fit;
mod strategy;

use orchestrator_core::scheduler::{NodeState, PodInfo, Resources};

pub use balance::NodeResourcesBalancedAllocation;
pub use fit::NodeResourcesFit;
pub use strategy::{ScoredResource, ShapePoint, Strategy};

/// What scores look at, of one resource of one node.
#[derive(Clone, Copy, Debug)]
struct Use {
    /// What pods may take.
    has: i64,
    /// What pods have taken.
    taken: i64,
    /// What they will have taken with the pod in question.
    with_pod: i64,
}

/// The use of one resource; `None` if it does not count: a node without it, or a device that the pod does not want.
fn use_of(name: &str, node: &NodeState, pod: &PodInfo, usual: bool) -> Option<Use> {
    let amount = |exact: &Resources, estimated: &Resources| match name {
        "cpu" | "memory" if usual => estimated.get(name),
        _ => exact.get(name),
    };
    let wanted = amount(pod.requests(), pod.usual_requests());
    let always = matches!(name, "cpu" | "memory" | "ephemeral-storage");
    let has = node.allocatable().get(name);
    if has <= 0 || (wanted == 0 && !always) {
        return None;
    }
    let taken = amount(node.requested(), node.usual_requested());
    Some(Use { has, taken, with_pod: taken.saturating_add(wanted) })
}
