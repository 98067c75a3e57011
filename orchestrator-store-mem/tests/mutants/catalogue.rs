//! The bugs, each with the place where it is planted.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use orchestrator_core::store::{
    Batch, Change, Entry, Key, KeyRange, ListOptions, Listing, Operation, Precondition, Revision, StoreError,
    StoreStatus, WatchItem, WatchOptions,
};

use crate::mutant::Mutant;

/// A bug.
#[derive(Debug)]
pub(crate) struct Bug {
    /// What the store does.
    pub(crate) name: &'static str,
    pub(crate) plant: Plant,
}

/// What a commit answers.
type Answer = Result<Revision, StoreError>;

/// Where a bug is.
#[derive(Debug)]
pub(crate) enum Plant {
    /// In what a read gives.
    Get(fn(&Mutant, &Key, Option<Entry>) -> Option<Entry>),
    /// In how a list is asked for.
    ListOptions(fn(ListOptions) -> ListOptions),
    /// In what a list gives.
    List(fn(&Mutant, &ListOptions, Listing) -> Listing),
    /// In place of a list's error, where the present is known.
    ListError(fn(Listing, StoreError) -> Listing),
    /// In what is committed.
    Batch(fn(&Mutant, Batch) -> Batch),
    /// In what a commit answers, where the revision before it is known.
    Commit(fn(&Mutant, Revision, &Batch, Answer) -> Answer),
    /// Operations are committed one by one.
    Halves,
    /// In how a watch is asked for.
    WatchOptions(fn(KeyRange, WatchOptions) -> (KeyRange, WatchOptions)),
    /// In what a watch tells: the item's number, the item, and one that may be held back.
    Watch(fn(u64, WatchItem, &mut Option<WatchItem>) -> Vec<WatchItem>),
    /// A watch from what was compacted begins now.
    CompactedIsSilent,
    /// In what is compacted.
    Compact(fn(Revision) -> Revision),
    /// Nothing is.
    CompactNothing,
    /// In the status.
    Status(fn(&Mutant, StoreStatus) -> StoreStatus),
}

const fn bug(name: &'static str, plant: Plant) -> Bug {
    Bug { name, plant }
}

