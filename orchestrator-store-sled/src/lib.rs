//! A `Store` on disk, embedded: multi-version, on sled.
//!
//! Start at [`SledStore::open`]. A call that writes waits in a queue (`queue`); one turn after the other takes what waits,
//! makes up all records of the group (`plan`), applies them in one atomic batch, flushes once, and only then shows them to
//! readers (`view`) and answers. The log of commits is what counts; where the present value of a key is follows from it, in the
//! same batch, and is compared with the log when a directory is opened (`open`).
//!
//! # What durable means here
//!
//! A commit that was acknowledged was written, and its file flushed by `fdatasync`, because sled's own flush waits for the page
//! cache only. After a flush that failed, nothing is written any more: the store has to be opened again. What the system's page
//! cache then shows may still not be on the disk, which no program can ask; put the directory on a disk that keeps its word.
//!
//! # Damage
//!
//! Every record has a checksum bound to its key, and a directory in which the log and what follows from it differ is not opened:
//! [`SledError::Damaged`]. A damaged end of the log is a prefix of the commits again. sled answers some damage with a panic; it
//! is caught and becomes an error, which needs `panic = "unwind"`, the default. Values are not read when the store is opened, so
//! a damaged one is found when it is read.
//!
//! # What sled does not do
//!
//! It has no use for a full disk: a write that finds it full is its last, and reads may fail after that as well, until the store
//! is opened again with room to spare. A commit that puts anything is therefore refused while less than
//! [`Limits::reserve_bytes`] are free; reads, deletions and compactions go on.
//!
//! It never gives up memory for its table of pages, which is a few bytes for each key. Its threads for input and output, and a
//! lock that batches take, are shared by all databases of a process, and its threads stay when the last of them is closed.

mod engine;
mod error;
mod expiry;
mod limits;
mod open;
mod plan;
mod queue;
mod read;
mod record;
mod shared;
#[cfg(test)]
mod tests;
mod view;
mod watch;
mod writes;

use std::{
    fmt,
    fs::File,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use futures::StreamExt;
use orchestrator_core::{
    env::{Env, TaskHandle},
    store::{
        Batch, Capabilities, Entry, Key, KeyRange, ListOptions, Listing, Operation, Revision, Store, StoreError,
        StoreStatus, WatchOptions, WatchStream,
    },
};

pub use error::SledError;
pub use limits::Limits;

use engine::Flush;
use queue::Job;
use read::Snapshot;
use shared::Shared;
use watch::Watcher;

/// A store in a directory. Dropping it closes it, and blocks until what is being written is on the disk;
/// [`close`](Self::close) waits instead.
pub struct SledStore {
    shared: Arc<Shared>,
    expiry: Mutex<Option<TaskHandle>>,
}

impl fmt::Debug for SledStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SledStore").field("revision", &self.shared.view().revision()).finish_non_exhaustive()
    }
}

impl SledStore {
    /// Opens the store in a directory, which is made when it is not there.
    ///
    /// # Errors
    /// The directory is open elsewhere, cannot be written to, has a format that is not known, or is damaged.
    pub async fn open(env: &Env, path: impl AsRef<Path>, limits: Limits) -> Result<Self, SledError> {
        Self::open_with(env, path.as_ref(), limits, Box::new(File::sync_data)).await
    }

    async fn open_with(env: &Env, path: &Path, limits: Limits, flush: Flush) -> Result<Self, SledError> {
        let path = path.to_owned();
        let opened = env.blocking(move || {
            let (engine, meta) = open::open(&path, &limits, flush)?;
            let expires = engine.deadlines().next().is_some();
            Ok((engine, meta, expires))
        });
        let stopped = || Err(SledError::Engine("the environment has stopped".to_owned()));
        let (engine, meta, expires) = opened.await.unwrap_or_else(stopped)?;
        let shared = Arc::new(Shared::new(env, limits, engine, meta));
        let store = Self { shared, expiry: Mutex::new(None) };
        if expires {
            store.ensure_expiry();
        }
        Ok(store)
    }

    /// Closes the store: watches end, calls fail. Returns when what was being written is on the disk and the directory is free.
    pub async fn close(&self) {
        let expiry = self.expiry.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = expiry {
            task.stop().await;
        }
        let shared = self.shared.clone();
        // The environment has stopped otherwise, and dropping the store closes it.
        let _ = self.shared.env.blocking(move || shared.close()).await;
    }

    /// Starts the task that removes expired keys, at the first key that expires.
    fn ensure_expiry(&self) {
        let mut expiry = self.expiry.lock().unwrap_or_else(PoisonError::into_inner);
        if expiry.is_none() {
            *expiry = Some(self.shared.env.spawn("store-expiry", expiry::expire(self.shared.clone())));
        }
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        self.shared.close();
    }
}

#[async_trait]
impl Store for SledStore {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        let key = key.clone();
        let get = move |shared: &Shared, engine: &engine::Engine| {
            let before = shared.view().in_flight(&key);
            let pointer = match before {
                Some(before) => before,
                None => engine.pointer(&key)?,
            };
            Ok(pointer.map(|pointer| engine.entry(&key, &pointer.place)).transpose()?)
        };
        self.shared.blocking(get).await
    }

    async fn list(&self, range: &KeyRange, options: ListOptions) -> Result<Listing, StoreError> {
        let range = range.clone();
        let list = move |shared: &Shared, engine: &engine::Engine| {
            let snapshot = {
                let view = shared.view();
                let published = view.revision();
                let revision = options.revision.unwrap_or(published);
                view.check_revision(revision)?;
                let in_flight = view.in_flight_range(&range, options.after.as_ref());
                let in_flight = in_flight.map(|(key, pointer)| (key.clone(), pointer.map(|pointer| pointer.place)));
                Snapshot { revision, published, in_flight: in_flight.collect() }
            };
            read::list(engine, &range, &options, snapshot)
        };
        self.shared.blocking(list).await
    }

    async fn commit(&self, batch: Batch) -> Result<Revision, StoreError> {
        let expires = |operation: &Operation| matches!(operation, Operation::Put { time_to_live: Some(_), .. });
        let expires = batch.operations.iter().any(expires);
        let committed = self.shared.write(Job::Commit(batch)).await?;
        if expires {
            self.ensure_expiry();
            self.shared.expiry_changed.notify_one();
        }
        Ok(committed)
    }

    async fn watch(&self, range: KeyRange, options: WatchOptions) -> Result<WatchStream, StoreError> {
        let (cursor, wake) = self.shared.view().subscribe(&range, options.after)?;
        let watcher = Watcher::new(self.shared.clone(), range, cursor, wake, options.bookmarks);
        Ok(futures::stream::unfold(watcher, Watcher::next).boxed())
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        {
            let view = self.shared.view();
            view.open()?;
            view.check_revision(revision)?;
        }
        self.shared.write(Job::Compact(revision)).await.map(drop)
    }

    async fn status(&self) -> Result<StoreStatus, StoreError> {
        let status = |shared: &Shared, engine: &engine::Engine| {
            let size_bytes = engine.size_bytes()?;
            let view = shared.view();
            Ok(StoreStatus { revision: view.revision(), compacted: view.compacted, keys: view.meta.keys, size_bytes })
        };
        self.shared.blocking(status).await
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { durable: true, expiry: true, snapshots: true, bookmarks: true }
    }
}
