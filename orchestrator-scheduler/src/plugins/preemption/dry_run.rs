//! Which pods would have to go from a node.

use std::{
    cmp::{Ordering, Reverse},
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use orchestrator_core::scheduler::{NodeState, PodInfo, Rejection};

use super::{budgets::Budgets, field::Cost};
use crate::framework::Filters;

/// The pods that would have to go from a node.
pub(super) struct DryRun {
    /// The most important first.
    pub(super) victims: Vec<Arc<PodInfo>>,
    /// How many of them break a disruption budget.
    pub(super) violations: usize,
    /// Whether budgets had to be asked.
    pub(super) by_budgets: bool,
}

impl DryRun {
    /// The fewest pods that have to go from a node so that the pod fits.
    pub(super) fn new(
        pod: &PodInfo,
        node: &NodeState,
        budgets: &Budgets,
        filters: &mut Filters<'_>,
    ) -> Result<Self, Rejection> {
        let mut gone: Vec<_> = node.pods().iter().filter(|other| other.priority() < pod.priority()).cloned().collect();
        if gone.is_empty() {
            let reason = "No preemption victims found for incoming pod";
            return Err(Rejection::unresolvable("DefaultPreemption", reason));
        }
        let mut supposed = node.clone();
        gone.iter().for_each(|other| filters.suppose_gone(other, &mut supposed));
        let result = match filters.refusal(&supposed) {
            Some(rejection) => Err(rejection),
            None => {
                gone.sort_by(|a, b| more_important(a, b));
                Ok(Self::reprieve(&mut gone, &mut supposed, budgets, filters))
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
        budgets: &Budgets,
        filters: &mut Filters<'_>,
    ) -> Self {
        let violating = budgets.violating(gone);
        let in_turn = [true, false].into_iter().flat_map(|wanted| {
            gone.iter()
                .zip(&violating)
                .filter(move |(_, violates)| **violates == wanted)
                .map(|(pod, violates)| (pod.clone(), *violates))
        });
        let by_budgets = budgets.select_any(gone);
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
        Self { victims, violations, by_budgets }
    }

    /// What it costs.
    pub(super) fn cost(&self) -> Cost {
        cost(&self.victims, self.violations)
    }
}

/// What it costs to remove pods, which breaks so many budgets.
pub(super) fn cost(victims: &[Arc<PodInfo>], violations: usize) -> Cost {
    let highest = victims.iter().map(|pod| pod.priority()).max().unwrap_or(i32::MIN);
    let top = victims.iter().filter(|pod| pod.priority() == highest);
    Cost {
        violations,
        highest,
        sum: victims.iter().map(|pod| i64::from(pod.priority()) + (1 << 31)).sum(),
        victims: victims.len(),
        earliest: Reverse(top.map(|pod| started(pod)).min()),
    }
}

/// The more important pod first: by priority, then the one that runs longer.
fn more_important(a: &PodInfo, b: &PodInfo) -> Ordering {
    b.priority().cmp(&a.priority()).then_with(|| started(a).cmp(&started(b)))
}

/// When a pod started; the far future if it has not.
fn started(pod: &Pod) -> Timestamp {
    pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map_or(Timestamp::MAX, |time| time.0)
}
