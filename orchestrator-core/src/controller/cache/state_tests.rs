//! What a cache knows, against a server whose watch repeats, reorders and breaks.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use proptest::prelude::*;

use super::state::{State, Step};
use crate::{object::ObjectKey, store::Revision};

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