/// All bugs.
pub(crate) const BUGS: &[Bug] = &[
    bug("reads a key as it was at the read before", Plant::Get(read_before)),
    bug("now and then finds no key where one is", Plant::Get(|mutant, _, found| found.filter(|_| !mutant.strikes(5)))),
    bug("forgets when a key came into being", Plant::Get(|_, _, found| found.map(created_now))),
    bug("cuts off values at 64 KiB", Plant::Get(|_, _, found| found.map(cut_off))),
    bug(
        "lists at a revision what is there now",
        Plant::ListOptions(|options| ListOptions { revision: None, ..options }),
    ),
    bug("says a list is of the revision before", Plant::List(list_is_older)),
    bug("says a list of the present is of the next revision", Plant::List(list_is_newer)),
    bug("loses the last entry of a page", Plant::List(page_lost)),
    bug("gives the first page again", Plant::ListOptions(|options| ListOptions { after: None, ..options })),
    bug("knows no limit of a list", Plant::ListOptions(|options| ListOptions { limit: None, ..options })),
    bug("says that nothing remains behind a page", Plant::List(|_, _, listing| Listing { remaining: 0, ..listing })),
    bug(
        "lists backwards",
        Plant::List(|_, _, mut listing| {
            listing.entries.reverse();
            listing
        }),
    ),
    bug("now and then lists what it listed before", Plant::List(list_before)),
    bug("lists the present where the past or the future was asked for in vain", Plant::ListError(|listing, _| listing)),
    bug("passes over preconditions", Plant::Batch(|_, batch| Batch { preconditions: Vec::new(), ..batch })),
    bug(
        "looks at the first precondition only",
        Plant::Batch(|_, mut batch| {
            batch.preconditions.truncate(1);
            batch
        }),
    ),
    bug("passes over preconditions of absence", Plant::Batch(without_absent)),
    bug("replaces a key that is newer than expected", Plant::Batch(without_revisions)),
    bug("applies the first half of a batch", Plant::Batch(first_half)),
    bug(
        "applies operations in the opposite order",
        Plant::Batch(|_, mut batch| {
            batch.operations.reverse();
            batch
        }),
    ),
    bug("commits the operations of a batch one by one", Plant::Halves),
    bug("takes a batch that names a key twice", Plant::Batch(once_each)),
    bug("acknowledges now and then what it does not write", Plant::Batch(not_written)),
    bug("writes an acknowledged batch with the one after it", Plant::Batch(written_late)),
    bug("writes an empty value for every tenth one", Plant::Batch(empty_value)),
    bug("never deletes", Plant::Batch(without_deletions)),
    bug("acknowledges at the revision before", Plant::Commit(|_, before, _, done| done.map(|_| before))),
    bug("gives a revision twice now and then", Plant::Commit(revision_reused)),
    bug("acknowledges what met a conflict", Plant::Commit(conflict_hidden)),
    bug("does not say what is there at a conflict", Plant::Commit(conflict_unexplained)),
    bug("says it has failed when it has not found the key to delete", Plant::Commit(deletion_refused)),
    bug("gives what changes nothing a revision", Plant::Commit(empty_revision)),
    bug("never expires a key", Plant::Batch(|_, batch| with_lives(batch, |_| None))),
    bug(
        "expires a key at once",
        Plant::Batch(|_, batch| with_lives(batch, |lives| lives.map(|_| Duration::from_millis(1)))),
    ),
    bug("expires a key that was written again for good", Plant::Batch(lives_kept)),
    bug(
        "drops every fortieth item of a watch",
        Plant::Watch(|count, item, _| Vec::from_iter((count % 40 != 0).then_some(item))),
    ),
    bug(
        "repeats every fortieth item of a watch",
        Plant::Watch(|count, item, _| if count % 40 == 0 { vec![item.clone(), item] } else { vec![item] }),
    ),
    bug("swaps items of a watch now and then", Plant::Watch(swapped)),
    bug("skips the first change behind a watch's revision", Plant::WatchOptions(starts_late)),
    bug("repeats the change at a watch's revision", Plant::WatchOptions(starts_early)),
    bug(
        "begins every watch now",
        Plant::WatchOptions(|range, options| (range, WatchOptions { after: None, ..options })),
    ),
    bug(
        "tells a watch of keys outside of its range",
        Plant::WatchOptions(|_, options| (KeyRange::prefix(""), options)),
    ),
    bug("tells the changes of a commit one by one", Plant::Watch(|_, item, _| split(item))),
    bug(
        "tells the last change of a commit only",
        Plant::Watch(|_, item, _| {
            vec![with_changes(item, |changes| {
                changes.drain(..changes.len() - 1);
            })]
        }),
    ),
    bug(
        "tells the changes of a commit in the opposite order",
        Plant::Watch(|_, item, _| vec![with_changes(item, |changes| changes.reverse())]),
    ),
    bug("tells no deletions", Plant::Watch(no_deletions)),
    bug(
        "does not tell what was there before",
        Plant::Watch(|_, item, _| {
            vec![with_changes(item, |changes| {
                changes.iter_mut().for_each(|change| change.previous = None);
            })]
        }),
    ),
    bug(
        "tells a change as if its key were new",
        Plant::Watch(|_, item, _| {
            vec![with_changes(item, |changes| {
                changes.iter_mut().for_each(|change| change.entry = change.entry.take().map(created_now));
            })]
        }),
    ),
    bug("gives a bookmark ahead of a change", Plant::Watch(early_bookmark)),
    bug(
        "gives no bookmarks",
        Plant::WatchOptions(|range, options| (range, WatchOptions { bookmarks: false, ..options })),
    ),
    bug("begins a watch of what was compacted now", Plant::CompactedIsSilent),
    bug("compacts one revision too many", Plant::Compact(|revision| Revision(revision.0 + 1))),
    bug("compacts one revision too few", Plant::Compact(|revision| Revision(revision.0.saturating_sub(1).max(1)))),
    bug("compacts nothing", Plant::CompactNothing),
    bug("says it stands where it stood at the status before", Plant::Status(status_before)),
];

