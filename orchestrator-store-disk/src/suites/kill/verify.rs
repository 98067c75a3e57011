//! What has to hold after a kill.

use std::{collections::BTreeMap, path::Path};

use futures::StreamExt;
use orchestrator_core::{
    env::Env,
    store::{Entry, Key, KeyRange, ListOptions, Revision, Store, WatchItem, WatchOptions},
};

use super::child::{WRITERS, counters, number};
use crate::{DiskStore, Engine};

/// What the writers were told, in all lives.
#[derive(Debug, Default)]
pub(super) struct Acknowledged {
    /// The highest number of each writer, and at which revision it was written.
    numbers: BTreeMap<u64, (u64, u64)>,
    /// The highest revision that anyone has seen.
    revision: u64,
}

impl Acknowledged {
    /// A line of a writer: who, which number, at which revision; or that the store is open.
    pub(super) fn note(&mut self, line: &str) {
        let words: Vec<u64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
        if let [writer, number, revision] = words[..] {
            assert!(self.numbers.get(&writer).is_none_or(|known| known.0 < number && known.1 < revision), "{line}");
            self.numbers.insert(writer, (number, revision));
            self.revision = self.revision.max(revision);
        } else {
            assert_eq!(line, "opened");
        }
    }

    pub(super) fn commits(&self) -> u64 {
        self.numbers.values().map(|(number, _)| number).sum()
    }
}

/// Opens the store and compares it with what was told.
pub(super) async fn verify<E: Engine>(env: &Env, path: &Path, acknowledged: &mut Acknowledged) {
    let store = DiskStore::<E>::open(env, path, super::LIMITS).await.unwrap();
    let revision = store.status().await.unwrap().revision;
    assert!(revision.0 >= acknowledged.revision, "{revision} is behind {acknowledged:?}");
    acknowledged.revision = revision.0;
    for writer in 0..WRITERS {
        let [first, second] = counters(writer).map(|key| async { store.get(&{ key }).await.unwrap() });
        let (first, second) = (first.await, second.await);
        let written = first.as_ref().map_or(0, |entry| number(&entry.value));
        assert_eq!(second.as_ref().map_or(0, |entry| number(&entry.value)), written, "half of a commit of {writer}");
        let at = |entry: &Option<Entry>| entry.as_ref().map_or(0, |entry| entry.modified.0);
        assert_eq!(at(&first), at(&second), "half of a commit of {writer}");
        let told = acknowledged.numbers.get(&writer).copied().unwrap_or_default();
        assert!(written >= told.0, "{writer} was told of {told:?} and {written} is there");
        if written == told.0 {
            assert_eq!(at(&first), told.1, "{writer}'s {written} is at another revision");
        }
        acknowledged.numbers.insert(writer, (written, at(&first)));
    }
    history_leads_to_the_present(&store).await;
    store.close().await;
}

/// The oldest state that is left and all changes since make the present one, value by value.
async fn history_leads_to_the_present<E: Engine>(store: &DiskStore<E>) {
    let status = store.status().await.unwrap();
    let mut state = contents(store, Some(status.compacted)).await;
    let options = WatchOptions { after: Some(status.compacted), bookmarks: false };
    let mut changes = store.watch(KeyRange::prefix(""), options).await.unwrap();
    let mut newest = status.compacted;
    while newest < status.revision {
        let Some(Ok(WatchItem::Changes { revision, changes })) = changes.next().await else { panic!("a change") };
        assert_eq!(revision.0, newest.0 + 1);
        newest = revision;
        for change in changes.iter() {
            if let Some(entry) = &change.entry {
                number(&entry.value);
            }
            let before = match &change.entry {
                Some(entry) => state.insert(change.key.clone(), entry.clone()),
                None => state.remove(&change.key),
            };
            assert_eq!(before, change.previous, "before {revision}");
        }
    }
    assert_eq!(state, contents(store, None).await);
    assert_eq!(state.len() as u64, status.keys);
}

async fn contents<E: Engine>(store: &DiskStore<E>, revision: Option<Revision>) -> BTreeMap<Key, Entry> {
    let options = ListOptions { revision, ..ListOptions::default() };
    let listing = store.list(&KeyRange::prefix(""), options).await.unwrap();
    listing.entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect()
}
