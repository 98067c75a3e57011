//! A store that is far away.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{StreamExt, stream};
use orchestrator_core::{
    env::Env,
    store::{
        Batch, Capabilities, Entry, Key, KeyRange, ListOptions, Listing, Revision, Store, StoreError, StoreStatus,
        WatchOptions, WatchStream,
    },
};

/// Each call takes a random time on the way there, and another on the way back; so does each item of a watch.
#[derive(Clone, Debug)]
pub struct SlowStore {
    inner: Arc<dyn Store>,
    env: Env,
    longest: Duration,
}

impl SlowStore {
    /// Delays of up to `longest` each way.
    pub fn new(inner: Arc<dyn Store>, env: &Env, longest: Duration) -> Self {
        Self { inner, env: env.clone(), longest }
    }

    async fn way(&self) {
        let longest = u64::try_from(self.longest.as_nanos()).unwrap_or(u64::MAX);
        self.env.sleep(Duration::from_nanos(self.env.random_below(longest))).await;
    }

    async fn there_and_back<T>(&self, call: impl Future<Output = T>) -> T {
        self.way().await;
        let answer = call.await;
        self.way().await;
        answer
    }
}

#[async_trait]
impl Store for SlowStore {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.there_and_back(self.inner.get(key)).await
    }

    async fn list(&self, range: &KeyRange, options: ListOptions) -> Result<Listing, StoreError> {
        self.there_and_back(self.inner.list(range, options)).await
    }

    async fn commit(&self, batch: Batch) -> Result<Revision, StoreError> {
        self.there_and_back(self.inner.commit(batch)).await
    }

    async fn watch(&self, range: KeyRange, options: WatchOptions) -> Result<WatchStream, StoreError> {
        let items = self.there_and_back(self.inner.watch(range, options)).await?;
        let slow = stream::unfold((items, self.clone()), |(mut items, store)| async move {
            let item = items.next().await?;
            store.way().await;
            Some((item, (items, store)))
        });
        Ok(slow.boxed())
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.there_and_back(self.inner.compact(revision)).await
    }

    async fn status(&self) -> Result<StoreStatus, StoreError> {
        self.there_and_back(self.inner.status()).await
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
}
