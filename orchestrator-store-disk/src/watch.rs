//! One watch: a place in the log, read from memory where that reaches, and from disk where it does not.

use std::sync::Arc;

use futures::future::Either;
use orchestrator_core::store::{KeyRange, Revision, StoreError, WatchItem};
use tokio::sync::Notify;

use crate::{database::Database, read, shared::Shared, view::Found};

pub(crate) struct Watcher {
    shared: Arc<Shared>,
    range: KeyRange,
    /// Everything up to here was looked at.
    cursor: Revision,
    /// Everything up to here was told, as a change or as a bookmark.
    told: Revision,
    wake: Arc<Notify>,
    bookmarks: bool,
    /// Items read from the log and not yet given, the next one last.
    ready: Vec<WatchItem>,
    ended: bool,
}

impl Watcher {
    pub(crate) fn new(
        shared: Arc<Shared>,
        range: KeyRange,
        cursor: Revision,
        wake: Arc<Notify>,
        bookmarks: bool,
    ) -> Self {
        Self { shared, range, cursor, told: cursor, wake, bookmarks, ready: Vec::new(), ended: false }
    }

    pub(crate) async fn next(mut self) -> Option<(Result<WatchItem, StoreError>, Self)> {
        loop {
            if let Some(item) = self.ready.pop() {
                if let WatchItem::Changes { revision, .. } = &item {
                    self.told = *revision;
                }
                return Some((Ok(item), self));
            }
            if self.ended {
                return None;
            }
            let wake = self.wake.clone();
            let mut notified = std::pin::pin!(wake.notified());
            notified.as_mut().enable();
            match self.read().await {
                Ok((items, cursor)) => {
                    self.cursor = cursor;
                    self.ready = items;
                    self.ready.reverse();
                }
                Err(StoreError::Closed) => return None,
                Err(error) => {
                    self.ended = true;
                    return Some((Err(error), self));
                }
            }
            if !self.ready.is_empty() {
                continue;
            }
            if !self.bookmarks {
                notified.await;
            } else if let Either::Right(_) =
                futures::future::select(notified, self.shared.env.sleep(self.shared.limits.bookmark_interval)).await
                && let Some(bookmark) = self.silent()
            {
                return Some((Ok(WatchItem::Bookmark(bookmark)), self));
            }
        }
    }

    /// The next changes, and how far they go.
    async fn read(&self) -> Result<(Vec<WatchItem>, Revision), StoreError> {
        match self.shared.view().read(&self.range, self.cursor)? {
            Found::Items(items, cursor) => return Ok((items, cursor)),
            Found::OnDisk => {}
        }
        let (range, cursor) = (self.range.clone(), self.cursor);
        let read = move |shared: &Shared, database: &Database| {
            // Looked at again, because a compaction may have come between.
            let newest = {
                let view = shared.view();
                view.check_compacted(cursor)?;
                view.revision()
            };
            read::log(&database.records()?, &range, cursor, newest)
        };
        self.shared.blocking(read).await
    }

    /// How far the store has moved on while the range was silent, if it did.
    fn silent(&mut self) -> Option<Revision> {
        match self.shared.view().read(&self.range, self.cursor) {
            Ok(Found::Items(items, cursor)) if items.is_empty() && cursor > self.told => {
                (self.cursor, self.told) = (cursor, cursor);
                Some(cursor)
            }
            _ => None,
        }
    }
}
