//! What stands in a directory, and who may open it.

#[path = "support/directory.rs"]
mod support;

use std::{fs, time::Duration};

use bytes::Bytes;
use futures::StreamExt;
use orchestrator_core::{
    env::{Env, Simulation},
    store::{Batch, Key, KeyRange, Operation, Store, StoreError, WatchOptions},
};
use orchestrator_store_sled::{Limits, SledError, SledStore};

async fn open(env: &Env, path: &std::path::Path) -> Result<SledStore, SledError> {
    SledStore::open(env, path, Limits::default()).await
}

fn create(key: &str) -> Batch {
    Batch::create(Key::new(key), Bytes::from_static(b"1"))
}

/// Runs a case in virtual time with a directory.
fn run<F: Future<Output = ()>>(case: impl FnOnce(Env, std::path::PathBuf) -> F) {
    let (simulation, directory) = (Simulation::new(1), support::directory());
    simulation.run(case(simulation.env(), directory.path().to_owned())).unwrap();
}

#[test]
fn one_store_at_a_time_has_a_directory() {
    run(async |env, path| {
        let first = open(&env, &path).await.unwrap();
        assert!(matches!(open(&env, &path).await, Err(SledError::InUse { path: told }) if told == path));
        first.close().await;
        let second = open(&env, &path).await.unwrap();
        drop(second);
        open(&env, &path).await.unwrap();
    });
}

#[test]
fn a_store_that_is_closed_says_so() {
    run(async |env, path| {
        let store = open(&env, &path).await.unwrap();
        let revision = store.commit(create("/a")).await.unwrap();
        let mut changes = store.watch(KeyRange::prefix("/"), WatchOptions::default()).await.unwrap();
        store.close().await;
        assert!(changes.next().await.is_none());
        assert!(matches!(store.commit(create("/b")).await, Err(StoreError::Closed)));
        assert!(matches!(store.get(&Key::new("/a")).await, Err(StoreError::Closed)));
        assert!(matches!(store.compact(revision).await, Err(StoreError::Closed)));
        assert!(matches!(store.status().await, Err(StoreError::Closed)));
        let again = store.watch(KeyRange::prefix("/"), WatchOptions::default()).await;
        assert!(matches!(again, Err(StoreError::Closed)));
        store.close().await;
    });
}

#[test]
fn a_store_that_was_not_finished_is_made_anew() {
    run(async |env, path| {
        fs::create_dir_all(path.join("new/blobs")).unwrap();
        fs::write(path.join("new/conf"), "segment_size: 52").unwrap();
        open(&env, &path).await.unwrap().commit(create("/a")).await.unwrap();
    });
}

#[test]
fn a_snapshot_that_was_not_finished_is_passed_over() {
    run(async |env, path| {
        let store = open(&env, &path).await.unwrap();
        store.commit(create("/a")).await.unwrap();
        store.close().await;
        fs::write(path.join("data/snap.FFFFFFFFFFFFFFFF.generating"), "half of a snapsh").unwrap();
        let store = open(&env, &path).await.unwrap();
        assert!(store.get(&Key::new("/a")).await.unwrap().is_some());
    });
}

#[test]
fn what_is_no_store_is_not_opened() {
    run(async |env, path| {
        fs::write(path.join("file"), "").unwrap();
        assert!(matches!(open(&env, &path.join("file")).await, Err(SledError::Io { .. })));
        fs::create_dir(path.join("data")).unwrap();
        assert!(matches!(open(&env, &path).await, Err(SledError::Io { .. })));
        fs::create_dir(path.join("data/blobs")).unwrap();
        fs::write(path.join("data/db"), "").unwrap();
        let empty = open(&env, &path).await;
        assert!(matches!(empty, Err(SledError::Damaged(_))), "{empty:?}");
    });
}

/// Time goes on while a store is closed.
#[test]
fn keys_expire_at_their_time_in_a_store_that_was_opened_again() {
    run(async |env, path| {
        let store = open(&env, &path).await.unwrap();
        for (key, seconds) in [("/early", 10), ("/late", 100)] {
            let time_to_live = Some(Duration::from_secs(seconds));
            let put = Operation::Put { key: Key::new(key), value: Bytes::new(), time_to_live };
            store.commit(Batch { preconditions: Vec::new(), operations: vec![put] }).await.unwrap();
        }
        store.close().await;
        env.sleep(Duration::from_secs(50)).await;
        let store = open(&env, &path).await.unwrap();
        env.sleep(Duration::from_millis(1)).await;
        assert!(store.get(&Key::new("/early")).await.unwrap().is_none());
        env.sleep(Duration::from_secs(49)).await;
        assert!(store.get(&Key::new("/late")).await.unwrap().is_some());
        env.sleep(Duration::from_secs(2)).await;
        assert!(store.get(&Key::new("/late")).await.unwrap().is_none());
    });
}
