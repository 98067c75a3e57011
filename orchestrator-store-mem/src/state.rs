//! The state of the store, without time and tasks: a map, a log and the watchers' bells.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Bound,
    sync::Arc,
    time::Duration,
};

use orchestrator_core::store::{
    Batch, Change, Entry, Key, KeyRange, ListOptions, Listing, Operation, Revision, StoreError, StoreStatus, WatchItem,
};
use tokio::sync::Notify;

use crate::limits::{self, Limits};

/// What the store holds.
pub(crate) struct State {
    limits: Limits,
    closed: bool,
    revision: Revision,
    /// States before this revision are gone.
    compacted: Revision,
    entries: BTreeMap<Key, Entry>,
    /// The commits after `compacted`, without a gap.
    log: VecDeque<Commit>,
    entries_bytes: u64,
    log_bytes: u64,
    /// When keys expire, by time and by key.
    deadlines: BTreeSet<(Duration, Key)>,
    deadline_of: BTreeMap<Key, Duration>,
    /// One bell for each watched range.
    bells: BTreeMap<KeyRange, Arc<Notify>>,
}

struct Commit {
    changes: Arc<[Change]>,
    bytes: u64,
}

/// Whether a batch puts a key that expires.
pub(crate) fn expires(batch: &Batch) -> bool {
    batch.operations.iter().any(|operation| matches!(operation, Operation::Put { time_to_live: Some(_), .. }))
}

