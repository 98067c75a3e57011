//! Removing keys when their time has come.

use std::{sync::Arc, time::Duration};

use orchestrator_core::store::StoreError;

use crate::{database::Database, limits::EXPIRY_RETRY, queue::Job, shared::Shared};

/// Removes keys when their time has come, until the store is closed or has ended.
pub(crate) async fn expire(shared: Arc<Shared>) {
    loop {
        let changed = shared.expiry_changed.notified();
        let wait = match next(&shared).await {
            Ok(Some(Duration::ZERO)) => match shared.write(Job::Expire).await {
                Ok(_) => Duration::ZERO,
                Err(_) if shared.is_over() => return,
                // The disk may be too full for the moment.
                Err(_) => EXPIRY_RETRY,
            },
            Ok(Some(wait)) => wait,
            Ok(None) => Duration::MAX,
            Err(_) => return,
        };
        if wait == Duration::MAX {
            changed.await;
        } else if !wait.is_zero() {
            futures::future::select(std::pin::pin!(changed), shared.env.sleep(wait)).await;
        }
    }
}

/// How long it is until the next key expires.
async fn next(shared: &Arc<Shared>) -> Result<Option<Duration>, StoreError> {
    let read = |shared: &Shared, database: &Database| {
        let first = database.records()?.deadlines(1)?;
        Ok(first.first().map(|(deadline, _)| Duration::from_nanos(deadline.saturating_sub(shared.now()))))
    };
    shared.blocking(read).await
}
