//! Whether a claim asks for more than its volume has, and who gives it that.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/storage/persistent-volumes/#expanding-persistent-volumes-claims>.

use k8s_openapi::{
    api::core::v1::{PersistentVolume, PersistentVolumeClaim},
    apimachinery::pkg::api::resource::Quantity as Written,
};
use orchestrator_core::{meta, quantity::Quantity};

use crate::volumes::{PROVISIONED_BY, PROVISIONER};

const STORAGE: &str = "storage";

/// What to do for a claim.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Decision {
    /// It has what it asks for, or has no volume yet.
    Nothing,
    /// A driver outside of this program expands its volume.
    LeaveToOthers,
    /// The volume has less than the claim asks for: it gets more.
    GrowVolume(Written),
    /// The volume has enough, which the claim does not say yet.
    GrowClaim(Written),
}

/// What to do for a claim and its volume. A local directory grows by saying so: nothing limits what is in it.
pub(super) fn decide(claim: &PersistentVolumeClaim, volume: Option<&PersistentVolume>) -> Decision {
    let status = claim.status.as_ref().filter(|status| status.phase.as_deref() == Some("Bound"));
    let (Some(volume), Some(status)) = (volume, status) else { return Decision::Nothing };
    let read = |amounts: Option<&std::collections::BTreeMap<String, Written>>| {
        amounts.and_then(|amounts| Quantity::try_from(amounts.get(STORAGE)?).ok())
    };
    let requests = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
    let Some(asked) = read(requests) else { return Decision::Nothing };
    let has = read(status.capacity.as_ref()).unwrap_or_default();
    if asked <= has || !is_bound(claim, volume) {
        return Decision::Nothing;
    }
    if meta::annotation(&volume.metadata, PROVISIONED_BY) != Some(PROVISIONER) {
        return Decision::LeaveToOthers;
    }
    let size = read(volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref())).unwrap_or_default();
    if size < asked { Decision::GrowVolume(asked.into()) } else { Decision::GrowClaim(size.into()) }
}

fn is_bound(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    reference.is_some_and(|reference| reference.uid.is_some() && reference.uid == claim.metadata.uid)
}

/// The volume, of another size.
pub(super) fn with_size(volume: &PersistentVolume, size: Written) -> PersistentVolume {
    let mut volume = volume.clone();
    let capacity = &mut volume.spec.get_or_insert_default().capacity;
    capacity.get_or_insert_default().insert(STORAGE.to_owned(), size);
    volume
}

/// The claim, saying that it has this much.
pub(super) fn with_capacity(claim: &PersistentVolumeClaim, size: Written) -> PersistentVolumeClaim {
    let mut claim = claim.clone();
    let capacity = &mut claim.status.get_or_insert_default().capacity;
    capacity.get_or_insert_default().insert(STORAGE.to_owned(), size);
    claim
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn claim(asked: &str, has: &str) -> PersistentVolumeClaim {
        serde_json::from_value(json!({
            "metadata": {"name": "c", "uid": "u"},
            "spec": {"resources": {"requests": {"storage": asked}}, "volumeName": "v"},
            "status": {"phase": "Bound", "capacity": {"storage": has}},
        }))
        .unwrap()
    }

    fn volume(size: &str, provisioner: &str) -> PersistentVolume {
        serde_json::from_value(json!({
            "metadata": {"name": "v", "annotations": {PROVISIONED_BY: provisioner}},
            "spec": {"capacity": {"storage": size}, "claimRef": {"name": "c", "uid": "u"}},
        }))
        .unwrap()
    }

    #[test]
    fn volumes_grow_first_and_then_their_claims() {
        let written = |text: &str| Written(text.to_owned());
        for (claim, volume, expected) in [
            (claim("1Gi", "1Gi"), volume("1Gi", PROVISIONER), Decision::Nothing),
            (claim("2Gi", "1Gi"), volume("1Gi", PROVISIONER), Decision::GrowVolume(written("2Gi"))),
            (claim("2Gi", "1Gi"), volume("3Gi", PROVISIONER), Decision::GrowClaim(written("3Gi"))),
            (claim("2Gi", "1Gi"), volume("1Gi", "csi.example.com"), Decision::LeaveToOthers),
        ] {
            assert_eq!(decide(&claim, Some(&volume)), expected, "{claim:?} {volume:?}");
        }
        assert_eq!(decide(&claim("2Gi", "1Gi"), None), Decision::Nothing);
        let mut foreign = claim("2Gi", "1Gi");
        foreign.metadata.uid = Some("other".to_owned());
        assert_eq!(decide(&foreign, Some(&volume("1Gi", PROVISIONER))), Decision::Nothing);
    }

    proptest! {
        #[test]
        fn two_steps_settle_and_nothing_shrinks(asked in 1..9_u32, has in 1..9_u32, size in 1..9_u32) {
            let gigabytes = |count: u32| format!("{count}Gi");
            let (mut claim, mut volume) = (claim(&gigabytes(asked), &gigabytes(has)), volume(&gigabytes(size), PROVISIONER));
            for _ in 0..2 {
                match decide(&claim, Some(&volume)) {
                    Decision::GrowVolume(to) => volume = with_size(&volume, to),
                    Decision::GrowClaim(to) => claim = with_capacity(&claim, to),
                    Decision::Nothing | Decision::LeaveToOthers => {}
                }
            }
            prop_assert_eq!(decide(&claim, Some(&volume)), Decision::Nothing);
            let amount = |amounts: &std::collections::BTreeMap<String, Written>| Quantity::try_from(&amounts[STORAGE]).unwrap();
            let of = |count: u32| gigabytes(count).parse::<Quantity>().unwrap();
            prop_assert!(amount(claim.status.as_ref().unwrap().capacity.as_ref().unwrap()) >= of(asked.max(has)));
            prop_assert!(amount(volume.spec.as_ref().unwrap().capacity.as_ref().unwrap()) >= of(size));
        }
    }
}
