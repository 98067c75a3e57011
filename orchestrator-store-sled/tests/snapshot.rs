//! What sled leaves behind when it is killed while it writes a snapshot.

use std::fs;

use bytes::Bytes;
use futures::executor::block_on;
use orchestrator_core::{
    env::Simulation,
    store::{Batch, Key, Store},
};
use orchestrator_store_sled::{Limits, SledStore};

#[test]
fn a_snapshot_that_was_not_finished_is_passed_over() {
    let (simulation, directory) = (Simulation::new(1), tempfile::TempDir::new().unwrap());
    let open = || block_on(SledStore::open(&simulation.env(), directory.path(), Limits::default())).unwrap();
    let store = open();
    block_on(store.commit(Batch::create(Key::new("/a"), Bytes::from_static(b"1")))).unwrap();
    drop(store);
    fs::write(directory.path().join("data/snap.FFFFFFFFFFFFFFFF.generating"), "half of a snapsh").unwrap();
    assert!(block_on(open().get(&Key::new("/a"))).unwrap().is_some());
}