fn read_before(mutant: &Mutant, key: &Key, found: Option<Entry>) -> Option<Entry> {
    let place = |entries: &Vec<Entry>| entries.iter().position(|entry| entry.key == *key);
    mutant.remember(|memory| {
        let before = place(&memory.entries).map(|index| memory.entries.remove(index));
        memory.entries.extend(found.clone());
        before.or(found)
    })
}

fn created_now(entry: Entry) -> Entry {
    Entry { created: entry.modified, ..entry }
}

fn cut_off(entry: Entry) -> Entry {
    let length = entry.value.len().min(64 << 10);
    Entry { value: entry.value.slice(..length), ..entry }
}

fn list_is_older(_: &Mutant, _: &ListOptions, listing: Listing) -> Listing {
    Listing { revision: Revision(listing.revision.0 - 1), ..listing }
}

fn list_is_newer(_: &Mutant, options: &ListOptions, listing: Listing) -> Listing {
    let ahead = u64::from(options.revision.is_none());
    Listing { revision: Revision(listing.revision.0 + ahead), ..listing }
}

fn page_lost(_: &Mutant, options: &ListOptions, mut listing: Listing) -> Listing {
    if options.limit.is_some() && listing.entries.len() > 1 {
        listing.entries.pop();
    }
    listing
}

fn list_before(mutant: &Mutant, options: &ListOptions, mut listing: Listing) -> Listing {
    if options.revision.is_some() || options.limit.is_some() {
        return listing;
    }
    let strikes = mutant.strikes(4);
    mutant.remember(|memory| {
        let before = std::mem::replace(&mut memory.entries, listing.entries.clone());
        if strikes {
            listing.entries = before;
        }
        listing
    })
}

fn without_absent(_: &Mutant, mut batch: Batch) -> Batch {
    batch.preconditions.retain(|precondition| !matches!(precondition, Precondition::Absent { .. }));
    batch
}

fn without_revisions(_: &Mutant, mut batch: Batch) -> Batch {
    batch.preconditions.retain(|precondition| matches!(precondition, Precondition::Absent { .. }));
    batch
}

fn first_half(_: &Mutant, mut batch: Batch) -> Batch {
    batch.operations.truncate(batch.operations.len().div_ceil(2));
    batch
}

fn once_each(_: &Mutant, mut batch: Batch) -> Batch {
    let mut seen = std::collections::BTreeSet::new();
    batch.operations.retain(|operation| seen.insert(operation.key().clone()));
    batch
}

fn not_written(mutant: &Mutant, mut batch: Batch) -> Batch {
    if mutant.strikes(10) {
        batch.operations.clear();
    }
    batch
}

fn written_late(mutant: &Mutant, mut batch: Batch) -> Batch {
    let late = mutant.remember(|memory| memory.batch.take());
    if late.is_none() && mutant.strikes(10) {
        let operations = std::mem::take(&mut batch.operations);
        mutant.remember(|memory| memory.batch = Some(Batch { preconditions: Vec::new(), operations }));
    }
    let named = batch.operations.iter().map(|operation| operation.key().clone()).collect::<Vec<_>>();
    let late = late.into_iter().flat_map(|late| late.operations).filter(|operation| !named.contains(operation.key()));
    batch.operations.extend(late);
    batch
}

fn empty_value(mutant: &Mutant, mut batch: Batch) -> Batch {
    for operation in &mut batch.operations {
        if let Operation::Put { value, .. } = operation
            && mutant.strikes(10)
        {
            *value = Bytes::new();
        }
    }
    batch
}

fn without_deletions(_: &Mutant, mut batch: Batch) -> Batch {
    batch.operations.retain(|operation| matches!(operation, Operation::Put { .. }));
    batch
}

fn revision_reused(mutant: &Mutant, before: Revision, _: &Batch, done: Answer) -> Answer {
    done.map(|revision| if mutant.strikes(10) { before } else { revision })
}

fn conflict_hidden(_: &Mutant, before: Revision, _: &Batch, done: Answer) -> Answer {
    match done {
        Err(StoreError::Conflict { .. }) => Ok(before),
        done => done,
    }
}