impl State {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            closed: false,
            // Revision 0 means "before everything" to clients, so the empty store stands at 1.
            revision: Revision(1),
            compacted: Revision(1),
            entries: BTreeMap::new(),
            log: VecDeque::new(),
            entries_bytes: 0,
            log_bytes: 0,
            deadlines: BTreeSet::new(),
            deadline_of: BTreeMap::new(),
            bells: BTreeMap::new(),
        }
    }

    /// The same content with an empty log and without watchers.
    pub(crate) fn fork(&self) -> Self {
        Self {
            closed: self.closed,
            revision: self.revision,
            compacted: self.revision,
            entries: self.entries.clone(),
            entries_bytes: self.entries_bytes,
            deadlines: self.deadlines.clone(),
            deadline_of: self.deadline_of.clone(),
            ..Self::new(self.limits)
        }
    }

    pub(crate) fn bookmark_interval(&self) -> Duration {
        self.limits.bookmark_interval
    }

    pub(crate) fn close(&mut self) {
        self.closed = true;
        self.bells.values().for_each(|bell| bell.notify_waiters());
    }

    fn open(&self) -> Result<(), StoreError> {
        if self.closed { Err(StoreError::Closed) } else { Ok(()) }
    }

    pub(crate) fn status(&self) -> StoreStatus {
        StoreStatus {
            revision: self.revision,
            compacted: self.compacted,
            keys: self.entries.len() as u64,
            size_bytes: self.entries_bytes + self.log_bytes,
        }
    }

    pub(crate) fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.open()?;
        Ok(self.entries.get(key).cloned())
    }

    pub(crate) fn list(&self, range: &KeyRange, options: &ListOptions) -> Result<Listing, StoreError> {
        self.open()?;
        let revision = options.revision.unwrap_or(self.revision);
        self.check_revision(revision)?;
        let limit = options.limit.unwrap_or(usize::MAX);
        if revision == self.revision {
            let mut found = self.range(range, options.after.as_ref());
            let entries: Vec<Entry> = found.by_ref().take(limit).cloned().collect();
            return Ok(Listing { entries, revision, remaining: found.count() as u64 });
        }
        let mut found = self.past(range, options.after.as_ref(), revision);
        let entries: Vec<Entry> = found.by_ref().take(limit).cloned().collect();
        Ok(Listing { entries, revision, remaining: found.count() as u64 })
    }

    fn range(&self, range: &KeyRange, after: Option<&Key>) -> impl Iterator<Item = &Entry> {
        self.entries
            .range((lower_bound(range, after), Bound::Unbounded))
            .map(|(_, entry)| entry)
            .take_while(|entry| range.contains(&entry.key))
    }

    /// The range as it was at a revision: the present, except for the keys that the log has seen since.
    fn past<'a>(
        &'a self,
        range: &'a KeyRange,
        after: Option<&'a Key>,
        revision: Revision,
    ) -> impl Iterator<Item = &'a Entry> {
        let mut seen: BTreeMap<&Key, Option<&Entry>> = BTreeMap::new();
        let undone = (self.revision.0 - revision.0) as usize;
        for change in self.log.iter().rev().take(undone).flat_map(|commit| commit.changes.iter()) {
            if range.contains(&change.key) && after.is_none_or(|after| change.key > *after) {
                // The oldest change since then comes last, and knows what was before it.
                seen.insert(&change.key, change.previous.as_ref());
            }
        }
        let mut seen = seen.into_iter().peekable();
        let mut present = self.range(range, after).peekable();
        std::iter::from_fn(move || {
            loop {
                let Some((key, _)) = seen.peek() else { return present.next() };
                if present.peek().is_some_and(|entry| entry.key < **key) {
                    return present.next();
                }
                present.next_if(|entry| entry.key == **key);
                if let Some((_, Some(before))) = seen.next() {
                    return Some(before);
                }
            }
        })
    }

    fn check_revision(&self, asked: Revision) -> Result<(), StoreError> {
        if asked > self.revision {
            Err(StoreError::Future { asked, current: self.revision })
        } else if asked < self.compacted {
            Err(StoreError::Compacted { asked, oldest: self.compacted })
        } else {
            Ok(())
        }
    }

    pub(crate) fn commit(&mut self, batch: Batch, now: Duration) -> Result<Revision, StoreError> {
        self.open()?;
        self.check_sizes(&batch)?;
        batch.check(|key| self.entries.get(key))?;
        for operation in &batch.operations {
            let lives = match operation {
                Operation::Put { time_to_live, .. } => *time_to_live,
                Operation::Delete { .. } => None,
            };
            self.set_deadline(operation.key(), lives.map(|time| now.saturating_add(time)));
        }
        let revision = Revision(self.revision.0 + 1);
        let changes = batch.changes(revision, |key| self.entries.get(key));
        if changes.is_empty() {
            return Ok(self.revision);
        }
        changes.iter().for_each(|change| self.apply(change));
        self.record(revision, changes);
        Ok(revision)
    }

    fn check_sizes(&self, batch: &Batch) -> Result<(), StoreError> {
        if batch.operations.len() + batch.preconditions.len() > self.limits.batch_operations {
            return Err(StoreError::Refused(format!("more than {} operations", self.limits.batch_operations)));
        }
        for operation in &batch.operations {
            let (key, size) = (operation.key().as_str(), operation.value().map_or(0, |value| value.len()));
            if size > self.limits.value_bytes {
                return Err(StoreError::Refused(format!("a value of {size} bytes")));
            }
            if key.len() > self.limits.key_bytes {
                return Err(StoreError::Refused(format!("a key of {} bytes", key.len())));
            }
        }
        Ok(())
    }

    /// Puts the new entry in the place of the old one.
    fn apply(&mut self, change: &Change) {
        let size = |entry: &Option<Entry>| entry.as_ref().map_or(0, |entry| entry.value.len() as u64);
        self.entries_bytes = self.entries_bytes + size(&change.entry) - size(&change.previous);
        match &change.entry {
            Some(entry) => self.entries.insert(change.key.clone(), entry.clone()),
            None => self.entries.remove(&change.key),
        };
    }

    /// Writes the log and rings for the watchers.
    fn record(&mut self, revision: Revision, changes: Vec<Change>) {
        let bytes =
            changes.iter().filter_map(|change| change.previous.as_ref()).map(|entry| entry.value.len() as u64).sum();
        for (range, bell) in &self.bells {
            if changes.iter().any(|change| range.contains(&change.key)) {
                bell.notify_waiters();
            }
        }
        self.revision = revision;
        self.log_bytes += bytes;
        self.log.push_back(Commit { changes: changes.into(), bytes });
        while self.log.len() > self.limits.history_commits || self.log_bytes > self.limits.history_bytes {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.log.pop_front() {
            self.log_bytes -= oldest.bytes;
            self.compacted.0 += 1;
        }
    }

    pub(crate) fn compact(&mut self, revision: Revision) -> Result<(), StoreError> {
        self.open()?;
        self.check_revision(revision)?;
        while self.compacted < revision {
            self.drop_oldest();
        }
        Ok(())
    }

    /// A place in the log, and the bell that rings when there is more.
    pub(crate) fn subscribe(
        &mut self,
        range: &KeyRange,
        after: Option<Revision>,
    ) -> Result<(Revision, Arc<Notify>), StoreError> {
        self.open()?;
        let after = after.unwrap_or(self.revision);
        if after < self.compacted {
            return Err(StoreError::Compacted { asked: after, oldest: self.compacted });
        }
        self.bells.retain(|_, bell| Arc::strong_count(bell) > 1);
        Ok((after, self.bells.entry(range.clone()).or_default().clone()))
    }

    /// The changes of a range after a revision, a bounded number of commits, and how far they go.
    pub(crate) fn read(&self, range: &KeyRange, cursor: Revision) -> Result<(Vec<WatchItem>, Revision), StoreError> {
        self.open()?;
        if cursor < self.compacted {
            return Err(StoreError::Compacted { asked: cursor, oldest: self.compacted });
        }
        let skip = (cursor.0 - self.compacted.0) as usize;
        let mut items = Vec::new();
        for (index, commit) in self.log.iter().enumerate().skip(skip) {
            let revision = Revision(self.compacted.0 + 1 + index as u64);
            if let Some(changes) = select(range, &commit.changes) {
                items.push(WatchItem::Changes { revision, changes });
                if items.len() == limits::WATCH_BATCH_COMMITS {
                    return Ok((items, revision));
                }
            }
        }
        Ok((items, self.revision.max(cursor)))
    }

    fn set_deadline(&mut self, key: &Key, deadline: Option<Duration>) {
        if let Some(old) = self.deadline_of.remove(key) {
            self.deadlines.remove(&(old, key.clone()));
        }
        if let Some(deadline) = deadline {
            self.deadline_of.insert(key.clone(), deadline);
            self.deadlines.insert((deadline, key.clone()));
        }
    }

    pub(crate) fn next_expiry(&self) -> Option<Duration> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Removes the keys whose time has come.
    pub(crate) fn expire(&mut self, now: Duration) {
        while let Some((deadline, key)) = self.deadlines.first().cloned() {
            if deadline > now || self.closed {
                return;
            }
            let batch = Batch { preconditions: Vec::new(), operations: vec![Operation::Delete { key: key.clone() }] };
            if self.commit(batch, now).is_err() {
                self.set_deadline(&key, None);
            }
        }
    }
}

fn lower_bound(range: &KeyRange, after: Option<&Key>) -> Bound<Key> {
    match after {
        Some(after) if after.as_str() >= range.as_prefix() => Bound::Excluded(after.clone()),
        _ => Bound::Included(Key::new(range.as_prefix())),
    }
}

/// The changes that lie in the range; shared when all do.
fn select(range: &KeyRange, changes: &Arc<[Change]>) -> Option<Arc<[Change]>> {
    let inside = changes.iter().filter(|change| range.contains(&change.key)).count();
    match inside {
        0 => None,
        all if all == changes.len() => Some(changes.clone()),
        _ => Some(changes.iter().filter(|change| range.contains(&change.key)).cloned().collect()),
    }
}
