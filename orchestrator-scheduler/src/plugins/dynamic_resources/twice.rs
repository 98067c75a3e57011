//! Devices that two claims have at once.

use k8s_openapi::api::resource::v1::{DeviceRequestAllocationResult, ResourceClaim};
use orchestrator_core::{controller::Cache, meta, object::ObjectKey, scheduler::DeviceId};

use super::claims;

/// The index of claims by the devices that they take from others.
const BY_DEVICE: &str = "device";

/// A device that a claim has and another one as well, one of them as a whole. What is had in parts is not added up.
pub(super) fn contested(claims: &Cache<ResourceClaim>, claim: &ResourceClaim) -> Option<(DeviceId, ObjectKey)> {
    claims.add_index(BY_DEVICE, |claim| taken(claim).map(|result| DeviceId::of(result).to_string()).collect());
    taken(claim).find_map(|result| {
        let device = DeviceId::of(result);
        let holders = claims.by_index(BY_DEVICE, &device.to_string());
        let others = holders.iter().filter(|other| meta::uid(&other.metadata) != meta::uid(&claim.metadata));
        let is_whole = |result: &DeviceRequestAllocationResult| result.share_id.is_none();
        let mut contesting = others.filter(|other| {
            is_whole(result) || taken(other).any(|other| DeviceId::of(other) == device && is_whole(other))
        });
        let other = contesting.next().map(|other| ObjectKey::of(&other.metadata));
        other.map(|other| (device, other))
    })
}

/// What a claim has that nobody else can have. Who has administrators' access takes nothing from others.
fn taken(claim: &ResourceClaim) -> impl Iterator<Item = &DeviceRequestAllocationResult> {
    let results = claims::allocation(claim).map(claims::results).unwrap_or_default();
    results.iter().filter(|result| result.admin_access != Some(true))
}
