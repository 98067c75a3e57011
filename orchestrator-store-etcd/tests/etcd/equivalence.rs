//! The same calls give the same answers and the same events in memory and on etcd, also when the store connects anew in between.

use std::sync::Arc;

use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use orchestrator_core::{
    env::Env,
    store::{
        Batch, Key, KeyRange, ListOptions, Operation, Precondition, Revision, Store, StoreError, WatchOptions,
        WatchStream,
    },
};
use orchestrator_store_etcd::{EtcdStore, Limits};
use orchestrator_store_mem::MemStore;
use proptest::{collection::vec, prelude::*, sample::select};

use crate::support::{PATIENCE, config, etcd::Cluster};

const KEYS: [&str; 7] = ["/a", "/a/1", "/a/2", "/a0", "/b/1", "/b/ü", "/c"];
const RANGES: [&str; 5] = ["", "/", "/a", "/a/", "/b/"];

/// What is done. Revisions are given by their distance from the newest one.
#[derive(Clone, Debug)]
enum Step {
    Commit { preconditions: Vec<(&'static str, Expected)>, operations: Vec<(&'static str, Option<usize>)> },
    Compact(i64),
    Get(&'static str),
    List { range: &'static str, revision: Option<i64>, limit: Option<usize>, after: Option<&'static str> },
    Watch { range: &'static str, after: Option<i64> },
    Reconnect,
}

#[derive(Clone, Debug)]
enum Expected {
    Absent,
    /// As it is now.
    Present,
    /// As it was this long ago.
    Past(i64),
}

fn step() -> impl Strategy<Value = Step> {
    let expected = prop_oneof![1 => Just(Expected::Absent), 3 => Just(Expected::Present), 1 => (0..9_i64).prop_map(Expected::Past)];
    let change = prop_oneof![3 => (0..200_usize).prop_map(Some), 1 => Just(Some(100_000)), 2 => Just(None)];
    let commit = (vec((select(&KEYS), expected), 0..3), vec((select(&KEYS), change), 0..4));
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
        12 => commit,
        1 => (-1..16_i64).prop_map(Step::Compact),
        2 => select(&KEYS).prop_map(Step::Get),
        5 => list,
        2 => watch,
        1 => Just(Step::Reconnect),
    ]
}

/// The two stores, and watches that began in both.
struct Pair {
    env: Env,
    cluster: Cluster,
    memory: Arc<dyn Store>,
    etcd: EtcdStore,
    watches: Vec<Watches>,
}

struct Watches {
    range: KeyRange,
    after: Revision,
    memory: WatchStream,
    etcd: WatchStream,
}

impl Pair {
    async fn new(env: &Env) -> Self {
        let cluster = Cluster::single();
        let etcd = connect(env, &cluster).await;
        Self { env: env.clone(), cluster, memory: Arc::new(MemStore::new(env)), etcd, watches: Vec::new() }
    }

    async fn back(&self, distance: i64) -> Revision {
        let newest = self.memory.status().await.unwrap().revision.0;
        Revision(newest.saturating_add_signed(-distance))
    }

    async fn step(&mut self, step: &Step) {
        match step {
            Step::Commit { preconditions, operations } => {
                let batch = self.batch(preconditions, operations).await;
                same(self.memory.commit(batch.clone()).await, self.etcd.commit(batch).await);
            }
            Step::Compact(distance) => {
                self.catch_up().await;
                let revision = self.back(*distance).await;
                same(self.memory.compact(revision).await, self.etcd.compact(revision).await);
            }
            Step::Get(key) => {
                let key = Key::new(*key);
                same(self.memory.get(&key).await, self.etcd.get(&key).await);
            }
            Step::List { range, revision, limit, after } => {
                let revision = match revision {
                    Some(distance) => Some(self.back(*distance).await),
                    None => None,
                };
                let options = ListOptions { revision, limit: *limit, after: after.map(Key::new) };
                let range = KeyRange::prefix(*range);
                same(self.memory.list(&range, options.clone()).await, self.etcd.list(&range, options).await);
            }
            Step::Watch { range, after } => {
                let after = match after {
                    Some(distance) => Some(self.back(*distance).await),
                    None => None,
                };
                self.watch(KeyRange::prefix(*range), after).await;
            }
            Step::Reconnect => self.reconnect().await,
        }
        self.compare().await;
    }

