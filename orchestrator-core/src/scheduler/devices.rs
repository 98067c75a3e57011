//! Devices: who claims them, who has them, and which of them are taken.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/>.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};

use k8s_openapi::api::resource::v1::{
    AllocationResult, DeviceClass, DeviceRequestAllocationResult, ResourceClaim, ResourceSlice,
};

use crate::{meta, object::ObjectKey, quantity::Quantity};

/// What a scheduler knows of devices.
#[derive(Clone, Debug, Default)]
pub struct Devices {
    /// Classes by name.
    pub classes: BTreeMap<String, Arc<DeviceClass>>,
    /// What drivers have, by the slices' names.
    pub slices: BTreeMap<String, Arc<ResourceSlice>>,
    /// Claims, by UID, whose devices were not ready for their node in time.
    pub overdue: BTreeSet<String>,
    claims: BTreeMap<ObjectKey, Arc<ResourceClaim>>,
    /// By the claims' UIDs.
    pending: BTreeMap<String, PendingAllocation>,
    taken: BTreeMap<DeviceId, Taken>,
}

/// Names a device.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceId {
    /// Whose it is.
    pub driver: String,
    /// The driver's pool that it is in.
    pub pool: String,
    /// Its name there.
    pub device: String,
}

/// What claims have of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// How many claims have the device as a whole.
    pub whole: usize,
    /// How many parts of it claims have, where it can be had in parts.
    pub parts: usize,
    /// What these take of its capacity.
    pub capacity: BTreeMap<String, Quantity>,
}

/// Devices that were chosen for a claim, which is not known to have them yet.
#[derive(Clone, Debug)]
pub struct PendingAllocation {
    /// The claim.
    pub claim: ObjectKey,
    /// The UID of the pod that they were chosen for.
    pub pod: String,
    /// What the claim gets.
    pub allocation: Arc<AllocationResult>,
}

/// Who has devices.
enum Holder {
    Claim(Arc<ResourceClaim>),
    Pending(Arc<AllocationResult>),
}

impl Devices {
    /// A claim by its key.
    pub fn claim(&self, key: &ObjectKey) -> Option<&Arc<ResourceClaim>> {
        self.claims.get(key)
    }

    /// All claims.
    pub fn claims(&self) -> impl Iterator<Item = (&ObjectKey, &Arc<ResourceClaim>)> {
        self.claims.iter()
    }

    /// What claims have of a device; `None` if it is free.
    pub fn taken(&self, device: &DeviceId) -> Option<&Taken> {
        self.taken.get(device)
    }

    /// What was chosen for a claim, by its UID, as long as it is not known whether it has it.
    pub fn pending(&self, uid: &str) -> Option<&PendingAllocation> {
        self.pending.get(uid)
    }

    /// A claim came, changed or went (`None`).
    pub fn set_claim(&mut self, key: ObjectKey, claim: Option<Arc<ResourceClaim>>) {
        let old = self.claims.get(&key).map(|claim| meta::uid(&claim.metadata).to_owned());
        let new = claim.as_ref().map(|claim| meta::uid(&claim.metadata).to_owned());
        self.overdue.retain(|uid| Some(uid) != old.as_ref() || claim.as_deref().is_some_and(is_allocated));
        let uids: BTreeSet<String> = old.into_iter().chain(new).collect();
        uids.iter().for_each(|uid| self.count(&key, uid, false));
        match claim {
            Some(claim) => drop(self.claims.insert(key.clone(), claim)),
            None => drop(self.claims.remove(&key)),
        }
        uids.iter().for_each(|uid| self.count(&key, uid, true));
    }

    /// Devices are chosen for a claim, and taken from now on.
    pub fn choose(&mut self, uid: &str, pending: PendingAllocation) {
        let key = pending.claim.clone();
        self.count(&key, uid, false);
        self.pending.insert(uid.to_owned(), pending);
        self.count(&key, uid, true);
    }

    /// Whatever was chosen for a pod, by its UID, its claims have it by now, or will not get it.
    pub fn settle(&mut self, pod: &str) {
        let of_pod = self.pending.iter().filter(|(_, pending)| pending.pod == pod);
        let of_pod: Vec<_> = of_pod.map(|(uid, pending)| (uid.clone(), pending.claim.clone())).collect();
        for (uid, key) in of_pod {
            self.count(&key, &uid, false);
            self.pending.remove(&uid);
            self.count(&key, &uid, true);
        }
    }

    /// Counts the devices of a claim, or no longer.
    fn count(&mut self, key: &ObjectKey, uid: &str, come: bool) {
        let claim = self.claims.get(key).filter(|claim| meta::uid(&claim.metadata) == uid && is_allocated(claim));
        let holder = match (claim, self.pending.get(uid)) {
            (Some(claim), _) => Holder::Claim(claim.clone()),
            (None, Some(pending)) => Holder::Pending(pending.allocation.clone()),
            (None, None) => return,
        };
        let allocation = match &holder {
            Holder::Claim(claim) => claim.status.as_ref().and_then(|status| status.allocation.as_ref()),
            Holder::Pending(allocation) => Some(allocation.as_ref()),
        };
        let devices = allocation.and_then(|allocation| allocation.devices.as_ref());
        for result in devices.and_then(|devices| devices.results.as_ref()).into_iter().flatten() {
            self.count_device(result, come);
        }
    }

