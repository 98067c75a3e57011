//! Who owns what: adopting orphans that a selector selects, releasing what it no longer selects.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube_core::params::{Patch, PatchParams};
use orchestrator_core::{
    client::{Api, Client},
    controller::Kind,
    meta::{self, controller_of, owner_reference},
    status::{ApiError, ApiResult, Reason},
};
use serde_json::{Value, json};

/// What an object is to an owner with a selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// It belongs to the owner.
    Owned,
    /// It belongs to nobody and is selected.
    Adopt,
    /// It belongs to the owner but is no longer selected.
    Release,
    /// It is none of the owner's business.
    Foreign,
}

/// What an object is to an owner. An owner that is being deleted neither adopts nor releases; an object that is
/// being deleted is never adopted. Identity is the UID, never the name.
pub(crate) fn claim(owner: &ObjectMeta, object: &ObjectMeta, selected: bool) -> Claim {
    let owner_goes = owner.deletion_timestamp.is_some();
    match controller_of(object) {
        Some(reference) if Some(&reference.uid) != owner.uid.as_ref() => Claim::Foreign,
        Some(_) if selected => Claim::Owned,
        Some(_) if owner_goes => Claim::Foreign,
        Some(_) => Claim::Release,
        None if selected && !owner_goes && object.deletion_timestamp.is_none() => Claim::Adopt,
        None => Claim::Foreign,
    }
}

/// Adopts and releases, and gives what belongs to the owner afterwards, in the order of `candidates`. A failure with one of
/// them does not keep the others from being adopted and released.
///
/// Before the first adoption the owner is read anew: a cache may not know yet that it is going or was replaced.
pub(crate) async fn claim_all<O: Kind, K: Kind>(
    client: &Client,
    owner: &O,
    candidates: Vec<Arc<K>>,
    selected: impl Fn(&K) -> bool,
) -> ApiResult<Vec<Arc<K>>> {
    claim_all_with(client, owner, candidates, selected, None).await
}

/// As [`claim_all`], where what belongs to the owner has a finalizer.
pub(crate) async fn claim_all_with<O: Kind, K: Kind>(
    client: &Client,
    owner: &O,
    candidates: Vec<Arc<K>>,
    selected: impl Fn(&K) -> bool,
    finalizer: Option<&str>,
) -> ApiResult<Vec<Arc<K>>> {
    let namespace = owner.meta().namespace.clone().unwrap_or_default();
    let api = Api::<K>::namespaced(client, &namespace);
    let (mut may_adopt, mut outcome) = (None, Ok(()));
    let mut owned = Vec::with_capacity(candidates.len());
    for object in candidates {
        let metadata = object.meta();
        match claim(owner.meta(), metadata, selected(&object)) {
            Claim::Owned => owned.push(object),
            Claim::Foreign => {}
            Claim::Adopt => {
                if may_adopt.is_none() {
                    let checked = recheck(client, owner).await;
                    may_adopt = Some(checked.is_ok());
                    outcome = outcome.and(checked);
                }
                if may_adopt == Some(true) {
                    let body = adoption(metadata, owner_reference(owner, true), finalizer);
                    match patch(&api, metadata, body).await {
                        Ok(adopted) => owned.extend(adopted),
                        Err(error) => outcome = outcome.and(Err(error)),
                    }
                }
            }
            Claim::Release => {
                let released = patch(&api, metadata, release(metadata, owner.meta(), finalizer)).await;
                outcome = outcome.and(released.map(drop));
            }
        }
    }
    outcome.map(|()| owned)
}

/// Fails unless the owner lives, is the same object as in the cache, and is not being deleted.
async fn recheck<O: Kind>(client: &Client, owner: &O) -> ApiResult<()> {
    let metadata = owner.meta();
    let api = Api::<O>::namespaced(client, metadata.namespace.as_deref().unwrap_or_default());
    let live = api.get(metadata.name.as_deref().unwrap_or_default()).await?;
    if live.meta().uid == metadata.uid && live.meta().deletion_timestamp.is_none() {
        return Ok(());
    }
    let name = metadata.name.as_deref().unwrap_or_default();
    Err(ApiError::new(Reason::Conflict, format!("{name} is going or was replaced and adopts nothing")))
}

