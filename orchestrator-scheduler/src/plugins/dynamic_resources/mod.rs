//! `DynamicResources`: devices that pods claim are allocated to the claims on the node that a pod gets.
//!
//! The [`allocator`] finds devices, purely. Those that were chosen stand in the snapshot from then on, so that nobody else
//! gets them, until the claim is seen to have them (`bind`).
//!
//! <https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/>

mod allocator;
mod bind;
mod cel;
mod claims;
mod conditions;
mod score;
mod twice;

use std::{
    cell::RefCell,
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use k8s_openapi::api::{core::v1::Node, resource::v1::ResourceClaim};
use orchestrator_core::{
    meta,
    scheduler::{
        ClusterChange, Devices, NodeState, PodInfo, Rejection, Snapshot, Unschedulable, matching::node_selector_matches,
    },
};

use self::{
    allocator::{Allocator, NoAllocation},
    bind::Plan,
};
use crate::{
    framework::{
        Afterwards, Filter, Filters, Indifferent, Lasting, Plugin, PostFilter, PreEnqueue, PreFilter, Prepared,
        StandingPostFilter,
    },
    limits::{ALLOCATION_STEPS, ALLOCATION_STEPS_PER_SECOND, DEVICE_BINDING_LONGEST, DEVICE_FILTER_LONGEST},
};

pub(crate) use self::bind::{give_back, take_devices};

const NAME: &str = "DynamicResources";
/// What can be done for pods without claims.
const NOTHING: &str = "no new claims to deallocate";
const NOT_AVAILABLE: &str = "resourceclaim not available on the node";

/// Refuses nodes on which a pod's claims cannot have devices, and allocates devices to them.
#[derive(Debug)]
pub struct DynamicResources {
    /// What is to be written for pods that were given nodes, by their UIDs.
    plans: Mutex<BTreeMap<String, Plan>>,
    /// How much the search may cost on one node, in steps.
    steps_per_node: u64,
    binding_timeout: Duration,
}

impl Default for DynamicResources {
    fn default() -> Self {
        Self::new(DEVICE_FILTER_LONGEST, DEVICE_BINDING_LONGEST)
    }
}

impl DynamicResources {
    /// With upstream's arguments: how long the search for devices on one node may take, where zero is as long as the whole
    /// decision may, and how long devices may take to be prepared. A decision has no clock: the former is counted in steps, of
    /// [`ALLOCATION_STEPS_PER_SECOND`].
    pub fn new(filter_timeout: Duration, binding_timeout: Duration) -> Self {
        let steps = filter_timeout.as_micros().saturating_mul(ALLOCATION_STEPS_PER_SECOND.into()) / 1_000_000;
        let steps = u64::try_from(steps).unwrap_or(u64::MAX).min(ALLOCATION_STEPS);
        let steps_per_node = if filter_timeout.is_zero() { ALLOCATION_STEPS } else { steps };
        Self { plans: Mutex::default(), steps_per_node, binding_timeout }
    }

    fn plans(&self) -> MutexGuard<'_, BTreeMap<String, Plan>> {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Plugin for DynamicResources {
    fn name(&self) -> &'static str {
        NAME
    }

    fn may_help(&self, change: &ClusterChange<'_>, pod: &PodInfo) -> bool {
        match change {
            ClusterChange::ResourceClaim { old, new } => may_help_claim(*old, *new, pod),
            ClusterChange::Devices => true,
            ClusterChange::Node { old, new: Some(new) } => {
                old.is_none_or(|old| old.metadata.labels != new.metadata.labels)
            }
            // What was chosen for its claims may be free again.
            ClusterChange::AssignedPod { old: Some(gone), new: None } => {
                gone.spec.as_ref().is_some_and(|spec| spec.resource_claims.is_some())
            }
            ClusterChange::WaitingPod { old, new } => {
                let names = |pod: &k8s_openapi::api::core::v1::Pod| {
                    pod.status.as_ref().and_then(|status| status.resource_claim_statuses.clone())
                };
                names(old) != names(new)
            }
            _ => false,
        }
    }

    fn waits_for(&self) -> &'static [&'static str] {
        &[
            "DeviceClass/Add",
            "DeviceClass/Update",
            "Node/Add",
            "Node/UpdateNodeLabel",
            "Pod/UpdatePodGeneratedResourceClaim",
            "ResourceClaim/Add",
            "ResourceClaim/Update",
            "ResourceSlice/Add",
            "ResourceSlice/Update",
        ]
    }

    fn lasting(&self, pod: &PodInfo, _cluster: &Snapshot) -> Option<&dyn Lasting> {
        claims::written(pod).is_empty().then_some(&Indifferent)
    }
}

