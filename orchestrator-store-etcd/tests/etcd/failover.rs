//! Members die, hang and run full: what was acknowledged is there, no watch has a gap, and nothing is claimed that nobody knows.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use etcd_client::{AlarmAction, AlarmOptions, AlarmType, Client, CompactionOptions};
use futures::StreamExt;
use orchestrator_core::{
    env::{Env, TaskEnd, TaskHandle, Watched, Watcher},
    store::{
        Batch, Key, KeyRange, ListOptions, Operation, Revision, Store, StoreError, WatchItem, WatchOptions, WatchStream,
    },
};
use orchestrator_store_etcd::{EtcdError, EtcdStore, Limits};

use crate::support::{
    PATIENCE, cause, config,
    etcd::{Cluster, Options},
    run,
};

/// Writers at once.
const WRITERS: usize = 4;
/// Commits that each writer has acknowledged before and after something happens to the cluster.
const COMMITS: usize = 60;

/// Short waits, so that a member that hangs is left soon.
fn limits() -> Limits {
    Limits {
        answer_time: Duration::from_secs(2),
        call_time: Duration::from_secs(30),
        keep_alive_interval: Duration::from_secs(5),
        keep_alive_time: Duration::from_secs(1),
        ..Limits::default()
    }
}

async fn connect(env: &Env, cluster: &Cluster) -> Arc<EtcdStore> {
    Arc::new(EtcdStore::connect(env, config(cluster, limits())).await.unwrap())
}

fn put(key: String, value: &str) -> Batch {
    let operation =
        Operation::Put { key: Key::new(key), value: Bytes::copy_from_slice(value.as_bytes()), time_to_live: None };
    Batch { preconditions: Vec::new(), operations: vec![operation] }
}

/// The member that leads.
async fn leader(cluster: &Cluster) -> usize {
    for (index, member) in cluster.members.iter().enumerate() {
        let mut client = Client::connect([member.url()], None).await.unwrap();
        let status = client.status().await.unwrap();
        if status.header().map(|header| header.member_id()) == Some(status.leader()) {
            return index;
        }
    }
    panic!("nobody leads")
}

/// Writers that count up a key each, by compare-and-swap, until they are told to stop. A commit whose fate is unknown is looked up.
struct Writers {
    stop: Arc<AtomicBool>,
    tasks: Vec<TaskHandle>,
    /// Commits that each of them knows of.
    done: Vec<Watcher<usize>>,
}

impl Writers {
    fn start(env: &Env, store: &Arc<EtcdStore>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (mut tasks, mut done) = (Vec::new(), Vec::new());
        for writer in 0..WRITERS {
            let count = Watched::new(0);
            done.push(count.watcher());
            let (store, stop) = (store.clone(), stop.clone());
            tasks.push(env.spawn("writer", async move {
                let key = Key::new(format!("/count/{writer}"));
                while !stop.load(Ordering::Relaxed) {
                    let number = increment(&store, &key).await;
                    count.set(number);
                }
            }));
        }
        Self { stop, tasks, done }
    }

    /// Waits until each has done some more.
    async fn progress(&self, env: &Env) {
        for done in &self.done {
            let aim = done.get() + COMMITS;
            let reached = env.timeout(PATIENCE, done.wait_for(|count| *count >= aim)).await;
            reached.expect("writers go on").expect("writers have not failed");
        }
    }

    /// Ends them. How far each came.
    async fn finish(self) -> Vec<usize> {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            assert_eq!(task.join().await, TaskEnd::Completed);
        }
        self.done.iter().map(Watcher::get).collect()
    }
}

/// Adds one to the number under a key that nobody else writes, whatever happens meanwhile. What it came to.
async fn increment(store: &EtcdStore, key: &Key) -> usize {
    let entry = loop {
        if let Some(entry) = known(store.get(key).await) {
            break entry;
        }
    };
    let number = entry.as_ref().map_or(0, |entry| count(&entry.value)) + 1;
    let value = Bytes::from(number.to_string());
    let batch = match &entry {
        None => Batch::create(key.clone(), value),
        Some(entry) => Batch::replace(key.clone(), entry.modified, value),
    };
    let mut may_have_happened = false;
    loop {
        match store.commit(batch.clone()).await {
            Ok(_) => return number,
            // It may still happen. Only another commit at the same revision decides it.
            Err(StoreError::Unavailable { .. }) => may_have_happened = true,
            Err(StoreError::Conflict { current: Some(current), .. }) if may_have_happened => {
                assert_eq!(count(&current.value), number, "a commit that happened shows, once");
                return number;
            }
            Err(other) => panic!("nobody else writes {key}: {other}"),
        }
    }
}

