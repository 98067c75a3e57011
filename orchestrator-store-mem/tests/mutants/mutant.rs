//! A memory store whose calls a bug may change on their way in or out.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use futures::{StreamExt, stream};
use orchestrator_core::store::{
    Batch, Capabilities, Entry, Key, KeyRange, ListOptions, Listing, Revision, Store, StoreError, StoreStatus,
    WatchItem, WatchOptions, WatchStream,
};
use orchestrator_store_mem::MemStore;

use crate::catalogue::{Bug, Plant};

/// The store with a bug, or without one.
#[derive(Debug)]
pub(crate) struct Mutant {
    pub(crate) inner: MemStore,
    bug: Option<&'static Bug>,
    /// What a bug remembers.
    pub(crate) memory: Mutex<Memory>,
    calls: AtomicU64,
}

/// What a bug may remember of earlier calls.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) revision: Option<Revision>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) batch: Option<Batch>,
}

impl Mutant {
    pub(crate) fn new(inner: MemStore, bug: Option<&'static Bug>) -> Self {
        Self { inner, bug, memory: Mutex::default(), calls: AtomicU64::new(0) }
    }

    fn plant(&self) -> Option<&Plant> {
        self.bug.map(|bug| &bug.plant)
    }

    /// Whether a bug that strikes every `period`th call strikes now.
    pub(crate) fn strikes(&self, period: u64) -> bool {
        self.calls.fetch_add(1, Ordering::Relaxed) % period == period - 1
    }

    pub(crate) fn remember<T>(&self, change: impl FnOnce(&mut Memory) -> T) -> T {
        change(&mut self.memory.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Store for Mutant {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        let found = self.inner.get(key).await?;
        match self.plant() {
            Some(Plant::Get(bug)) => Ok(bug(self, key, found)),
            _ => Ok(found),
        }
    }

    async fn list(&self, range: &KeyRange, options: ListOptions) -> Result<Listing, StoreError> {
        let options = match self.plant() {
            Some(Plant::ListOptions(bug)) => bug(options),
            _ => options,
        };
        let listing = self.inner.list(range, options.clone()).await;
        match self.plant() {
            Some(Plant::List(bug)) => listing.map(|listing| bug(self, &options, listing)),
            Some(Plant::ListError(bug)) => match listing {
                Err(error) => Ok(bug(self.inner.list(range, ListOptions::default()).await?, error)),
                listing => listing,
            },
            _ => listing,
        }
    }

    async fn commit(&self, batch: Batch) -> Result<Revision, StoreError> {
        match self.plant() {
            Some(Plant::Batch(bug)) => self.inner.commit(bug(self, batch)).await,
            Some(Plant::Commit(bug)) => {
                let before = self.inner.status().await?.revision;
                let done = self.inner.commit(batch.clone()).await;
                bug(self, before, &batch, done)
            }
            Some(Plant::Halves) => {
                let mut at = self.inner.commit(Batch { operations: Vec::new(), ..batch.clone() }).await?;
                for operation in batch.operations {
                    at = self.inner.commit(Batch { preconditions: Vec::new(), operations: vec![operation] }).await?;
                }
                Ok(at)
            }
            _ => self.inner.commit(batch).await,
        }
    }

    async fn watch(&self, range: KeyRange, options: WatchOptions) -> Result<WatchStream, StoreError> {
        let (range, options) = match self.plant() {
            Some(Plant::WatchOptions(bug)) => bug(range, options),
            _ => (range, options),
        };
        let items = match self.inner.watch(range.clone(), options).await {
            Err(StoreError::Compacted { .. }) if matches!(self.plant(), Some(Plant::CompactedIsSilent)) => {
                self.inner.watch(range, WatchOptions { after: None, ..options }).await?
            }
            answer => answer?,
        };
        let Some(Plant::Watch(bug)) = self.plant() else { return Ok(items) };
        let bug = *bug;
        let (count, held) = (0_u64, None::<WatchItem>);
        let wrong = stream::unfold((items, count, held), move |(mut items, mut count, mut held)| async move {
            let item = items.next().await?;
            count += 1;
            let given = match item {
                Ok(item) => bug(count, item, &mut held).into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            };
            Some((stream::iter(given), (items, count, held)))
        });
        Ok(wrong.flatten().boxed())
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        match self.plant() {
            Some(Plant::Compact(bug)) => self.inner.compact(bug(revision)).await,
            Some(Plant::CompactNothing) => Ok(()),
            _ => self.inner.compact(revision).await,
        }
    }

    async fn status(&self) -> Result<StoreStatus, StoreError> {
        let status = self.inner.status().await?;
        match self.plant() {
            Some(Plant::Status(bug)) => Ok(bug(self, status)),
            _ => Ok(status),
        }
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
}
