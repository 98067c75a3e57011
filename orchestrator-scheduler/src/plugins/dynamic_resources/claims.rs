//! The claims of a pod, and what can be said of each without looking at nodes.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::{
    core::v1::PodResourceClaim,
    resource::v1::{AllocationResult, DeviceRequestAllocationResult, ResourceClaim, ResourceClaimConsumerReference},
};
use orchestrator_core::{
    meta,
    object::ObjectKey,
    scheduler::{Devices, PodInfo, Rejection},
};

use super::{NAME, allocator::requests_of};
use crate::limits::CLAIM_USERS;

/// The claims in a pod's specification.
pub(super) fn written(pod: &PodInfo) -> &[PodResourceClaim] {
    pod.spec.as_ref().and_then(|spec| spec.resource_claims.as_deref()).unwrap_or_default()
}

/// The name of a pod's claim, and whether it was made for the pod; `None` where none is needed.
fn name_of<'a>(pod: &'a PodInfo, claim: &'a PodResourceClaim) -> Result<Option<(&'a str, bool)>, String> {
    if let Some(name) = &claim.resource_claim_name {
        return Ok(Some((name, false)));
    }
    if claim.resource_claim_template_name.is_none() {
        let name = &claim.name;
        return Err(format!(
            "pod \"{}\", spec.resourceClaim {name:?}: none of the supported fields are set",
            pod.key()
        ));
    }
    let statuses = pod.status.as_ref().and_then(|status| status.resource_claim_statuses.as_deref());
    match statuses.unwrap_or_default().iter().find(|status| status.name == claim.name) {
        Some(status) => Ok(status.resource_claim_name.as_deref().map(|name| (name, true))),
        None => Err(format!("pod \"{}\": ResourceClaim not created yet", pod.key())),
    }
}

/// Whether a pod uses a claim, as far as the names of its claims are known.
pub(super) fn uses(pod: &PodInfo, claim: &ResourceClaim) -> bool {
    let mut names = written(pod).iter().filter_map(|claim| name_of(pod, claim).ok().flatten());
    meta::namespace(&claim.metadata) == pod.key().namespace
        && names.any(|(name, _)| name == meta::name(&claim.metadata))
}

/// The claims of a pod, each once and in its order; or why they are not all there, in upstream's words.
pub(super) fn claims_of<'a>(pod: &PodInfo, devices: &'a Devices) -> Result<Vec<&'a Arc<ResourceClaim>>, String> {
    let (mut claims, mut seen) = (Vec::new(), BTreeSet::new());
    for written in written(pod) {
        let Some((name, was_made)) = name_of(pod, written)? else { continue };
        let key = ObjectKey::new(&*pod.key().namespace, name);
        let claim = devices.claim(&key).ok_or_else(|| format!("could not find ResourceClaim \"{key}\""))?;
        if meta::is_deleting(&claim.metadata) {
            return Err(format!("resourceclaim {name:?} is being deleted"));
        }
        if was_made && !meta::is_controlled_by(&claim.metadata, pod.uid()) {
            return Err(format!("ResourceClaim {key} was not created for pod {} (pod is not owner)", pod.key()));
        }
        if seen.insert(key) {
            claims.push(claim);
        }
    }
    Ok(claims)
}

/// What a claim has.
pub(super) fn allocation(claim: &ResourceClaim) -> Option<&AllocationResult> {
    claim.status.as_ref()?.allocation.as_ref()
}

/// The devices of an allocation.
pub(super) fn results(allocation: &AllocationResult) -> &[DeviceRequestAllocationResult] {
    allocation.devices.as_ref().and_then(|devices| devices.results.as_deref()).unwrap_or_default()
}

/// Who uses a claim.
pub(super) fn users(claim: &ResourceClaim) -> &[ResourceClaimConsumerReference] {
    claim.status.as_ref().and_then(|status| status.reserved_for.as_deref()).unwrap_or_default()
}

/// Whether a claim is reserved for a pod.
pub(super) fn is_reserved_for(claim: &ResourceClaim, pod: &PodInfo) -> bool {
    users(claim).iter().any(|user| user.uid == pod.uid())
}

/// Why a pod's claims let it onto no node at present.
pub(super) fn obstacle(pod: &PodInfo, claims: &[&Arc<ResourceClaim>], devices: &Devices) -> Option<Rejection> {
    claims.iter().find_map(|claim| {
        if allocation(claim).is_some() {
            let in_use = users(claim).len() >= CLAIM_USERS && !is_reserved_for(claim, pod);
            return in_use.then(|| Rejection::unresolvable(NAME, "resourceclaim in use"));
        }
        if devices.pending(meta::uid(&claim.metadata)).is_some() {
            let key = ObjectKey::of(&claim.metadata);
            let message = format!("resource claim {key} is in the process of being allocated");
            return Some(Rejection::unresolvable(NAME, message));
        }
        missing_class(claim, devices)
    })
}

/// Why the classes that a claim names do not do.
fn missing_class(claim: &ResourceClaim, devices: &Devices) -> Option<Rejection> {
    let missing = |class: &str, request: &str| {
        if class.is_empty() {
            return Some(Rejection::failure(NAME, format!("request {request}: unsupported request type")));
        }
        let exists = devices.classes.contains_key(class);
        let message = || format!("request {request}: device class {class} does not exist");
        (!exists).then(|| Rejection::unresolvable(NAME, message()))
    };
    requests_of(claim).iter().find_map(|request| match (&request.exactly, request.first_available.as_deref()) {
        (Some(exactly), _) => missing(&exactly.device_class_name, &request.name),
        (None, Some(choices)) if !choices.is_empty() => {
            let name = |choice: &str| format!("{}/{choice}", request.name);
            choices.iter().find_map(|choice| missing(&choice.device_class_name, &name(&choice.name)))
        }
        _ => {
            let key = ObjectKey::of(&claim.metadata);
            let message = format!("resource claim {key}, request {}: unknown request type", request.name);
            Some(Rejection::unresolvable(NAME, message))
        }
    })
}
