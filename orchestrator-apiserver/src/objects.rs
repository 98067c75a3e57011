//! One decoded object for each key, shared by all who read it; a follower of the store keeps out what is gone.

use std::{
    hash::BuildHasherDefault,
    sync::{
        Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use dashmap::{DashMap, Entry as Slot};
use futures::StreamExt;
use orchestrator_core::{
    env::Env,
    object::Object,
    store::{Entry, Key, KeyRange, ListOptions, Revision, Store, StoreError, WatchItem, WatchOptions},
};

use crate::{limits, pipeline::Server};

/// A hasher without a random seed: the order of a map is never looked at, but a run should repeat to the byte.
type FixedState = BuildHasherDefault<std::hash::DefaultHasher>;

/// The newest version of each object that was read.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    newest: DashMap<Key, (Revision, Object), FixedState>,
    /// Up to here the follower has seen what was deleted: an older entry may be gone by now, and is not kept.
    followed: AtomicU64,
}

impl Objects {
    /// The object of an entry: the shared one, where this is its version.
    pub(crate) fn of(&self, entry: &Entry) -> Object {
        if let Some(found) = self.newest.get(&entry.key)
            && found.0 == entry.modified
        {
            return found.1.clone();
        }
        self.keep(entry, |followed| entry.modified.0 > followed)
    }

    /// Shares an object, unless another call did so before, and gives the shared one.
    fn keep(&self, entry: &Entry, new_keys: impl FnOnce(u64) -> bool) -> Object {
        let object = Object::from_stored(&entry.value, entry.modified);
        match self.newest.entry(entry.key.clone()) {
            Slot::Occupied(mut slot) => {
                if slot.get().0 < entry.modified {
                    slot.insert((entry.modified, object.clone()));
                }
                if slot.get().0 == entry.modified { slot.get().1.clone() } else { object }
            }
            Slot::Vacant(slot) => {
                // Read while the key is locked: the follower moves on before it removes.
                if new_keys(self.followed.load(Ordering::SeqCst)) {
                    slot.insert((entry.modified, object.clone()));
                }
                object
            }
        }
    }

    /// Forgets an object that was deleted.
    pub(crate) fn forget(&self, key: &Key) {
        self.newest.remove(key);
    }

    fn deleted(&self, key: &Key, at: Revision) {
        self.newest.remove_if(key, |_, (revision, _)| *revision < at);
    }

    fn begin(&self, revision: Revision) {
        self.followed.store(revision.0, Ordering::SeqCst);
        self.newest.clear();
    }
}

/// Follows the store for as long as the server lives.
pub(crate) async fn follow(server: Weak<Server>, env: Env) {
    while let Some(store) = server.upgrade().map(|server| server.store.clone()) {
        let ended = follow_once(&server, &*store).await;
        if matches!(ended, Err(StoreError::Closed)) {
            return;
        }
        env.sleep(limits::FOLLOW_AGAIN).await;
    }
}

/// Takes in the present state, and then what changes. Ends when the store cannot go on from there.
async fn follow_once(server: &Weak<Server>, store: &dyn Store) -> Result<(), StoreError> {
    let revision = store.status().await?.revision;
    if let Some(server) = server.upgrade() {
        server.objects.begin(revision);
    }
    let everything = KeyRange::prefix("");
    let options = WatchOptions { after: Some(revision), bookmarks: false };
    let mut changes = store.watch(everything.clone(), options).await?;
    let mut after = None;
    loop {
        let options = ListOptions { revision: None, limit: Some(limits::WALK_PAGE_OBJECTS), after };
        let page = store.list(&everything, options).await?;
        let Some(server) = server.upgrade() else { return Ok(()) };
        // What changes meanwhile comes once more with the watch.
        for entry in page.entries.iter().filter(|entry| !entry.value.is_empty()) {
            server.objects.keep(entry, |_| true);
        }
        after = page.entries.last().map(|entry| entry.key.clone());
        if page.remaining == 0 {
            break;
        }
    }
    while let Some(item) = changes.next().await {
        let WatchItem::Changes { revision, changes } = item? else { continue };
        let Some(server) = server.upgrade() else { return Ok(()) };
        server.objects.followed.store(revision.0, Ordering::SeqCst);
        for change in changes.iter() {
            match &change.entry {
                // Keys that are only reserved have no object.
                Some(entry) if entry.value.is_empty() => {}
                Some(entry) => drop(server.objects.of(entry)),
                None => server.objects.deleted(&change.key, revision),
            }
        }
    }
    Ok(())
}
