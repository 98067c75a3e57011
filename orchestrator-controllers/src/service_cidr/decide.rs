//! Whether a range of service addresses is ready, and whether it may go.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/services-networking/cluster-ip-allocation/> and
//! `pkg/controller/servicecidrs`.

use std::{net::IpAddr, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::networking::v1::{IPAddress, ServiceCIDR},
    apimachinery::pkg::apis::meta::v1::Condition,
};
use orchestrator_core::{meta, object::time};

use crate::{addresses::Prefix, limits::SERVICE_RANGE_GRACE_TIME};

pub(super) const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";

/// Who makes the addresses of services.
const MANAGED_BY: (&str, &str) = ("ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io");

/// What to do about a range.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Decision {
    /// Nothing more.
    Settled,
    /// Protect it from going before its addresses.
    Protect,
    /// Say whether it is ready.
    Tell(Condition),
    /// Wait, so that whoever gives addresses learns that it goes.
    Wait(Duration),
    /// Let it go.
    Release,
}

/// What to do about a range, beside all ranges and all addresses of services.
pub(super) fn decide(
    range: &ServiceCIDR,
    ranges: &[Arc<ServiceCIDR>],
    addresses: &[Arc<IPAddress>],
    now: Timestamp,
) -> Decision {
    let Some(deletion) = range.metadata.deletion_timestamp.as_ref().map(|time| time.0) else {
        let ready = condition("True", "", "Kubernetes Service CIDR is ready", now);
        return match meta::has_finalizer(&range.metadata, FINALIZER) {
            false => Decision::Protect,
            true => tell(range, ready),
        };
    };
    if !may_go(range, ranges, addresses) {
        let message = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new \
                       ServiceCIDR";
        return tell(range, condition("False", "Terminating", message, now));
    }
    let since = Duration::try_from(now.duration_since(deletion)).unwrap_or(Duration::ZERO);
    match SERVICE_RANGE_GRACE_TIME.saturating_sub(since) {
        Duration::ZERO if meta::has_finalizer(&range.metadata, FINALIZER) => Decision::Release,
        Duration::ZERO => Decision::Settled,
        left => Decision::Wait(left),
    }
}

fn condition(status: &str, reason: &str, message: &str, now: Timestamp) -> Condition {
    Condition {
        type_: "Ready".to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: time(now),
        observed_generation: None,
    }
}

fn tell(range: &ServiceCIDR, wanted: Condition) -> Decision {
    let conditions = range.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let is_known = meta::condition(conditions, &wanted.type_).is_some_and(|known| {
        (&known.status, &known.reason, &known.message) == (&wanted.status, &wanted.reason, &wanted.message)
    });
    if is_known { Decision::Settled } else { Decision::Tell(wanted) }
}

fn prefixes(range: &ServiceCIDR) -> impl Iterator<Item = Prefix> {
    let texts = range.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten());
    texts.filter_map(|text| text.parse().ok())
}

/// Whether every address of a service would still be in a range.
fn may_go(range: &ServiceCIDR, ranges: &[Arc<ServiceCIDR>], addresses: &[Arc<IPAddress>]) -> bool {
    let others = || ranges.iter().filter(|other| other.metadata.name != range.metadata.name);
    let all_within_others =
        prefixes(range).all(|own| others().any(|other| prefixes(other).any(|prefix| prefix.contains(own))));
    all_within_others || {
        let managed = addresses.iter().filter(|it| meta::label(&it.metadata, MANAGED_BY.0) == Some(MANAGED_BY.1));
        let mut parsed = managed.filter_map(|address| meta::name(&address.metadata).parse::<IpAddr>().ok());
        let has = |range: &ServiceCIDR, address| prefixes(range).any(|prefix| prefix.contains_address(address));
        !parsed.any(|address| has(range, address) && !others().any(|other| has(other, address)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::pods::fixtures::at;

    fn range(name: &str, cidrs: &[&str]) -> ServiceCIDR {
        let metadata = json!({"name": name, "finalizers": [FINALIZER]});
        serde_json::from_value(json!({"metadata": metadata, "spec": {"cidrs": cidrs}})).unwrap()
    }

    fn address(name: &str) -> Arc<IPAddress> {
        let metadata = json!({"name": name, "labels": {MANAGED_BY.0: MANAGED_BY.1}});
        let parent = json!({"resource": "services", "name": "s"});
        Arc::new(serde_json::from_value(json!({"metadata": metadata, "spec": {"parentRef": parent}})).unwrap())
    }

    fn going(mut range: ServiceCIDR) -> ServiceCIDR {
        range.metadata.deletion_timestamp = Some(time(at(0)));
        range
    }

    #[test]
    fn a_range_is_protected_and_then_ready() {
        let mut new = range("a", &["10.0.0.0/24"]);
        new.metadata.finalizers = None;
        assert_eq!(decide(&new, &[], &[], at(0)), Decision::Protect);
        new.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
        let Decision::Tell(ready) = decide(&new, &[], &[], at(0)) else { panic!("nothing told") };
        assert_eq!((&*ready.status, &*ready.message), ("True", "Kubernetes Service CIDR is ready"));
        new.status.get_or_insert_default().conditions = Some(vec![ready]);
        assert_eq!(decide(&new, &[], &[], at(9)), Decision::Settled);
    }

    #[test]
    fn a_range_goes_when_no_address_needs_it() {
        let own = going(range("a", &["10.0.0.0/24"]));
        let decide = |others: &[Arc<ServiceCIDR>], addresses: &[Arc<IPAddress>], second| {
            let mut ranges = others.to_vec();
            ranges.push(Arc::new(own.clone()));
            decide(&own, &ranges, addresses, at(second))
        };
        assert_eq!(decide(&[], &[], 4), Decision::Wait(Duration::from_secs(6)));
        assert_eq!(decide(&[], &[], 10), Decision::Release);
        assert_eq!(decide(&[], &[address("10.0.1.1")], 10), Decision::Release, "none of its addresses");
        let Decision::Tell(told) = decide(&[], &[address("10.0.0.7")], 10) else { panic!("it goes") };
        assert_eq!((&*told.status, &*told.reason), ("False", "Terminating"));
        let wider = Arc::new(range("b", &["10.0.0.0/16"]));
        assert_eq!(decide(&[wider], &[address("10.0.0.7")], 10), Decision::Release);
        let part = Arc::new(range("c", &["10.0.0.0/28"]));
        assert_eq!(decide(&[part], &[address("10.0.0.7")], 10), Decision::Release);
    }

    proptest! {
        #[test]
        fn no_address_is_left_without_a_range(
            own in 0..24_u8, others in prop::collection::vec(20..30_u8, 0..3), hosts in prop::collection::vec(any::<u8>(), 0..5),
        ) {
            let own = Arc::new(going(range("own", &[&format!("10.0.0.0/{}", own.max(8))])));
            let others: Vec<_> = others.iter().enumerate()
                .map(|(index, length)| Arc::new(range(&format!("o{index}"), &[&format!("10.0.0.0/{length}")]))).collect();
            let addresses: Vec<_> = hosts.iter().map(|host| address(&format!("10.0.0.{host}"))).collect();
            let ranges: Vec<_> = others.iter().cloned().chain([own.clone()]).collect();
            if decide(&own, &ranges, &addresses, at(60)) == Decision::Release {
                for host in hosts {
                    let covered = others.iter().any(|other| prefixes(other).any(|it| it.contains_address([10, 0, 0, host].into())));
                    prop_assert!(covered);
                }
            }
        }
    }
}