fn conflict_unexplained(_: &Mutant, _: Revision, _: &Batch, done: Answer) -> Answer {
    done.map_err(|error| match error {
        StoreError::Conflict { key, .. } => StoreError::Conflict { key, current: None },
        error => error,
    })
}

fn deletion_refused(_: &Mutant, before: Revision, batch: &Batch, done: Answer) -> Answer {
    match done {
        Ok(revision) if revision == before => {
            Err(StoreError::Conflict { key: batch.operations[0].key().clone(), current: None })
        }
        done => done,
    }
}

fn empty_revision(_: &Mutant, before: Revision, _: &Batch, done: Answer) -> Answer {
    done.map(|revision| if revision == before { Revision(revision.0 + 1) } else { revision })
}

fn with_lives(mut batch: Batch, change: fn(Option<Duration>) -> Option<Duration>) -> Batch {
    for operation in &mut batch.operations {
        if let Operation::Put { time_to_live, .. } = operation {
            *time_to_live = change(*time_to_live);
        }
    }
    batch
}

/// The time to live of the last key that had one stays with whatever is written to that key.
fn lives_kept(mutant: &Mutant, mut batch: Batch) -> Batch {
    mutant.remember(|memory| {
        let mortal = |operation: &Operation| matches!(operation, Operation::Put { time_to_live: Some(_), .. });
        if batch.operations.iter().any(mortal) {
            memory.batch = Some(batch.clone());
            return batch;
        }
        let remembered: &[Operation] = memory.batch.as_ref().map_or(&[], |before| &before.operations);
        for operation in &mut batch.operations {
            let before = remembered.iter().find(|before| before.key() == operation.key());
            if let (Operation::Put { time_to_live, .. }, Some(Operation::Put { time_to_live: before, .. })) =
                (operation, before)
            {
                *time_to_live = *before;
            }
        }
        batch
    })
}

fn swapped(count: u64, item: WatchItem, held: &mut Option<WatchItem>) -> Vec<WatchItem> {
    match held.take() {
        Some(before) => vec![item, before],
        None if count % 20 == 10 => {
            *held = Some(item);
            Vec::new()
        }
        None => vec![item],
    }
}

fn starts_late(range: KeyRange, options: WatchOptions) -> (KeyRange, WatchOptions) {
    let after = options.after.map(|after| Revision(after.0 + 1));
    (range, WatchOptions { after, ..options })
}

fn starts_early(range: KeyRange, options: WatchOptions) -> (KeyRange, WatchOptions) {
    let after = options.after.map(|after| Revision(after.0.saturating_sub(1).max(1)));
    (range, WatchOptions { after, ..options })
}

fn with_changes(item: WatchItem, change: fn(&mut Vec<Change>)) -> WatchItem {
    match item {
        WatchItem::Changes { revision, changes } => {
            let mut changes = changes.to_vec();
            change(&mut changes);
            WatchItem::Changes { revision, changes: changes.into() }
        }
        bookmark => bookmark,
    }
}

fn split(item: WatchItem) -> Vec<WatchItem> {
    match item {
        WatchItem::Changes { revision, changes } => {
            changes.iter().map(|change| WatchItem::Changes { revision, changes: Arc::new([change.clone()]) }).collect()
        }
        bookmark => vec![bookmark],
    }
}

fn no_deletions(_: u64, item: WatchItem, _: &mut Option<WatchItem>) -> Vec<WatchItem> {
    match with_changes(item, |changes| changes.retain(|change| change.entry.is_some())) {
        WatchItem::Changes { changes, .. } if changes.is_empty() => Vec::new(),
        item => vec![item],
    }
}

fn early_bookmark(_: u64, item: WatchItem, _: &mut Option<WatchItem>) -> Vec<WatchItem> {
    match item {
        WatchItem::Changes { revision, .. } => vec![WatchItem::Bookmark(revision), item],
        bookmark => vec![bookmark],
    }
}

fn status_before(mutant: &Mutant, status: StoreStatus) -> StoreStatus {
    mutant.remember(|memory| {
        let revision = memory.revision.replace(status.revision).unwrap_or(status.revision);
        StoreStatus { revision, ..status }
    })
}
