//! What a group of writes comes to: all its records, made up before the first of them is written.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use orchestrator_core::store::{Batch, Change, Entry, Key, Operation, Precondition, Revision, StoreError};

use crate::{
    database::Database,
    engine::Changes,
    error::DiskError,
    limits::{EXPIRY_BATCH_KEYS, Limits},
    record::{
        Changed, Commit, META_KEY, Meta, Place, Pointer, checksum, commit_key, deadline_key, encode, pointer_key,
        value_key,
    },
    records::Records,
    writes::Writes,
};

/// The present version of a key.
#[derive(Clone, Debug)]
struct Known {
    entry: Entry,
    pointer: Pointer,
}

/// A group in the making, on top of what is on disk.
pub(crate) struct Plan<'a> {
    database: &'a Database,
    records: Records<'a>,
    limits: &'a Limits,
    /// The store's time, in nanoseconds.
    now: u64,
    meta: Meta,
    /// Size of the present keys and values, in bytes.
    live_bytes: u64,
    /// The newest revision that readers know. What they need is not forgotten before they know what follows.
    published: u64,
    writes: Writes,
    /// The keys that were looked at, as the group leaves them so far.
    known: BTreeMap<Key, Option<Known>>,
    before: BTreeMap<Key, Option<Pointer>>,
    commits: BTreeMap<u64, Commit>,
    told: Vec<(Revision, Arc<[Change]>)>,
    free_bytes: Option<u64>,
}

/// A group that is ready to be written.
pub(crate) struct Planned {
    pub(crate) changes: Changes,
    /// Where the store will stand.
    pub(crate) meta: Meta,
    pub(crate) live_bytes: u64,
    /// The keys that the group touches, as they are before it.
    pub(crate) before: BTreeMap<Key, Option<Pointer>>,
    /// What watchers will be told.
    pub(crate) told: Vec<(Revision, Arc<[Change]>)>,
}

impl<'a> Plan<'a> {
    pub(crate) fn new(
        database: &'a Database,
        limits: &'a Limits,
        meta: Meta,
        live_bytes: u64,
        now: u64,
    ) -> Result<Self, DiskError> {
        Ok(Self {
            database,
            records: database.records()?,
            limits,
            now,
            meta,
            live_bytes,
            published: meta.revision,
            writes: Writes::new(database.bounds().piece_bytes),
            known: BTreeMap::new(),
            before: BTreeMap::new(),
            commits: BTreeMap::new(),
            told: Vec::new(),
            free_bytes: None,
        })
    }

    /// Adds a commit, or leaves the group as it was.
    pub(crate) fn commit(&mut self, batch: Batch) -> Result<Revision, StoreError> {
        check_sizes(&batch, self.limits)?;
        let preconditions = batch.preconditions.iter().map(|precondition| match precondition {
            Precondition::Absent { key } | Precondition::AtRevision { key, .. } => key,
        });
        for key in preconditions.chain(batch.operations.iter().map(Operation::key)) {
            self.look_at(key)?;
        }
        let present = |key: &Key| self.known.get(key)?.as_ref().map(|known| &known.entry);
        batch.check(present)?;
        let deadlines = deadlines(&batch, self.now);
        let revision = Revision(self.meta.revision + 1);
        let puts = batch.operations.iter().any(|operation| operation.value().is_some());
        let changes = batch.changes(revision, present);
        if changes.is_empty() {
            return Ok(Revision(self.meta.revision));
        }
        self.check_space(puts)?;
        let records = changes.iter().zip(0..).map(|(change, number)| {
            let deadline = deadlines.get(&change.key).copied();
            self.change(change, number, deadline)
        });
        let commit = Commit { changes: records.collect::<Result<_, _>>()? };
        self.writes.put_pieces(&commit_key(revision.0), &encode(&commit)?);
        self.meta.revision = revision.0;
        self.meta.history_bytes += commit.history_bytes();
        self.commits.insert(revision.0, commit);
        self.told.push((revision, changes.into()));
        Ok(revision)
    }

    /// Reads the present version of a key, unless the group knows it.
    fn look_at(&mut self, key: &Key) -> Result<(), DiskError> {
        if !self.known.contains_key(key) {
            let known = match self.records.pointer(key)? {
                Some(pointer) => Some(Known { entry: self.records.entry(key, &pointer.place)?, pointer }),
                None => None,
            };
            self.known.insert(key.clone(), known);
        }
        Ok(())
    }

    /// A disk that an engine finds full ends writing, so a write stops before that. Deletions may go further.
    fn check_space(&mut self, puts: bool) -> Result<(), DiskError> {
        let free_bytes = match self.free_bytes {
            Some(free_bytes) => free_bytes,
            None => *self.free_bytes.insert(self.database.free_bytes()?),
        };
        let reserve_bytes = self.database.bounds().delete_reserve_bytes.min(self.limits.reserve_bytes);
        let reserve_bytes = if puts { self.limits.reserve_bytes } else { reserve_bytes };
        if free_bytes < reserve_bytes { Err(DiskError::DiskFull { free_bytes, reserve_bytes }) } else { Ok(()) }
    }