/// A claim of anybody that gave its devices back may help, and any change in the status of the pod's own.
fn may_help_claim(old: Option<&ResourceClaim>, new: Option<&ResourceClaim>, pod: &PodInfo) -> bool {
    let had_devices = old.and_then(claims::allocation).is_some();
    let Some(new) = new else { return had_devices };
    if had_devices && claims::allocation(new).is_none() {
        return true;
    }
    claims::uses(pod, new) && old.is_none_or(|old| old.status != new.status)
}

impl PreEnqueue for DynamicResources {
    fn pre_enqueue(&self, pod: &PodInfo, cluster: &Snapshot) -> Option<Rejection> {
        let missing = claims::claims_of(pod, &cluster.devices).err();
        missing.map(|missing| Rejection::unresolvable(NAME, missing))
    }
}

impl PreFilter for DynamicResources {
    fn pre_filter<'a>(&'a self, pod: &'a PodInfo, cluster: &'a Snapshot) -> Prepared<'a> {
        match Allocating::of(pod, &cluster.devices, self.steps_per_node) {
            Ok(None) => Prepared::Skip,
            Ok(Some(allocating)) => Prepared::filter(allocating),
            Err(rejection) => Prepared::Refuse(rejection),
        }
    }
}

/// The claims of a pod, and the search for devices for those that have none.
struct Allocating<'a> {
    devices: &'a Devices,
    claims: Vec<&'a Arc<ResourceClaim>>,
    allocator: Option<Allocator<'a>>,
    /// The refusals of nodes that were looked at: what other pods are on them does not matter.
    known: RefCell<BTreeMap<String, Option<Rejection>>>,
}

impl<'a> Allocating<'a> {
    /// `None` for pods without claims.
    fn of(pod: &PodInfo, devices: &'a Devices, steps_per_node: u64) -> Result<Option<Self>, Rejection> {
        let claims = claims::claims_of(pod, devices).map_err(|message| Rejection::unresolvable(NAME, message))?;
        if claims.is_empty() {
            return Ok(None);
        }
        if let Some(obstacle) = claims::obstacle(pod, &claims, devices) {
            return Err(obstacle);
        }
        let without = without_devices(&claims);
        let allocator = (!without.is_empty()).then(|| Allocator::new(devices, &without, steps_per_node));
        Ok(Some(Self { devices, claims, allocator, known: RefCell::default() }))
    }

    /// The claims that get devices.
    fn without_devices(&self) -> Vec<&'a ResourceClaim> {
        without_devices(&self.claims)
    }

    fn refusal(&self, node: &Node) -> Option<Rejection> {
        if let Some(Err(none)) = self.allocator.as_ref().map(|allocator| allocator.allocate(node)) {
            return Some(none.into());
        }
        let mut claims = self.claims.iter();
        let unavailable = claims.any(|claim| !is_available(claim, node, self.devices));
        unavailable.then(|| Rejection::unresolvable(NAME, NOT_AVAILABLE))
    }
}

impl From<NoAllocation> for Rejection {
    fn from(none: NoAllocation) -> Self {
        let message = none.message();
        let failed = matches!(none, NoAllocation::Failed(_));
        if failed { Self::failure(NAME, message) } else { Self::unresolvable(NAME, message) }
    }
}

