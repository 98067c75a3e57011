//! The reference `Store`: multi-version, in memory.
//!
//! Start at [`MemStore`]. The present state is a map; the history is a log of commits with what each one replaced,
//! so that an older state is the present one with the log undone. Watchers read from the log behind a cursor of
//! their own: a slow one costs no memory, and is told when the log has moved on without it.

mod limits;
mod state;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt, future::Either};
use orchestrator_core::{
    env::{Env, TaskHandle},
    store::{
        Batch, Capabilities, Entry, Key, KeyRange, ListOptions, Listing, Revision, Store, StoreError, StoreStatus,
        WatchItem, WatchOptions, WatchStream,
    },
};
use tokio::sync::Notify;

pub use limits::Limits;
use state::State;

/// A store that forgets everything when it is dropped. Cheap to clone; clones are the same store.
#[derive(Clone)]
pub struct MemStore {
    shared: Arc<Shared>,
}

struct Shared {
    env: Env,
    bookmark_interval: Duration,
    state: Mutex<State>,
    /// Wakes the task that removes expired keys.
    expiry_changed: Arc<Notify>,
    expiry: Mutex<Option<TaskHandle>>,
}

impl fmt::Debug for MemStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemStore").field("status", &self.shared.lock().status()).finish()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemStore {
    /// An empty store with the usual bounds.
    pub fn new(env: &Env) -> Self {
        Self::with_limits(env, Limits::default())
    }

    /// An empty store.
    pub fn with_limits(env: &Env, limits: Limits) -> Self {
        Self::with_state(env, State::new(limits))
    }

    fn with_state(env: &Env, state: State) -> Self {
        Self {
            shared: Arc::new(Shared {
                env: env.clone(),
                bookmark_interval: state.bookmark_interval(),
                state: Mutex::new(state),
                expiry_changed: Arc::new(Notify::new()),
                expiry: Mutex::new(None),
            }),
        }
    }

    /// A store of its own that begins with what this one holds now: entries with their revisions and times of expiry, but
    /// no history. The new environment's clock has to stand where this one's stands.
    #[must_use]
    pub fn fork(&self, env: &Env) -> Self {
        let state = self.shared.lock().fork();
        let expires = state.next_expiry().is_some();
        let fork = Self::with_state(env, state);
        if expires {
            fork.ensure_expiry();
        }
        fork
    }

    /// Closes the store: watches end, calls fail.
    pub fn close(&self) {
        self.shared.lock().close();
    }

    /// Starts the task that removes expired keys, at the first key that expires.
    fn ensure_expiry(&self) {
        let mut expiry = self.shared.expiry.lock().unwrap_or_else(PoisonError::into_inner);
        if expiry.is_none() {
            let task =
                expire(Arc::downgrade(&self.shared), self.shared.env.clone(), self.shared.expiry_changed.clone());
            *expiry = Some(self.shared.env.spawn("store-expiry", task));
        }
    }
}

/// Removes keys when their time has come, until the store is gone.
async fn expire(shared: Weak<Shared>, env: Env, changed: Arc<Notify>) {
    loop {
        let notified = changed.notified();
        let deadline = {
            let Some(shared) = shared.upgrade() else { return };
            let mut state = shared.lock();
            state.expire(env.monotonic());
            state.next_expiry()
        };
        let wait = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_sub(env.monotonic()));
        if wait == Duration::MAX {
            notified.await;
        } else {
            futures::future::select(std::pin::pin!(notified), env.sleep(wait)).await;
        }
    }
}

#[async_trait]
impl Store for MemStore {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.shared.lock().get(key)
    }

    async fn list(&self, range: &KeyRange, options: ListOptions) -> Result<Listing, StoreError> {
        self.shared.lock().list(range, &options)
    }

    async fn commit(&self, batch: Batch) -> Result<Revision, StoreError> {
        let expires = state::expires(&batch);
        let revision = self.shared.lock().commit(batch, self.shared.env.monotonic())?;
        if expires {
            self.ensure_expiry();
            self.shared.expiry_changed.notify_one();
        }
        Ok(revision)
    }

    async fn watch(&self, range: KeyRange, options: WatchOptions) -> Result<WatchStream, StoreError> {
        let (cursor, wake) = self.shared.lock().subscribe(&range, options.after)?;
        let watcher = Watcher {
            shared: self.shared.clone(),
            range,
            cursor,
            told: cursor,
            wake,
            bookmarks: options.bookmarks,
            ready: Vec::new(),
            ended: false,
        };
        Ok(futures::stream::unfold(watcher, Watcher::next).boxed())
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.shared.lock().compact(revision)
    }

    async fn status(&self) -> Result<StoreStatus, StoreError> {
        Ok(self.shared.lock().status())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { durable: false, expiry: true, snapshots: true, bookmarks: true }
    }
}

/// One watch: a place in the log.
struct Watcher {
    shared: Arc<Shared>,
    range: KeyRange,
    /// Everything up to here was looked at.
    cursor: Revision,
    /// Everything up to here was told, as a change or as a bookmark.
    told: Revision,
    wake: Arc<Notify>,
    bookmarks: bool,
    /// Items read from the log and not yet given, the next one last.
    ready: Vec<WatchItem>,
    ended: bool,
}

impl Watcher {
    async fn next(mut self) -> Option<(Result<WatchItem, StoreError>, Self)> {
        loop {
            if let Some(item) = self.ready.pop() {
                if let WatchItem::Changes { revision, .. } = &item {
                    self.told = *revision;
                }
                return Some((Ok(item), self));
            }
            if self.ended {
                return None;
            }
            let wake = self.wake.clone();
            let mut notified = std::pin::pin!(wake.notified());
            notified.as_mut().enable();
            let read = self.shared.lock().read(&self.range, self.cursor);
            match read {
                Ok((items, cursor)) => {
                    self.cursor = cursor;
                    self.ready = items;
                    self.ready.reverse();
                }
                Err(StoreError::Closed) => return None,
                Err(error) => {
                    self.ended = true;
                    return Some((Err(error), self));
                }
            }
            if !self.ready.is_empty() {
                continue;
            }
            if !self.bookmarks {
                notified.await;
            } else if let Either::Right(_) =
                futures::future::select(notified, self.shared.env.sleep(self.shared.bookmark_interval)).await
            {
                // The range may have been silent while the store moved on.
                let silent = self.shared.lock().read(&self.range, self.cursor);
                if let Ok((items, cursor)) = silent
                    && items.is_empty()
                    && cursor > self.told
                {
                    (self.cursor, self.told) = (cursor, cursor);
                    return Some((Ok(WatchItem::Bookmark(cursor)), self));
                }
            }
        }
    }
}
