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
    keys: BTreeMap<String, BTreeSet<ObjectKey>>,
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
        if let Some(old) = &old {
            self.unindex(&key, old);
        }
        for index in self.indexes.values_mut() {
            index.insert(&key, &object);
        }
        self.objects.insert(key.clone(), object.clone());
        changes.push(Change { key, old, new: Some(object) });
        changes
    }

    fn remove(&mut self, key: ObjectKey) -> Option<Change<K>> {
        let old = self.objects.remove(&key)?;
        self.unindex(&key, &old);
        Some(Change { key, old: Some(old), new: None })
    }

    fn unindex(&mut self, key: &ObjectKey, object: &K) {
        for index in self.indexes.values_mut() {
            index.remove(key, object);
        }
    }

    pub(crate) fn add_index(&mut self, name: &'static str, function: IndexFunction<K>) {
        if self.indexes.contains_key(name) {
            return;
        }
        let mut index = Index { function, keys: BTreeMap::new() };
        for (key, object) in &self.objects {
            index.insert(key, object);
        }
        self.indexes.insert(name, index);
    }

    pub(crate) fn by_index(&self, name: &str, value: &str) -> Vec<Arc<K>> {
        let keys = self.indexes.get(name).and_then(|index| index.keys.get(value));
        keys.into_iter().flatten().filter_map(|key| self.objects.get(key)).cloned().collect()
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
    fn insert(&mut self, key: &ObjectKey, object: &K) {
        for value in (self.function)(object) {
            self.keys.entry(value).or_default().insert(key.clone());
        }
    }

    fn remove(&mut self, key: &ObjectKey, object: &K) {
        for value in (self.function)(object) {
            if let Some(keys) = self.keys.get_mut(&value) {
                keys.remove(key);
                if keys.is_empty() {
                    self.keys.remove(&value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Thing {
        metadata: ObjectMeta,
        color: String,
    }

    /// What happens on the server, and what the cache gets to hear of it.
    #[derive(Clone, Debug)]
    enum Happens {
        Put(u8, u8),
        Delete(u8),
        /// The watch delivers what it has.
        Deliver,
        /// The watch delivers once more what it delivered lately.
        Repeat(usize),
        /// The watch delivers what it has, but one of it last.
        Disorder(usize),
        /// The watch is lost with all it had; the cache lists.
        Relist,
    }

    fn happens() -> impl Strategy<Value = Happens> {
        prop_oneof![
            4 => (0..4_u8, 0..3_u8).prop_map(|(key, color)| Happens::Put(key, color)),
            2 => (0..4_u8).prop_map(Happens::Delete),
            2 => Just(Happens::Deliver),
            1 => (1..5_usize).prop_map(Happens::Repeat),
            1 => (0..5_usize).prop_map(Happens::Disorder),
            1 => Just(Happens::Relist),
        ]
    }

    type Objects = BTreeMap<ObjectKey, Arc<Thing>>;

    #[derive(Default)]
    struct Server {
        revision: u64,
        objects: Objects,
        history: Vec<(ObjectKey, Option<Arc<Thing>>, u64)>,
        delivered: usize,
    }

    impl Server {
        fn put(&mut self, key: u8, color: u8) {
            self.revision += 1;
            let key = ObjectKey::new(format!("n{}", key % 2), key.to_string());
            let uid = self.objects.get(&key).and_then(|known| known.metadata.uid.clone());
            let metadata = ObjectMeta {
                uid: Some(uid.unwrap_or_else(|| format!("u{}", self.revision))),
                resource_version: Some(self.revision.to_string()),
                ..Default::default()
            };
            let thing = Arc::new(Thing { metadata, color: color.to_string() });
            self.objects.insert(key.clone(), thing.clone());
            self.history.push((key, Some(thing), self.revision));
        }

        fn delete(&mut self, key: u8) {
            let key = ObjectKey::new(format!("n{}", key % 2), key.to_string());
            if self.objects.remove(&key).is_some() {
                self.revision += 1;
                self.history.push((key, None, self.revision));
            }
        }
    }

    fn step((key, thing, revision): &(ObjectKey, Option<Arc<Thing>>, u64)) -> Step<Thing> {
        let revision = Some(Revision(*revision));
        match thing {
            Some(thing) => Step::Put(key.clone(), thing.clone(), revision),
            None => Step::Removed(key.clone(), revision),
        }
    }

    /// Applies a step, and the changes it gives to a handler's own copy.
    fn apply(state: &mut State<Thing>, shadow: &mut Objects, step: Step<Thing>) -> Result<(), TestCaseError> {
        for change in state.apply(step) {
            prop_assert_eq!(&change.old, &shadow.get(&change.key).cloned(), "old is what handlers knew");
            if let (Some(old), Some(new)) = (&change.old, &change.new) {
                prop_assert_eq!(&old.metadata.uid, &new.metadata.uid, "a change is of one object");
                prop_assert_ne!(old, new);
            }
            match change.new {
                Some(new) => shadow.insert(change.key, new),
                None => shadow.remove(&change.key),
            };
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn caches_and_handlers_end_where_the_server_is(happenings in prop::collection::vec(happens(), 0..120)) {
            let (mut server, mut shadow) = (Server::default(), Objects::new());
            let mut state = State::new(|thing: &Thing| &thing.metadata);
            state.add_index("color", |thing| vec![thing.color.clone()]);
            for happening in happenings.into_iter().chain([Happens::Deliver]) {
                match happening {
                    Happens::Put(key, color) => server.put(key, color),
                    Happens::Delete(key) => server.delete(key),
                    Happens::Deliver => {
                        for entry in &server.history[server.delivered..] {
                            apply(&mut state, &mut shadow, step(entry))?;
                        }
                        server.delivered = server.history.len();
                    }
                    Happens::Repeat(count) => {
                        let from = server.delivered.saturating_sub(count);
                        for entry in &server.history[from..server.delivered] {
                            apply(&mut state, &mut shadow, step(entry))?;
                        }
                    }
                    Happens::Disorder(index) => {
                        let mut waiting = server.history[server.delivered..].to_vec();
                        if index < waiting.len() {
                            let last = waiting.remove(index);
                            waiting.push(last);
                        }
                        for entry in &waiting {
                            apply(&mut state, &mut shadow, step(entry))?;
                        }
                        server.delivered = server.history.len();
                    }
                    Happens::Relist => {
                        let listed = Step::Listed(server.objects.clone(), Some(Revision(server.revision)));
                        apply(&mut state, &mut shadow, listed)?;
                        server.delivered = server.history.len();
                    }
                }
                prop_assert_eq!(state.objects(), &shadow);
                for color in ["0", "1", "2"] {
                    let expected: Vec<_> = shadow.values().filter(|thing| thing.color == color).cloned().collect();
                    prop_assert_eq!(state.by_index("color", color), expected);
                }
                for namespace in ["n0", "n1"] {
                    let expected: Vec<_> =
                        shadow.iter().filter(|(key, _)| key.namespace == namespace).map(|(_, thing)| thing).collect();
                    prop_assert_eq!(state.namespace(namespace).collect::<Vec<_>>(), expected);
                }
            }
            prop_assert!(state.is_disordered() || *state.objects() == server.objects, "what is missing is noticed");
            prop_assert!(state.revision().0 <= server.revision);
            let listed = Step::Listed(server.objects.clone(), Some(Revision(server.revision)));
            apply(&mut state, &mut shadow, listed)?;
            prop_assert_eq!(state.objects(), &server.objects);
            prop_assert!(!state.is_disordered());
        }
    }

    #[test]
    fn made_again_between_two_lists_is_a_removal_and_an_addition() {
        let thing = |uid: &str| {
            let metadata =
                ObjectMeta { uid: Some(uid.to_owned()), resource_version: Some(uid.to_owned()), ..Default::default() };
            Arc::new(Thing { metadata, color: String::new() })
        };
        let key = ObjectKey::new("n", "x");
        let mut state = State::new(|thing: &Thing| &thing.metadata);
        state.apply(Step::Listed([(key.clone(), thing("1"))].into(), Some(Revision(1))));
        let changes = state.apply(Step::Listed([(key, thing("2"))].into(), Some(Revision(3))));
        let seen: Vec<_> = changes.iter().map(|change| (change.old.is_some(), change.new.is_some())).collect();
        assert_eq!(seen, [(true, false), (false, true)]);
    }
}
