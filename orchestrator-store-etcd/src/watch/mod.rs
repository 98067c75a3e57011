//! Watches: each has a stream of its own to etcd, which a task reads at once (`pump`), puts together to commits (`assembly`) and
//! keeps for the watcher (`buffer`).
//!
//! The task is needed because all streams of a connection share its window: one that nobody reads would in the end hold up all others.

mod assembly;
mod buffer;
mod pump;

use std::sync::Arc;

use futures::{StreamExt, future::Either};
use orchestrator_core::{
    env::TaskHandle,
    store::{KeyRange, Revision, StoreError, WatchItem, WatchOptions, WatchStream},
};

use crate::shared::{FIRST, Shared};
use buffer::Buffer;
use pump::Pump;

/// Begins a watch. Where it begins is fixed here, whenever etcd hears of it.
pub(crate) async fn begin(
    shared: &Arc<Shared>,
    range: KeyRange,
    options: WatchOptions,
) -> Result<WatchStream, StoreError> {
    let after = match options.after {
        None => shared.newest().await?,
        Some(after) if after < FIRST || !shared.is_left(after).await? => return Err(shared.gone(after).await),
        // No revision is larger than what etcd can say.
        Some(after) => after.min(Revision(i64::MAX as u64 - 1)),
    };
    let buffer = Arc::new(Buffer::default());
    let pump = Pump::new(shared.clone(), range, after, options.bookmarks, buffer.clone());
    let task = shared.env.spawn("store-watch", follow(shared.clone(), pump));
    let reader = Reader { buffer, _task: task };
    Ok(futures::stream::unfold(reader, Reader::next).boxed())
}

/// Reads until the watch fails or the store is closed.
async fn follow(shared: Arc<Shared>, pump: Pump) {
    let buffer = pump.buffer();
    let _end = buffer.ends();
    let pumped = std::pin::pin!(pump.run());
    if let Either::Right((error, _)) = futures::future::select(std::pin::pin!(shared.endpoints.closed()), pumped).await
        && !matches!(error, StoreError::Closed)
    {
        buffer.fail(error);
    }
}

/// The watcher's side. Dropping it ends the task, and so the stream.
struct Reader {
    buffer: Arc<Buffer>,
    _task: TaskHandle,
}

impl Reader {
    async fn next(self) -> Option<(Result<WatchItem, StoreError>, Self)> {
        let item = self.buffer.next().await?;
        Some((item, self))
    }
}
