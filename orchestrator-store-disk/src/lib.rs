//! What stores on disk share: a multi-version `Store` over any engine that keeps ordered records.
//!
//! An adapter implements [`Engine`], and has a store: [`DiskStore`]. A call that writes waits in a queue (`queue`); one turn after
//! the other takes what waits, makes up all records of the group (`plan`), applies them in one atomic batch, flushes once, and
//! only then shows them to readers (`view`) and answers. The log of commits is what counts; where the present value of a key is
//! follows from it, in the same batch, and is compared with the log when a directory is opened (`open`).
//!
//! # What durable means here
//!
//! A commit that was acknowledged was written and flushed by the engine, as [`Engine::flush`] has it. After a flush that failed,
//! nothing is written any more: the store has to be opened again. What the system's page cache then shows may still not be on
//! the disk, which no program can ask; put the directory on a disk that keeps its word.
//!
//! # Damage
//!
//! Every record has a checksum bound to its key, and a directory in which the log and what follows from it differ is not opened:
//! [`DiskError::Damaged`]. An engine may answer damage with a panic; it is caught and becomes an error, which needs
//! `panic = "unwind"`, the default. Values are not read when the store is opened, so a damaged one is found when it is read.
//!
//! # A full disk
//!
//! A write that an engine finds the disk full with is its last. A commit that puts anything is therefore refused while less
//! than [`Limits::reserve_bytes`] are free; reads, deletions and compactions go on.
//!
//! # An engine of your own
//!
//! Implement [`Engine`] and [`Reader`], and run the module `suites` on it, which the feature of that name brings: it kills
//! processes, damages files, fills disks, and compares with a store in memory. `store_contract!` of the test kit is one more.

mod calls;
mod database;
mod engine;
mod error;
mod expiry;
mod limits;
mod open;
#[cfg(test)]
mod plain;
mod plan;
mod queue;
mod read;
mod record;
mod records;
mod shared;
#[cfg(any(test, feature = "suites"))]
pub mod suites;
#[cfg(test)]
mod tests;
mod view;
mod watch;
mod writes;

use std::{
    fmt,
    fs::File,
    marker::PhantomData,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use orchestrator_core::{
    env::{Env, TaskHandle},
    store::{
        Batch, Capabilities, Entry, Key, KeyRange, ListOptions, Listing, Operation, Revision, Store, StoreError,
        StoreStatus, WatchOptions, WatchStream,
    },
};

pub use database::sync_directory;
pub use engine::{Bounds, Changes, Engine, Flush, Place, Reader, Visit};
pub use error::DiskError;
pub use limits::Limits;

use queue::Job;
use shared::Shared;

/// A store in a directory, over an engine. Dropping it closes it, and blocks until what is being written is on the disk;
/// [`close`](Self::close) waits instead.
pub struct DiskStore<E> {
    shared: Arc<Shared>,
    expiry: Mutex<Option<TaskHandle>>,
    engine: PhantomData<fn() -> E>,
}

impl<E> fmt::Debug for DiskStore<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskStore").field("revision", &self.shared.view().revision()).finish_non_exhaustive()
    }
}

impl<E: Engine> DiskStore<E> {
    /// Opens the store in a directory, which is made when it is not there.
    ///
    /// # Errors
    /// The directory is open elsewhere, cannot be written to, has a format that is not known, or is damaged.
    pub async fn open(env: &Env, path: impl AsRef<Path>, limits: Limits) -> Result<Self, DiskError> {
        Self::open_with(env, path, limits, Arc::new(File::sync_data)).await
    }

    /// Opens the store with another way to get files onto the disk.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_with(env: &Env, path: impl AsRef<Path>, limits: Limits, flush: Flush) -> Result<Self, DiskError> {
        let path = path.as_ref().to_owned();
        let opened = env.blocking(move || open::open::<E>(&path, &limits, flush));
        let stopped = || Err(DiskError::Engine("the environment has stopped".to_owned()));
        let (database, found) = opened.await.unwrap_or_else(stopped)?;
        let shared = Arc::new(Shared::new(env, limits, database, found));
        let store = Self { shared, expiry: Mutex::new(None), engine: PhantomData };
        if found.expires {
            store.ensure_expiry();
        }
        Ok(store)
    }
}

impl<E> DiskStore<E> {
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

impl<E> Drop for DiskStore<E> {
    fn drop(&mut self) {
        self.shared.close();
    }
}

#[async_trait]
impl<E: Engine> Store for DiskStore<E> {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.shared.get(key).await
    }

    async fn list(&self, range: &KeyRange, options: ListOptions) -> Result<Listing, StoreError> {
        self.shared.list(range, options).await
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
        self.shared.watch(range, options)
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.shared.compact(revision).await
    }

    async fn status(&self) -> Result<StoreStatus, StoreError> {
        self.shared.status().await
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { durable: true, expiry: true, snapshots: true, bookmarks: true }
    }
}
