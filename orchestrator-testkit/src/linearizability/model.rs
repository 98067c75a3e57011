//! What a store does for one caller at a time, with a history whose revisions it does not choose.

use std::{collections::BTreeMap, collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use orchestrator_core::store::{Batch, Entry, Key, KeyRange, ListOptions, Listing, Operation, Precondition, Revision};

use super::search::{Model, Recorded};

/// A call of a store's, and what it gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// A key was read.
    Get {
        /// Which one.
        key: Key,
        /// What was there.
        found: Option<Entry>,
    },
    /// A range was listed.
    List {
        /// Which one.
        range: KeyRange,
        /// How.
        options: ListOptions,
        /// What was there.
        found: Listing,
    },
    /// A batch was to be applied.
    Commit {
        /// What to do.
        batch: Batch,
        /// What became of it.
        answer: Answer,
    },
}

/// What became of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It happened, at this revision.
    Committed(Revision),
    /// A precondition did not hold.
    Conflict {
        /// The first key that differs.
        key: Key,
        /// What is there.
        current: Option<Entry>,
    },
    /// Nobody knows.
    Unknown,
}

/// What a store holds and has held.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct State {
    /// What was there from each revision on, the oldest first; never empty.
    past: Vec<(Revision, Arc<Contents>)>,
}

type Contents = BTreeMap<Key, Held>;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    value: Bytes,
    created: Revision,
    modified: Revision,
}

impl State {
    /// Nothing, at this revision.
    pub fn empty(revision: Revision) -> Self {
        Self { past: vec![(revision, Arc::default())] }
    }

    fn newest(&self) -> (Revision, &Arc<Contents>) {
        let (revision, contents) = &self.past[self.past.len() - 1];
        (*revision, contents)
    }

    fn at(&self, revision: Revision) -> Option<&Contents> {
        let known = self.newest().0 >= revision;
        self.past.iter().rev().filter(|_| known).find(|(begin, _)| *begin <= revision).map(|(_, contents)| &**contents)
    }

    fn get(&self, key: &Key) -> Option<Entry> {
        self.newest().1.get(key).map(|held| held.entry(key))
    }

    fn list(&self, range: &KeyRange, options: &ListOptions) -> Option<Listing> {
        let revision = options.revision.unwrap_or(self.newest().0);
        let behind = |key: &Key| options.after.as_ref().is_none_or(|after| key > after);
        let mut inside = self
            .at(revision)?
            .iter()
            .filter(|(key, _)| range.contains(key) && behind(key))
            .map(|(key, held)| held.entry(key));
        let entries = inside.by_ref().take(options.limit.unwrap_or(usize::MAX)).collect();
        Some(Listing { entries, revision, remaining: inside.count() as u64 })
    }

    /// The first key that is not as the batch takes for granted.
    fn conflict<'a>(&self, batch: &'a Batch) -> Option<&'a Key> {
        let modified = |key: &Key| self.newest().1.get(key).map(|held| held.modified);
        batch.preconditions.iter().find_map(|precondition| match precondition {
            Precondition::Absent { key } => modified(key).is_some().then_some(key),
            Precondition::AtRevision { key, revision } => (modified(key) != Some(*revision)).then_some(key),
        })
    }

    fn changes_something(&self, batch: &Batch) -> bool {
        batch.operations.iter().any(|operation| match operation {
            Operation::Put { .. } => true,
            Operation::Delete { key } => self.newest().1.contains_key(key),
        })
    }

    /// With the batch applied at a revision.
    fn with(&self, batch: &Batch, revision: Revision) -> Self {
        let mut contents = (**self.newest().1).clone();
        for operation in &batch.operations {
            match operation {
                Operation::Put { key, value, .. } => {
                    let created = contents.get(key).map_or(revision, |held| held.created);
                    contents.insert(key.clone(), Held { value: value.clone(), created, modified: revision });
                }
                Operation::Delete { key } => drop(contents.remove(key)),
            }
        }
        let mut past = self.past.clone();
        past.push((revision, Arc::new(contents)));
        Self { past }
    }
}

