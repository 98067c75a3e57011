//! Stores on etcd processes that go away after them.

pub(crate) mod etcd;

use std::{sync::Arc, time::Duration};

use futures::executor::block_on;
use orchestrator_core::{
    env::Env,
    store::{Store, StoreError},
};
use orchestrator_store_etcd::{EtcdConfig, EtcdError, EtcdStore, Limits};
use orchestrator_testkit::wrap::KeepingStore;

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
    Arc::new(KeepingStore::new(Arc::new(store), cluster))
}
