//! A store that is a log: commits in order, and the state after them.
//!
//! Watchers read the log behind a position of their own, so a slow one costs nothing; an older state is the present one
//! with the log undone.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use futures::{StreamExt, stream};
use orchestrator::{
    env::{Watched, Watcher},
    store::{
        Batch, Capabilities, Change, Entry, Key, KeyRange, ListOptions, Listing, Operation, Revision, Store,
        StoreError, StoreStatus, WatchItem, WatchOptions, WatchStream,
    },
};

/// Commits that are remembered without anyone asking for it.
const COMMITS_KEPT: usize = 10_000;

type State = BTreeMap<Key, Entry>;

/// The store. Dropping it ends its watches.
#[derive(Debug)]
pub(crate) struct LogStore {
    log: Arc<Mutex<Log>>,
    /// The newest revision, for watchers to wait on.
    newest: Watched<Revision>,
}

#[derive(Debug, Default)]
struct Log {
    commits: VecDeque<(Revision, Arc<[Change]>)>,
    /// The state before the first of them is of this revision.
    compacted: Revision,
    present: State,
    revision: Revision,
}

impl LogStore {
    pub(crate) fn new() -> Self {
        Self { log: Arc::default(), newest: Watched::new(Revision(0)) }
    }
}

#[async_trait]
impl Store for LogStore {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        Ok(lock(&self.log).present.get(key).cloned())
    }

    async fn list(&self, range: &KeyRange, options: ListOptions) -> Result<Listing, StoreError> {
        let log = lock(&self.log);
        let revision = options.revision.unwrap_or(log.revision);
        let older = if revision == log.revision { None } else { Some(log.state_at(revision)?) };
        let state = older.as_ref().unwrap_or(&log.present);
        let begin = match &options.after {
            Some(after) if after.as_str() >= range.as_prefix() => Bound::Excluded(after.as_str()),
            _ => Bound::Included(range.as_prefix()),
        };
        let all = state.range::<str, _>((begin, Bound::Unbounded)).take_while(|(key, _)| range.contains(key));
        let mut entries = all.map(|(_, entry)| entry);
        let page: Vec<Entry> = entries.by_ref().take(options.limit.unwrap_or(usize::MAX)).cloned().collect();
        Ok(Listing { entries: page, revision, remaining: entries.count() as u64 })
    }

    async fn commit(&self, batch: Batch) -> Result<Revision, StoreError> {
        let revision = lock(&self.log).commit(batch)?;
        // Two commits may come here in the other order: the value never goes back.
        self.newest.update(|newest| std::mem::replace(newest, revision.max(*newest)) < revision);
        Ok(revision)
    }

    async fn watch(&self, range: KeyRange, options: WatchOptions) -> Result<WatchStream, StoreError> {
        let position = {
            let log = lock(&self.log);
            let position = options.after.unwrap_or(log.revision);
            log.reaches(position)?;
            position
        };
        let reader = Reader { log: self.log.clone(), newest: self.newest.watcher(), range, position, failed: false };
        Ok(stream::unfold(reader, |mut reader| async { Some((reader.next().await?, reader)) }).boxed())
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        let mut log = lock(&self.log);
        if revision > log.revision {
            return Err(StoreError::Future { asked: revision, current: log.revision });
        }
        log.forget(revision);
        Ok(())
    }

    async fn status(&self) -> Result<StoreStatus, StoreError> {
        let log = lock(&self.log);
        let past = log.commits.iter().flat_map(|(_, changes)| changes.iter()).filter_map(|it| it.previous.as_ref());
        let size_bytes = log.present.values().chain(past).map(|entry| entry.value.len() as u64).sum();
        let (revision, compacted, keys) = (log.revision, log.compacted, log.present.len() as u64);
        Ok(StoreStatus { revision, compacted, keys, size_bytes })
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { durable: false, expiry: false, snapshots: true, bookmarks: false }
    }
}

impl Log {
    fn commit(&mut self, batch: Batch) -> Result<Revision, StoreError> {
        batch.check(|key| self.present.get(key))?;
        if batch.operations.iter().any(|it| matches!(it, Operation::Put { time_to_live: Some(_), .. })) {
            return Err(StoreError::Unsupported("expiry"));
        }
        let revision = Revision(self.revision.0 + 1);
        let changes = batch.changes(revision, |key| self.present.get(key));
        if changes.is_empty() {
            return Ok(self.revision);
        }
        changes.iter().for_each(|change| set(&mut self.present, &change.key, change.entry.as_ref()));
        self.commits.push_back((revision, changes.into()));
        self.revision = revision;
        if self.commits.len() > COMMITS_KEPT {
            self.forget(self.commits[0].0);
        }
        Ok(revision)
    }

    fn state_at(&self, revision: Revision) -> Result<State, StoreError> {
        self.reaches(revision)?;
        if revision > self.revision {
            return Err(StoreError::Future { asked: revision, current: self.revision });
        }
        let mut state = self.present.clone();
        for (_, changes) in self.commits.iter().rev().take_while(|(at, _)| *at > revision) {
            changes.iter().for_each(|change| set(&mut state, &change.key, change.previous.as_ref()));
        }
        Ok(state)
    }

    /// Whether the log reaches back so far.
    fn reaches(&self, revision: Revision) -> Result<(), StoreError> {
        if revision < self.compacted {
            return Err(StoreError::Compacted { asked: revision, oldest: self.compacted });
        }
        Ok(())
    }

    /// Drops the commits up to a revision.
    fn forget(&mut self, revision: Revision) {
        while self.commits.pop_front_if(|(at, _)| *at <= revision).is_some() {}
        self.compacted = self.compacted.max(revision);
    }
}

/// A watcher's place in the log.
struct Reader {
    log: Arc<Mutex<Log>>,
    newest: Watcher<Revision>,
    range: KeyRange,
    position: Revision,
    failed: bool,
}

impl Reader {
    async fn next(&mut self) -> Option<Result<WatchItem, StoreError>> {
        loop {
            if self.failed {
                return None;
            }
            if let Some(item) = self.read().transpose() {
                self.failed = item.is_err();
                return Some(item);
            }
            let position = self.position;
            self.newest.wait_for(|newest| *newest > position).await.ok()?;
        }
    }

    /// The next commit in the log that touches the range.
    fn read(&mut self) -> Result<Option<WatchItem>, StoreError> {
        let log = lock(&self.log);
        log.reaches(self.position)?;
        let begin = log.commits.partition_point(|(revision, _)| *revision <= self.position);
        for (revision, changes) in log.commits.range(begin..) {
            self.position = *revision;
            let inside = changes.iter().filter(|change| self.range.contains(&change.key)).cloned();
            let changes: Arc<[Change]> = inside.collect();
            if !changes.is_empty() {
                return Ok(Some(WatchItem::Changes { revision: *revision, changes }));
            }
        }
        Ok(None)
    }
}

fn set(state: &mut State, key: &Key, entry: Option<&Entry>) {
    match entry {
        Some(entry) => state.insert(key.clone(), entry.clone()),
        None => state.remove(key),
    };
}

fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}
