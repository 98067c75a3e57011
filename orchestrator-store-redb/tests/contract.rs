//! The store on disk keeps the contract of a store. Wrapped it is the same store, and the other one on disk shows that.

use std::{sync::Arc, time::Duration};

use orchestrator_core::{env::Env, store::Store};
use orchestrator_store_disk::suites::temporary;
use orchestrator_store_redb::{Limits, RedbEngine};
use orchestrator_testkit::{store_contract, wrap::KeepingStore};

fn with_limits(env: &Env, limits: Limits) -> Arc<dyn Store> {
    let (store, directory) = temporary::<RedbEngine>(env, limits);
    Arc::new(KeepingStore::new(Arc::new(store), directory))
}

store_contract!(bare, simulated, |env: &Env| -> Arc<dyn Store> { with_limits(env, Limits::default()) });
store_contract!(with_little_history_on_threads, real, |env: &Env| -> Arc<dyn Store> {
    let bookmark_interval = Duration::from_millis(20);
    with_limits(env, Limits { history_commits: 1000, bookmark_interval, ..Limits::default() })
});
