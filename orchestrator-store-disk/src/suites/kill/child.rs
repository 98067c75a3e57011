//! The process that is killed: writers that say what was acknowledged.

use std::{io::Write, path::Path, sync::Arc};

use bytes::Bytes;
use futures::future::join_all;
use orchestrator_core::{
    env::Env,
    store::{Batch, Key, Operation, Precondition, Store},
};

use crate::{DiskStore, Engine};

/// The argument that makes this program the writer.
pub(super) const ROLE: &str = "write-until-killed";
pub(super) const WRITERS: u64 = 8;
/// Keys of each writer that come and go.
const OTHERS: u64 = 40;

/// The two keys that a writer counts in, always in one commit.
pub(super) fn counters(writer: u64) -> [Key; 2] {
    ["a", "b"].map(|name| Key::new(format!("/{name}/{writer}")))
}

/// Writes and says so, a line for each commit, for ever.
pub(super) fn write<E: Engine>(directory: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let env = Env::real();
        let store = Arc::new(DiskStore::<E>::open(&env, directory, super::LIMITS).await.unwrap());
        say(format_args!("opened"));
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (store, writing) = (store.clone(), env.clone());
                env.spawn("writer", async move { count(&store, &writing, writer).await })
            })
            .collect();
        join_all(writers.iter().map(|writer| writer.join())).await;
    });
}

/// One line at once, so that lines of several threads do not mix.
fn say(line: std::fmt::Arguments<'_>) {
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).unwrap();
}

async fn count<E: Engine>(store: &DiskStore<E>, env: &Env, writer: u64) {
    let keys = counters(writer);
    loop {
        let current = store.get(&keys[0]).await.unwrap();
        let number = current.as_ref().map_or(0, |entry| number(&entry.value)) + 1;
        let expected = |key: &Key| match &current {
            None => Precondition::Absent { key: key.clone() },
            Some(entry) => Precondition::AtRevision { key: key.clone(), revision: entry.modified },
        };
        let mut operations: Vec<_> = keys.iter().map(|key| put(key.clone(), value(env, number))).collect();
        let other = Key::new(format!("/other/{writer}/{}", env.random_below(OTHERS)));
        operations.push(match env.random_below(3) {
            0 => Operation::Delete { key: other },
            _ => put(other, value(env, number)),
        });
        let batch = Batch { preconditions: keys.iter().map(expected).collect(), operations };
        let revision = store.commit(batch).await.unwrap();
        say(format_args!("{writer} {number} {revision}"));
        if env.random_below(100) == 0 {
            let compacted = store.compact(revision).await;
            assert!(matches!(compacted, Ok(()) | Err(orchestrator_core::store::StoreError::Compacted { .. })));
        }
    }
}

fn put(key: Key, value: Bytes) -> Operation {
    Operation::Put { key, value, time_to_live: None }
}

/// A number with a tail of any length that follows from it.
fn value(env: &Env, number: u64) -> Bytes {
    let tail = env.random_below(if env.random_below(10) == 0 { 20_000 } else { 600 }) as usize;
    let mut value = number.to_be_bytes().to_vec();
    value.resize(8 + tail, number as u8);
    value.into()
}

/// The number in a value, whose tail has to be the one that was written.
pub(super) fn number(value: &[u8]) -> u64 {
    let (number, tail) = value.split_first_chunk::<8>().expect("a number");
    let number = u64::from_be_bytes(*number);
    assert!(tail.iter().all(|byte| *byte == number as u8), "the tail of another value");
    number
}
