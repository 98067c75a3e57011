//! A store that something else lives as long as.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use orchestrator_core::store::{
    Batch, Capabilities, Entry, Key, KeyRange, ListOptions, Listing, Revision, Store, StoreError, StoreStatus,
    WatchOptions, WatchStream,
};

/// Keeps what the store needs, such as a directory that goes away with its owner, until the store is dropped.
#[derive(Clone, Debug)]
pub struct KeepingStore<T> {
    inner: Arc<dyn Store>,
    // Behind the store, so that it is dropped later.
    _kept: T,
}

impl<T> KeepingStore<T> {
    /// A store, and what it needs.
    pub fn new(inner: Arc<dyn Store>, kept: T) -> Self {
        Self { inner, _kept: kept }
    }
}

#[async_trait]
impl<T: fmt::Debug + Send + Sync + 'static> Store for KeepingStore<T> {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.inner.get(key).await
    }

    async fn list(&self, range: &KeyRange, options: ListOptions) -> Result<Listing, StoreError> {
        self.inner.list(range, options).await
    }

    async fn commit(&self, batch: Batch) -> Result<Revision, StoreError> {
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
