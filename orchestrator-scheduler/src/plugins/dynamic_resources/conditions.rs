//! Devices that must be prepared for their node before a pod is bound to it.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::resource::v1::ResourceClaim;
use orchestrator_core::meta::{self, condition, is_condition_true};

use super::claims::{allocation, results};

/// Whether any device of a claim must be prepared.
pub(super) fn any(claim: &ResourceClaim) -> bool {
    let results = allocation(claim).map(results).unwrap_or_default();
    results.iter().any(|result| result.binding_conditions.as_ref().is_some_and(|all| !all.is_empty()))
}

/// Whether all devices of a claim are prepared; an error if that has failed.
pub(super) fn are_met(claim: &ResourceClaim) -> Result<bool, String> {
    let Some(allocation) = allocation(claim) else { return Ok(false) };
    let statuses = claim.status.as_ref().and_then(|status| status.devices.as_deref()).unwrap_or_default();
    for result in results(allocation) {
        let wanted = result.binding_conditions.as_deref().unwrap_or_default();
        if wanted.is_empty() {
            continue;
        }
        let same = (&result.driver, &result.pool, &result.device);
        let status = statuses.iter().find(|status| (&status.driver, &status.pool, &status.device) == same);
        let Some(status) = status else { return Ok(false) };
        let conditions = status.conditions.as_deref().unwrap_or_default();
        for failure in result.binding_failure_conditions.iter().flatten() {
            if let Some(failed) = condition(conditions, failure).filter(|failed| failed.status == "True") {
                let (name, reason, message) = (meta::name(&claim.metadata), &failed.reason, &failed.message);
                return Err(format!("claim {name} binding failed: reason={reason}, message={message:?}"));
            }
        }
        if !wanted.iter().all(|wanted| is_condition_true(conditions, wanted)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// How long the devices of a claim may still take to be prepared, of so much time.
pub(super) fn time_left(claim: &ResourceClaim, now: Timestamp, longest: Duration) -> Duration {
    let allocated = allocation(claim).and_then(|allocation| allocation.allocation_timestamp.as_ref());
    let passed = allocated.and_then(|allocated| Duration::try_from(now.duration_since(allocated.0)).ok());
    longest.saturating_sub(passed.unwrap_or_default())
}