    /// Writes the records of one change.
    fn change(&mut self, change: &Change, number: u32, deadline: Option<u64>) -> Result<Changed, DiskError> {
        let key = &change.key;
        let old = self.known.get(key).and_then(Option::as_ref).map(|known| known.pointer);
        if let Some(old) = &old {
            self.count(key, old, u64::wrapping_sub)?;
            self.live_bytes = self.live_bytes.saturating_sub(old.live_bytes(key));
            if let Some(deadline) = old.deadline {
                self.writes.remove(deadline_key(deadline, key));
            }
        }
        let known = change.entry.as_ref().map(|entry| {
            let (created, modified) = (entry.created.0, entry.modified.0);
            let place = Place { created, modified, change: number, bytes: entry.value.len() as u32 };
            Known { entry: entry.clone(), pointer: Pointer { place, deadline } }
        });
        match &known {
            Some(Known { entry, pointer }) => {
                self.writes.put_pieces(&value_key(&pointer.place), &entry.value);
                self.writes.put(pointer_key(key.as_str()), &encode(pointer)?);
                if let Some(deadline) = deadline {
                    self.writes.put(deadline_key(deadline, key), &[]);
                }
                self.count(key, pointer, u64::wrapping_add)?;
                self.live_bytes = self.live_bytes.saturating_add(pointer.live_bytes(key));
            }
            None => self.writes.remove(pointer_key(key.as_str())),
        }
        self.before.entry(key.clone()).or_insert(old);
        let changed = Changed::new(key, known.as_ref().map(|known| known.pointer.place), old.map(|old| old.place));
        self.known.insert(key.clone(), known);
        Ok(changed)
    }

    /// Counts a present key in or out.
    fn count(&mut self, key: &Key, pointer: &Pointer, add: fn(u64, u64) -> u64) -> Result<(), DiskError> {
        let pointer_key = pointer_key(key.as_str());
        let mut sum = u64::from(checksum(&pointer_key, &encode(pointer)?));
        if let Some(deadline) = pointer.deadline {
            sum += u64::from(checksum(&deadline_key(deadline, key), &[]));
        }
        self.meta.keys = add(self.meta.keys, 1);
        self.meta.fingerprint = add(self.meta.fingerprint, sum);
        Ok(())
    }

    /// Removes keys whose time has come, a bounded number at once.
    pub(crate) fn expire(&mut self) -> Result<(), StoreError> {
        let due = self.records.deadlines(EXPIRY_BATCH_KEYS)?;
        let now = self.now;
        for (deadline, key) in due.into_iter().take_while(|(deadline, _)| *deadline <= now) {
            self.look_at(&key)?;
            // The group may have written the key anew.
            let known = self.known.get(&key).and_then(Option::as_ref);
            if known.and_then(|known| known.pointer.deadline) == Some(deadline) {
                self.commit(Batch { preconditions: Vec::new(), operations: vec![Operation::Delete { key }] })?;
            }
        }
        Ok(())
    }

    /// Forgets the history before a revision that readers know, a bounded number of commits at once. Whether it is done.
    pub(crate) fn compact(&mut self, revision: Revision, commits_max: usize) -> Result<bool, StoreError> {
        self.check_space(false)?;
        let target = revision.0.min(self.published);
        for _ in 0..commits_max {
            if self.meta.compacted >= target {
                break;
            }
            self.forget_oldest()?;
        }
        Ok(self.meta.compacted >= target)
    }

    /// Forgets the oldest commit with the values that it replaced.
    fn forget_oldest(&mut self) -> Result<(), DiskError> {
        let revision = self.meta.compacted + 1;
        let commit = match self.commits.remove(&revision) {
            Some(commit) => commit,
            None => self.records.commit(revision)?,
        };
        self.writes.remove_pieces(&commit_key(revision), encode(&commit)?.len());
        for previous in commit.changes.iter().filter_map(|change| change.previous) {
            self.writes.remove_pieces(&value_key(&previous), previous.bytes as usize);
        }
        self.meta.compacted = revision;
        self.meta.history_bytes -= commit.history_bytes();
        Ok(())
    }

    /// The group with all its records, and with as much history as the bounds allow. `None` when it changes nothing.
    pub(crate) fn finish(mut self, was: &Meta) -> Result<Option<Planned>, DiskError> {
        let too_many = |meta: &Meta, limits: &Limits| {
            meta.revision - meta.compacted > limits.history_commits as u64 || meta.history_bytes > limits.history_bytes
        };
        while self.meta.compacted < self.published && too_many(&self.meta, self.limits) {
            self.forget_oldest()?;
        }
        if self.meta == *was {
            return Ok(None);
        }
        self.writes.put(META_KEY.to_vec(), &encode(&self.meta)?);
        let Self { writes, meta, live_bytes, before, told, .. } = self;
        Ok(Some(Planned { changes: writes.into_changes(), meta, live_bytes, before, told }))
    }
}

/// When the keys that a batch puts expire, in nanoseconds of the store's time.
fn deadlines(batch: &Batch, now: u64) -> BTreeMap<Key, u64> {
    let nanoseconds = |time: &Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let deadline = |operation: &Operation| match operation {
        Operation::Put { key, time_to_live: Some(time), .. } => {
            Some((key.clone(), now.saturating_add(nanoseconds(time))))
        }
        _ => None,
    };
    batch.operations.iter().filter_map(deadline).collect()
}

fn check_sizes(batch: &Batch, limits: &Limits) -> Result<(), StoreError> {
    let refused = |why: String| Err(StoreError::Refused(why));
    if batch.operations.len() + batch.preconditions.len() > limits.batch_operations {
        return refused(format!("more than {} operations", limits.batch_operations));
    }
    let mut sum = 0;
    for operation in &batch.operations {
        let (key, size) = (operation.key().as_str(), operation.value().map_or(0, |value| value.len()));
        if size > limits.value_bytes {
            return refused(format!("a value of {size} bytes"));
        }
        if key.len() > limits.key_bytes {
            return refused(format!("a key of {} bytes", key.len()));
        }
        sum += key.len() + size;
    }
    if sum > limits.batch_bytes { refused(format!("{sum} bytes at once")) } else { Ok(()) }
}