impl Filter for Allocating<'_> {
    fn filter(&self, node: &NodeState) -> Option<Rejection> {
        if let Some(known) = self.known.borrow().get(node.name()) {
            return known.clone();
        }
        let refusal = self.refusal(node.node());
        self.known.borrow_mut().insert(node.name().to_owned(), refusal.clone());
        refusal
    }
}

fn without_devices<'a>(claims: &[&'a Arc<ResourceClaim>]) -> Vec<&'a ResourceClaim> {
    let without = claims.iter().copied().filter(|claim| claims::allocation(claim).is_none());
    without.map(AsRef::as_ref).collect()
}

/// Whether a node can use what a claim has; claims without devices do not matter.
fn is_available(claim: &ResourceClaim, node: &Node, devices: &Devices) -> bool {
    let Some(allocation) = claims::allocation(claim) else { return true };
    let selected = allocation.node_selector.as_ref().is_none_or(|selector| node_selector_matches(selector, node));
    let overdue = || devices.overdue.contains(meta::uid(&claim.metadata));
    selected && conditions::are_met(claim).is_ok_and(|met| met || !overdue())
}

impl PostFilter for DynamicResources {
    fn post_filter(
        &self,
        pod: &PodInfo,
        cluster: &Snapshot,
        why: &Unschedulable,
        _filters: &mut Filters<'_>,
        tie: u64,
    ) -> Afterwards {
        let Ok(claims) = claims::claims_of(pod, &cluster.devices) else { return nothing() };
        if claims.is_empty() || why.whole.is_some() {
            return nothing();
        }
        match in_the_way(pod, &claims, cluster, why, tie) {
            Some(claim) => Afterwards::GiveBack(claim, "deallocation of ResourceClaim completed".to_owned()),
            None => Afterwards::Nothing("still not schedulable".to_owned()),
        }
    }

    fn standing(&self, _cluster: &Snapshot, _why: &Unschedulable) -> Option<Box<dyn StandingPostFilter>> {
        Some(Box::new(WithoutClaims))
    }
}

fn nothing() -> Afterwards {
    Afterwards::Nothing(NOTHING.to_owned())
}

/// Any of the claims that nobody else uses and whose devices are not where the pod could run.
fn in_the_way(
    pod: &PodInfo,
    claims: &[&Arc<ResourceClaim>],
    cluster: &Snapshot,
    why: &Unschedulable,
    tie: u64,
) -> Option<Arc<ResourceClaim>> {
    let refused = |node: &&Arc<NodeState>| {
        let rejection = why.of_node(node.name());
        rejection.is_some_and(|it| it.plugin == NAME && it.reasons.iter().any(|reason| reason == NOT_AVAILABLE))
    };
    let refused: Vec<_> = cluster.nodes().filter(refused).collect();
    let is_unused = |claim: &&&Arc<ResourceClaim>| match claims::users(claim) {
        [] => true,
        [only] => only.uid == pod.uid(),
        _ => false,
    };
    let unused = claims.iter().filter(is_unused);
    let candidates: Vec<_> =
        unused.filter(|claim| refused.iter().any(|node| !is_available(claim, node.node(), &cluster.devices))).collect();
    let at = tie.checked_rem(candidates.len() as u64)?;
    candidates.get(at as usize).map(|claim| Arc::clone(claim))
}

/// What can be done about pods without claims is always the same.
struct WithoutClaims;

impl StandingPostFilter for WithoutClaims {
    fn learn(&mut self, _at: usize, _refusal: Option<&Rejection>) {}

    fn post_filter(
        &mut self,
        _pod: &PodInfo,
        _cluster: &Snapshot,
        _why: &Unschedulable,
        _filters: &mut Filters<'_>,
        _tie: u64,
    ) -> Afterwards {
        nothing()
    }
}

#[cfg(test)]
mod tests;
