//! What a run of a reconciler works with, and how its writes are remembered.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use futures::future::join_all;

use super::{Caches, caches::AnyLease};
use crate::{
    client::{Backend, Call, Client, Reply, Request, Resource, WatchRequest, WatchStream},
    env::Env,
    object::ObjectKey,
    status::{ApiError, ApiResult},
    store::Revision,
};

/// What a run works with.
///
/// Everything written through [`Self::client`] is remembered, and the next run of the key waits until the caches
/// contain it. So a reconciler never acts on a state older than its own last write.
#[derive(Clone, Debug)]
pub struct Context {
    client: Client,
    caches: Caches,
    writes: Arc<Writes>,
}

impl Context {
    pub(super) fn new(caches: &Caches, writes: Arc<Writes>) -> Self {
        let backend = Remembering { client: caches.client().clone(), caches: caches.clone(), writes: writes.clone() };
        Self { client: Client::new(Arc::new(backend)), caches: caches.clone(), writes }
    }

    /// A context outside of a controller, whose writes nobody waits for: for tests, and for loops of their own.
    pub fn detached(caches: &Caches) -> Self {
        Self::new(caches, Arc::default())
    }

    /// The client to read and write through.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The shared caches.
    pub fn caches(&self) -> &Caches {
        &self.caches
    }

    /// Clock, chance and tasks.
    pub fn env(&self) -> &Env {
        self.caches.env()
    }

    /// Remembers a write that did not go through [`Self::client`].
    pub fn wrote(&self, resource: &Resource, revision: Revision) {
        self.writes.wrote(resource, revision);
    }
}

/// Writes that the caches may not contain yet.
#[derive(Debug, Default)]
pub(super) struct Writes(Mutex<Pending>);

#[derive(Debug, Default)]
struct Pending {
    revisions: BTreeMap<Resource, Revision>,
    deletions: Vec<Deletion>,
    count: u64,
}

#[derive(Clone, Debug)]
struct Deletion {
    resource: Resource,
    key: ObjectKey,
    uid: String,
}

impl Writes {
    fn wrote(&self, resource: &Resource, revision: Revision) {
        let mut pending = self.lock();
        let known = pending.revisions.entry(resource.clone()).or_default();
        *known = revision.max(*known);
    }

    pub(super) fn count(&self) -> u64 {
        self.lock().count
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

/// A client that notes what was written.
struct Remembering {
    client: Client,
    caches: Caches,
    writes: Arc<Writes>,
}

impl fmt::Debug for Remembering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Remembering").field(&self.client).finish()
    }
}

#[async_trait]
impl Backend for Remembering {
    async fn request(&self, request: Request) -> ApiResult<Reply> {
        let write = Write::of(&request, &self.caches);
        let result = self.client.request(request).await;
        if let Some(write) = write {
            write.note(&self.writes, &result);
        }
        result
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, ApiError> {
        self.client.watch(request).await
    }
}

/// A write that is under way.
struct Write {
    resource: Resource,
    /// The object in the cache that the write would delete.
    deletion: Option<Deletion>,
}

impl Write {
    fn of(request: &Request, caches: &Caches) -> Option<Self> {
        let deletion = match &request.call {
            Call::Get { .. } | Call::List(_) | Call::DeleteCollection(..) => return None,
            Call::Create { options, .. } | Call::Replace { options, .. } | Call::Patch { options, .. } => {
                if options.dry_run {
                    return None;
                }
                None
            }
            Call::Delete(options) if options.dry_run => return None,
            Call::Delete(_) => {
                let namespace = request.namespace.clone().unwrap_or_default();
                let key = ObjectKey::new(namespace, request.name.clone()?);
                let uid = caches.of_resource(&request.resource).iter().find_map(|lease| lease.living(&key));
                uid.map(|uid| Deletion { resource: request.resource.clone(), key, uid })
            }
        };
        Some(Self { resource: request.resource.clone(), deletion })
    }

    fn note(self, writes: &Writes, result: &ApiResult<Reply>) {
        if let Ok(Reply::Object { object, .. }) = result {
            writes.lock().count += 1;
            if let Some(revision) = object.revision() {
                writes.wrote(&self.resource, revision);
            }
        }
        // What the server does not find any more, the cache will lose too.
        let gone = result.is_ok() || result.as_ref().is_err_and(ApiError::is_not_found);
        if let (Some(deletion), true) = (self.deletion, gone) {
            writes.lock().deletions.push(deletion);
        }
    }
}
