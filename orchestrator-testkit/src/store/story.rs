//! A store's own log, made from what its writers were answered, against what its watches, its past and its compaction tell.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::StreamExt;
use orchestrator_core::{
    env::{Env, TaskEnd},
    store::{
        Batch, Change, Entry, Key, KeyRange, ListOptions, Operation, Revision, Store, StoreError, WatchItem,
        WatchOptions,
    },
};

use super::{
    PATIENCE, commit, key, next,
    properties::{Log, PROPERTIES, Told},
    put, revision, value,
};
use crate::{
    harness::Outcome,
    linearizability::{Plan, check_histories},
    wrap::{FaultRates, FaultyStore},
};

const WRITERS: usize = 4;
const COMMITS: usize = 25;
const KEYS: [&str; 6] = ["/a", "/a/1", "/a/2", "/a0", "/b/1", "/b/2"];
const RANGES: [&str; 5] = ["", "/a", "/a/", "/b/", "/a/1"];
/// Written last, in every range.
const LAST: [&str; 3] = ["/a/last", "/a/1/last", "/b/last"];

/// What concurrent callers are answered can be told as one story, also where answers are lost and calls given up.
pub async fn histories_are_linearizable(store: &Arc<dyn Store>, env: &Env) -> Outcome {
    check_histories(store, env, Plan::default()).await;
    Outcome::Held
}

/// Watches keep each of their promises while others write, from whatever revision they begin and begin again.
pub async fn watches_tell_the_log(store: &Arc<dyn Store>, env: &Env) -> Outcome {
    let begin = revision(store).await;
    let mut commits = writer(store.clone(), env.clone(), WRITERS).await;
    // Watches end and lag now and then, and begin again where they were.
    let rates = FaultRates { watch_ends_per_mille: 20, watch_lags_per_mille: 20, ..FaultRates::default() };
    let broken: Arc<dyn Store> = Arc::new(FaultyStore::new(store.clone(), env, rates));
    let watchers: Vec<_> = (0..2 * RANGES.len())
        .map(|index| {
            let from = commits.get(index * 2).map_or(begin, |(revision, _)| *revision);
            let from = if index < RANGES.len() { begin } else { from };
            let through = if index % 2 == 0 { store.clone() } else { broken.clone() };
            let range = KeyRange::prefix(RANGES[index % RANGES.len()]);
            let told = Arc::new(std::sync::Mutex::new(Vec::new()));
            let task = env.spawn("watcher", watcher(through, env.clone(), range, from, told.clone()));
            (task, told)
        })
        .collect();
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| {
            let (store, env) = (store.clone(), env.clone());
            let written = Arc::new(std::sync::Mutex::new(Vec::new()));
            let into = written.clone();
            let task = env.clone().spawn("writer", async move {
                let commits = writer(store, env, number).await;
                *into.lock().expect("nobody has failed") = commits;
            });
            (task, written)
        })
        .collect();
    for (task, written) in writers {
        assert_eq!(task.join().await, TaskEnd::Completed);
        commits.append(&mut written.lock().expect("nobody has failed"));
    }
    let last =
        Batch { preconditions: Vec::new(), operations: LAST.map(|name| put(name, "").operations.remove(0)).to_vec() };
    commits.push((commit(store, last.clone()).await, last));
    let log = log_of(commits);
    for (task, told) in watchers {
        assert_eq!(task.join().await, TaskEnd::Completed, "a watch comes to the end of the log");
        for told in told.lock().expect("nobody has failed").iter() {
            for (name, property) in PROPERTIES {
                property(&log, told)
                    .unwrap_or_else(|broken| panic!("{name} of {:?} after {}: {broken}", told.range, told.after));
            }
        }
    }
    Outcome::Held
}

