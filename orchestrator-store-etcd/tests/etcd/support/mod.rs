//! Stores on etcd processes that go away after them.

pub(crate) mod etcd;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::executor::block_on;
use orchestrator_core::{
    env::Env,
    store::{
        Batch, Capabilities, Entry, Key, KeyRange, ListOptions, Listing, Revision, Store, StoreError, StoreStatus,
        WatchOptions, WatchStream,
    },
};
use orchestrator_store_etcd::{EtcdConfig, EtcdError, EtcdStore, Limits};

use etcd::Cluster;

/// How long something may take that is bound to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Runs a case in real time, with members that need it.
pub(crate) fn run<F: Future<Output = ()>>(case: impl FnOnce(Env) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async { case(Env::real()).await });
}

/// What went wrong with etcd.
pub(crate) fn cause(error: &StoreError) -> &EtcdError {
    match error {
        StoreError::Unavailable { source, .. } => source.downcast_ref().expect("a failure of etcd's"),
        other => panic!("{other}"),
    }
}

/// How to reach a cluster.
pub(crate) fn config(cluster: &Cluster, limits: Limits) -> EtcdConfig {
    EtcdConfig { endpoints: cluster.urls(), limits, ..EtcdConfig::default() }
}

/// An empty store in an etcd of its own.
pub(crate) fn temporary(env: &Env, limits: Limits) -> Arc<dyn Store> {
    let cluster = Cluster::single();
    let store = block_on(EtcdStore::connect(env, config(&cluster, limits))).unwrap();
    Arc::new(Temporary { store, _cluster: cluster })
}

#[derive(Debug)]
struct Temporary {
    store: EtcdStore,
    _cluster: Cluster,
}

#[async_trait]
impl Store for Temporary {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.store.get(key).await
    }

    async fn list(&self, range: &KeyRange, options: ListOptions) -> Result<Listing, StoreError> {
        self.store.list(range, options).await
    }

    async fn commit(&self, batch: Batch) -> Result<Revision, StoreError> {
        self.store.commit(batch).await
    }

    async fn watch(&self, range: KeyRange, options: WatchOptions) -> Result<WatchStream, StoreError> {
        self.store.watch(range, options).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.store.compact(revision).await
    }

    async fn status(&self) -> Result<StoreStatus, StoreError> {
        self.store.status().await
    }

    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }
}
