//! A flush that fails, and what is shown of a commit that is not on the disk yet.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::join_all};
use orchestrator_core::{
    env::Env,
    store::{Batch, Key, KeyRange, ListOptions, Revision, Store, StoreError, WatchOptions},
};
use tempfile::TempDir;

use super::{Limits, SledError, SledStore};

/// Runs a case on threads, with a directory.
fn run<F: Future<Output = ()>>(case: impl FnOnce(Env, TempDir) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { case(Env::real(), TempDir::new().unwrap()).await });
}

fn create(number: u32) -> Batch {
    Batch::create(Key::new(format!("/{number}")), Bytes::from(number.to_string()))
}

async fn keys(store: &SledStore) -> usize {
    store.list(&KeyRange::prefix("/"), ListOptions::default()).await.unwrap().entries.len()
}

fn cause(result: Result<Revision, StoreError>) -> SledError {
    match result {
        Err(StoreError::Unavailable { source, .. }) => source.downcast_ref::<SledError>().unwrap().clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_failed_flush_ends_writing_for_good() {
    run(async |env, directory| {
        let fails = Arc::new(AtomicBool::new(false));
        let failing = fails.clone();
        let flush = Box::new(move |file: &std::fs::File| match failing.swap(false, Ordering::SeqCst) {
            true => Err(io::Error::other("on purpose")),
            false => file.sync_data(),
        });
        let store = SledStore::open_with(&env, directory.path(), Limits::default(), flush).await.unwrap();
        let first = store.commit(create(1)).await.unwrap();
        let mut changes = store.watch(KeyRange::prefix("/"), WatchOptions::default()).await.unwrap();

        fails.store(true, Ordering::SeqCst);
        let told = cause(store.commit(create(2)).await);
        assert!(matches!(&told, SledError::Io { source, .. } if source.to_string() == "on purpose"), "{told:?}");
        // The next flush would succeed, and say nothing about what the failed one has lost.
        for batch in [create(2), create(3)] {
            assert!(matches!(cause(store.commit(batch).await), SledError::Ended(_)));
        }
        assert!(store.compact(first).await.is_err());
        assert_eq!(store.get(&Key::new("/2")).await.unwrap(), None, "what was not acknowledged is not shown");
        assert_eq!((keys(&store).await, store.status().await.unwrap().revision), (1, first));
        assert!(changes.next().now_or_never().is_none(), "nor told");
        drop(store);

        let store = SledStore::open(&env, directory.path(), Limits::default()).await.unwrap();
        assert!(store.get(&Key::new("/1")).await.unwrap().is_some());
        assert_eq!(keys(&store).await as u64, store.status().await.unwrap().revision.0 - 1, "all of it or nothing");
    });
}

/// A flush that waits for the test to let it go on.
#[test]
fn nothing_is_shown_before_it_is_on_the_disk_and_who_waits_shares_a_flush() {
    run(async |env, directory| {
        let (begun, begins) = mpsc::channel();
        let (go_on, goes_on) = mpsc::channel();
        let goes_on = std::sync::Mutex::new(goes_on);
        let flush = Box::new(move |file: &std::fs::File| {
            begun.send(()).unwrap();
            goes_on.lock().unwrap().recv().unwrap();
            file.sync_data()
        });
        let store = Arc::new(SledStore::open_with(&env, directory.path(), Limits::default(), flush).await.unwrap());
        let mut changes = store.watch(KeyRange::prefix("/"), WatchOptions::default()).await.unwrap();
        let commit = |number| {
            let store = store.clone();
            async move { store.commit(create(number)).await }
        };

        let mut first = Box::pin(commit(0));
        assert!((&mut first).now_or_never().is_none());
        begins.recv().unwrap();
        // The first one is in the file and not on the disk.
        assert_eq!((store.get(&Key::new("/0")).await.unwrap(), keys(&store).await), (None, 0));
        assert!(changes.next().now_or_never().is_none());
        let mut others: Vec<_> = (1..=100).map(|number| Box::pin(commit(number))).collect();
        for other in &mut others {
            assert!(other.now_or_never().is_none());
        }
        go_on.send(()).unwrap();
        assert_eq!(first.await.unwrap(), Revision(2));
        begins.recv().unwrap();
        assert_eq!(keys(&store).await, 1);
        go_on.send(()).unwrap();
        let revisions = join_all(others).await.into_iter().map(|revision| revision.unwrap().0);
        assert_eq!(revisions.collect::<Vec<_>>(), (3..103).collect::<Vec<_>>(), "one flush for all hundred, in order");
        assert!(begins.try_recv().is_err(), "there was no third flush");
        assert_eq!(keys(&store).await, 101);
    });
}

/// Callers that are gone do not matter, and closing waits for what is being written.
#[test]
fn closing_waits_for_the_disk() {
    run(async |env, directory| {
        let store = SledStore::open(&env, directory.path(), Limits::default()).await.unwrap();
        for number in 0..50 {
            // Asked once, then dropped.
            let _ = store.commit(create(number)).now_or_never();
        }
        drop(store);
        let store = SledStore::open(&env, directory.path(), Limits::default()).await.unwrap();
        assert_eq!(keys(&store).await, 50);
        store.close().await;
    });
}
