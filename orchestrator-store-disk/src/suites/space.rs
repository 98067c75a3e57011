//! What a store takes on the disk after much was written over.

use bytes::Bytes;
use libtest_mimic::Failed;
use orchestrator_core::store::{Batch, Key, Operation, Revision, Store};

use super::on_threads;
use crate::{DiskStore, Engine, Limits};

const KEYS: u64 = 2000;
const VALUE_BYTES: usize = 2000;
/// How often each key is written.
const ROUNDS: u64 = 5;
/// How long an engine may take that gives space back on its own, in seconds.
const PATIENCE: u32 = 20;

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
        let mut size_bytes = u64::MAX;
        for _ in 0..PATIENCE * 10 {
            size_bytes = store.status().await.unwrap().size_bytes;
            if size_bytes <= 2 * live_bytes {
                break;
            }
            env.sleep(std::time::Duration::from_millis(100)).await;
        }
        assert!(size_bytes <= 2 * live_bytes, "{size_bytes} bytes on disk for {live_bytes}");
        store.close().await;
    });
    Ok(())
}
