//! Thousands of concurrent histories of the memory store, each with faults, have an order.

use std::sync::Arc;

use orchestrator_core::{
    env::{Env, Simulation},
    store::Store,
};
use orchestrator_store_mem::MemStore;
use orchestrator_testkit::linearizability::{Plan, check_histories};

#[test]
fn in_virtual_time() {
    let mut unanswered = 0;
    for seed in 0..20 {
        let simulation = Simulation::new(seed);
        let env = simulation.env();
        let store: Arc<dyn Store> = Arc::new(MemStore::new(&env));
        let plan = Plan { histories: 150, ..Plan::default() };
        unanswered += simulation.run(check_histories(&store, &env, plan)).unwrap();
    }
    assert!(unanswered > 1_000, "only {unanswered} calls without an answer");
}

#[test]
fn on_threads() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let env = Env::real();
        let store: Arc<dyn Store> = Arc::new(MemStore::new(&env));
        let plan = Plan { histories: 200, ..Plan::default() };
        check_histories(&store, &env, plan).await;
    });
}