/// What was answered; `None` when that is not known.
fn known<T>(answer: Result<T, StoreError>) -> Option<T> {
    match answer {
        Ok(answer) => Some(answer),
        Err(StoreError::Unavailable { .. }) => None,
        Err(other) => panic!("{other}"),
    }
}

/// Calls until there is an answer.
async fn patiently<T>(env: &Env, call: impl AsyncFn() -> Result<T, StoreError>) -> T {
    let answered = async {
        loop {
            if let Some(answer) = known(call().await) {
                return answer;
            }
        }
    };
    env.timeout(PATIENCE, answered).await.expect("there is an answer")
}

fn count(value: &Bytes) -> usize {
    std::str::from_utf8(value).unwrap().parse().unwrap()
}

/// Follows a watch and holds it to its promises: in order, each change on top of the one before it.
struct Follower {
    watch: WatchStream,
    seen: Revision,
    counts: BTreeMap<String, usize>,
}

impl Follower {
    async fn new(store: &dyn Store) -> Self {
        let seen = store.status().await.unwrap().revision;
        let options = WatchOptions { after: Some(seen), bookmarks: true };
        let watch = store.watch(KeyRange::prefix("/count/"), options).await.unwrap();
        Self { watch, seen, counts: BTreeMap::new() }
    }

    /// Reads up to these counts.
    async fn read_to(&mut self, env: &Env, aim: &[usize]) {
        while self.counts.values().copied().collect::<Vec<_>>() != aim {
            let item = env.timeout(PATIENCE, self.watch.next()).await.expect("the watch goes on");
            match item.expect("the store is open").unwrap() {
                WatchItem::Bookmark(revision) => {
                    assert!(revision >= self.seen);
                    self.seen = revision;
                }
                WatchItem::Changes { revision, changes } => {
                    assert!(revision > self.seen, "{revision} came after {}", self.seen);
                    self.seen = revision;
                    for change in changes.iter() {
                        let now = change.entry.as_ref().map_or(0, |entry| count(&entry.value));
                        let before = change.previous.as_ref().map_or(0, |entry| count(&entry.value));
                        let known = self.counts.insert(change.key.to_string(), now).unwrap_or(0);
                        assert_eq!((known, now), (before, before + 1), "a gap before {revision} in {}", change.key);
                    }
                }
            }
        }
    }
}

/// What is in the store is what was counted.
async fn holds(env: &Env, store: &dyn Store, counted: &[usize]) {
    let listing = patiently(env, async || store.list(&KeyRange::prefix("/count/"), ListOptions::default()).await).await;
    let held: Vec<usize> = listing.entries.iter().map(|entry| count(&entry.value)).collect();
    assert_eq!(held, counted);
}

#[test]
fn the_leader_dies_and_comes_back() {
    run(|env| async move {
        let mut cluster = Cluster::start(3, &Options::default());
        let store = connect(&env, &cluster).await;
        let mut followers = Vec::new();
        for _ in 0..3 {
            followers.push(Follower::new(&*store).await);
        }
        let writers = Writers::start(&env, &store);
        writers.progress(&env).await;
        for _ in 0..2 {
            let leader = leader(&cluster).await;
            cluster.members[leader].kill();
            writers.progress(&env).await;
            cluster.members[leader].restart();
            writers.progress(&env).await;
        }
        let counted = writers.finish().await;
        holds(&env, &*store, &counted).await;
        for follower in &mut followers {
            follower.read_to(&env, &counted).await;
        }
        // From any member.
        for member in 0..3 {
            let mut config = config(&cluster, limits());
            config.endpoints = vec![cluster.members[member].url()];
            holds(&env, &EtcdStore::connect(&env, config).await.unwrap(), &counted).await;
        }
    });
}

#[test]
fn a_member_hangs_and_goes_on() {
    run(|env| async move {
        let cluster = Cluster::start(3, &Options::default());
        let stores = [connect(&env, &cluster).await, connect(&env, &cluster).await, connect(&env, &cluster).await];
        let mut followers = Vec::new();
        for store in &stores {
            followers.push(Follower::new(&**store).await);
        }
        let writers = Writers::start(&env, &stores[0]);
        writers.progress(&env).await;
        for member in &cluster.members {
            member.pause();
            writers.progress(&env).await;
            member.resume();
            writers.progress(&env).await;
        }
        let counted = writers.finish().await;
        for (store, follower) in stores.iter().zip(&mut followers) {
            holds(&env, &**store, &counted).await;
            follower.read_to(&env, &counted).await;
        }
    });
}