impl Held {
    fn entry(&self, key: &Key) -> Entry {
        Entry { key: key.clone(), value: self.value.clone(), created: self.created, modified: self.modified }
    }
}

/// What a store promises, for one history.
#[derive(Clone, Debug)]
pub struct StoreModel {
    /// Every revision that anybody saw.
    seen: BTreeSet<Revision>,
    /// Those among them that an acknowledged commit has taken.
    taken: BTreeSet<Revision>,
}

impl StoreModel {
    /// For the calls of this history.
    pub fn of(history: &[Recorded<Call>]) -> Self {
        let mut model = Self { seen: BTreeSet::new(), taken: BTreeSet::new() };
        for recorded in history {
            match &recorded.call {
                Call::Get { found, .. } => model.see(found),
                Call::List { found, .. } => {
                    model.seen.insert(found.revision);
                    model.see(&found.entries);
                }
                Call::Commit { batch, answer: Answer::Committed(revision) } => {
                    model.seen.insert(*revision);
                    if batch.operations.iter().any(|operation| operation.value().is_some()) {
                        model.taken.insert(*revision);
                    }
                }
                Call::Commit { answer: Answer::Conflict { current, .. }, .. } => model.see(current),
                Call::Commit { answer: Answer::Unknown, .. } => {}
            }
        }
        model
    }

    fn see<'a>(&mut self, entries: impl IntoIterator<Item = &'a Entry>) {
        self.seen.extend(entries.into_iter().flat_map(|entry| [entry.created, entry.modified]));
    }

    /// The revisions that a commit may have that nobody was told of: one that somebody saw later, or the next that nobody saw.
    fn unknown_revisions(&self, after: Revision) -> Vec<Revision> {
        let mut revisions: Vec<Revision> = self
            .seen
            .range(Revision(after.0 + 1)..)
            .filter(|revision| !self.taken.contains(revision))
            .copied()
            .collect();
        revisions.extend((after.0 + 1..).map(Revision).find(|revision| !self.seen.contains(revision)));
        revisions
    }

    fn after_commit(&self, state: &State, batch: &Batch, answer: &Answer) -> Vec<State> {
        let newest = state.newest().0;
        match (answer, state.conflict(batch)) {
            (Answer::Conflict { key, current }, Some(conflict)) if key == conflict && *current == state.get(key) => {
                vec![state.clone()]
            }
            (Answer::Conflict { .. }, _) | (Answer::Committed(_), Some(_)) => Vec::new(),
            (Answer::Unknown, Some(_)) => vec![state.clone()],
            (Answer::Committed(revision), None) if state.changes_something(batch) => {
                Vec::from_iter((*revision > newest).then(|| state.with(batch, *revision)))
            }
            (Answer::Committed(revision), None) => Vec::from_iter((*revision == newest).then(|| state.clone())),
            (Answer::Unknown, None) if state.changes_something(batch) => {
                self.unknown_revisions(newest).into_iter().map(|revision| state.with(batch, revision)).collect()
            }
            (Answer::Unknown, None) => vec![state.clone()],
        }
    }
}

impl Model for StoreModel {
    type State = State;
    type Call = Call;

