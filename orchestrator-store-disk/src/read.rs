//! Reading from disk: entries, lists now and in the past, and the log for watchers that are far behind.

use std::{collections::BTreeMap, sync::Arc};

use orchestrator_core::store::{Change, Entry, Key, KeyRange, ListOptions, Listing, Revision, StoreError, WatchItem};

use crate::{
    error::DiskError,
    limits::{WATCH_BATCH_BYTES, WATCH_BATCH_COMMITS},
    record::{Changed, Place},
    records::Records,
};

/// Keys that were different at the revision that is read, as they were then.
pub(crate) type Undo = BTreeMap<Key, Option<Place>>;

/// What a list reads: a snapshot of a range, and how it differs from what the engine has.
pub(crate) struct Snapshot {
    /// The revision to read.
    pub(crate) revision: Revision,
    /// The newest revision that is on the disk.
    pub(crate) published: Revision,
    /// What the group that is being written touches.
    pub(crate) in_flight: Undo,
}

pub(crate) fn list(
    records: &Records<'_>,
    range: &KeyRange,
    options: &ListOptions,
    snapshot: Snapshot,
) -> Result<Listing, StoreError> {
    let after = options.after.as_ref();
    let undo = undo(records, range, after, &snapshot)?;
    let mut page = Page { limit: options.limit.unwrap_or(usize::MAX), found: Vec::new(), remaining: 0 };
    let mut undone = undo.into_iter().peekable();
    records.pointers(range, after, |key, pointer| {
        while let Some((old, place)) = undone.next_if(|(old, _)| *old <= key) {
            let is_this_one = old == key;
            page.show(old, place);
            if is_this_one {
                return Ok(());
            }
        }
        page.show(key, Some(pointer.place));
        Ok(())
    })?;
    undone.for_each(|(old, place)| page.show(old, place));
    Ok(Listing { entries: entries(records, &page.found)?, revision: snapshot.revision, remaining: page.remaining })
}

/// The first keys that are there, and how many more there are.
struct Page {
    limit: usize,
    found: Vec<(Key, Place)>,
    remaining: u64,
}

impl Page {
    fn show(&mut self, key: Key, place: Option<Place>) {
        match place {
            Some(place) if self.found.len() < self.limit => self.found.push((key, place)),
            Some(_) => self.remaining += 1,
            None => {}
        }
    }
}

/// The values of keys, in the order of the keys. They are read in the order in which they were written: those that were written
/// together stand in the same page, which may not stay in memory for long.
fn entries(records: &Records<'_>, found: &[(Key, Place)]) -> Result<Vec<Entry>, DiskError> {
    let mut places: Vec<_> = found.iter().map(|(_, place)| place).zip(0..).collect();
    places.sort_unstable_by_key(|(place, _)| (place.modified, place.change));
    let read = places.into_iter().map(|(place, index): (_, usize)| Ok((index, records.entry(&found[index].0, place)?)));
    let mut entries: Vec<(usize, Entry)> = read.collect::<Result<_, DiskError>>()?;
    entries.sort_unstable_by_key(|(index, _)| *index);
    Ok(entries.into_iter().map(|(_, entry)| entry).collect())
}

/// The keys of a range that have changed since the revision. The oldest change since then knows what was before it.
fn undo(records: &Records<'_>, range: &KeyRange, after: Option<&Key>, snapshot: &Snapshot) -> Result<Undo, DiskError> {
    let mut undo = Undo::new();
    for revision in snapshot.revision.0 + 1..=snapshot.published.0 {
        for change in records.commit(revision)?.changes {
            let key = change.key();
            if range.contains(&key) && after.is_none_or(|after| key > *after) {
                undo.entry(key).or_insert(change.previous);
            }
        }
    }
    for (key, place) in &snapshot.in_flight {
        undo.entry(key.clone()).or_insert(*place);
    }
    Ok(undo)
}

/// The changes of a range in the log between two revisions, a bounded number of them, and how far they go.
pub(crate) fn log(
    records: &Records<'_>,
    range: &KeyRange,
    after: Revision,
    newest: Revision,
) -> Result<(Vec<WatchItem>, Revision), StoreError> {
    let (mut items, mut bytes) = (Vec::new(), 0);
    for revision in after.0 + 1..=newest.0 {
        let commit = records.commit(revision)?;
        let inside = commit.changes.iter().filter(|change| range.contains(&change.key()));
        let changes: Arc<[Change]> = inside.map(|change| told(records, change)).collect::<Result<_, _>>()?;
        if changes.is_empty() {
            continue;
        }
        let entries = changes.iter().flat_map(|change| [&change.entry, &change.previous]).flatten();
        bytes += entries.map(|entry| entry.value.len() as u64).sum::<u64>();
        items.push(WatchItem::Changes { revision: Revision(revision), changes });
        if items.len() == WATCH_BATCH_COMMITS || bytes >= WATCH_BATCH_BYTES {
            return Ok((items, Revision(revision)));
        }
    }
    Ok((items, newest))
}

/// A change with its values.
fn told(records: &Records<'_>, change: &Changed) -> Result<Change, DiskError> {
    let key = change.key();
    let entry = |place: Option<Place>| -> Result<Option<Entry>, DiskError> {
        place.map(|place| records.entry(&key, &place)).transpose()
    };
    let (entry, previous) = (entry(change.place)?, entry(change.previous)?);
    Ok(Change { key, entry, previous })
}