/// Writes owner references; `None` when the object is gone.
async fn patch<K: Kind>(api: &Api<K>, object: &ObjectMeta, body: Value) -> ApiResult<Option<Arc<K>>> {
    let name = object.name.as_deref().unwrap_or_default();
    match api.patch(name, &PatchParams::default(), &Patch::Merge(body)).await {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn adoption(object: &ObjectMeta, reference: OwnerReference, finalizer: Option<&str>) -> Value {
    let mut object = object.clone();
    let references = object.owner_references.get_or_insert_default();
    references.retain(|existing| existing.uid != reference.uid);
    references.push(reference);
    let added = finalizer.is_some_and(|finalizer| meta::add_finalizer(&mut object, finalizer));
    ownership_patch(&object, added)
}

fn release(object: &ObjectMeta, owner: &ObjectMeta, finalizer: Option<&str>) -> Value {
    let mut object = object.clone();
    let references = object.owner_references.get_or_insert_default();
    references.retain(|existing| Some(&existing.uid) != owner.uid.as_ref());
    let removed = finalizer.is_some_and(|finalizer| meta::remove_finalizer(&mut object, finalizer));
    ownership_patch(&object, removed)
}

/// A merge patch that holds only for the very version of the object that was seen.
fn ownership_patch(object: &ObjectMeta, with_finalizers: bool) -> Value {
    let mut body = json!({
        "uid": object.uid,
        "resourceVersion": object.resource_version,
        "ownerReferences": object.owner_references,
    });
    if with_finalizers {
        body["finalizers"] = json!(object.finalizers);
    }
    json!({"metadata": body})
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn meta(uid: &str) -> ObjectMeta {
        ObjectMeta { uid: Some(uid.to_owned()), ..Default::default() }
    }

    fn controlled_by(uid: &str) -> ObjectMeta {
        let reference = OwnerReference { uid: uid.to_owned(), controller: Some(true), ..Default::default() };
        ObjectMeta { owner_references: Some(vec![reference]), ..meta("object") }
    }

    fn going(metadata: ObjectMeta) -> ObjectMeta {
        ObjectMeta { deletion_timestamp: Some(Time(jiff::Timestamp::UNIX_EPOCH)), ..metadata }
    }

    #[test]
    fn every_case_of_a_claim() {
        let (owner, leaving) = (meta("owner"), going(meta("owner")));
        for (owner, object, selected, expected) in [
            (&owner, controlled_by("owner"), true, Claim::Owned),
            (&owner, controlled_by("owner"), false, Claim::Release),
            (&owner, controlled_by("other"), true, Claim::Foreign),
            (&owner, meta("object"), true, Claim::Adopt),
            (&owner, meta("object"), false, Claim::Foreign),
            (&owner, going(meta("object")), true, Claim::Foreign),
            (&owner, going(controlled_by("owner")), true, Claim::Owned),
            (&leaving, controlled_by("owner"), true, Claim::Owned),
            (&leaving, controlled_by("owner"), false, Claim::Foreign),
            (&leaving, meta("object"), true, Claim::Foreign),
        ] {
            assert_eq!(claim(owner, &object, selected), expected, "{object:?} selected: {selected}");
        }
    }

    #[test]
    fn patches_keep_other_owners_and_name_the_version_seen() {
        let other = OwnerReference { uid: "other".to_owned(), ..Default::default() };
        let mut object = controlled_by("owner");
        object.owner_references.as_mut().unwrap().push(other.clone());
        object.resource_version = Some("7".to_owned());
        let body = release(&object, &meta("owner"), None);
        assert_eq!(body["metadata"]["ownerReferences"].as_array().unwrap().len(), 1);
        assert_eq!(body["metadata"]["ownerReferences"][0]["uid"], "other");
        assert_eq!(body["metadata"]["resourceVersion"], "7");
        let mut orphan = meta("object");
        orphan.owner_references = Some(vec![other]);
        let reference = OwnerReference { uid: "owner".to_owned(), controller: Some(true), ..Default::default() };
        let body = adoption(&orphan, reference, Some("f"));
        assert_eq!(body["metadata"]["finalizers"], json!(["f"]));
        assert_eq!(body["metadata"]["ownerReferences"].as_array().unwrap().len(), 2);
    }
}
