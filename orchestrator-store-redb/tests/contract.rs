//! The store on disk keeps the contract of a store. Wrapped it is the same store, and the other one on disk shows that.

use std::{sync::Arc, time::Duration};

use orchestrator_core::{env::Env, store::Store};
use orchestrator_store_disk::suites::temporary;
use orchestrator_store_redb::{Limits, RedbEngine};
use orchestrator_testkit::store_contract;

store_contract!(bare, simulated, |env: &Env| -> Arc<dyn Store> { temporary::<RedbEngine>(env, Limits::default()) });
store_contract!(with_little_history_on_threads, real, |env: &Env| -> Arc<dyn Store> {
    let bookmark_interval = Duration::from_millis(20);
    temporary::<RedbEngine>(env, Limits { history_commits: 1000, bookmark_interval, ..Limits::default() })
});
