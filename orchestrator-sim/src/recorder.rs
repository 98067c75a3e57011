//! A store that writes down what happens to it, and that may make its callers take turns.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    task::Poll,
};

use async_trait::async_trait;
use futures::{FutureExt, StreamExt};
use orchestrator_core::{
    env::Env,
    store::{
        Batch, Capabilities, Entry, Key, KeyRange, ListOptions, Listing, Revision, Store, StoreError, StoreStatus,
        WatchItem, WatchOptions, WatchStream,
    },
};

use crate::{
    history::{History, Record},
    lock::lock,
};

/// Wraps the store of a world.
#[derive(Clone)]
pub(crate) struct Recorder {
    env: Env,
    inner: Arc<dyn Store>,
    tape: Arc<Mutex<Tape>>,
}

/// What happened, and where more of it comes from.
struct Tape {
    changes: WatchStream,
    history: History,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Recorder").field(&self.inner).finish()
    }
}

impl Recorder {
    /// Records everything from now on.
    pub(crate) async fn start(env: &Env, inner: Arc<dyn Store>) -> Result<Self, StoreError> {
        let changes = inner.watch(KeyRange::prefix(""), WatchOptions::default()).await?;
        let tape = Tape { changes, history: History::default() };
        Ok(Self { env: env.clone(), inner, tape: Arc::new(Mutex::new(tape)) })
    }

    /// Looks at the history so far.
    pub(crate) fn history<T>(&self, look: impl FnOnce(&History) -> T) -> T {
        let mut tape = self.lock();
        self.catch_up(&mut tape);
        look(&tape.history)
    }

    /// Whether it is still there, for tests.
    #[cfg(test)]
    pub(crate) fn downgrade(&self) -> std::sync::Weak<impl Sized + use<>> {
        Arc::downgrade(&self.tape)
    }

    fn lock(&self) -> MutexGuard<'_, Tape> {
        lock(&self.tape)
    }

    /// Takes in what has happened. After each commit, so that the store's log never runs away from it.
    fn catch_up(&self, tape: &mut Tape) {
        let at = self.env.now();
        while let Some(Some(item)) = tape.changes.next().now_or_never() {
            match item {
                Ok(WatchItem::Changes { revision, changes }) => {
                    for change in changes.iter() {
                        let value = |entry: &Option<Entry>| entry.as_ref().map(|entry| entry.value.clone());
                        let (value, previous) = (value(&change.entry), value(&change.previous));
                        tape.history.push(Record { revision, at, key: change.key.clone(), value, previous });
                    }
                }
                Ok(WatchItem::Bookmark(_)) => {}
                Err(error) => tracing::error!(%error, "the history has a gap"),
            }
        }
    }

    /// Lets other tasks go first, every other time.
    async fn take_turns(&self) {
        if self.env.random() & 1 == 0 {
            return;
        }
        let mut yielded = false;
        futures::future::poll_fn(|context| {
            if yielded {
                return Poll::Ready(());
            }
            yielded = true;
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}

#[async_trait]
impl Store for Recorder {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.take_turns().await;
        self.inner.get(key).await
    }

    async fn list(&self, range: &KeyRange, options: ListOptions) -> Result<Listing, StoreError> {
        self.take_turns().await;
        self.inner.list(range, options).await
    }

    async fn commit(&self, batch: Batch) -> Result<Revision, StoreError> {
        self.take_turns().await;
        let revision = self.inner.commit(batch).await?;
        self.catch_up(&mut self.lock());
        // The answer may be lost, or come after others have acted on the commit.
        self.take_turns().await;
        Ok(revision)
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
