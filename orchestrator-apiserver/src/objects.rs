//! One decoded object for each key, shared by all who read it.

use std::hash::BuildHasherDefault;

use dashmap::DashMap;
use orchestrator_core::{
    object::Object,
    store::{Entry, Key, Revision},
};

/// A hasher without a random seed: the order of a map is never looked at, but a run should repeat to the byte.
type FixedState = BuildHasherDefault<std::hash::DefaultHasher>;

/// The newest version of each object that was read.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    newest: DashMap<Key, (Revision, Object), FixedState>,
}

impl Objects {
    /// The object of an entry: the shared one, where this is its version.
    pub(crate) fn of(&self, entry: &Entry) -> Object {
        if let Some(found) = self.newest.get(&entry.key)
            && found.0 == entry.modified
        {
            return found.1.clone();
        }
        let object = Object::from_stored(&entry.value, entry.modified);
        self.keep(entry.key.clone(), entry.modified, object)
    }

    /// Shares an object, unless another call did so before, and gives the shared one.
    fn keep(&self, key: Key, revision: Revision, object: Object) -> Object {
        let mut slot = self.newest.entry(key).or_insert_with(|| (revision, object.clone()));
        if slot.0 < revision {
            *slot = (revision, object.clone());
        }
        if slot.0 == revision { slot.1.clone() } else { object }
    }

    /// Forgets an object that was deleted.
    pub(crate) fn forget(&self, key: &Key) {
        self.newest.remove(key);
    }
}