    async fn batch(
        &self,
        preconditions: &[(&'static str, Expected)],
        operations: &[(&'static str, Option<usize>)],
    ) -> Batch {
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
                Some(bytes) => {
                    Operation::Put { key, value: Bytes::from(vec![*bytes as u8; *bytes]), time_to_live: None }
                }
                None => Operation::Delete { key },
            });
        }
        batch
    }

    async fn watch(&mut self, range: KeyRange, after: Option<Revision>) {
        let options = WatchOptions { after, bookmarks: false };
        let newest = self.back(0).await;
        match (self.memory.watch(range.clone(), options).await, self.etcd.watch(range.clone(), options).await) {
            (Ok(memory), Ok(etcd)) => {
                self.watches.push(Watches { range, after: after.unwrap_or(newest), memory, etcd });
            }
            (memory, etcd) => same(memory.map(drop), etcd.map(drop)),
        }
    }

    /// Watches in memory begin anew where they are. One that had nothing to tell stands where it began, where compaction may pass
    /// it by; etcd's goes on with the server.
    async fn catch_up(&mut self) {
        let newest = self.back(0).await;
        for watches in &mut self.watches {
            let options = WatchOptions { after: Some(watches.after.max(newest)), bookmarks: false };
            watches.memory = self.memory.watch(watches.range.clone(), options).await.unwrap();
        }
    }

    /// Connects anew; watches begin anew where they are.
    async fn reconnect(&mut self) {
        self.etcd.close();
        assert!(matches!(self.etcd.get(&Key::new("/a")).await, Err(StoreError::Closed)));
        for watches in &mut self.watches {
            assert!(watches.etcd.next().await.is_none(), "a watch ends with its store");
        }
        self.etcd = connect(&self.env, &self.cluster).await;
        let newest = self.back(0).await;
        for watches in &mut self.watches {
            let options = WatchOptions { after: Some(watches.after.max(newest)), bookmarks: false };
            watches.etcd = self.etcd.watch(watches.range.clone(), options).await.unwrap();
        }
        self.catch_up().await;
    }

    /// Both stand in the same place, and have told the same.
    async fn compare(&mut self) {
        let (memory, etcd) = (self.memory.status().await.unwrap(), self.etcd.status().await.unwrap());
        assert_eq!((memory.revision, memory.compacted, memory.keys), (etcd.revision, etcd.compacted, etcd.keys));
        assert!(etcd.size_bytes > 0);
        for watches in &mut self.watches {
            while let Some(item) = watches.memory.next().now_or_never() {
                let told = self.env.timeout(PATIENCE, watches.etcd.next()).await.expect("etcd tells, too");
                assert_eq!(format!("{item:?}"), format!("{told:?}"));
            }
        }
    }

    /// What both tell last is the same, and nothing else came before it.
    async fn finish(mut self) {
        // Watches from the future begin, too.
        for round in 0..4 {
            let batch = KEYS.map(|key| Operation::Put {
                key: Key::new(key),
                value: Bytes::from(format!("last {round}")),
                time_to_live: None,
            });
            self.commit_in_both(batch.to_vec()).await;
            self.compare().await;
        }
        for watches in &mut self.watches {
            assert!(watches.etcd.next().now_or_never().is_none(), "etcd has told more");
        }
    }

    async fn commit_in_both(&self, operations: Vec<Operation>) {
        let batch = Batch { preconditions: Vec::new(), operations };
        same(self.memory.commit(batch.clone()).await, self.etcd.commit(batch).await);
    }
}

async fn connect(env: &Env, cluster: &Cluster) -> EtcdStore {
    EtcdStore::connect(env, config(cluster, Limits::default())).await.unwrap()
}

fn same<T: std::fmt::Debug>(memory: Result<T, StoreError>, etcd: Result<T, StoreError>) {
    assert_eq!(format!("{memory:?}"), format!("{etcd:?}"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_and_etcd_agree(steps in vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut pair = Pair::new(&Env::real()).await;
            for step in &steps {
                pair.step(step).await;
            }
            pair.step(&Step::Reconnect).await;
            pair.finish().await;
        });
    }
}
