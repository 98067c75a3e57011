//! Whether anything is left behind: objects without their owners, deletions that do not end.

use std::collections::{BTreeMap, BTreeSet};

use orchestrator_core::{meta, object::ObjectKey};

use crate::snapshot::{Snapshot, Stored};

/// Objects of which an owner is gone, and pods of workloads that belong to nobody.
pub(super) fn orphans(snapshot: &Snapshot) -> Vec<String> {
    let uids: BTreeMap<&str, &Stored> =
        snapshot.objects.values().map(|object| (meta::uid(&object.metadata), &**object)).collect();
    let mut found = Vec::new();
    for object in snapshot.objects.values() {
        for owner in meta::owners(&object.metadata) {
            let present = uids.get(&*owner.uid);
            let is_meant = present.is_some_and(|it| it.kind == owner.kind && meta::name(&it.metadata) == owner.name);
            if !is_meant {
                found.push(format!("{} is owned by {} {}, which is gone", describe(object), owner.kind, owner.name));
            }
        }
    }
    found.extend(unclaimed_slices(snapshot));
    found
}

/// Endpoint slices of services that are gone.
fn unclaimed_slices(snapshot: &Snapshot) -> Vec<String> {
    let services: BTreeSet<ObjectKey> = snapshot.services().map(|service| ObjectKey::of(&service.metadata)).collect();
    let mut found = Vec::new();
    for slice in snapshot.endpoint_slices() {
        let Some(service) = meta::label(&slice.metadata, "kubernetes.io/service-name") else { continue };
        let key = ObjectKey::new(meta::namespace(&slice.metadata), service);
        if !services.contains(&key) {
            found.push(format!("endpoint slice {} is of service {key}, which is gone", ObjectKey::of(&slice.metadata)));
        }
    }
    found
}

/// Objects that are being deleted.
pub(super) fn deletions(snapshot: &Snapshot) -> Vec<String> {
    let going = snapshot.objects.values().filter(|object| meta::is_deleting(&object.metadata));
    going.map(|object| format!("{} is being deleted", describe(object))).collect()
}

fn describe(object: &Stored) -> String {
    format!("{} {}", object.kind, ObjectKey::of(&object.metadata))
}
