//! Stores in directories that go away after them.

use std::sync::Arc;

use async_trait::async_trait;
use futures::executor::block_on;
use orchestrator_core::{
    env::Env,
    store::{
        Batch, Capabilities, Entry, Key, KeyRange, ListOptions, Listing, Revision, Store, StoreError, StoreStatus,
        WatchOptions, WatchStream,
    },
};
use tempfile::TempDir;

use super::memory;
use crate::{DiskStore, Engine, Limits};

/// An empty store in a directory of its own.
pub fn temporary<E: Engine>(env: &Env, limits: Limits) -> Arc<dyn Store> {
    let directory = memory();
    let store = block_on(DiskStore::<E>::open(env, directory.path(), limits)).unwrap();
    Arc::new(Temporary { store: Arc::new(store), _directory: directory })
}

#[derive(Debug)]
struct Temporary {
    store: Arc<dyn Store>,
    _directory: TempDir,
}

#[async_trait]
impl Store for Temporary {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.store.get(key).await
    }

    async fn list(&self, range: &KeyRange, options: ListOptions) -> Result<Listing, StoreError> {
        self.store.list(range, options).await
    }

    async fn commit(&self, batch: Batch) -> Result<Revision, StoreError> {
        self.store.commit(batch).await
    }

    async fn watch(&self, range: KeyRange, options: WatchOptions) -> Result<WatchStream, StoreError> {
        self.store.watch(range, options).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.store.compact(revision).await
    }

    async fn status(&self) -> Result<StoreStatus, StoreError> {
        self.store.status().await
    }

    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }
}