/// What a writer did, with the revisions that it was told.
async fn writer(store: Arc<dyn Store>, env: Env, number: usize) -> Vec<(Revision, Batch)> {
    let mut commits = Vec::new();
    for round in 0..COMMITS {
        let mut batch = Batch::default();
        for name in KEYS {
            let text = format!("{number}.{round}");
            match env.random_below(12) {
                0 => batch.operations.push(Operation::Delete { key: key(name) }),
                1 | 2 => {
                    batch.operations.push(Operation::Put { key: key(name), value: value(&text), time_to_live: None })
                }
                _ => {}
            }
        }
        if batch.operations.is_empty() {
            continue;
        }
        commits.push((commit(&store, batch.clone()).await, batch));
        env.sleep(Duration::from_micros(env.random_below(50))).await;
    }
    commits
}

/// The log that commits make, each at its revision.
fn log_of(mut commits: Vec<(Revision, Batch)>) -> Log {
    commits.sort_by_key(|(revision, _)| *revision);
    let (mut log, mut present): (Log, BTreeMap<Key, Entry>) = (Log::new(), BTreeMap::new());
    for same in commits.chunk_by(|(one, _), (other, _)| one == other) {
        let at = same[0].0;
        let batches: Vec<&Batch> = same.iter().map(|(_, batch)| batch).collect();
        let Some(changes) = made(&batches, at, &present) else { continue };
        apply(&changes, &mut present);
        log.insert(at, changes);
    }
    log
}

/// What was done at a revision. Beside the batch that made it those were told of it that found nothing to delete behind it.
fn made(batches: &[&Batch], at: Revision, present: &BTreeMap<Key, Entry>) -> Option<Vec<Change>> {
    if batches.iter().all(|batch| changes_of(batch, at, present).is_empty()) {
        return None;
    }
    let explains = |(index, batch): (usize, &&Batch)| {
        let changes = changes_of(batch, at, present);
        let mut behind = present.clone();
        apply(&changes, &mut behind);
        let mut others = batches.iter().enumerate().filter(|(other, _)| *other != index);
        let found_nothing = others.all(|(_, other)| changes_of(other, at, &behind).is_empty());
        (!changes.is_empty() && found_nothing).then_some(changes)
    };
    let changes = batches.iter().enumerate().find_map(explains);
    Some(changes.unwrap_or_else(|| panic!("{at} is the revision of several commits: {batches:?}")))
}

fn apply(changes: &[Change], present: &mut BTreeMap<Key, Entry>) {
    for change in changes {
        match &change.entry {
            Some(entry) => present.insert(change.key.clone(), entry.clone()),
            None => present.remove(&change.key),
        };
    }
}

fn changes_of(batch: &Batch, at: Revision, present: &BTreeMap<Key, Entry>) -> Vec<Change> {
    let change = |operation: &Operation| {
        let key = operation.key().clone();
        let previous = present.get(&key).cloned();
        let created = previous.as_ref().map_or(at, |previous| previous.created);
        let entry =
            operation.value().map(|value| Entry { key: key.clone(), value: value.clone(), created, modified: at });
        (entry.is_some() || previous.is_some()).then_some(Change { key, entry, previous })
    };
    batch.operations.iter().filter_map(change).collect()
}

/// Watches a range to the end of the log, and begins again now and then.
async fn watcher(
    store: Arc<dyn Store>,
    env: Env,
    range: KeyRange,
    mut after: Revision,
    told: Arc<std::sync::Mutex<Vec<Told>>>,
) {
    let bookmarks = store.capabilities().bookmarks;
    loop {
        let options = WatchOptions { after: Some(after), bookmarks };
        let mut events = store.watch(range.clone(), options).await.expect("the watch begins");
        let mut items = Vec::new();
        let begin = after;
        let at_end = loop {
            let item = env.timeout(PATIENCE, events.next()).await;
            let item = match item.unwrap_or_else(|_| panic!("{range:?} after {after} has more to tell, {items:?}")) {
                Some(Ok(item)) => item,
                Some(Err(StoreError::Lagged)) | None => break false,
                Some(Err(error)) => panic!("{error}"),
            };
            items.push(item.clone());
            let at_end = match item {
                WatchItem::Bookmark(revision) => {
                    after = after.max(revision);
                    false
                }
                WatchItem::Changes { revision, changes } => {
                    after = after.max(revision);
                    changes.iter().any(|change| LAST.contains(&change.key.as_str()))
                }
            };
            if at_end || env.random_below(20) == 0 {
                break at_end;
            }
        };
        told.lock().expect("nobody has failed").push(Told { range: range.clone(), after: begin, items });
        if at_end {
            return;
        }
    }
}

