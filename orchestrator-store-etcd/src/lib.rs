//! A `Store` on a real etcd cluster: where one machine is no longer enough.
//!
//! Start at [`EtcdStore::connect`]. Revisions are etcd's own, a commit is one transaction, a list is a snapshot that is read page by
//! page, and each watch is a stream that is made again, behind what was given, whenever it breaks.
//!
//! # Failover
//!
//! All calls go to one member until that fails; then to the next. Reads are repeated there. A commit is, when it surely did not
//! happen: the member could not be reached, or said so. Otherwise the caller is told that nobody knows
//! ([`StoreError::Unavailable`]). Reads are never stale: each one asks the cluster, not only the member.
//!
//! # What it needs of etcd
//!
//! Version 3.4 at least. Watches of silent ranges are told how far they are ([`Capabilities::bookmarks`]) when all members are 3.4.25,
//! 3.5.8 or later: before, etcd may say so too early. Of members that cannot be reached at first it is found out when a watch goes to
//! them; one that goes to an older one gives no bookmarks. How durable commits are is etcd's matter, too: it flushes them unless it was
//! told not to.
//!
//! Times to live are rounded up to whole seconds, and by up to a twentieth, at most a minute, so that keys can share leases. etcd has a
//! shortest one, a little longer than an election takes.
//!
//! # What it leaves to others
//!
//! etcd's space is bounded: a full one answers with [`EtcdError::NoSpace`] until somebody compacts and defragments it and takes back its
//! alarm. Compaction forgets the past as this store is told, and as etcd itself was configured to.

mod commit;
mod config;
mod endpoints;
mod error;
mod layout;
mod lease;
mod limits;
mod list;
mod shared;
mod transaction;
mod version;
mod watch;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use etcd_client::{Client, GetOptions};
use futures::future::join_all;
use orchestrator_core::{
    env::Env,
    store::{
        Batch, Capabilities, Entry, Key, KeyRange, ListOptions, Listing, Revision, Store, StoreError, StoreStatus,
        WatchOptions, WatchStream,
    },
};

pub use config::{Credentials, EtcdConfig, Tls, TlsIdentity};
pub use error::EtcdError;
pub use limits::Limits;

use endpoints::{Endpoints, Repeat};
use error::Failed;
use layout::Layout;
use shared::Shared;
use version::Version;

/// A store in an etcd cluster. Dropping it closes it: its watches end. It needs an environment on tokio.
pub struct EtcdStore {
    shared: Arc<Shared>,
    bookmarks: bool,
}

impl fmt::Debug for EtcdStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoints = &self.shared.endpoints;
        f.debug_struct("EtcdStore").field("endpoint", &endpoints.url(endpoints.preferred())).finish_non_exhaustive()
    }
}

impl EtcdStore {
    /// Connects to a cluster, of which one member at least has to answer.
    ///
    /// # Errors
    /// The configuration cannot be meant, no member answers or lets the user in, or one is too old.
    pub async fn connect(env: &Env, config: EtcdConfig) -> Result<Self, EtcdError> {
        config.check()?;
        let endpoints = Endpoints::new(env, &config);
        let version = async |client: Client| client.maintenance_client().status().await;
        let answers = join_all((0..endpoints.len()).map(|member| endpoints.call_member(member, version))).await;
        let versions = answers.into_iter().enumerate().map(|(member, answer)| {
            let said = answer.map(|status| status.version().to_owned());
            (endpoints.url(member).to_owned(), said)
        });
        let bookmarks = judge(versions)?;
        let shared = Shared::new(env, config.limits, Layout::new(&config.prefix), endpoints);
        Ok(Self { shared: Arc::new(shared), bookmarks })
    }

    /// Closes the store: watches end, calls fail.
    pub fn close(&self) {
        self.shared.endpoints.close();
    }
}

/// Whether the members that answered tell progress truly; an error when one is too old, or none answered.
fn judge(versions: impl Iterator<Item = (String, Result<String, Failed>)>) -> Result<bool, EtcdError> {
    let (mut answered, mut bookmarks, mut failed) = (false, true, None);
    for (endpoint, said) in versions {
        match said {
            Ok(said) => match Version::parse(&said) {
                Some(version) if version.serves() => {
                    answered = true;
                    bookmarks &= version.tells_progress();
                }
                _ => return Err(EtcdError::TooOld { endpoint, version: said }),
            },
            Err(why) => failed = failed.or(Some(why)),
        }
    }
    match failed {
        Some(why) if !answered => Err(why.into_error()),
        _ => Ok(bookmarks),
    }
}

impl Drop for EtcdStore {
    fn drop(&mut self) {
        self.close();
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        if self.shared.endpoints.is_closed() {
            return Err(StoreError::Closed);
        }
        let Some(encoded) = self.shared.layout.encode(key) else { return Ok(None) };
        let answer_bytes = self.shared.limits.answer_bytes;
        let call = |client: Client| {
            let encoded = encoded.clone();
            async move {
                let mut client = client.kv_client().max_decoding_message_size(answer_bytes);
                client.get(encoded, Some(GetOptions::new())).await
            }
        };
        let mut answer = self.shared.endpoints.call(Repeat::Always, call).await?;
        Ok(answer.take_kvs().pop().map(|found| self.shared.layout.entry(found.0)).transpose()?)
    }

    async fn list(&self, range: &KeyRange, options: ListOptions) -> Result<Listing, StoreError> {
        self.shared.list(range, &options).await
    }

    async fn commit(&self, batch: Batch) -> Result<Revision, StoreError> {
        self.shared.commit(batch).await
    }

    async fn watch(&self, range: KeyRange, options: WatchOptions) -> Result<WatchStream, StoreError> {
        watch::begin(&self.shared, range, options).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.shared.compact(revision).await
    }

    async fn status(&self) -> Result<StoreStatus, StoreError> {
        self.shared.status().await
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { durable: true, expiry: true, snapshots: true, bookmarks: self.bookmarks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_as_able_as_its_oldest_member() {
        let said = |version: &str| ("http://a".to_owned(), Ok(version.to_owned()));
        let silent = || ("http://b".to_owned(), Err(Failed::Closed));
        assert!(judge([said("3.5.16"), said("3.6.0"), silent()].into_iter()).unwrap());
        assert!(!judge([said("3.5.16"), said("3.4.23")].into_iter()).unwrap());
        assert!(matches!(judge([said("3.5.16"), said("3.3.0")].into_iter()), Err(EtcdError::TooOld { .. })));
        assert!(matches!(judge([said("strange")].into_iter()), Err(EtcdError::TooOld { .. })));
        assert!(judge([silent(), silent()].into_iter()).is_err());
    }
}
