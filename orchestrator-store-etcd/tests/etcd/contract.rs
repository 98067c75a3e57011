//! The store on etcd, bare and wrapped, keeps the contract of a store.

use std::{sync::Arc, time::Duration};

use orchestrator_core::{env::Env, store::Store};
use orchestrator_store_etcd::Limits;
use orchestrator_testkit::{
    store_contract,
    wrap::{FaultRates, FaultyStore, MeteredStore, PrefixedStore},
};

use crate::support;

fn on_etcd(env: &Env) -> Arc<dyn Store> {
    support::temporary(env, Limits { bookmark_interval: Duration::from_millis(20), ..Limits::default() })
}

store_contract!(bare, real, on_etcd);
// Not slow as well: in real time that would only take longer.
store_contract!(wrapped, real, |env: &Env| -> Arc<dyn Store> {
    let store = Arc::new(FaultyStore::new(on_etcd(env), env, FaultRates::default()));
    Arc::new(MeteredStore::new(Arc::new(PrefixedStore::new(store, "/clusters/a")), env))
});
