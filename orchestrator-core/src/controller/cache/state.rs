//! What a cache knows, as a pure state machine: lists and watch events in, changes out.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::Change;
use crate::{object::ObjectKey, store::Revision};

/// Gives the values under which an object is found in an index.
pub(crate) type IndexFunction<K> = fn(&K) -> Vec<String>;

/// One thing that a list or a watch said.
#[derive(Debug)]
pub(crate) enum Step<K> {
    /// The whole collection, as a snapshot.
    Listed(BTreeMap<ObjectKey, Arc<K>>, Option<Revision>),
    /// An object is there, in this state.
    Put(ObjectKey, Arc<K>, Option<Revision>),
    /// An object is gone.
    Removed(ObjectKey, Option<Revision>),
    /// Nothing else happened up to here.
    Bookmark(Option<Revision>),
}

/// The objects of one kind, with their indexes, as of one revision.
pub(crate) struct State<K> {
    objects: BTreeMap<ObjectKey, Arc<K>>,
    indexes: BTreeMap<&'static str, Index<K>>,
    metadata: fn(&K) -> &ObjectMeta,
    revision: Revision,
    disordered: bool,
}

struct Index<K> {
    function: IndexFunction<K>,
    /// Values with the keys of the objects that have them.
    entries: BTreeSet<(String, ObjectKey)>,
}

impl<K> State<K> {
    pub(crate) fn new(metadata: fn(&K) -> &ObjectMeta) -> Self {
        Self { objects: BTreeMap::new(), indexes: BTreeMap::new(), metadata, revision: Revision(0), disordered: false }
    }

    /// Takes in a step and gives what changed. An object that was deleted and made again under its name is two
    /// changes, also when the two fell between two lists.
    pub(crate) fn apply(&mut self, step: Step<K>) -> Vec<Change<K>> {
        match step {
            Step::Listed(objects, revision) => {
                self.revision = revision.unwrap_or_default();
                self.disordered = false;
                self.replace(objects)
            }
            Step::Put(key, object, revision) if self.advance(revision) => self.put(key, object),
            Step::Removed(key, revision) if self.advance(revision) => self.remove(key).into_iter().collect(),
            Step::Bookmark(revision) => {
                self.advance(revision);
                Vec::new()
            }
            Step::Put(key, _, revision) => self.pass_over(self.known(&key) < revision),
            Step::Removed(key, revision) => {
                self.pass_over(self.known(&key).is_some_and(|known| Some(known) < revision))
            }
        }
    }

    /// Whether something came after what it precedes, which no server does: the collection has to be listed again.
    pub(crate) fn is_disordered(&self) -> bool {
        self.disordered
    }

    /// Leaves out what is older than the rest. Either it came before, or the order is wrong and it is missing.
    fn pass_over(&mut self, is_missing: bool) -> Vec<Change<K>> {
        self.disordered |= is_missing;
        Vec::new()
    }

    fn known(&self, key: &ObjectKey) -> Option<Revision> {
        self.metadata(key)?.resource_version.as_ref()?.parse().ok().map(Revision)
    }

    /// Moves to a revision. `false` for what was seen before.
    fn advance(&mut self, revision: Option<Revision>) -> bool {
        match revision {
            Some(revision) if revision <= self.revision => false,
            Some(revision) => {
                self.revision = revision;
                true
            }
            None => true,
        }
    }

    fn replace(&mut self, listed: BTreeMap<ObjectKey, Arc<K>>) -> Vec<Change<K>> {
        let gone: Vec<ObjectKey> = self.objects.keys().filter(|key| !listed.contains_key(key)).cloned().collect();
        let mut changes: Vec<Change<K>> = gone.into_iter().filter_map(|key| self.remove(key)).collect();
        for (key, object) in listed {
            changes.extend(self.put(key, object));
        }
        changes
    }

    fn put(&mut self, key: ObjectKey, object: Arc<K>) -> Vec<Change<K>> {
        let mut changes = Vec::with_capacity(1);
        let mut old = self.objects.get(&key).cloned();
        if let Some(known) = &old {
            let (known, new) = ((self.metadata)(known), (self.metadata)(&object));
            if known.uid != new.uid {
                changes.extend(self.remove(key.clone()));
                old = None;
            } else if known.resource_version.is_some() && known.resource_version == new.resource_version {
                return changes;
            }
        }
        self.reindex(&key, old.as_deref(), Some(&object));
        self.objects.insert(key.clone(), object.clone());
        changes.push(Change { key, old, new: Some(object) });
        changes
    }

    fn remove(&mut self, key: ObjectKey) -> Option<Change<K>> {
        let old = self.objects.remove(&key)?;
        self.reindex(&key, Some(&old), None);
        Some(Change { key, old: Some(old), new: None })
    }

    fn reindex(&mut self, key: &ObjectKey, old: Option<&K>, new: Option<&K>) {
        for index in self.indexes.values_mut() {
            index.replace(key, old, new);
        }
    }

    pub(crate) fn add_index(&mut self, name: &'static str, function: IndexFunction<K>) {
        if self.indexes.contains_key(name) {
            return;
        }
        let mut index = Index { function, entries: BTreeSet::new() };
        for (key, object) in &self.objects {
            index.replace(key, None, Some(object));
        }
        self.indexes.insert(name, index);
    }

    pub(crate) fn by_index(&self, name: &str, value: &str) -> Vec<Arc<K>> {
        let keys = self.indexes.get(name).into_iter().flat_map(|index| index.keys(value));
        keys.filter_map(|key| self.objects.get(key)).cloned().collect()
    }

    pub(crate) fn get(&self, key: &ObjectKey) -> Option<&Arc<K>> {
        self.objects.get(key)
    }

    pub(crate) fn objects(&self) -> &BTreeMap<ObjectKey, Arc<K>> {
        &self.objects
    }

    pub(crate) fn namespace(&self, namespace: &str) -> impl Iterator<Item = &Arc<K>> {
        let first = ObjectKey::new(namespace, "");
        self.objects.range(first..).take_while(move |(key, _)| key.namespace == namespace).map(|(_, object)| object)
    }

    pub(crate) fn metadata(&self, key: &ObjectKey) -> Option<&ObjectMeta> {
        self.objects.get(key).map(|object| (self.metadata)(object))
    }

    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }
}

impl<K> Index<K> {
    fn replace(&mut self, key: &ObjectKey, old: Option<&K>, new: Option<&K>) {
        let values = |object: Option<&K>| object.map(self.function).unwrap_or_default();
        let (old, new) = (values(old), values(new));
        if old != new {
            for value in old {
                self.entries.remove(&(value, key.clone()));
            }
            self.entries.extend(new.into_iter().map(|value| (value, key.clone())));
        }
    }

    fn keys<'a>(&'a self, value: &'a str) -> impl Iterator<Item = &'a ObjectKey> {
        let first = (value.to_owned(), ObjectKey::default());
        self.entries.range(first..).take_while(move |(found, _)| found == value).map(|(_, key)| key)
    }
}
