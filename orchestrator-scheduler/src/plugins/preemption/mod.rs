//! `DefaultPreemption`: room for a pod by removing less important ones, as few and as unimportant as possible.
//!
//! <https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/>

mod budgets;
mod dry_run;
mod field;
mod rooms;

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use orchestrator_core::scheduler::{PodInfo, Preemption, Snapshot, Unschedulable};

use self::{dry_run::cost, rooms::Rooms};
use crate::{
    extender::Offer,
    framework::{Afterwards, Filters, Plugin, PostFilter, StandingPostFilter},
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

impl PostFilter for DefaultPreemption {
    fn post_filter(
        &self,
        pod: &PodInfo,
        cluster: &Snapshot,
        why: &Unschedulable,
        filters: &mut Filters<'_>,
        tie: u64,
    ) -> Afterwards {
        Rooms::new(*self, cluster, why).post_filter(pod, cluster, why, filters, tie)
    }

    fn offers(
        &self,
        pod: &PodInfo,
        cluster: &Snapshot,
        why: &Unschedulable,
        filters: &mut Filters<'_>,
        tie: u64,
    ) -> Vec<Offer> {
        Rooms::new(*self, cluster, why).offers(pod, cluster, filters, tie)
    }

    fn choose(&self, offers: Vec<Offer>) -> Option<Preemption> {
        let cheapest = offers.into_iter().min_by_key(|offer| cost(&offer.preemption.victims, offer.violations));
        cheapest.map(|offer| offer.preemption)
    }

    fn standing(&self, cluster: &Snapshot, why: &Unschedulable) -> Option<Box<dyn StandingPostFilter>> {
        Some(Box::new(Rooms::new(*self, cluster, why)))
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
