//! One cache: the objects of one kind, kept up to date by one watch, shared by everyone in the process.

mod follow;
mod state;
#[cfg(test)]
mod state_tests;

use std::{
    collections::BTreeMap,
    fmt,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

pub(super) use follow::{follow, random_part};
use state::{State, Step};

use super::{
    caches::Lease,
    context::Reads,
    trace::{Cause, Scope},
};
use crate::{
    client::Resource,
    env::{Watched, Watcher},
    object::{DecodeError, Object, ObjectKey},
    store::Revision,
};

/// The objects of one kind in all namespaces, as they were a moment ago. Cheap to clone; the watch behind it ends when
/// the last clone (and the last [`Subscription`]) is dropped.
pub struct Cache<K> {
    pub(super) lease: Arc<Lease<K>>,
}

/// An object came (`old` is `None`), changed, or went (`new` is `None`). Both are never of different UIDs.
#[derive(Debug)]
pub struct Change<K> {
    /// Which object.
    pub key: ObjectKey,
    /// As it was known before.
    pub old: Option<Arc<K>>,
    /// As it is now.
    pub new: Option<Arc<K>>,
}

/// Keeps a handler in place. Dropping it ends the handler; a call that is under way still finishes.
#[must_use = "dropping the subscription ends it"]
pub struct Subscription(Option<Box<dyn FnOnce() + Send + Sync>>);

impl<K> Change<K> {
    /// The new object, or the old one when it is gone.
    pub fn object(&self) -> Option<&Arc<K>> {
        self.new.as_ref().or(self.old.as_ref())
    }

    /// Why a key that depends on the object is to be reconciled.
    pub(super) fn cause(&self, resource: &Arc<Resource>, metadata: fn(&K) -> &ObjectMeta) -> Cause {
        let (resource, key) = (resource.clone(), self.key.clone());
        match &self.new {
            Some(new) => {
                let version = metadata(new).resource_version.as_ref();
                let revision = version.and_then(|version| version.parse().ok()).map(Revision);
                Cause::Changed { resource, key, revision }
            }
            None => {
                let uid = self.old.as_ref().and_then(|old| metadata(old).uid.clone()).unwrap_or_default();
                Cause::Removed { resource, key, uid }
            }
        }
    }

    /// Old and new, whichever there are.
    pub fn objects(&self) -> impl Iterator<Item = &Arc<K>> {
        self.old.iter().chain(&self.new)
    }
}

impl<K> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Self { lease: self.lease.clone() }
    }
}

impl<K> fmt::Debug for Cache<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cache").field(&self.lease.core).finish()
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subscription")
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(end) = self.0.take() {
            end();
        }
    }
}

impl<K: Send + Sync + 'static> Cache<K> {
    /// Resolves once the first list is complete.
    pub async fn synced(&self) {
        self.core().wait(|progress| progress.synced).await;
    }

    /// As [`Self::synced`], but also once the server says that it has no such resource: then there are no objects of the
    /// kind. Should the server come to have it, the cache contains it from then on.
    pub async fn synced_or_not_served(&self) {
        self.core().wait(|progress| progress.synced || progress.not_served).await;
    }

    /// Whether the first list is complete.
    pub fn is_synced(&self) -> bool {
        self.core().progress.get().synced
    }

    /// Resolves once the cache contains everything up to this revision, and all handlers were told.
    pub async fn reached(&self, revision: Revision) {
        self.core().wait(|progress| progress.synced && progress.revision >= revision).await;
    }

    /// Up to which revision the cache contains everything.
    pub fn revision(&self) -> Revision {
        self.core().progress.get().revision
    }

    /// One object.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.note(|| Scope::Object(key.clone()));
        self.core().read(|state| state.get(key).cloned())
    }

    /// All objects, ordered by key.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.note(|| Scope::All);
        self.core().read(|state| state.objects().values().cloned().collect())
    }

    /// The keys of all objects, in order.
    pub fn keys(&self) -> Vec<ObjectKey> {
        self.note(|| Scope::All);
        self.core().read(|state| state.objects().keys().cloned().collect())
    }

    /// The objects of one namespace, ordered by key.
    pub fn list_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.note(|| Scope::Namespace(namespace.to_owned()));
        self.core().read(|state| state.namespace(namespace).cloned().collect())
    }

    /// Adds an index, unless there is one of this name. It may be added at any time.
    pub fn add_index(&self, name: &'static str, index: fn(&K) -> Vec<String>) {
        self.core().write(|state| state.add_index(name, index));
    }

    /// The objects under a value of an index, ordered by key; none when there is no such index.
    pub fn by_index(&self, name: &'static str, value: &str) -> Vec<Arc<K>> {
        self.note(|| Scope::Index(name, value.to_owned()));
        self.core().read(|state| state.by_index(name, value))
    }

    /// Calls a handler for every change, in order and after the cache contains it, and first, before this returns,
    /// once for every object that is there. Handlers must be quick, and must not subscribe to the same cache.
    pub fn on_change(&self, handler: impl Fn(&Change<K>) + Send + Sync + 'static) -> Subscription {
        let id = self.core().subscribe(Arc::new(handler));
        let cache = self.clone();
        Subscription(Some(Box::new(move || cache.core().unsubscribe(id))))
    }

    pub(super) fn core(&self) -> &Core<K> {
        &self.lease.core
    }

    /// The kind.
    pub(super) fn resource(&self) -> &Arc<Resource> {
        &self.lease.resource
    }

    fn note(&self, scope: impl FnOnce() -> Scope) {
        Reads::within_run(|reads| reads.note(self.resource(), false, scope()));
    }
}

