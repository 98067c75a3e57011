//! What a run wrote: noted for its trace, and remembered until the caches contain it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::future::join_all;

use super::{
    Caches,
    caches::AnyLease,
    limits,
    trace::{Cause, Noted, Write},
};
use crate::{
    client::{Call, Reply, Request, Resource},
    object::{Object, ObjectKey},
    status::{ApiError, ApiResult},
    store::Revision,
};

/// Writes that the caches may not contain yet.
#[derive(Debug, Default)]
pub(super) struct Writes(Mutex<Pending>);

#[derive(Debug, Default)]
struct Pending {
    revisions: BTreeMap<Resource, Revision>,
    deletions: Vec<Deletion>,
    noted: Noted<Write>,
}

#[derive(Clone, Debug)]
struct Deletion {
    resource: Resource,
    key: ObjectKey,
    uid: String,
}

impl Writes {
    pub(super) fn wrote(&self, resource: &Resource, revision: Revision) {
        let mut pending = self.lock();
        let known = pending.revisions.entry(resource.clone()).or_default();
        *known = revision.max(*known);
    }

    /// What was written, for the trace.
    pub(super) fn noted(&self) -> Noted<Write> {
        self.lock().noted.clone()
    }

    /// Whether a change is nothing but one of these writes.
    pub(super) fn caused(&self, cause: &Cause) -> bool {
        let pending = self.lock();
        match cause {
            Cause::Changed { resource, revision: Some(revision), .. } => {
                let is_it = |write: &Write| write.revision == Some(*revision) && write.resource == *resource;
                pending.noted.items().iter().any(is_it)
            }
            Cause::Removed { resource, uid, .. } => {
                pending.deletions.iter().any(|deletion| deletion.uid == *uid && deletion.resource == **resource)
            }
            _ => false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        let pending = self.lock();
        pending.revisions.is_empty() && pending.deletions.is_empty()
    }

    /// Whether the caches that run contain all of it.
    pub(super) fn is_contained(&self, caches: &Caches) -> bool {
        let pending = self.lock();
        let reached = |(resource, revision): (&Resource, &Revision)| {
            caches.of_resource(resource).iter().all(|lease| lease.progress().get().revision >= *revision)
        };
        let gone = |deletion: &Deletion| {
            let leases = caches.of_resource(&deletion.resource);
            leases.iter().all(|lease| lease.living(&deletion.key).as_ref() != Some(&deletion.uid))
        };
        pending.revisions.iter().all(reached) && pending.deletions.iter().all(gone)
    }

    /// Whether something that was made is gone again although its cache has caught up. Whoever is told of every change
    /// knows that; but what came and went between two lists, nobody is told.
    pub(super) fn has_vanished(&self, caches: &Caches) -> bool {
        let pending = self.lock();
        let gone = |write: &Write| {
            write.verb == "create"
                && write.subresource.is_none()
                && caches.of_resource(&write.resource).iter().any(|lease| {
                    write.revision.is_some_and(|revision| lease.progress().get().revision >= revision)
                        && !lease.contains(&write.key)
                })
        };
        pending.noted.items().iter().any(gone)
    }

    /// Resolves once the caches that run contain all of it.
    pub(super) async fn contained(&self, caches: &Caches) {
        let (revisions, deletions) = {
            let pending = self.lock();
            (pending.revisions.clone(), pending.deletions.clone())
        };
        for (resource, revision) in revisions {
            join_all(caches.of_resource(&resource).iter().map(|lease| reached(&**lease, revision))).await;
        }
        for deletion in deletions {
            join_all(caches.of_resource(&deletion.resource).iter().map(|lease| gone(&**lease, &deletion))).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn reached(lease: &dyn AnyLease, revision: Revision) {
    // An error means that the cache has ended, and then nobody reads it.
    let _ = lease.progress().wait_for(|progress| progress.revision >= revision).await;
}

async fn gone(lease: &dyn AnyLease, deletion: &Deletion) {
    let living = |uid: Option<String>| uid.as_ref() == Some(&deletion.uid);
    let _ = lease.progress().wait_for(|_| !living(lease.living(&deletion.key))).await;
}

/// A write that is under way.
pub(super) struct Writing {
    verb: &'static str,
    resource: Arc<Resource>,
    subresource: Option<String>,
    key: ObjectKey,
    /// The object in the cache that the write would delete.
    deletion: Option<Deletion>,
}

impl Writing {
    /// The write that a request asks for; `None` when it changes nothing.
    pub(super) fn of(request: &Request, caches: &Caches) -> Option<Self> {
        let (verb, dry_run) = match &request.call {
            Call::Get { .. } | Call::List(_) => return None,
            Call::Create { options, .. } => ("create", options.dry_run),
            Call::Replace { options, .. } => ("update", options.dry_run),
            Call::Patch { options, .. } => ("patch", options.dry_run),
            Call::Delete(options) => ("delete", options.dry_run),
            Call::DeleteCollection(options, _) => ("deletecollection", options.dry_run),
        };
        if dry_run {
            return None;
        }
        let name = request.name.clone().unwrap_or_default();
        let key = ObjectKey::new(request.namespace.clone().unwrap_or_default(), name);
        let deleted = || {
            let uid = caches.of_resource(&request.resource).iter().find_map(|lease| lease.living(&key))?;
            Some(Deletion { resource: request.resource.clone(), key: key.clone(), uid })
        };
        let deletion = if verb == "delete" { deleted() } else { None };
        let resource = Arc::new(request.resource.clone());
        Some(Self { verb, resource, subresource: request.subresource.clone(), key, deletion })
    }

    /// Notes how it went.
    pub(super) fn note(mut self, writes: &Writes, result: &ApiResult<Reply>) {
        // What the server does not find any more, the cache will lose too.
        let gone = result.is_ok() || result.as_ref().is_err_and(ApiError::is_not_found);
        if let (Some(deletion), true) = (self.deletion.take(), gone) {
            writes.lock().deletions.push(deletion);
        }
        let Ok(Reply::Object { object, .. }) = result else { return };
        let revision = object.revision();
        if let Some(revision) = revision {
            writes.wrote(&self.resource, revision);
        }
        let Self { verb, resource, subresource, mut key, .. } = self;
        if key.name.is_empty() && verb == "create" {
            key.name = generated_name(object);
        }
        let write = Write { verb, resource, subresource, key, revision };
        writes.lock().noted.note(write, limits::WRITES_PER_RUN);
    }
}

/// A name that the server may have chosen.
fn generated_name(object: &Object) -> String {
    object.metadata().ok().and_then(|metadata| metadata.name.clone()).unwrap_or_default()
}
