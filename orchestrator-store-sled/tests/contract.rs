//! The store on disk, bare and wrapped, keeps the contract of a store.

use std::{sync::Arc, time::Duration};

use orchestrator_core::{env::Env, store::Store};
use orchestrator_store_disk::suites::temporary;
use orchestrator_store_sled::{Limits, SledEngine};
use orchestrator_testkit::{
    store_contract,
    wrap::{FaultRates, FaultyStore, KeepingStore, MeteredStore, PrefixedStore, SlowStore},
};

fn with_limits(env: &Env, limits: Limits) -> Arc<dyn Store> {
    let (store, directory) = temporary::<SledEngine>(env, limits);
    Arc::new(KeepingStore::new(Arc::new(store), directory))
}

fn on_disk(env: &Env) -> Arc<dyn Store> {
    with_limits(env, Limits::default())
}

store_contract!(bare, simulated, on_disk);
store_contract!(bare_on_threads, real, |env: &Env| -> Arc<dyn Store> {
    with_limits(env, Limits { bookmark_interval: Duration::from_millis(20), ..Limits::default() })
});
store_contract!(with_little_history, real, |env: &Env| -> Arc<dyn Store> {
    let bookmark_interval = Duration::from_millis(20);
    with_limits(env, Limits { history_commits: 1000, bookmark_interval, ..Limits::default() })
});
store_contract!(wrapped, simulated, |env: &Env| -> Arc<dyn Store> {
    let store = Arc::new(SlowStore::new(on_disk(env), env, Duration::from_millis(3)));
    let store = Arc::new(FaultyStore::new(store, env, FaultRates::default()));
    Arc::new(MeteredStore::new(Arc::new(PrefixedStore::new(store, "/clusters/a")), env))
});
