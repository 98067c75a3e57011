//! What the status of a quota says.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, ResourceQuotaSpec, ResourceQuotaStatus, Service},
        resource::v1::ResourceClaim,
    },
    apimachinery::pkg::api::resource::Quantity as Written,
};
use orchestrator_core::{
    quantity::{Format, Quantity},
    quota::{
        amounts::{self, Amounts},
        scopes,
    },
};

/// What is known when a quota is decided on: the objects of its namespace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observed<'a> {
    /// The quota.
    pub quota: &'a ResourceQuota,
    pub pods: &'a [Arc<Pod>],
    pub services: &'a [Arc<Service>],
    pub claims: &'a [Arc<PersistentVolumeClaim>],
    pub device_claims: &'a [Arc<ResourceClaim>],
    /// How many objects there are of other resources, by the names that quotas have for them.
    pub counts: &'a BTreeMap<String, usize>,
    /// The time.
    pub now: Timestamp,
}

/// The status, or `None` when it says already how things are.
pub(crate) fn decide(observed: Observed<'_>) -> Option<ResourceQuotaStatus> {
    let spec = observed.quota.spec.clone().unwrap_or_default();
    let known = observed.quota.status.clone().unwrap_or_default();
    let used = used(&observed, &spec, known.used.as_ref());
    let is_same = |a: &Option<BTreeMap<String, Written>>, b: &BTreeMap<String, Written>| {
        let amount = |written: &Written| Quantity::try_from(written).ok();
        a.as_ref()
            .is_some_and(|a| a.len() == b.len() && b.iter().all(|(name, b)| a.get(name).map(amount) == Some(amount(b))))
    };
    let hard = spec.hard.unwrap_or_default();
    if known.hard.as_ref() == Some(&hard) && is_same(&known.used, &used) {
        return None;
    }
    Some(ResourceQuotaStatus { hard: Some(hard), used: Some(used) })
}

fn used(
    observed: &Observed<'_>,
    spec: &ResourceQuotaSpec,
    before: Option<&BTreeMap<String, Written>>,
) -> BTreeMap<String, Written> {
    let mut total = Amounts::new();
    for pod in observed.pods.iter().filter(|pod| scopes::has_pod(spec, pod)) {
        amounts::add(&mut total, &amounts::pod(pod, observed.now));
    }
    for claim in observed.claims.iter().filter(|claim| scopes::has_claim(spec, claim)) {
        amounts::add(&mut total, &amounts::claim(claim));
    }
    if scopes::is_unscoped(spec) {
        observed.services.iter().for_each(|service| amounts::add(&mut total, &amounts::service(service)));
        observed.device_claims.iter().for_each(|claim| amounts::add(&mut total, &amounts::device_claim(claim)));
        for (name, count) in observed.counts {
            let count = i64::try_from(*count).unwrap_or(i64::MAX);
            total.insert(name.clone(), Quantity::from_value(count, Format::DecimalSi));
        }
    }
    let zero = || Written::from(Quantity::ZERO);
    let amount = |name: &String| match total.get(name) {
        Some(amount) => Some(amount.into()),
        None if is_known(name) || observed.counts.contains_key(name) => Some(zero()),
        // What nobody can count stays as it was.
        None => before.and_then(|before| before.get(name)).cloned(),
    };
    let hard = spec.hard.iter().flatten();
    hard.filter_map(|(name, _)| Some((name.clone(), amount(name)?))).collect()
}

/// Whether pods, services or claims of either kind may use what has this name.
fn is_known(name: &str) -> bool {
    let plain = name.strip_prefix("requests.").or(name.strip_prefix("limits.")).unwrap_or(name);
    matches!(plain, "cpu" | "memory" | "ephemeral-storage" | "storage")
        || plain.starts_with("hugepages-")
        || name.starts_with("requests.")
        || matches!(name, "pods" | "count/pods" | "services" | "count/services")
        || matches!(name, "services.nodeports" | "services.loadbalancers")
        || matches!(name, "persistentvolumeclaims" | "count/persistentvolumeclaims")
        || name.contains(".storageclass.storage.k8s.io/")
        || amounts::is_of_devices(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::pods::fixtures::{at, running};

    fn quota(spec: Value) -> ResourceQuota {
        serde_json::from_value(json!({"metadata": {"name": "q"}, "spec": spec})).unwrap()
    }

    fn decided(quota: &ResourceQuota, pods: &[Arc<Pod>], counts: &BTreeMap<String, usize>) -> Option<Value> {
        let observed = Observed { quota, pods, services: &[], claims: &[], device_claims: &[], counts, now: at(0) };
        decide(observed).map(|status| serde_json::to_value(status).unwrap())
    }

    #[test]
    fn a_status_has_what_the_limits_name() {
        let counts = [("count/deployments.apps".to_owned(), 3)].into();
        let hard =
            json!({"pods": "10", "count/deployments.apps": "4", "requests.cpu": "1", "services": "2", "odd": "1"});
        let quota = quota(json!({"hard": hard}));
        let pods = [Arc::new(running("a", None)), Arc::new(running("b", None))];
        let used = json!({"pods": "2", "count/deployments.apps": "3", "requests.cpu": "0", "services": "0"});
        assert_eq!(decided(&quota, &pods, &counts), Some(json!({"hard": hard, "used": used})));
    }

    #[test]
    fn scopes_leave_out_the_rest() {
        let hard = json!({"pods": "10"});
        for (scope, used) in [("BestEffort", "1"), ("NotBestEffort", "0")] {
            let quota = quota(json!({"hard": hard, "scopes": [scope]}));
            let status = decided(&quota, &[Arc::new(running("a", None))], &BTreeMap::new()).unwrap();
            assert_eq!(status["used"]["pods"], used, "{scope}");
        }
    }

    proptest! {
        #[test]
        fn a_status_that_is_right_is_not_written_again(
            pods in 0..6_usize, services in 0..6_usize, hard in prop::collection::btree_map("[a-z]{3}|pods|services|cpu", 0..9_u8, 0..5),
        ) {
            let hard: BTreeMap<_, _> = hard.into_iter().map(|(name, most)| (name, most.to_string())).collect();
            let mut quota = quota(json!({"hard": hard}));
            let pods: Vec<_> = (0..pods).map(|number| Arc::new(running(&format!("p{number}"), None))).collect();
            let services: Vec<_> = (0..services).map(|_| Arc::new(Service::default())).collect();
            let counts = BTreeMap::new();
            let observe = |quota: &ResourceQuota| {
                decide(Observed { quota, pods: &pods, services: &services, claims: &[], device_claims: &[], counts: &counts, now: at(0) })
            };
            quota.status = observe(&quota);
            prop_assert!(quota.status.is_some());
            prop_assert_eq!(observe(&quota), None);
        }
    }
}
