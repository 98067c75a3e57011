//! A store that counts what is asked of it.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures::StreamExt;
use orchestrator_core::{
    env::Env,
    store::{
        Batch, Capabilities, Entry, Key, KeyRange, ListOptions, Listing, Revision, Store, StoreError, StoreStatus,
        WatchItem, WatchOptions, WatchStream,
    },
};

/// How often a call was made, and what came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallMetrics {
    /// Calls that were answered.
    pub calls: u64,
    /// Those of them that were answered with an error.
    pub errors: u64,
    /// Time that all of them took together.
    pub duration: Duration,
}

/// What was asked of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreMetrics {
    /// [`Store::get`].
    pub get: CallMetrics,
    /// [`Store::list`].
    pub list: CallMetrics,
    /// [`Store::commit`].
    pub commit: CallMetrics,
    /// [`Store::watch`], until it has begun.
    pub watch: CallMetrics,
    /// [`Store::compact`].
    pub compact: CallMetrics,
    /// [`Store::status`].
    pub status: CallMetrics,
    /// Changes that watches gave, all watches together.
    pub changes: u64,
}

/// Counts calls and changes. Clones count together.
#[derive(Clone, Debug)]
pub struct MeteredStore {
    inner: Arc<dyn Store>,
    env: Env,
    metrics: Arc<Mutex<StoreMetrics>>,
}

impl MeteredStore {
    /// Counts from zero.
    pub fn new(inner: Arc<dyn Store>, env: &Env) -> Self {
        Self { inner, env: env.clone(), metrics: Arc::default() }
    }

    /// What was counted so far.
    pub fn metrics(&self) -> StoreMetrics {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, StoreMetrics> {
        self.metrics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn count<T>(
        &self,
        which: fn(&mut StoreMetrics) -> &mut CallMetrics,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let begin = self.env.monotonic();
        let answer = call.await;
        let duration = self.env.monotonic().saturating_sub(begin);
        let mut metrics = self.lock();
        let metrics = which(&mut metrics);
        metrics.calls += 1;
        metrics.errors += u64::from(answer.is_err());
        metrics.duration += duration;
        answer
    }
}

#[async_trait]
impl Store for MeteredStore {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.count(|metrics| &mut metrics.get, self.inner.get(key)).await
    }

    async fn list(&self, range: &KeyRange, options: ListOptions) -> Result<Listing, StoreError> {
        self.count(|metrics| &mut metrics.list, self.inner.list(range, options)).await
    }

    async fn commit(&self, batch: Batch) -> Result<Revision, StoreError> {
        self.count(|metrics| &mut metrics.commit, self.inner.commit(batch)).await
    }

    async fn watch(&self, range: KeyRange, options: WatchOptions) -> Result<WatchStream, StoreError> {
        let items = self.count(|metrics| &mut metrics.watch, self.inner.watch(range, options)).await?;
        let store = self.clone();
        let counted = items.inspect(move |item| {
            if let Ok(WatchItem::Changes { changes, .. }) = item {
                store.lock().changes += changes.len() as u64;
            }
        });
        Ok(counted.boxed())
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.count(|metrics| &mut metrics.compact, self.inner.compact(revision)).await
    }

    async fn status(&self) -> Result<StoreStatus, StoreError> {
        self.count(|metrics| &mut metrics.status, self.inner.status()).await
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
}
