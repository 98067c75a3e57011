//! What stands in a directory, and who may open it.

use std::{fs, time::Duration};

use bytes::Bytes;
use futures::StreamExt;
use libtest_mimic::Trial;
use orchestrator_core::{
    env::Env,
    store::{Batch, Key, KeyRange, Operation, Store, StoreError, WatchOptions},
};

use super::{simulated as run, trial};
use crate::{DiskError, DiskStore, Engine, Limits};

pub(super) fn trials<E: Engine>() -> Vec<Trial> {
    vec![
        trial("one_store_at_a_time_has_a_directory", one_at_a_time::<E>),
        trial("a_store_that_is_closed_says_so", closed::<E>),
        trial("a_store_that_was_not_finished_is_made_anew", unfinished::<E>),
        trial("what_is_no_store_is_not_opened", no_store::<E>),
        trial("keys_expire_at_their_time_in_a_store_that_was_opened_again", expiry::<E>),
    ]
}

async fn open<E: Engine>(env: &Env, path: &std::path::Path) -> Result<DiskStore<E>, DiskError> {
    DiskStore::open(env, path, Limits::default()).await
}

fn create(key: &str) -> Batch {
    Batch::create(Key::new(key), Bytes::from_static(b"1"))
}

fn one_at_a_time<E: Engine>() {
    run(async |env, path| {
        let first = open::<E>(&env, &path).await.unwrap();
        assert!(matches!(open::<E>(&env, &path).await, Err(DiskError::InUse { path: told }) if told == path));
        first.close().await;
        let second = open::<E>(&env, &path).await.unwrap();
        drop(second);
        open::<E>(&env, &path).await.unwrap();
    });
}

fn closed<E: Engine>() {
    run(async |env, path| {
        let store = open::<E>(&env, &path).await.unwrap();
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

fn unfinished<E: Engine>() {
    run(async |env, path| {
        fs::create_dir_all(path.join("new/left")).unwrap();
        fs::write(path.join("new/over"), "half of a file").unwrap();
        open::<E>(&env, &path).await.unwrap().commit(create("/a")).await.unwrap();
    });
}

fn no_store<E: Engine>() {
    run(async |env, path| {
        fs::write(path.join("file"), "").unwrap();
        assert!(matches!(open::<E>(&env, &path.join("file")).await, Err(DiskError::Io { .. })));
        fs::create_dir(path.join("data")).unwrap();
        assert!(matches!(open::<E>(&env, &path).await, Err(DiskError::Io { .. })));
        fs::remove_dir(path.join("data")).unwrap();
        drop(open::<E>(&env, &path).await.unwrap());
        let files = fs::read_dir(path.join("data")).unwrap().map(|file| file.unwrap().path());
        let largest = files.filter(|file| file.is_file()).max_by_key(|file| file.metadata().unwrap().len()).unwrap();
        fs::write(largest, "").unwrap();
        let empty = open::<E>(&env, &path).await;
        assert!(matches!(empty, Err(DiskError::Damaged(_))), "{empty:?}");
    });
}

/// Time goes on while a store is closed.
fn expiry<E: Engine>() {
    run(async |env, path| {
        let store = open::<E>(&env, &path).await.unwrap();
        for (key, seconds) in [("/early", 10), ("/late", 100)] {
            let time_to_live = Some(Duration::from_secs(seconds));
            let put = Operation::Put { key: Key::new(key), value: Bytes::new(), time_to_live };
            store.commit(Batch { preconditions: Vec::new(), operations: vec![put] }).await.unwrap();
        }
        store.close().await;
        env.sleep(Duration::from_secs(50)).await;
        let store = open::<E>(&env, &path).await.unwrap();
        env.sleep(Duration::from_millis(1)).await;
        assert!(store.get(&Key::new("/early")).await.unwrap().is_none());
        env.sleep(Duration::from_secs(49)).await;
        assert!(store.get(&Key::new("/late")).await.unwrap().is_some());
        env.sleep(Duration::from_secs(2)).await;
        assert!(store.get(&Key::new("/late")).await.unwrap().is_none());
    });
}
