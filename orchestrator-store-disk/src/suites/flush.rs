//! A flush that fails, and what is shown of a commit that is not on the disk yet.

use std::{
    io,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::{on_threads as run, trial};
use crate::{DiskError, DiskStore, Engine, Flush, Limits};
use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::join_all};
use libtest_mimic::Trial;
use orchestrator_core::store::{Batch, Key, KeyRange, ListOptions, Revision, Store, StoreError, WatchOptions};

pub(super) fn trials<E: Engine>() -> Vec<Trial> {
    vec![
        trial("a_failed_flush_ends_writing_for_good", failed::<E>),
        trial("nothing_is_shown_before_it_is_on_the_disk_and_who_waits_shares_a_flush", shared::<E>),
        trial("closing_waits_for_the_disk", closing::<E>),
    ]
}

fn create(number: u32) -> Batch {
    Batch::create(Key::new(format!("/{number}")), Bytes::from(number.to_string()))
}

async fn keys<E: Engine>(store: &DiskStore<E>) -> usize {
    store.list(&KeyRange::prefix("/"), ListOptions::default()).await.unwrap().entries.len()
}

fn cause(result: Result<Revision, StoreError>) -> DiskError {
    match result {
        Err(StoreError::Unavailable { source, .. }) => source.downcast_ref::<DiskError>().unwrap().clone(),
        other => panic!("{other:?}"),
    }
}

fn failed<E: Engine>() {
    run(async |env, directory| {
        let fails = Arc::new(AtomicBool::new(false));
        let failing = fails.clone();
        let flush: Flush = Arc::new(move |file: &std::fs::File| match failing.swap(false, Ordering::SeqCst) {
            true => Err(io::Error::other("on purpose")),
            false => file.sync_data(),
        });
        let store = DiskStore::<E>::open_with(&env, directory.path(), Limits::default(), flush).await.unwrap();
        let first = store.commit(create(1)).await.unwrap();
        let mut changes = store.watch(KeyRange::prefix("/"), WatchOptions::default()).await.unwrap();

        fails.store(true, Ordering::SeqCst);
        let told = cause(store.commit(create(2)).await);
        assert!(matches!(&told, DiskError::Io { source, .. } if source.to_string() == "on purpose"), "{told:?}");
        // The next flush would succeed, and say nothing about what the failed one has lost.
        for batch in [create(2), create(3)] {
            assert!(matches!(cause(store.commit(batch).await), DiskError::Ended(_)));
        }
        assert!(store.compact(first).await.is_err());
        assert_eq!(store.get(&Key::new("/2")).await.unwrap(), None, "what was not acknowledged is not shown");
        assert_eq!((keys(&store).await, store.status().await.unwrap().revision), (1, first));
        assert!(changes.next().now_or_never().is_none(), "nor told");
        drop(store);

        let store = DiskStore::<E>::open(&env, directory.path(), Limits::default()).await.unwrap();
        assert!(store.get(&Key::new("/1")).await.unwrap().is_some());
        assert_eq!(keys(&store).await as u64, store.status().await.unwrap().revision.0 - 1, "all of it or nothing");
    });
}

/// A disk that can be held up, and counts its flushes.
#[derive(Default)]
struct Gate {
    held: Mutex<bool>,
    opens: Condvar,
    flushes: AtomicUsize,
}

impl Gate {
    fn flush(self: &Arc<Self>) -> Flush {
        let gate = self.clone();
        Arc::new(move |file| {
            gate.flushes.fetch_add(1, Ordering::SeqCst);
            drop(gate.opens.wait_while(gate.held.lock().unwrap(), |held| *held).unwrap());
            file.sync_data()
        })
    }

    fn hold(&self, held: bool) {
        *self.held.lock().unwrap() = held;
        self.opens.notify_all();
    }

    fn flushes(&self) -> usize {
        self.flushes.load(Ordering::SeqCst)
    }
}

fn shared<E: Engine>() {
    run(async |env, directory| {
        let gate = Arc::new(Gate::default());
        let store = DiskStore::<E>::open_with(&env, directory.path(), Limits::default(), gate.flush()).await.unwrap();
        let store = Arc::new(store);
        // So much that an engine has no need to make its file larger, which may take a flush more.
        let begin = store.commit(Batch::create(Key::new("first"), Bytes::from(vec![1; 1 << 20]))).await.unwrap().0;
        let mut changes = store.watch(KeyRange::prefix("/"), WatchOptions::default()).await.unwrap();
        let commit = |number| {
            let store = store.clone();
            async move { store.commit(create(number)).await }
        };

        let before = gate.flushes();
        gate.hold(true);
        let mut first = Box::pin(commit(0));
        assert!((&mut first).now_or_never().is_none());
        while gate.flushes() == before {
            env.sleep(Duration::from_millis(1)).await;
        }
        // The first one is on its way to the disk.
        assert_eq!((store.get(&Key::new("/0")).await.unwrap(), keys(&store).await), (None, 0));
        assert!(changes.next().now_or_never().is_none());
        let mut others: Vec<_> = (1..=100).map(|number| Box::pin(commit(number))).collect();
        for other in &mut others {
            assert!(other.now_or_never().is_none());
        }
        assert_eq!(gate.flushes(), before + 1);
        gate.hold(false);
        assert_eq!(first.await.unwrap(), Revision(begin + 1));
        let revisions = join_all(others).await.into_iter().map(|revision| revision.unwrap().0);
        assert_eq!(revisions.collect::<Vec<_>>(), (begin + 2..begin + 102).collect::<Vec<_>>(), "in their order");
        // An engine may need more than one for a group.
        assert!(gate.flushes() - before <= 8, "{} flushes for two groups", gate.flushes() - before);
        assert_eq!(keys(&store).await, 101);
    });
}

/// Callers that are gone do not matter, and closing waits for what is being written.
fn closing<E: Engine>() {
    run(async |env, directory| {
        let store = DiskStore::<E>::open(&env, directory.path(), Limits::default()).await.unwrap();
        for number in 0..50 {
            // Asked once, then dropped.
            let _ = store.commit(create(number)).now_or_never();
        }
        drop(store);
        let store = DiskStore::<E>::open(&env, directory.path(), Limits::default()).await.unwrap();
        assert_eq!(keys(&store).await, 50);
        store.close().await;
    });
}
