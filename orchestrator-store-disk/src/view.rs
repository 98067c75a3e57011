//! What readers and watchers are shown: nothing that is not on the disk yet.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::Arc,
};

use orchestrator_core::store::{Change, Key, KeyRange, Revision, StoreError, WatchItem};
use tokio::sync::Notify;

use crate::{
    error::DiskError,
    limits::{RECENT_BYTES, RECENT_COMMITS, WATCH_BATCH_COMMITS},
    plan::Planned,
    record::{Meta, Pointer},
};

/// Where the store stands for everyone but its writer.
pub(crate) struct View {
    /// As of the newest commit that is on the disk.
    pub(crate) meta: Meta,
    /// Size of the present keys and values, in bytes.
    pub(crate) live_bytes: u64,
    /// States before this revision are gone, or will be once the group that is being written is on the disk.
    pub(crate) compacted: Revision,
    /// The keys that the group which is being written touches, as they were before it.
    in_flight: BTreeMap<Key, Option<Pointer>>,
    /// The newest commits, without a gap.
    recent: VecDeque<Recent>,
    recent_bytes: u64,
    /// One bell for each watched range.
    bells: BTreeMap<KeyRange, Arc<Notify>>,
    pub(crate) closed: bool,
    /// Why nothing is written any more.
    pub(crate) ended: Option<Arc<DiskError>>,
}

struct Recent {
    changes: Arc<[Change]>,
    bytes: u64,
}

/// What a watcher finds.
pub(crate) enum Found {
    /// The next changes, and how far they go.
    Items(Vec<WatchItem>, Revision),
    /// They are so old that they have to be read from disk.
    OnDisk,
}

impl View {
    pub(crate) fn new(meta: Meta, live_bytes: u64) -> Self {
        Self {
            meta,
            live_bytes,
            compacted: Revision(meta.compacted),
            in_flight: BTreeMap::new(),
            recent: VecDeque::new(),
            recent_bytes: 0,
            bells: BTreeMap::new(),
            closed: false,
            ended: None,
        }
    }

    pub(crate) fn revision(&self) -> Revision {
        Revision(self.meta.revision)
    }

    pub(crate) fn open(&self) -> Result<(), StoreError> {
        if self.closed { Err(StoreError::Closed) } else { Ok(()) }
    }

    pub(crate) fn check_revision(&self, asked: Revision) -> Result<(), StoreError> {
        if asked > self.revision() {
            Err(StoreError::Future { asked, current: self.revision() })
        } else {
            self.check_compacted(asked)
        }
    }

    pub(crate) fn check_compacted(&self, asked: Revision) -> Result<(), StoreError> {
        if asked < self.compacted { Err(StoreError::Compacted { asked, oldest: self.compacted }) } else { Ok(()) }
    }

    pub(crate) fn close(&mut self) {
        self.closed = true;
        self.bells.values().for_each(|bell| bell.notify_waiters());
    }

    /// How a key was before the group that is being written, if that touches it.
    pub(crate) fn in_flight(&self, key: &Key) -> Option<Option<Pointer>> {
        self.in_flight.get(key).copied()
    }

    /// The same for all keys of a range behind one of them.
    pub(crate) fn in_flight_range<'a>(
        &'a self,
        range: &'a KeyRange,
        after: Option<&'a Key>,
    ) -> impl Iterator<Item = (&'a Key, &'a Option<Pointer>)> {
        let from = self.in_flight.range::<str, _>((Bound::Included(range.as_prefix()), Bound::Unbounded));
        from.take_while(|(key, _)| range.contains(key)).filter(move |(key, _)| after.is_none_or(|after| *key > after))
    }

    /// A group is about to be applied: from now on readers see past it.
    pub(crate) fn begin(&mut self, planned: &mut Planned) {
        self.in_flight = std::mem::take(&mut planned.before);
        self.compacted = Revision(planned.meta.compacted);
        let kept = self.meta.revision.saturating_sub(planned.meta.compacted) as usize;
        while self.recent.len() > kept {
            self.drop_oldest();
        }
    }

    /// The group is on the disk: everyone may know.
    pub(crate) fn publish(&mut self, planned: Planned) {
        self.in_flight.clear();
        (self.meta, self.live_bytes) = (planned.meta, planned.live_bytes);
        for (_, changes) in planned.told {
            for (range, bell) in &self.bells {
                if changes.iter().any(|change| range.contains(&change.key)) {
                    bell.notify_waiters();
                }
            }
            let entries = changes.iter().flat_map(|change| [&change.entry, &change.previous]).flatten();
            let bytes = entries.map(|entry| entry.value.len() as u64).sum();
            self.recent_bytes += bytes;
            self.recent.push_back(Recent { changes, bytes });
        }
        while self.recent.len() > RECENT_COMMITS || self.recent_bytes > RECENT_BYTES {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.recent.pop_front() {
            self.recent_bytes -= oldest.bytes;
        }
    }

    /// A place in the log, and the bell that rings when there is more.
    pub(crate) fn subscribe(
        &mut self,
        range: &KeyRange,
        after: Option<Revision>,
    ) -> Result<(Revision, Arc<Notify>), StoreError> {
        self.open()?;
        let after = after.unwrap_or(self.revision());
        self.check_compacted(after)?;
        self.bells.retain(|_, bell| Arc::strong_count(bell) > 1);
        Ok((after, self.bells.entry(range.clone()).or_default().clone()))
    }

    /// The changes of a range after a revision, a bounded number of commits.
    pub(crate) fn read(&self, range: &KeyRange, cursor: Revision) -> Result<Found, StoreError> {
        self.open()?;
        self.check_compacted(cursor)?;
        let before_recent = self.meta.revision - self.recent.len() as u64;
        if cursor.0 < before_recent {
            return Ok(Found::OnDisk);
        }
        let mut items = Vec::new();
        for (recent, revision) in self.recent.iter().zip(before_recent + 1..).skip((cursor.0 - before_recent) as usize)
        {
            let revision = Revision(revision);
            if let Some(changes) = select(range, &recent.changes) {
                items.push(WatchItem::Changes { revision, changes });
                if items.len() == WATCH_BATCH_COMMITS {
                    return Ok(Found::Items(items, revision));
                }
            }
        }
        Ok(Found::Items(items, self.revision().max(cursor)))
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