    fn after(&self, state: &State, call: &Call) -> Vec<State> {
        let fits = match call {
            Call::Get { key, found } => state.get(key) == *found,
            Call::List { range, options, found } => state.list(range, options).as_ref() == Some(found),
            Call::Commit { batch, answer } => return self.after_commit(state, batch, answer),
        };
        Vec::from_iter(fits.then(|| state.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::linearize, *};

    fn key() -> Key {
        Key::new("/a")
    }

    fn put(value: &'static str) -> Batch {
        let operation = Operation::Put { key: key(), value: Bytes::from_static(value.as_bytes()), time_to_live: None };
        Batch { preconditions: Vec::new(), operations: vec![operation] }
    }

    fn entry(value: &'static str, created: u64, modified: u64) -> Entry {
        let value = Bytes::from_static(value.as_bytes());
        Entry { key: key(), value, created: Revision(created), modified: Revision(modified) }
    }

    fn commit(batch: Batch, answer: Answer) -> Call {
        Call::Commit { batch, answer }
    }

    fn list(at: Option<u64>, revision: u64, entries: Vec<Entry>) -> Call {
        let options = ListOptions { revision: at.map(Revision), ..ListOptions::default() };
        let found = Listing { entries, revision: Revision(revision), remaining: 0 };
        Call::List { range: KeyRange::prefix("/"), options, found }
    }

    /// Calls one after the other; those of an unknown outcome stay open.
    fn holds(calls: Vec<Call>) -> bool {
        let recorded = |(at, call): (usize, Call)| {
            let unknown = matches!(call, Call::Commit { answer: Answer::Unknown, .. });
            let called = 2 * at as u64;
            Recorded { call, called, returned: (!unknown).then_some(called + 1) }
        };
        let history: Vec<_> = calls.into_iter().enumerate().map(recorded).collect();
        linearize(&StoreModel::of(&history), State::empty(Revision(1)), &history).is_ok()
    }

    #[test]
    fn what_a_store_does_holds() {
        let current = Some(entry("2", 2, 5));
        assert!(holds(vec![
            commit(put("1"), Answer::Committed(Revision(2))),
            Call::Get { key: key(), found: Some(entry("1", 2, 2)) },
            commit(put("2"), Answer::Committed(Revision(5))),
            list(Some(4), 4, vec![entry("1", 2, 2)]),
            commit(Batch::create(key(), Bytes::new()), Answer::Conflict { key: key(), current }),
            commit(Batch::delete(key(), Revision(5)), Answer::Committed(Revision(6))),
            list(None, 6, Vec::new()),
            commit(
                Batch { operations: vec![Operation::Delete { key: key() }], ..Batch::default() },
                Answer::Committed(Revision(6))
            ),
        ]));
    }

    #[test]
    fn what_a_store_does_not_do_does_not_hold() {
        let first = || commit(put("1"), Answer::Committed(Revision(2)));
        let wrong = [
            commit(put("2"), Answer::Committed(Revision(2))),
            Call::Get { key: key(), found: None },
            Call::Get { key: key(), found: Some(entry("1", 1, 2)) },
            commit(Batch::create(key(), Bytes::new()), Answer::Committed(Revision(3))),
            commit(Batch::delete(key(), Revision(2)), Answer::Conflict { key: key(), current: Some(entry("1", 2, 2)) }),
            commit(Batch::create(key(), Bytes::new()), Answer::Conflict { key: key(), current: None }),
            list(None, 3, vec![entry("1", 2, 2)]),
            list(Some(1), 1, vec![entry("1", 2, 2)]),
        ];
        for call in wrong {
            assert!(!holds(vec![first(), call.clone()]), "{call:?}");
        }
    }

    #[test]
    fn an_unknown_commit_has_any_free_revision() {
        let read = |created, modified| Call::Get { key: key(), found: Some(entry("1", created, modified)) };
        assert!(holds(vec![commit(put("1"), Answer::Unknown), read(7, 7)]));
        assert!(holds(vec![commit(put("1"), Answer::Unknown), list(None, 1, Vec::new())]));
        assert!(holds(vec![commit(put("1"), Answer::Unknown), commit(put("2"), Answer::Committed(Revision(9)))]));
        assert!(!holds(vec![commit(put("1"), Answer::Unknown), read(7, 7), read(8, 8)]));
        assert!(!holds(vec![
            commit(put("1"), Answer::Unknown),
            read(7, 7),
            commit(put("2"), Answer::Committed(Revision(6)))
        ]));
    }
}
