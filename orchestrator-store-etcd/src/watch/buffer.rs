//! What waits for a watcher: bounded, with one who fills and one who reads.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use orchestrator_core::store::{StoreError, WatchItem};
use tokio::sync::Notify;

use crate::limits::{WATCH_BUFFER_BYTES, WATCH_BUFFER_COMMITS};

#[derive(Default)]
pub(crate) struct Buffer {
    state: Mutex<State>,
    filled: Notify,
    drained: Notify,
}

#[derive(Default)]
struct State {
    items: VecDeque<WatchItem>,
    bytes: usize,
    ended: bool,
    /// Told after the items.
    error: Option<StoreError>,
}

/// Ends the buffer when it is dropped.
pub(crate) struct Ends<'a>(&'a Buffer);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.filled.notify_one();
    }
}

impl Buffer {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds items. Whether there is room for more.
    pub(crate) fn push(&self, items: impl IntoIterator<Item = WatchItem>) -> bool {
        let mut state = self.lock();
        items.into_iter().for_each(|item| state.push(item));
        self.filled.notify_one();
        state.items.len() < WATCH_BUFFER_COMMITS && state.bytes < WATCH_BUFFER_BYTES
    }

    /// Waits until the watcher has read half of what there may be.
    pub(crate) async fn room(&self) {
        loop {
            {
                let state = self.lock();
                if state.items.len() <= WATCH_BUFFER_COMMITS / 2 && state.bytes <= WATCH_BUFFER_BYTES / 2 {
                    return;
                }
            }
            self.drained.notified().await;
        }
    }

    /// The watch ends with this error, after what waits.
    pub(crate) fn fail(&self, error: StoreError) {
        self.lock().error = Some(error);
    }

    /// The watch ends when this is dropped.
    pub(crate) fn ends(&self) -> Ends<'_> {
        Ends(self)
    }

    /// The next item; `None` when there will be no more.
    pub(crate) async fn next(&self) -> Option<Result<WatchItem, StoreError>> {
        loop {
            {
                let mut state = self.lock();
                if let Some(item) = state.items.pop_front() {
                    state.bytes -= size(&item);
                    self.drained.notify_one();
                    return Some(Ok(item));
                }
                if state.ended {
                    return state.error.take().map(Err);
                }
            }
            self.filled.notified().await;
        }
    }
}

impl State {
    fn push(&mut self, item: WatchItem) {
        // A bookmark says all that the one before it does.
        if let (WatchItem::Bookmark(next), Some(WatchItem::Bookmark(last))) = (&item, self.items.back_mut()) {
            *last = *next;
            return;
        }
        self.bytes += size(&item);
        self.items.push_back(item);
    }
}

/// Size of an item's keys and values, in bytes.
fn size(item: &WatchItem) -> usize {
    let WatchItem::Changes { changes, .. } = item else { return 0 };
    let entries = changes.iter().flat_map(|change| [&change.entry, &change.previous]).flatten();
    entries.map(|entry| entry.key.as_str().len() + entry.value.len()).sum()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::{FutureExt, executor::block_on};
    use orchestrator_core::store::{Change, Entry, Key, Revision};

    use super::*;

    fn item(revision: u64, bytes: usize) -> WatchItem {
        let (key, revision) = (Key::new("/a"), Revision(revision));
        let entry = Entry { key: key.clone(), value: vec![0; bytes].into(), created: revision, modified: revision };
        WatchItem::Changes { revision, changes: vec![Change { key, entry: Some(entry), previous: None }].into() }
    }

    #[test]
    fn it_is_full_by_number_and_by_size() {
        let buffer = Buffer::default();
        let few = WATCH_BUFFER_COMMITS as u64 - 1;
        assert!(buffer.push((0..few).map(|revision| item(revision, 0))));
        assert!(!buffer.push([item(few, 0)]));
        assert!(buffer.room().now_or_never().is_none());
        for _ in 0..WATCH_BUFFER_COMMITS / 2 {
            assert!(block_on(buffer.next()).is_some());
        }
        block_on(buffer.room());
        let large = Buffer::default();
        assert!(!large.push([item(1, WATCH_BUFFER_BYTES)]));
        assert!(block_on(large.next()).is_some());
        block_on(large.room());
    }

    #[test]
    fn bookmarks_that_wait_are_one() {
        let buffer = Buffer::default();
        buffer.push([item(1, 0), WatchItem::Bookmark(Revision(3)), WatchItem::Bookmark(Revision(5)), item(6, 0)]);
        drop(buffer.ends());
        let mut given = Vec::new();
        while let Some(item) = block_on(buffer.next()) {
            given.push(item.unwrap());
        }
        assert_eq!(given, [item(1, 0), WatchItem::Bookmark(Revision(5)), item(6, 0)]);
    }

    #[test]
    fn an_error_comes_last_and_once() {
        let buffer = Buffer::default();
        let ends = buffer.ends();
        buffer.push([item(1, Bytes::new().len())]);
        buffer.fail(StoreError::Lagged);
        drop(ends);
        assert!(matches!(block_on(buffer.next()), Some(Ok(_))));
        assert!(matches!(block_on(buffer.next()), Some(Err(StoreError::Lagged))));
        assert!(block_on(buffer.next()).is_none());
    }
}
