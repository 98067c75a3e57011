//! The store on etcd, bare and wrapped, keeps the contract of a store.

mod support;

use std::{sync::Arc, time::Duration};

use orchestrator_core::{env::Env, store::Store};
use orchestrator_store_etcd::Limits;
use orchestrator_testkit::{
    store_contract,
    wrap::{FaultRates, FaultyStore, MeteredStore, PrefixedStore, SlowStore},
};

fn on_etcd(env: &Env) -> Arc<dyn Store> {
    support::temporary(env, Limits { bookmark_interval: Duration::from_millis(20), ..Limits::default() })
}

store_contract!(bare, real, on_etcd);
store_contract!(wrapped, real, |env: &Env| -> Arc<dyn Store> {
    let store = Arc::new(SlowStore::new(on_etcd(env), env, Duration::from_micros(10)));
    let store = Arc::new(FaultyStore::new(store, env, FaultRates::default()));
    Arc::new(MeteredStore::new(Arc::new(PrefixedStore::new(store, "/clusters/a")), env))
});