type Handler<K> = Arc<dyn Fn(&Change<K>) + Send + Sync>;

/// What the following task and the handles share.
pub(super) struct Core<K> {
    state: RwLock<State<K>>,
    /// Held while changes are handed out, so that every handler sees them in order.
    dispatch: Mutex<()>,
    handlers: Mutex<BTreeMap<u64, Handler<K>>>,
    next_handler: AtomicU64,
    progress: Watched<Progress>,
    decode: fn(&Object) -> Result<Arc<K>, DecodeError>,
}

/// How far a cache is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) synced: bool,
    /// The server has no such resource.
    pub(super) not_served: bool,
    /// How often the collection was listed. What happened between the last watch and a list stays unknown.
    pub(super) lists: u64,
    pub(super) revision: Revision,
}

impl<K> fmt::Debug for Core<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("progress", &self.progress.get()).finish_non_exhaustive()
    }
}

impl<K> Core<K> {
    pub(super) fn new(metadata: fn(&K) -> &ObjectMeta, decode: fn(&Object) -> Result<Arc<K>, DecodeError>) -> Self {
        Self {
            state: RwLock::new(State::new(metadata)),
            dispatch: Mutex::default(),
            handlers: Mutex::default(),
            next_handler: AtomicU64::new(0),
            progress: Watched::new(Progress::default()),
            decode,
        }
    }

    pub(super) fn read<T>(&self, look: impl FnOnce(&State<K>) -> T) -> T {
        look(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, change: impl FnOnce(&mut State<K>) -> T) -> T {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn progress(&self) -> Watcher<Progress> {
        self.progress.watcher()
    }

    async fn wait(&self, mut enough: impl FnMut(&Progress) -> bool) {
        let progress = self.progress.watcher();
        // The sender lives as long as `self`.
        let _ = progress.wait_for(|progress| enough(progress)).await;
    }

    /// Takes in steps, hands out the changes, and only then says how far the cache is. `false` when the steps were out of
    /// order, so that the collection has to be listed again.
    pub(super) fn apply(&self, steps: Vec<Step<K>>) -> bool {
        let dispatch = lock(&self.dispatch);
        let listed = steps.iter().any(|step| matches!(step, Step::Listed(..)));
        let (changes, revision, in_order) = self.write(|state| {
            let changes: Vec<Change<K>> = steps.into_iter().flat_map(|step| state.apply(step)).collect();
            (changes, state.revision(), !state.is_disordered())
        });
        let handlers: Vec<Handler<K>> = lock(&self.handlers).values().cloned().collect();
        for change in &changes {
            handlers.iter().for_each(|handler| call(handler, change));
        }
        self.progress.update(|progress| {
            let lists = progress.lists + u64::from(listed);
            let synced = progress.synced || listed;
            let now = Progress { synced, not_served: progress.not_served && !listed, lists, revision };
            let moved = *progress != now || !changes.is_empty();
            *progress = now;
            moved
        });
        drop(dispatch);
        in_order
    }

    /// Notes that the server has no such resource.
    fn set_not_served(&self) {
        self.progress.update(|progress| !std::mem::replace(&mut progress.not_served, true));
    }

    fn subscribe(&self, handler: Handler<K>) -> u64 {
        let dispatch = lock(&self.dispatch);
        let present: Vec<Change<K>> = self.read(|state| {
            let change = |(key, object): (&ObjectKey, &Arc<K>)| Change {
                key: key.clone(),
                old: None,
                new: Some(object.clone()),
            };
            state.objects().iter().map(change).collect()
        });
        present.iter().for_each(|change| call(&handler, change));
        let id = self.next_handler.fetch_add(1, Ordering::Relaxed);
        lock(&self.handlers).insert(id, handler);
        drop(dispatch);
        id
    }

    fn unsubscribe(&self, id: u64) {
        let handler = lock(&self.handlers).remove(&id);
        // Dropped here, outside of the lock: it may hold caches.
        drop(handler);
    }
}

/// A handler that panics is reported and loses that one change; the cache goes on.
fn call<K>(handler: &Handler<K>, change: &Change<K>) {
    let result = std::panic::catch_unwind(AssertUnwindSafe(|| handler(change)));
    if let Err(panic) = result {
        let message = crate::env::panic_message(&*panic);
        tracing::error!(key = %change.key, message, "a handler of a cache panicked");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
