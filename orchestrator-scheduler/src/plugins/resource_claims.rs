//! `DynamicResources`: claims of devices. They are not supported; pods that have them are refused.

use k8s_openapi::api::core::v1::PodResourceClaim;
use orchestrator_core::scheduler::{PodInfo, Rejection, Snapshot, Unschedulable};

use crate::framework::{
    Afterwards, Filters, Indifferent, Lasting, Plugin, PostFilter, PreFilter, Prepared, StandingPostFilter,
};

/// What can be done about devices that are taken.
const NOTHING: &str = "no new claims to deallocate";

/// Refuses pods with claims of devices.
#[derive(Clone, Copy, Debug)]
pub struct DynamicResources;

impl Plugin for DynamicResources {
    fn name(&self) -> &'static str {
        "DynamicResources"
    }

    fn lasting(&self, pod: &PodInfo, _cluster: &Snapshot) -> Option<&dyn Lasting> {
        claims(pod).is_empty().then_some(&Indifferent)
    }
}

fn claims(pod: &PodInfo) -> &[PodResourceClaim] {
    pod.spec.as_ref().and_then(|spec| spec.resource_claims.as_deref()).unwrap_or_default()
}

impl PreFilter for DynamicResources {
    fn pre_filter<'a>(&'a self, pod: &'a PodInfo, _cluster: &'a Snapshot) -> Prepared<'a> {
        if claims(pod).is_empty() {
            return Prepared::Skip;
        }
        Prepared::Refuse(Rejection::unresolvable(self.name(), "resource claims are not supported"))
    }
}

impl PostFilter for DynamicResources {
    fn post_filter(
        &self,
        _pod: &PodInfo,
        _cluster: &Snapshot,
        _why: &Unschedulable,
        _filters: &mut Filters<'_>,
        _tie: u64,
    ) -> Afterwards {
        Afterwards::Nothing(NOTHING.to_owned())
    }

    fn standing(&self, _cluster: &Snapshot, _why: &Unschedulable) -> Option<Box<dyn StandingPostFilter>> {
        Some(Box::new(Self))
    }
}

impl StandingPostFilter for DynamicResources {
    fn learn(&mut self, _at: usize, _refusal: Option<&Rejection>) {}

    fn post_filter(
        &mut self,
        _pod: &PodInfo,
        _cluster: &Snapshot,
        _why: &Unschedulable,
        _filters: &mut Filters<'_>,
        _tie: u64,
    ) -> Afterwards {
        Afterwards::Nothing(NOTHING.to_owned())
    }
}
