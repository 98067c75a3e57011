//! A store that takes no large values.

use std::sync::Arc;

use async_trait::async_trait;
use orchestrator_core::store::{
    Batch, Capabilities, Entry, Key, KeyRange, ListOptions, Listing, Operation, Revision, Store, StoreError,
    StoreStatus, WatchOptions, WatchStream,
};

/// Refuses config maps that are larger than this, in bytes.
#[derive(Debug)]
pub(crate) struct NarrowStore {
    pub(crate) inner: Arc<dyn Store>,
    pub(crate) bytes: usize,
}

#[async_trait]
impl Store for NarrowStore {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.inner.get(key).await
    }

    async fn list(&self, range: &KeyRange, options: ListOptions) -> Result<Listing, StoreError> {
        self.inner.list(range, options).await
    }

    async fn commit(&self, batch: Batch) -> Result<Revision, StoreError> {
        let too_large = |operation: &Operation| match operation {
            Operation::Put { key, value, .. } => key.as_str().contains("configmaps") && value.len() > self.bytes,
            Operation::Delete { .. } => false,
        };
        if batch.operations.iter().any(too_large) {
            return Err(StoreError::Refused("request is too large".to_owned()));
        }
        self.inner.commit(batch).await
    }

    async fn watch(&self, range: KeyRange, options: WatchOptions) -> Result<WatchStream, StoreError> {
        self.inner.watch(range, options).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.inner.compact(revision).await
    }

    async fn status(&self) -> Result<StoreStatus, StoreError> {
        self.inner.status().await
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
}
