//! The same calls give the same answers and the same events in memory and on disk, also when the disk is opened anew in between.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use libtest_mimic::Failed;
use orchestrator_core::{
    env::{Env, Simulation},
    store::{
        Batch, Key, KeyRange, ListOptions, Operation, Precondition, Revision, Store, StoreError, WatchItem,
        WatchOptions, WatchStream,
    },
};
use proptest::{collection::vec, prelude::*, sample::select, test_runner::TestRunner};

use super::Reference;
use crate::{DiskStore, Engine, Limits};

const KEYS: [&str; 7] = ["/a", "/a/1", "/a/2", "/a0", "/b/1", "/b/ü", "/c"];
const RANGES: [&str; 5] = ["", "/", "/a", "/a/", "/b/"];
const HISTORY_COMMITS: usize = 12;
/// More than one commit makes history of: memory would forget it at once, the disk with the next one.
const HISTORY_BYTES: u64 = 70_000;

/// What is done. Revisions are given by their distance from the newest one.
#[derive(Clone, Debug)]
enum Step {
    Commit { preconditions: Vec<(&'static str, Expected)>, operations: Vec<(&'static str, Change)> },
    Compact(i64),
    Get(&'static str),
    List { range: &'static str, revision: Option<i64>, limit: Option<usize>, after: Option<&'static str> },
    Watch { range: &'static str, after: Option<i64> },
    Wait(Duration),
    Reopen,
}

#[derive(Clone, Debug)]
enum Expected {
    Absent,
    /// As it is now.
    Present,
    /// As it was this long ago.
    Past(i64),
}

#[derive(Clone, Debug)]
enum Change {
    Put { bytes: usize, time_to_live: Option<Duration> },
    Delete,
}

fn change() -> impl Strategy<Value = Change> {
    let bytes = prop_oneof![4 => 0..200_usize, 1 => Just(6 << 10), 1 => Just(12 << 10), 1 => 5_000..20_000_usize];
    // Never at the moment of a look, when one may have expired a key and the other not yet.
    let mortal = (0..5_000_u64).prop_map(|time| Some(Duration::from_micros(time * 1000 + 500)));
    let time_to_live = prop_oneof![3 => Just(None), 1 => mortal];
    let put = (bytes, time_to_live).prop_map(|(bytes, time_to_live)| Change::Put { bytes, time_to_live });
    prop_oneof![3 => put, 1 => Just(Change::Delete)]
}

fn step() -> impl Strategy<Value = Step> {
    let expected = prop_oneof![1 => Just(Expected::Absent), 3 => Just(Expected::Present), 1 => (0..9_i64).prop_map(Expected::Past)];
    let commit = (vec((select(&KEYS), expected), 0..2), vec((select(&KEYS), change()), 0..4));
    let commit = commit.prop_map(|(preconditions, operations)| Step::Commit { preconditions, operations });
    let list = (
        select(&RANGES),
        any::<Option<bool>>(),
        0..20_i64,
        any::<Option<bool>>(),
        0..4_usize,
        any::<Option<bool>>(),
        select(&KEYS),
    );
    let list = list.prop_map(|(range, past, revision, limited, limit, paged, after)| Step::List {
        range,
        revision: past.map(|_| revision - 1),
        limit: limited.map(|_| limit),
        after: paged.map(|_| after),
    });
    let watch = (select(&RANGES), any::<Option<bool>>(), -2..14_i64);
    let watch = watch.prop_map(|(range, past, after)| Step::Watch { range, after: past.map(|_| after) });
    prop_oneof![
        10 => commit,
        1 => (-1..16_i64).prop_map(Step::Compact),
        2 => select(&KEYS).prop_map(Step::Get),
        5 => list,
        2 => watch,
        2 => (0..3_000_u64).prop_map(|time| Step::Wait(Duration::from_millis(time))),
        1 => Just(Step::Reopen),
    ]
}

/// The two stores, and watches that began in both.
struct Pair<E: Engine> {
    env: Env,
    directory: tempfile::TempDir,
    memory: Arc<dyn Store>,
    disk: Option<Arc<DiskStore<E>>>,
    watches: Vec<Watches>,
}

struct Watches {
    range: KeyRange,
    after: Revision,
    memory: WatchStream,
    disk: WatchStream,
}

fn limits() -> Limits {
    Limits { history_commits: HISTORY_COMMITS, history_bytes: HISTORY_BYTES, ..Limits::default() }
}

impl<E: Engine> Pair<E> {
    async fn new(env: &Env, reference: Reference) -> Self {
        let directory = super::memory();
        let disk = DiskStore::open(env, directory.path(), limits()).await.unwrap();
        let memory = reference(env, &limits());
        Self { env: env.clone(), directory, memory, disk: Some(Arc::new(disk)), watches: Vec::new() }
    }

    fn disk(&self) -> Arc<DiskStore<E>> {
        self.disk.clone().expect("it is open")
    }

    async fn back(&self, distance: i64) -> Revision {
        let newest = self.memory.status().await.unwrap().revision.0;
        Revision(newest.saturating_add_signed(-distance))
    }

    async fn step(&mut self, step: &Step) {
        match step {
            Step::Commit { preconditions, operations } => {
                let batch = self.batch(preconditions, operations).await;
                same(self.memory.commit(batch.clone()).await, self.disk().commit(batch).await);
            }
            Step::Compact(distance) => {
                let revision = self.back(*distance).await;
                same(self.memory.compact(revision).await, self.disk().compact(revision).await);
            }
            Step::Get(key) => {
                let key = Key::new(*key);
                same(self.memory.get(&key).await, self.disk().get(&key).await);
            }
            Step::List { range, revision, limit, after } => {
                let revision = match revision {
                    Some(distance) => Some(self.back(*distance).await),
                    None => None,
                };
                let options = ListOptions { revision, limit: *limit, after: after.map(Key::new) };
                let range = KeyRange::prefix(*range);
                same(self.memory.list(&range, options.clone()).await, self.disk().list(&range, options).await);
            }
            Step::Watch { range, after } => {
                let after = match after {
                    Some(distance) => Some(self.back(*distance).await),
                    None => None,
                };
                self.watch(KeyRange::prefix(*range), after).await;
            }
            Step::Wait(time) => self.env.sleep(*time).await,
            Step::Reopen => self.reopen().await,
        }
        // What expires in this moment does so.
        self.env.sleep(Duration::from_millis(1)).await;
        self.compare().await;
    }

    async fn batch(&self, preconditions: &[(&'static str, Expected)], operations: &[(&'static str, Change)]) -> Batch {
        let mut batch = Batch::default();
        for (key, expected) in preconditions {
            let key = Key::new(*key);
            let present = self.memory.get(&key).await.unwrap();
            batch.preconditions.push(match (expected, present) {
                (Expected::Past(distance), _) => Precondition::AtRevision { key, revision: self.back(*distance).await },
                (Expected::Present, Some(entry)) => Precondition::AtRevision { key, revision: entry.modified },
                _ => Precondition::Absent { key },
            });
        }
        for (key, change) in operations {
            let key = Key::new(*key);
            batch.operations.push(match change {
                Change::Put { bytes, time_to_live } => {
                    let value = Bytes::from(vec![*bytes as u8; *bytes]);
                    Operation::Put { key, value, time_to_live: *time_to_live }
                }
                Change::Delete => Operation::Delete { key },
            });
        }
        batch
    }

    async fn watch(&mut self, range: KeyRange, after: Option<Revision>) {
        let options = WatchOptions { after, bookmarks: false };
        let newest = self.back(0).await;
        match (self.memory.watch(range.clone(), options).await, self.disk().watch(range.clone(), options).await) {
            (Ok(memory), Ok(disk)) => {
                self.watches.push(Watches { range, after: after.unwrap_or(newest), memory, disk });
            }
            (memory, disk) => same(memory.map(drop), disk.map(drop)),
        }
    }

    /// Opens the disk anew; watches begin anew where they are.
    async fn reopen(&mut self) {
        let disk = self.disk.take().expect("it is open");
        disk.close().await;
        assert!(matches!(disk.get(&Key::new("/a")).await, Err(StoreError::Closed)));
        for watches in &mut self.watches {
            assert!(watches.disk.next().await.is_none(), "a watch ends with its store");
        }
        let disk = Arc::new(DiskStore::open(&self.env, self.directory.path(), limits()).await.unwrap());
        let newest = self.back(0).await;
        for watches in &mut self.watches {
            let options = WatchOptions { after: Some(watches.after.max(newest)), bookmarks: false };
            watches.disk = disk.watch(watches.range.clone(), options).await.unwrap();
            // A watch of a silent range does not know that it has missed nothing; one that begins anew does.
            watches.memory = self.memory.watch(watches.range.clone(), options).await.unwrap();
        }
        self.disk = Some(disk);
    }

    /// Both stand in the same place, and have told the same.
    async fn compare(&mut self) {
        let (memory, disk) = (self.memory.status().await.unwrap(), self.disk().status().await.unwrap());
        assert_eq!((memory.revision, memory.compacted, memory.keys), (disk.revision, disk.compacted, disk.keys));
        assert!(disk.size_bytes > 0);
        self.watches.retain_mut(|watches| {
            loop {
                let (memory, disk) = (next(&mut watches.memory), next(&mut watches.disk));
                match (memory, disk) {
                    (None, None) => return true,
                    (Some(Ok(memory)), Some(Ok(disk))) => assert_eq!(memory, disk),
                    (memory, disk) => {
                        assert_eq!(format!("{memory:?}"), format!("{disk:?}"));
                        return false;
                    }
                }
            }
        });
    }
}

/// What a watch has to say now.
fn next(watch: &mut WatchStream) -> Option<Result<WatchItem, StoreError>> {
    watch.next().now_or_never().map(|item| item.expect("a watch goes on"))
}

fn same<T: std::fmt::Debug>(memory: Result<T, StoreError>, disk: Result<T, StoreError>) {
    assert_eq!(format!("{memory:?}"), format!("{disk:?}"));
}

/// Any calls, in any order.
pub(super) fn agrees<E: Engine>(reference: Reference) -> Result<(), Failed> {
    let config = ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() };
    let calls = (any::<u64>(), vec(step(), 1..80));
    TestRunner::new(config).run(&calls, |(seed, steps)| {
        let simulation = Simulation::new(seed);
        let env = simulation.env();
        let compared = simulation.run(async {
            let mut pair = Pair::<E>::new(&env, reference).await;
            for step in &steps {
                pair.step(step).await;
            }
            pair.step(&Step::Reopen).await;
        });
        compared.map_err(|error| TestCaseError::fail(error.to_string()))
    })?;
    Ok(())
}
