//! Reading from disk: entries, lists now and in the past, and the log for watchers that are far behind.

use std::{collections::BTreeMap, sync::Arc};

use orchestrator_core::store::{Change, Entry, Key, KeyRange, ListOptions, Listing, Revision, StoreError, WatchItem};

use crate::{
    engine::Engine,
    error::SledError,
    limits::{WATCH_BATCH_BYTES, WATCH_BATCH_COMMITS},
    record::{Changed, Place},
};

/// Keys that were different at the revision that is read, as they were then.
pub(crate) type Undo = BTreeMap<Key, Option<Place>>;

/// What a list reads: a snapshot of a range, and how it differs from what sled has.
pub(crate) struct Snapshot {
    /// The revision to read.
    pub(crate) revision: Revision,
    /// The newest revision that is on the disk.
    pub(crate) published: Revision,
    /// What the group that is being written touches.
    pub(crate) in_flight: Undo,
}

pub(crate) fn list(
    engine: &Engine,
    range: &KeyRange,
    options: &ListOptions,
    snapshot: Snapshot,
) -> Result<Listing, StoreError> {
    let after = options.after.as_ref();
    let undo = undo(engine, range, after, &snapshot)?;
    let present = engine.pointers(range, after).map(|item| item.map(|(key, pointer)| (key, pointer.place)));
    let limit = options.limit.unwrap_or(usize::MAX);
    let (mut found, mut remaining) = (Vec::new(), 0);
    for item in undone(present, undo) {
        let item = item?;
        if found.len() < limit {
            found.push(item);
        } else {
            remaining += 1;
        }
    }
    Ok(Listing { entries: entries(engine, &found)?, revision: snapshot.revision, remaining })
}

/// The values of keys, in the order of the keys. They are read in the order in which they were written: those that were written
/// together stand in the same page, which may not stay in memory for long.
fn entries(engine: &Engine, found: &[(Key, Place)]) -> Result<Vec<Entry>, SledError> {
    let mut places: Vec<_> = found.iter().map(|(_, place)| place).zip(0..).collect();
    places.sort_unstable_by_key(|(place, _)| (place.modified, place.change));
    let read = places.into_iter().map(|(place, index): (_, usize)| Ok((index, engine.entry(&found[index].0, place)?)));
    let mut entries: Vec<(usize, Entry)> = read.collect::<Result<_, SledError>>()?;
    entries.sort_unstable_by_key(|(index, _)| *index);
    Ok(entries.into_iter().map(|(_, entry)| entry).collect())
}

/// The keys of a range that have changed since the revision. The oldest change since then knows what was before it.
fn undo(engine: &Engine, range: &KeyRange, after: Option<&Key>, snapshot: &Snapshot) -> Result<Undo, SledError> {
    let mut undo = Undo::new();
    for revision in snapshot.revision.0 + 1..=snapshot.published.0 {
        for change in engine.commit(revision)?.changes {
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

/// Keys in order, with some of them as they were.
fn undone(
    present: impl Iterator<Item = Result<(Key, Place), SledError>>,
    undo: Undo,
) -> impl Iterator<Item = Result<(Key, Place), SledError>> {
    let mut present = present.peekable();
    let mut undo = undo.into_iter().peekable();
    std::iter::from_fn(move || {
        loop {
            let Some((undone, _)) = undo.peek() else { return present.next() };
            match present.peek() {
                Some(Ok((key, _))) if key < undone => return present.next(),
                Some(Err(_)) => return present.next(),
                Some(Ok((key, _))) if key == undone => drop(present.next()),
                _ => {}
            }
            if let Some((key, Some(place))) = undo.next() {
                return Some(Ok((key, place)));
            }
        }
    })
}

/// The changes of a range in the log between two revisions, a bounded number of them, and how far they go.
pub(crate) fn log(
    engine: &Engine,
    range: &KeyRange,
    after: Revision,
    newest: Revision,
) -> Result<(Vec<WatchItem>, Revision), StoreError> {
    let (mut items, mut bytes) = (Vec::new(), 0);
    for revision in after.0 + 1..=newest.0 {
        let commit = engine.commit(revision)?;
        let inside = commit.changes.iter().filter(|change| range.contains(&change.key()));
        let changes: Arc<[Change]> = inside.map(|change| told(engine, change)).collect::<Result<_, _>>()?;
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
fn told(engine: &Engine, change: &Changed) -> Result<Change, SledError> {
    let key = change.key();
    let entry = |place: Option<Place>| -> Result<Option<Entry>, SledError> {
        place.map(|place| engine.entry(&key, &place)).transpose()
    };
    let (entry, previous) = (entry(change.place)?, entry(change.previous)?);
    Ok(Change { key, entry, previous })
}
