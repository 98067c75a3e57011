//! The store does what the one in memory does, and to its directory what a store on disk does.

use std::sync::Arc;

use orchestrator_core::{env::Env, store::Store};
use orchestrator_store_disk::suites;
use orchestrator_store_mem::MemStore;
use orchestrator_store_sled::{Limits, SledEngine};

fn main() {
    // sled's file is several times as large as what is in it after much was written over.
    suites::engine::<SledEngine>(in_memory, false)
}

fn in_memory(env: &Env, limits: &Limits) -> Arc<dyn Store> {
    let Limits { history_commits, history_bytes, .. } = *limits;
    let limits = orchestrator_store_mem::Limits { history_commits, history_bytes, ..Default::default() };
    Arc::new(MemStore::with_limits(env, limits))
}