#[test]
fn without_a_majority_nothing_is_claimed() {
    run(|env| async move {
        let mut cluster = Cluster::start(3, &Options::default());
        let limits = Limits { call_time: Duration::from_secs(1), answer_time: Duration::from_secs(1), ..limits() };
        let store = EtcdStore::connect(&env, config(&cluster, limits)).await.unwrap();
        let mut watch = store.watch(KeyRange::prefix("/"), WatchOptions::default()).await.unwrap();
        let first = store.commit(put("/a".to_owned(), "1")).await.unwrap();
        cluster.members[0].kill();
        cluster.members[1].kill();
        let written = store.commit(put("/a".to_owned(), "2")).await;
        assert!(matches!(written, Err(StoreError::Unavailable { .. })), "{written:?}");
        let read = store.get(&Key::new("/a")).await;
        assert!(matches!(read, Err(StoreError::Unavailable { .. })), "a stale answer is none: {read:?}");
        cluster.members[0].begin_restart();
        cluster.members[1].restart();
        let entry = patiently(&env, async || store.get(&Key::new("/a")).await).await.unwrap();
        // What nobody knew is known now, and the watch tells the same.
        let expected = if &entry.value[..] == b"2" { vec![first, entry.modified] } else { vec![first] };
        let last = patiently(&env, async || store.commit(put("/a".to_owned(), "3")).await).await;
        let mut told = Vec::new();
        told_to(&env, &mut watch, &mut told, last).await;
        // A commit may also have happened between the read and the last one.
        assert!(told.starts_with(&expected) && told.is_sorted(), "{told:?} after {expected:?}");
    });
}

/// Reads a watch up to a revision.
async fn told_to(env: &Env, watch: &mut WatchStream, told: &mut Vec<Revision>, last: Revision) {
    while told.last() != Some(&last) {
        match env.timeout(PATIENCE, watch.next()).await.expect("the watch goes on").unwrap().unwrap() {
            WatchItem::Changes { revision, .. } => told.push(revision),
            WatchItem::Bookmark(_) => {}
        }
    }
}

#[test]
fn a_full_etcd_says_so_and_recovers() {
    const QUOTA_BYTES: usize = 8 << 20;
    run(|env| async move {
        let arguments = vec!["--quota-backend-bytes".to_owned(), QUOTA_BYTES.to_string()];
        let cluster = Cluster::start(1, &Options { arguments, tls: false });
        let store = connect(&env, &cluster).await;
        let mut watch = store.watch(KeyRange::prefix("/"), WatchOptions::default()).await.unwrap();
        let value = "x".repeat(256 << 10);
        let mut acknowledged = Vec::new();
        let full = loop {
            match store.commit(put("/a".to_owned(), &value)).await {
                Ok(revision) => acknowledged.push(revision),
                Err(error) => break error,
            }
            // It looks at its size only now and then.
            assert!(acknowledged.len() < 20 * QUOTA_BYTES / value.len(), "it is full at some time");
        };
        assert!(matches!(cause(&full), EtcdError::NoSpace { .. }), "{full:?}");
        let again = store.commit(put("/b".to_owned(), "1")).await.unwrap_err();
        assert!(matches!(cause(&again), EtcdError::NoSpace { .. }), "{again:?}");
        let entry = store.get(&Key::new("/a")).await.unwrap().expect("reads go on");
        assert!(entry.modified >= *acknowledged.last().unwrap());

        let mut told = Vec::new();
        told_to(&env, &mut watch, &mut told, *acknowledged.last().unwrap()).await;
        assert!(acknowledged.iter().all(|revision| told.contains(revision)), "{told:?} of {acknowledged:?}");

        let newest = store.status().await.unwrap().revision;
        let mut client = Client::connect(cluster.urls(), None).await.unwrap();
        // It answers when the space is free.
        client.compact(newest.0 as i64, Some(CompactionOptions::new().with_physical())).await.unwrap();
        store.compact(newest).await.expect("what was compacted is");
        client.defragment().await.unwrap();
        let alarms = client.alarm(AlarmAction::Get, AlarmType::None, None).await.unwrap();
        for raised in alarms.alarms() {
            let mut options = AlarmOptions::new();
            options.with_member(raised.member_id());
            client.alarm(AlarmAction::Deactivate, raised.alarm(), Some(options)).await.unwrap();
        }
        let after = patiently(&env, async || store.commit(put("/b".to_owned(), "2")).await).await;
        assert_eq!(store.get(&Key::new("/b")).await.unwrap().unwrap().modified, after);
        told_to(&env, &mut watch, &mut told, after).await;
        assert!(told.is_sorted(), "{told:?}");
    });
}
