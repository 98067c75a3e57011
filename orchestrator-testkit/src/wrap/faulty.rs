//! A store that fails on purpose.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::{StreamExt, stream};
use orchestrator_core::{
    env::Env,
    store::{
        Batch, Capabilities, Entry, Key, KeyRange, ListOptions, Listing, Revision, Store, StoreError, StoreStatus,
        WatchOptions, WatchStream,
    },
};

/// How often what fails, in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultRates {
    /// Calls that fail without having been made.
    pub refused_per_mille: u32,
    /// Commits that happen, and whose answer is lost: the caller cannot know.
    pub answer_lost_per_mille: u32,
    /// Watches that end, counted by item.
    pub watch_ends_per_mille: u32,
    /// Watches that fall behind, counted by item.
    pub watch_lags_per_mille: u32,
}

/// Fails as often as it was told to. Clones share their rates, which may change at any time.
#[derive(Clone, Debug)]
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    env: Env,
    rates: Arc<Mutex<FaultRates>>,
}

impl FaultyStore {
    /// A store that fails at these rates.
    pub fn new(inner: Arc<dyn Store>, env: &Env, rates: FaultRates) -> Self {
        Self { inner, env: env.clone(), rates: Arc::new(Mutex::new(rates)) }
    }

    /// Fails at other rates from now on.
    pub fn set_rates(&self, rates: FaultRates) {
        *self.rates.lock().unwrap_or_else(PoisonError::into_inner) = rates;
    }

    fn rates(&self) -> FaultRates {
        *self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn strikes(&self, per_mille: u32) -> bool {
        per_mille > 0 && self.env.random_below(1000) < u64::from(per_mille)
    }

    fn perhaps_refuse(&self, context: &str) -> Result<(), StoreError> {
        if self.strikes(self.rates().refused_per_mille) { Err(on_purpose(context)) } else { Ok(()) }
    }
}

fn on_purpose(context: &str) -> StoreError {
    StoreError::Unavailable { context: context.to_owned(), source: "a fault on purpose".into() }
}

#[async_trait]
impl Store for FaultyStore {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.perhaps_refuse("get")?;
        self.inner.get(key).await
    }

    async fn list(&self, range: &KeyRange, options: ListOptions) -> Result<Listing, StoreError> {
        self.perhaps_refuse("list")?;
        self.inner.list(range, options).await
    }

    async fn commit(&self, batch: Batch) -> Result<Revision, StoreError> {
        self.perhaps_refuse("commit")?;
        let answer = self.inner.commit(batch).await?;
        if self.strikes(self.rates().answer_lost_per_mille) { Err(on_purpose("commit")) } else { Ok(answer) }
    }

    async fn watch(&self, range: KeyRange, options: WatchOptions) -> Result<WatchStream, StoreError> {
        self.perhaps_refuse("watch")?;
        let items = self.inner.watch(range, options).await?;
        let faulty = stream::unfold((items, self.clone(), false), |(mut items, store, ended)| async move {
            let item = items.next().await.filter(|_| !ended)?;
            let rates = store.rates();
            if store.strikes(rates.watch_ends_per_mille) {
                return None;
            }
            let (item, ended) =
                if store.strikes(rates.watch_lags_per_mille) { (Err(StoreError::Lagged), true) } else { (item, false) };
            Some((item, (items, store, ended)))
        });
        Ok(faulty.boxed())
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.perhaps_refuse("compact")?;
        self.inner.compact(revision).await
    }

    async fn status(&self) -> Result<StoreStatus, StoreError> {
        self.perhaps_refuse("status")?;
        self.inner.status().await
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
}
