//! Which objects are garbage, and what the deletion of an owner waits for.
//!
//! Upstream: `pkg/controller/garbagecollector` and
//! <https://kubernetes.io/docs/concepts/architecture/garbage-collection/>.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use orchestrator_core::{client::Propagation, meta};

/// An owner with this finalizer leaves its dependents behind.
pub(super) const ORPHAN: &str = "orphan";

/// An owner with this finalizer goes after its dependents.
pub(super) const FOREGROUND: &str = "foregroundDeletion";

/// What has become of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwnerState {
    /// It is there.
    Solid,
    /// It is being deleted and waits for its dependents.
    Waiting,
    /// There is no object of this name and UID.
    Absent,
}

/// What to do with an object that is not being deleted.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Decision {
    /// Leave it.
    Keep,
    /// It has a solid owner: drop the references to all others that are gone or going.
    KeepOwners(Vec<OwnerReference>),
    /// Nobody owns it any more.
    Delete {
        /// As its finalizers ask.
        propagation: Propagation,
        /// It is in a circle of owners that wait for each other: its references may not block any more.
        unblock: bool,
    },
}

/// Decides on an object with owners, whose states are in the same order as its references.
pub(super) fn decide(metadata: &ObjectMeta, owners: &[OwnerState], dependents: &[&ObjectMeta]) -> Decision {
    let references = meta::owners(metadata);
    if references.is_empty() || references.len() != owners.len() {
        return Decision::Keep;
    }
    if owners.contains(&OwnerState::Solid) {
        let solid = references.iter().zip(owners).filter(|(_, state)| **state == OwnerState::Solid);
        let kept: Vec<OwnerReference> = solid.map(|(reference, _)| reference.clone()).collect();
        return if kept.len() == references.len() { Decision::Keep } else { Decision::KeepOwners(kept) };
    }
    if owners.contains(&OwnerState::Waiting) && !dependents.is_empty() {
        let unblock = dependents.iter().any(|dependent| is_waiting(dependent));
        return Decision::Delete { propagation: Propagation::Foreground, unblock };
    }
    let propagation = if meta::has_finalizer(metadata, ORPHAN) {
        Propagation::Orphan
    } else if meta::has_finalizer(metadata, FOREGROUND) {
        Propagation::Foreground
    } else {
        Propagation::Background
    };
    Decision::Delete { propagation, unblock: false }
}

/// What to do with an object that is being deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deleting {
    /// Nothing; others hold it, or nobody.
    Nothing,
    /// Take it out of its dependents, then release it.
    Orphan,
    /// See to its dependents, which it waits for.
    Wait,
    /// Nothing blocks it any more: release it.
    Release,
}

/// Decides on an object that is being deleted, given all that refer to it.
pub(super) fn decide_deleting(metadata: &ObjectMeta, dependents: &[&ObjectMeta]) -> Deleting {
    let blocks = |dependent: &&&ObjectMeta| {
        meta::owners(dependent).iter().any(|reference| {
            Some(&reference.uid) == metadata.uid.as_ref() && reference.block_owner_deletion == Some(true)
        })
    };
    if metadata.deletion_timestamp.is_none() {
        Deleting::Nothing
    } else if meta::has_finalizer(metadata, ORPHAN) {
        Deleting::Orphan
    } else if !meta::has_finalizer(metadata, FOREGROUND) {
        Deleting::Nothing
    } else if dependents.iter().any(|dependent| blocks(&dependent)) {
        Deleting::Wait
    } else {
        Deleting::Release
    }
}

/// Whether an object is being deleted and waits for its dependents.
pub(super) fn is_waiting(metadata: &ObjectMeta) -> bool {
    metadata.deletion_timestamp.is_some() && meta::has_finalizer(metadata, FOREGROUND)
}

/// Whom a change concerns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Concerns {
    /// The object itself has to be looked at.
    pub(super) itself: bool,
    /// All that refer to this UID.
    pub(super) dependents_of: Option<String>,
    /// The owners that may have waited for it, by UID.
    pub(super) owners: Vec<String>,
}

