//! A store that tells nobody how far its history is, as the one of the recorded server.

use async_trait::async_trait;
use orchestrator_core::store::{
    Batch, Capabilities, Entry, Key, KeyRange, ListOptions, Listing, Revision, Store, StoreError, StoreStatus,
    WatchOptions, WatchStream,
};
use orchestrator_store_mem::MemStore;

/// The store in memory, without bookmarks.
#[derive(Debug)]
pub(crate) struct SilentStore(pub(crate) MemStore);

#[async_trait]
impl Store for SilentStore {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.0.get(key).await
    }

    async fn list(&self, range: &KeyRange, options: ListOptions) -> Result<Listing, StoreError> {
        self.0.list(range, options).await
    }

    async fn commit(&self, batch: Batch) -> Result<Revision, StoreError> {
        self.0.commit(batch).await
    }

    async fn watch(&self, range: KeyRange, options: WatchOptions) -> Result<WatchStream, StoreError> {
        self.0.watch(range, WatchOptions { bookmarks: false, ..options }).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.0.compact(revision).await
    }

    async fn status(&self) -> Result<StoreStatus, StoreError> {
        self.0.status().await
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { bookmarks: false, ..self.0.capabilities() }
    }
}
