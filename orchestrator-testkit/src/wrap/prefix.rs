//! A store within a store: several clusters share one, each under its own prefix.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use orchestrator_core::store::{
    Batch, Capabilities, Change, Entry, Key, KeyRange, ListOptions, Listing, Operation, Precondition, Revision, Store,
    StoreError, StoreStatus, WatchItem, WatchOptions, WatchStream,
};

/// Keys below a prefix, seen without it. Revisions are those of the whole, and so are the figures of its status.
#[derive(Clone, Debug)]
pub struct PrefixedStore {
    inner: Arc<dyn Store>,
    prefix: Arc<str>,
}

impl PrefixedStore {
    /// The keys below this prefix, such as `/clusters/a`.
    pub fn new(inner: Arc<dyn Store>, prefix: impl Into<Arc<str>>) -> Self {
        Self { inner, prefix: prefix.into() }
    }

    fn outer(&self, key: &Key) -> Key {
        Key::new(format!("{}{key}", self.prefix))
    }

    fn outer_range(&self, range: &KeyRange) -> KeyRange {
        KeyRange::prefix(format!("{}{}", self.prefix, range.as_prefix()))
    }

    fn inner(&self, key: &Key) -> Key {
        Key::new(key.as_str().strip_prefix(&*self.prefix).unwrap_or(key.as_str()))
    }

    fn inner_entry(&self, entry: Entry) -> Entry {
        Entry { key: self.inner(&entry.key), ..entry }
    }

    fn inner_change(&self, change: &Change) -> Change {
        Change {
            key: self.inner(&change.key),
            entry: change.entry.clone().map(|entry| self.inner_entry(entry)),
            previous: change.previous.clone().map(|entry| self.inner_entry(entry)),
        }
    }

    fn outer_batch(&self, batch: Batch) -> Batch {
        let precondition = |precondition| match precondition {
            Precondition::Absent { key } => Precondition::Absent { key: self.outer(&key) },
            Precondition::AtRevision { key, revision } => Precondition::AtRevision { key: self.outer(&key), revision },
        };
        let operation = |operation| match operation {
            Operation::Put { key, value, time_to_live } => {
                Operation::Put { key: self.outer(&key), value, time_to_live }
            }
            Operation::Delete { key } => Operation::Delete { key: self.outer(&key) },
        };
        Batch {
            preconditions: batch.preconditions.into_iter().map(precondition).collect(),
            operations: batch.operations.into_iter().map(operation).collect(),
        }
    }
}

#[async_trait]
impl Store for PrefixedStore {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        Ok(self.inner.get(&self.outer(key)).await?.map(|entry| self.inner_entry(entry)))
    }

    async fn list(&self, range: &KeyRange, options: ListOptions) -> Result<Listing, StoreError> {
        let options = ListOptions { after: options.after.as_ref().map(|after| self.outer(after)), ..options };
        let listing = self.inner.list(&self.outer_range(range), options).await?;
        let entries = listing.entries.into_iter().map(|entry| self.inner_entry(entry)).collect();
        Ok(Listing { entries, ..listing })
    }

    async fn commit(&self, batch: Batch) -> Result<Revision, StoreError> {
        self.inner.commit(self.outer_batch(batch)).await.map_err(|error| match error {
            StoreError::Conflict { key, current } => {
                StoreError::Conflict { key: self.inner(&key), current: current.map(|entry| self.inner_entry(entry)) }
            }
            other => other,
        })
    }

    async fn watch(&self, range: KeyRange, options: WatchOptions) -> Result<WatchStream, StoreError> {
        let items = self.inner.watch(self.outer_range(&range), options).await?;
        let store = self.clone();
        let inside = items.map(move |item| {
            item.map(|item| match item {
                WatchItem::Changes { revision, changes } => {
                    let changes = changes.iter().map(|change| store.inner_change(change)).collect();
                    WatchItem::Changes { revision, changes }
                }
                bookmark => bookmark,
            })
        });
        Ok(inside.boxed())
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