/// Finds out whom a change of an object concerns.
pub(super) fn concerns(old: Option<&ObjectMeta>, new: Option<&ObjectMeta>) -> Concerns {
    let uids = |metadata: Option<&ObjectMeta>| {
        metadata.map(meta::owners).unwrap_or_default().iter().map(|owner| owner.uid.clone()).collect::<Vec<_>>()
    };
    let Some(new) = new else {
        return Concerns { itself: false, dependents_of: old.and_then(|old| old.uid.clone()), owners: uids(old) };
    };
    let same = old.is_some_and(|old| {
        old.owner_references == new.owner_references
            && old.finalizers == new.finalizers
            && old.deletion_timestamp.is_some() == new.deletion_timestamp.is_some()
    });
    if same {
        return Concerns::default();
    }
    let starts_waiting = is_waiting(new) && !old.is_some_and(is_waiting);
    let lets_go = old.is_some_and(|old| old.owner_references != new.owner_references);
    Concerns {
        itself: !meta::owners(new).is_empty() || new.deletion_timestamp.is_some(),
        dependents_of: new.uid.clone().filter(|_| starts_waiting),
        owners: if lets_go { uids(old) } else { Vec::new() },
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use proptest::prelude::*;

    use super::*;

    fn object(owners: &[(&str, bool)], finalizers: &[&str], deleting: bool) -> ObjectMeta {
        let reference = |(uid, block): &(&str, bool)| OwnerReference {
            uid: (*uid).to_owned(),
            block_owner_deletion: Some(*block),
            ..Default::default()
        };
        ObjectMeta {
            uid: Some("self".to_owned()),
            owner_references: Some(owners.iter().map(reference).collect()),
            finalizers: Some(finalizers.iter().map(ToString::to_string).collect()),
            deletion_timestamp: deleting.then_some(Time(jiff::Timestamp::UNIX_EPOCH)),
            ..Default::default()
        }
    }

    #[test]
    fn a_circle_of_waiting_owners_is_unblocked() {
        let item = object(&[("owner", true)], &[], false);
        let dependent = object(&[("self", true)], &[FOREGROUND], true);
        let decision = decide(&item, &[OwnerState::Waiting], &[&dependent]);
        assert_eq!(decision, Decision::Delete { propagation: Propagation::Foreground, unblock: true });
    }

    #[test]
    fn a_foreground_deletion_waits_for_blocking_dependents_only() {
        let owner = object(&[], &[FOREGROUND], true);
        assert_eq!(decide_deleting(&owner, &[&object(&[("self", true)], &[], false)]), Deleting::Wait);
        assert_eq!(decide_deleting(&owner, &[&object(&[("self", false)], &[], false)]), Deleting::Release);
        assert_eq!(decide_deleting(&object(&[], &[FOREGROUND], false), &[]), Deleting::Nothing);
        assert_eq!(decide_deleting(&object(&[], &[ORPHAN, FOREGROUND], true), &[]), Deleting::Orphan);
        assert_eq!(decide_deleting(&object(&[], &["other"], true), &[]), Deleting::Nothing);
    }

    #[test]
    fn a_change_concerns_those_who_wait_for_it() {
        let plain = object(&[("owner", true)], &[], false);
        assert!(concerns(None, Some(&plain)).itself);
        assert_eq!(concerns(Some(&plain), Some(&plain)), Concerns::default());
        let gone = concerns(Some(&plain), None);
        assert_eq!((gone.dependents_of.as_deref(), gone.owners.as_slice()), (Some("self"), &["owner".to_owned()][..]));
        let waiting = object(&[], &[FOREGROUND], true);
        let concerned = concerns(Some(&plain), Some(&waiting));
        assert_eq!(concerned.dependents_of.as_deref(), Some("self"));
        assert_eq!(concerned.owners, ["owner"]);
    }

    fn states() -> impl Strategy<Value = Vec<OwnerState>> {
        prop::collection::vec(
            prop_oneof![Just(OwnerState::Solid), Just(OwnerState::Waiting), Just(OwnerState::Absent)],
            0..5,
        )
    }

    proptest! {
        #[test]
        fn deleted_is_exactly_what_has_owners_and_none_that_stays(states in states(), dependents in any::<bool>()) {
            let names: Vec<String> = (0..states.len()).map(|index| index.to_string()).collect();
            let owners: Vec<(&str, bool)> = names.iter().map(|name| (name.as_str(), true)).collect();
            let item = object(&owners, &[], false);
            let dependent = object(&[("self", true)], &[], false);
            let blocking = [&dependent];
            let decision = decide(&item, &states, if dependents { &blocking } else { &[] });
            let garbage = !states.is_empty() && !states.contains(&OwnerState::Solid);
            prop_assert_eq!(matches!(decision, Decision::Delete { .. }), garbage);
            if let Decision::KeepOwners(kept) = decision {
                prop_assert_eq!(kept.len(), states.iter().filter(|state| **state == OwnerState::Solid).count());
                prop_assert!(kept.len() < states.len());
            }
        }
    }
}