    /// Who has administrators' access takes nothing from others.
    fn count_device(&mut self, result: &DeviceRequestAllocationResult, come: bool) {
        if result.admin_access == Some(true) {
            return;
        }
        let entry = self.taken.entry(DeviceId::of(result));
        let step = |count: usize| if come { count + 1 } else { count.saturating_sub(1) };
        let mut entry = match entry {
            Entry::Occupied(entry) => entry,
            Entry::Vacant(entry) if come => entry.insert_entry(Taken::default()),
            Entry::Vacant(_) => return,
        };
        let taken = entry.get_mut();
        if result.share_id.is_none() {
            taken.whole = step(taken.whole);
        } else {
            taken.parts = step(taken.parts);
            for (name, amount) in result.consumed_capacity.iter().flatten() {
                let amount = Quantity::try_from(amount).unwrap_or_default();
                let sum = taken.capacity.entry(name.clone()).or_default();
                if come { *sum += &amount } else { *sum -= &amount }
            }
            taken.capacity.retain(|_, amount| !amount.is_zero());
        }
        if taken.whole == 0 && taken.parts == 0 {
            entry.remove();
        }
    }
}

impl DeviceId {
    /// The device that an allocation names.
    pub fn of(result: &DeviceRequestAllocationResult) -> Self {
        Self { driver: result.driver.clone(), pool: result.pool.clone(), device: result.device.clone() }
    }
}

impl std::fmt::Display for DeviceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.driver, self.pool, self.device)
    }
}

fn is_allocated(claim: &ResourceClaim) -> bool {
    claim.status.as_ref().is_some_and(|status| status.allocation.is_some())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn allocation(devices: &[(u8, u8)]) -> Value {
        let result = |(device, kind): &(u8, u8)| {
            let mut result = json!({"request": "r", "driver": "d", "pool": "p", "device": device.to_string()});
            match kind {
                0 => {}
                1 => result["adminAccess"] = true.into(),
                _ => {
                    result["shareID"] = "s".into();
                    result["consumedCapacity"] = json!({"memory": format!("{kind}Gi")});
                }
            }
            result
        };
        json!({"devices": {"results": devices.iter().map(result).collect::<Vec<_>>()}})
    }

    fn claim(uid: u8, devices: Option<&Vec<(u8, u8)>>) -> Arc<ResourceClaim> {
        let mut claim = json!({"metadata": {"name": "c", "uid": uid.to_string()}, "spec": {"devices": {}}});
        if let Some(devices) = devices {
            claim["status"] = json!({ "allocation": allocation(devices) });
        }
        Arc::new(serde_json::from_value(claim).unwrap())
    }

    /// Devices and kinds of allocations.
    type Got = Vec<(u8, u8)>;

    #[derive(Clone, Debug)]
    enum Step {
        /// A claim by its key; if there is one, its UID and what it has.
        Set(u8, Option<(u8, Option<Got>)>),
        /// A claim by its key and UID, the pod, and what the claim gets.
        Choose(u8, u8, u8, Got),
        Settle(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        let devices = || prop::collection::vec((0..4_u8, 0..4_u8), 0..3);
        let claim = prop::option::of((0..4_u8, prop::option::of(devices())));
        prop_oneof![
            (0..3_u8, claim).prop_map(|(key, claim)| Step::Set(key, claim)),
            (0..3_u8, 0..4_u8, 0..3_u8, devices()).prop_map(|(key, uid, pod, got)| Step::Choose(key, uid, pod, got)),
            (0..3_u8).prop_map(Step::Settle),
        ]
    }

    proptest! {
        #[test]
        fn what_is_taken_is_what_claims_have_and_what_was_chosen(steps in prop::collection::vec(step(), 0..40)) {
            let key = |key: u8| ObjectKey::new("x", key.to_string());
            let mut devices = Devices::default();
            for step in steps {
                match step {
                    Step::Set(at, new) => {
                        devices.set_claim(key(at), new.map(|(uid, got)| claim(uid + 10 * at, got.as_ref())));
                    }
                    Step::Choose(at, uid, pod, got) => {
                        let allocation = Arc::new(serde_json::from_value(allocation(&got)).unwrap());
                        let pending = PendingAllocation { claim: key(at), pod: pod.to_string(), allocation };
                        devices.choose(&(uid + 10 * at).to_string(), pending);
                    }
                    Step::Settle(pod) => devices.settle(&pod.to_string()),
                }
            }
            let mut expected = Devices::default();
            for (at, claim) in &devices.claims {
                expected.set_claim(at.clone(), Some(claim.clone()));
            }
            for (uid, pending) in &devices.pending {
                expected.choose(uid, pending.clone());
            }
            prop_assert_eq!(devices.taken, expected.taken);
        }
    }

    #[test]
    fn what_was_chosen_gives_way_to_what_a_claim_has() {
        let device = DeviceId { driver: "d".into(), pool: "p".into(), device: "1".into() };
        let mut devices = Devices::default();
        let key = ObjectKey::new("x", "c");
        devices.set_claim(key.clone(), Some(claim(1, None)));
        let chosen = Arc::new(serde_json::from_value(allocation(&[(1, 0)])).unwrap());
        devices.choose("1", PendingAllocation { claim: key.clone(), pod: "a".into(), allocation: chosen });
        assert_eq!(devices.taken(&device).unwrap().whole, 1);
        devices.set_claim(key.clone(), Some(claim(1, Some(&vec![(1, 0)]))));
        assert_eq!(devices.taken(&device).unwrap().whole, 1);
        devices.settle("a");
        assert_eq!(devices.taken(&device).unwrap().whole, 1);
        devices.set_claim(key, None);
        assert_eq!(devices.taken(&device), None);
    }
}
