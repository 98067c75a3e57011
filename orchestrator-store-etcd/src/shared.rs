//! The parts of a store, and what it asks etcd about revisions.

use std::sync::atomic::{AtomicU64, Ordering};

use etcd_client::{GetOptions, ResponseHeader};
use orchestrator_core::{
    env::Env,
    store::{KeyRange, Revision, StoreError, StoreStatus},
};

use crate::{
    endpoints::{Endpoints, Repeat},
    error::{Failed, Failure},
    layout::{Layout, revision},
    lease::Leases,
    limits::Limits,
};

pub(crate) struct Shared {
    pub(crate) env: Env,
    pub(crate) limits: Limits,
    pub(crate) layout: Layout,
    pub(crate) endpoints: Endpoints,
    pub(crate) leases: Leases,
    /// A revision that was the oldest one once: nothing before it is left.
    compacted: AtomicU64,
}

/// Revision 0 means "before everything"; etcd begins at 1.
pub(crate) const FIRST: Revision = Revision(1);

impl Shared {
    pub(crate) fn new(env: &Env, limits: Limits, layout: Layout, endpoints: Endpoints) -> Self {
        let compacted = AtomicU64::new(FIRST.0);
        Self { env: env.clone(), limits, layout, endpoints, leases: Leases::default(), compacted }
    }

    /// The newest revision, and how many keys there are of the store's.
    async fn newest_and_keys(&self) -> Result<(Revision, u64), Failed> {
        let span = self.layout.span(&KeyRange::prefix(""));
        let options = GetOptions::new().with_range(span.end).with_count_only();
        let call = |client: etcd_client::Client| {
            let (start, options) = (span.start.clone(), options.clone());
            async move {
                let answer = client.kv_client().get(start, Some(options)).await?;
                Ok((header(answer.header())?, u64::try_from(answer.count()).unwrap_or(0)))
            }
        };
        self.endpoints.call(Repeat::Always, call).await
    }

    /// The newest revision.
    pub(crate) async fn newest(&self) -> Result<Revision, Failed> {
        let probe = self.layout.probe();
        let call = |client: etcd_client::Client| {
            let options = GetOptions::new().with_count_only();
            let answer = async move |key| client.kv_client().get(key, Some(options)).await;
            let probe = probe.clone();
            async move { header(answer(probe).await?.header()) }
        };
        self.endpoints.call(Repeat::Always, call).await
    }

    /// Whether the state at a revision has not been compacted. What lies ahead has not.
    pub(crate) async fn is_left(&self, at: Revision) -> Result<bool, Failed> {
        let Ok(number) = i64::try_from(at.0) else { return Ok(true) };
        if at < FIRST {
            return Ok(false);
        }
        let options = GetOptions::new().with_count_only().with_revision(number);
        let call = |client: etcd_client::Client| {
            let (probe, options) = (self.layout.probe(), options.clone());
            async move { client.kv_client().get(probe, Some(options)).await.map(drop) }
        };
        match self.endpoints.call(Repeat::Always, call).await {
            Ok(()) | Err(Failed::Etcd(Failure::Future, _)) => Ok(true),
            Err(Failed::Etcd(Failure::Compacted, _)) => Ok(false),
            Err(failed) => Err(failed),
        }
    }

    /// The oldest revision that is left. etcd has no answer to that, but it can be found.
    pub(crate) async fn oldest(&self) -> Result<Revision, Failed> {
        let known = self.compacted.load(Ordering::Relaxed);
        if self.is_left(Revision(known)).await? {
            return Ok(Revision(known));
        }
        let mut search = Search { gone: known, left: self.newest().await?.0 };
        while let Some(middle) = search.middle() {
            search.note(middle, self.is_left(Revision(middle)).await?);
        }
        let oldest = Revision(search.left);
        self.note_compacted(oldest);
        Ok(oldest)
    }

    /// Nothing before a revision is left.
    pub(crate) fn note_compacted(&self, oldest: Revision) {
        self.compacted.fetch_max(oldest.0, Ordering::Relaxed);
    }

    /// The error for who asked for a revision that is gone.
    pub(crate) async fn gone(&self, asked: Revision) -> StoreError {
        match self.oldest().await {
            Ok(oldest) => StoreError::Compacted { asked, oldest },
            Err(failed) => failed.into(),
        }
    }

    /// The error for who asked for a revision that lies ahead.
    pub(crate) async fn ahead(&self, asked: Revision) -> StoreError {
        match self.newest().await {
            Ok(current) => StoreError::Future { asked, current },
            Err(failed) => failed.into(),
        }
    }

    pub(crate) async fn compact(&self, at: Revision) -> Result<(), StoreError> {
        let Ok(number) = i64::try_from(at.0) else { return Err(self.ahead(at).await) };
        if at < FIRST {
            return Err(self.gone(at).await);
        }
        let call = move |client: etcd_client::Client| async move { client.kv_client().compact(number, None).await };
        match self.endpoints.call(Repeat::Always, call).await {
            Ok(_) => {
                self.note_compacted(at);
                Ok(())
            }
            Err(Failed::Etcd(Failure::Future, _)) => Err(self.ahead(at).await),
            // etcd refuses to do it twice.
            Err(Failed::Etcd(Failure::Compacted, _)) => match self.oldest().await? {
                oldest if oldest == at => Ok(()),
                oldest => Err(StoreError::Compacted { asked: at, oldest }),
            },
            Err(failed) => Err(failed.into()),
        }
    }

    pub(crate) async fn status(&self) -> Result<StoreStatus, StoreError> {
        let call = |client: etcd_client::Client| async move { client.maintenance_client().status().await };
        let size = self.endpoints.call(Repeat::Always, call).await?.db_size();
        let compacted = self.oldest().await?;
        let (revision, keys) = self.newest_and_keys().await?;
        Ok(StoreStatus { revision, compacted, keys, size_bytes: u64::try_from(size).unwrap_or(0) })
    }
}

/// The revision that an answer is of.
pub(crate) fn header(header: Option<&ResponseHeader>) -> Result<Revision, etcd_client::Error> {
    let without = || etcd_client::Error::Internal("an answer without a header".to_owned());
    header.map(|header| revision(header.revision())).ok_or_else(without)
}

/// The search for the first revision that is left.
#[derive(Debug)]
struct Search {
    /// One that is gone.
    gone: u64,
    /// One that is left.
    left: u64,
}

impl Search {
    /// What to ask for next; `None` when it is found.
    fn middle(&self) -> Option<u64> {
        let between = self.left.saturating_sub(self.gone);
        (between > 1).then(|| self.gone + between / 2)
    }

    fn note(&mut self, middle: u64, is_left: bool) {
        if is_left {
            self.left = middle;
        } else {
            self.gone = middle;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_first_revision_that_is_left_is_found(gone in 1..1000_u64, to_first in 1..1_000_000_u64, to_newest in 0..1_000_000_u64) {
            let first = gone + to_first;
            let mut search = Search { gone, left: first + to_newest };
            let mut asked = 0;
            while let Some(middle) = search.middle() {
                search.note(middle, middle >= first);
                asked += 1;
            }
            prop_assert_eq!(search.left, first);
            prop_assert!(asked <= 64);
        }
    }
}
