//! One decoded object for each key, shared by all who read it; a follower of the store keeps out what is gone.

use std::{
    collections::VecDeque,
    hash::BuildHasherDefault,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use dashmap::{DashMap, Entry as Slot};
use futures::StreamExt;
use orchestrator_core::{
    env::Env,
    object::Object,
    status::ApiResult,
    store::{Entry, Key, KeyRange, ListOptions, Revision, Store, StoreError, WatchItem, WatchOptions},
};

use crate::{
    limits,
    pipeline::Server,
    selection::{Attributes, Selection},
};

/// A hasher without a random seed: the order of a map is never looked at, but a run should repeat to the byte.
pub(crate) type FixedState = BuildHasherDefault<std::hash::DefaultHasher>;

/// The newest version of each object that was read.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    newest: DashMap<Key, Newest, FixedState>,
    /// Up to here the follower has seen what was deleted: an older entry may be gone by now, and is not kept.
    followed: AtomicU64,
    gone: Gone,
}

/// What selectors look at in the last objects that went: all watches of a kind ask for it, at about the same time.
#[derive(Debug, Default)]
struct Gone(Mutex<VecDeque<(Key, Revision, Arc<Attributes>)>>);

impl Gone {
    fn find(&self, entry: &Entry) -> Option<Arc<Attributes>> {
        let gone = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_meant = |(key, revision, _): &&(Key, Revision, _)| *revision == entry.modified && *key == entry.key;
        gone.iter().rev().find(is_meant).map(|(_, _, attributes)| attributes.clone())
    }

    fn push(&self, key: &Key, revision: Revision, attributes: Arc<Attributes>) {
        let mut gone = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if gone.len() == limits::GONE_OBJECTS {
            gone.pop_front();
        }
        gone.push_back((key.clone(), revision, attributes));
    }
}

#[derive(Debug)]
struct Newest {
    revision: Revision,
    object: Object,
    /// What selectors look at, once somebody selects.
    attributes: Option<Arc<Attributes>>,
    /// The same of the version before, which watches compare with.
    previous: Option<(Revision, Arc<Attributes>)>,
}

impl Newest {
    fn new(entry: &Entry, object: &Object) -> Self {
        Self { revision: entry.modified, object: object.clone(), attributes: None, previous: None }
    }

    fn replace(&mut self, entry: &Entry, object: &Object) {
        let known = self.attributes.take().map(|attributes| (self.revision, attributes));
        *self = Self { previous: known, ..Self::new(entry, object) };
    }

    /// Shares the attributes of a version, if it is this one or the one before.
    fn remember(&mut self, revision: Revision, attributes: Arc<Attributes>) -> Arc<Attributes> {
        if self.revision == revision {
            return self.attributes.get_or_insert(attributes).clone();
        }
        let is_last = self.previous.as_ref().is_none_or(|(known, _)| *known < revision);
        if revision < self.revision && is_last {
            self.previous = Some((revision, attributes.clone()));
        }
        attributes
    }

    fn attributes_at(&self, revision: Revision) -> Option<Arc<Attributes>> {
        let previous = self.previous.as_ref().filter(|(known, _)| *known == revision);
        let newest = self.attributes.as_ref().filter(|_| self.revision == revision);
        newest.or(previous.map(|(_, attributes)| attributes)).cloned()
    }
}

impl Objects {
    /// What selectors look at in the object of an entry.
    fn attributes(&self, entry: &Entry) -> ApiResult<Arc<Attributes>> {
        let known = self.newest.get(&entry.key).and_then(|newest| newest.attributes_at(entry.modified));
        if let Some(known) = known.or_else(|| self.gone.find(entry)) {
            return Ok(known);
        }
        let attributes = Arc::new(Attributes::of(&self.of(entry))?);
        Ok(match self.newest.get_mut(&entry.key) {
            Some(mut newest) => newest.remember(entry.modified, attributes),
            None => {
                self.gone.push(&entry.key, entry.modified, attributes.clone());
                attributes
            }
        })
    }

    /// Whether a selection contains the object of an entry.
    pub(crate) fn selected(&self, selection: &Selection, entry: &Entry) -> ApiResult<bool> {
        if selection.is_empty() {
            return Ok(true);
        }
        selection.matches(&*self.attributes(entry)?, || self.of(entry))
    }

    /// The object of an entry: the shared one, where this is its version.
    pub(crate) fn of(&self, entry: &Entry) -> Object {
        if let Some(found) = self.newest.get(&entry.key)
            && found.revision == entry.modified
        {
            return found.object.clone();
        }
        self.keep(entry, |followed| entry.modified.0 > followed)
    }

    /// Shares an object, unless another call did so before, and gives the shared one.
    fn keep(&self, entry: &Entry, new_keys: impl FnOnce(u64) -> bool) -> Object {
        let object = Object::from_stored(&entry.value, entry.modified);
        match self.newest.entry(entry.key.clone()) {
            Slot::Occupied(mut slot) => {
                if slot.get().revision < entry.modified {
                    slot.get_mut().replace(entry, &object);
                }
                if slot.get().revision == entry.modified { slot.get().object.clone() } else { object }
            }
            Slot::Vacant(slot) => {
                // Read while the key is locked: the follower moves on before it removes.
                if new_keys(self.followed.load(Ordering::SeqCst)) {
                    slot.insert(Newest::new(entry, &object));
                }
                object
            }
        }
    }

    /// Forgets an object that was deleted.
    pub(crate) fn forget(&self, key: &Key) {
        self.went(self.newest.remove(key));
    }

    fn deleted(&self, key: &Key, at: Revision) {
        self.went(self.newest.remove_if(key, |_, newest| newest.revision < at));
    }

    fn went(&self, removed: Option<(Key, Newest)>) {
        if let Some((key, Newest { revision, attributes: Some(attributes), .. })) = removed {
            self.gone.push(&key, revision, attributes);
        }
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
        // What was deleted meanwhile is not told.
        if let Some(server) = server.upgrade() {
            server.own.look();
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
    if let Some(server) = server.upgrade() {
        server.load_definitions().await?;
    }
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
            server.definition_changed(change).await?;
            match &change.entry {
                // Keys that are only reserved have no object.
                Some(entry) if entry.value.is_empty() => {}
                Some(entry) => drop(server.objects.of(entry)),
                None => {
                    server.objects.deleted(&change.key, revision);
                    server.own.deleted(&change.key);
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn entry(revision: u64) -> Entry {
        let value = Bytes::from_static(br#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"}}"#);
        Entry { key: Key::new("a"), value, created: Revision(1), modified: Revision(revision) }
    }

    #[test]
    fn attributes_are_made_once_for_this_version_the_one_before_and_the_last_that_went() {
        let objects = Objects::default();
        let is_shared =
            |entry: &Entry| Arc::ptr_eq(&objects.attributes(entry).unwrap(), &objects.attributes(entry).unwrap());
        let (first, second) = (entry(1), entry(2));
        // Nobody looked at the first version before there was a second.
        objects.of(&first);
        objects.of(&second);
        assert!(is_shared(&first) && is_shared(&second));
        let known = objects.attributes(&second).unwrap();
        objects.forget(&second.key);
        assert!(Arc::ptr_eq(&known, &objects.attributes(&second).unwrap()));
        // What was never looked at while it was there is made once, too; a number of them.
        let went: Vec<Entry> = (3..100).map(entry).collect();
        objects.followed.store(100, Ordering::SeqCst);
        assert!(went.iter().all(is_shared));
        assert_eq!(objects.gone.0.lock().unwrap().len(), limits::GONE_OBJECTS);
        assert!(objects.newest.is_empty());
    }
}
