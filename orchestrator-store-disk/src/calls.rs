//! The calls of a store, on what it shares.

use std::sync::Arc;

use futures::StreamExt;
use orchestrator_core::store::{
    Entry, Key, KeyRange, ListOptions, Listing, Revision, StoreError, StoreStatus, WatchOptions, WatchStream,
};

use crate::{
    database::Database,
    queue::Job,
    read::{self, Snapshot},
    shared::Shared,
    watch::Watcher,
};

impl Shared {
    pub(crate) async fn get(self: &Arc<Self>, key: &Key) -> Result<Option<Entry>, StoreError> {
        let key = key.clone();
        let get = move |shared: &Shared, database: &Database| {
            let before = shared.view().in_flight(&key);
            let records = database.records()?;
            let pointer = match before {
                Some(before) => before,
                None => records.pointer(&key)?,
            };
            Ok(pointer.map(|pointer| records.entry(&key, &pointer.place)).transpose()?)
        };
        self.blocking(get).await
    }

    pub(crate) async fn list(self: &Arc<Self>, range: &KeyRange, options: ListOptions) -> Result<Listing, StoreError> {
        let range = range.clone();
        let list = move |shared: &Shared, database: &Database| {
            let snapshot = {
                let view = shared.view();
                let published = view.revision();
                let revision = options.revision.unwrap_or(published);
                view.check_revision(revision)?;
                let in_flight = view.in_flight_range(&range, options.after.as_ref());
                let in_flight = in_flight.map(|(key, pointer)| (key.clone(), pointer.map(|pointer| pointer.place)));
                Snapshot { revision, published, in_flight: in_flight.collect() }
            };
            // Made behind the view, so that what is published there can be read.
            read::list(&database.records()?, &range, &options, snapshot)
        };
        self.blocking(list).await
    }

    pub(crate) fn watch(self: &Arc<Self>, range: KeyRange, options: WatchOptions) -> Result<WatchStream, StoreError> {
        let (cursor, wake) = self.view().subscribe(&range, options.after)?;
        let watcher = Watcher::new(self.clone(), range, cursor, wake, options.bookmarks);
        Ok(futures::stream::unfold(watcher, Watcher::next).boxed())
    }

    pub(crate) async fn compact(self: &Arc<Self>, revision: Revision) -> Result<(), StoreError> {
        {
            let view = self.view();
            view.open()?;
            view.check_revision(revision)?;
        }
        self.write(Job::Compact(revision)).await.map(drop)
    }

    pub(crate) async fn status(self: &Arc<Self>) -> Result<StoreStatus, StoreError> {
        let status = |shared: &Shared, database: &Database| {
            let size_bytes = database.size_bytes()?;
            let view = shared.view();
            Ok(StoreStatus { revision: view.revision(), compacted: view.compacted, keys: view.meta.keys, size_bytes })
        };
        self.blocking(status).await
    }
}
