//! What a store takes on the disk after much was written over.

use std::time::Duration;

use bytes::Bytes;
use libtest_mimic::Failed;
use orchestrator_core::{
    env::Env,
    store::{Batch, Key, KeyRange, ListOptions, Operation, Revision, Store},
};

use super::on_threads;
use crate::{DiskStore, Engine, Limits};

const KEYS: u64 = 2000;
const VALUE_BYTES: usize = 2000;
/// How often each key is written.
const ROUNDS: u64 = 5;
/// Keys of a store that becomes a small one.
const LARGE_KEYS: u64 = 25_000;
/// How long an engine may take that gives space back on its own, in seconds.
const PATIENCE: u32 = 20;

/// The size of the files, once they are smaller than this or the time is over.
async fn waited_for<E: Engine>(env: &Env, store: &DiskStore<E>, bytes: u64) -> u64 {
    for _ in 0..PATIENCE * 10 {
        let size_bytes = store.status().await.unwrap().size_bytes;
        if size_bytes < bytes {
            return size_bytes;
        }
        env.sleep(Duration::from_millis(100)).await;
    }
    store.status().await.unwrap().size_bytes
}

/// After each key was written again and again, and history is gone, the files are at most twice as large as what is left.
pub(super) fn churn<E: Engine>() -> Result<(), Failed> {
    on_threads(async |env, directory| {
        let limits = Limits { history_commits: 10, ..Limits::default() };
        let store = DiskStore::<E>::open(&env, directory.path(), limits).await.unwrap();
        let mut revision = Revision(0);
        for round in 0..ROUNDS {
            for first in (0..KEYS).step_by(100) {
                // Not in the order of the keys, and never the same neighbours.
                let put = |number: u64| Operation::Put {
                    key: Key::new(format!("/{}", number * (7 + 2 * round) % KEYS)),
                    value: Bytes::from(vec![(number + round) as u8; VALUE_BYTES]),
                    time_to_live: None,
                };
                let operations = (first..first + 100).map(put).collect();
                revision = store.commit(Batch { preconditions: Vec::new(), operations }).await.unwrap();
            }
        }
        store.compact(revision).await.unwrap();
        let live_bytes = store.status().await.unwrap().keys * VALUE_BYTES as u64;
        let size_bytes = waited_for(&env, &store, 2 * live_bytes).await;
        assert!(size_bytes <= 2 * live_bytes, "{size_bytes} bytes on disk for {live_bytes}");
        store.close().await;
    });
    Ok(())
}

/// After a large store has become a small one, and history is gone, its files are small as well.
pub(super) fn removed<E: Engine>() -> Result<(), Failed> {
    on_threads(async |env, directory| {
        let limits = Limits { history_commits: 10, ..Limits::default() };
        let store = DiskStore::<E>::open(&env, directory.path(), limits).await.unwrap();
        let commit = async |operations| store.commit(Batch { preconditions: Vec::new(), operations }).await.unwrap();
        let key = |number: u64| Key::new(format!("/{number}"));
        for first in (0..LARGE_KEYS).step_by(500) {
            let value = Bytes::from(vec![first as u8; VALUE_BYTES]);
            let put = |number| Operation::Put { key: key(number), value: value.clone(), time_to_live: None };
            commit((first..first + 500).map(put).collect()).await;
        }
        let large = store.status().await.unwrap().size_bytes;
        for first in (0..LARGE_KEYS).step_by(500) {
            // Some stay, everywhere.
            commit((first + 10..first + 500).map(|number| Operation::Delete { key: key(number) }).collect()).await;
        }
        let revision = store.status().await.unwrap().revision;
        store.compact(revision).await.unwrap();
        let small = waited_for(&env, &store, large / 5).await;
        assert!(small < large / 5, "{small} bytes of {large}");
        let left = store.list(&KeyRange::prefix("/"), ListOptions::default()).await.unwrap().entries;
        assert!(left.len() as u64 == LARGE_KEYS / 50 && left.iter().all(|entry| entry.value.len() == VALUE_BYTES));
        store.close().await;
    });
    Ok(())
}