/// Wherever the history is cut off, what lies before is refused, and what lies behind is whole: lists and watches.
pub async fn compaction_at_every_position(store: &Arc<dyn Store>, env: &Env) -> Outcome {
    if !store.capabilities().snapshots {
        return Outcome::Skipped("listing at an older revision");
    }
    let begin = revision(store).await;
    let text = |name: &str, round: usize| put(name, &round.to_string()).operations.remove(0);
    let gone = |name: &str| Operation::Delete { key: key(name) };
    let batches = [
        vec![text("/a", 0)],
        vec![text("/b", 1), text("/c", 1)],
        vec![text("/a", 2)],
        vec![gone("/a")],
        vec![gone("/b"), text("/a", 4)],
        vec![text("/c", 5)],
        vec![gone("/a"), gone("/c")],
        vec![text("/d", 7)],
    ];
    let mut commits = Vec::new();
    for operations in batches {
        let batch = Batch { preconditions: Vec::new(), operations };
        commits.push((commit(store, batch.clone()).await, batch));
    }
    let log = log_of(commits);
    let positions: Vec<Revision> = std::iter::once(begin).chain(log.keys().copied()).collect();
    for oldest in &positions {
        // What is compacted already may be refused; it stays as it is.
        match store.compact(*oldest).await {
            Ok(()) | Err(StoreError::Compacted { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        for from in &positions {
            if from < oldest {
                assert_refused(store, env, *from, *oldest).await;
            } else {
                assert_whole(store, env, *from, &log).await;
            }
        }
    }
    Outcome::Held
}

async fn assert_refused(store: &Arc<dyn Store>, env: &Env, from: Revision, oldest: Revision) {
    let refused = |error: &StoreError| matches!(error, StoreError::Compacted { oldest: told, .. } if *told == oldest);
    let options = ListOptions { revision: Some(from), ..ListOptions::default() };
    let listing = store.list(&KeyRange::prefix("/"), options).await;
    assert!(listing.as_ref().is_err_and(refused), "the list at {from}, before {oldest}: {listing:?}");
    let options = WatchOptions { after: Some(from), bookmarks: false };
    let answer = match store.watch(KeyRange::prefix("/"), options).await {
        Ok(mut events) => next(env, &mut events).await.expect("an error comes before the end").map(drop),
        Err(error) => Err(error),
    };
    assert!(answer.as_ref().is_err_and(refused), "the watch after {from}, before {oldest}: {answer:?}");
}

async fn assert_whole(store: &Arc<dyn Store>, env: &Env, from: Revision, log: &Log) {
    let mut expected: BTreeMap<&Key, &Entry> = BTreeMap::new();
    for change in log.range(..=from).flat_map(|(_, changes)| changes) {
        match &change.entry {
            Some(entry) => expected.insert(&change.key, entry),
            None => expected.remove(&change.key),
        };
    }
    let options = ListOptions { revision: Some(from), ..ListOptions::default() };
    let listing = store.list(&KeyRange::prefix("/"), options).await.expect("a listing");
    assert_eq!(listing.revision, from);
    assert!(listing.entries.iter().eq(expected.into_values()), "the list at {from}: {:?}", listing.entries);

    let options = WatchOptions { after: Some(from), bookmarks: false };
    let mut events = store.watch(KeyRange::prefix("/"), options).await.expect("the watch begins");
    for (at, changes) in log.range(Revision(from.0 + 1)..) {
        let (told_at, told) = super::changes(env, &mut events).await;
        assert_eq!((told_at, &*told), (*at, &changes[..]), "the watch after {from}");
    }
}
