//! Stores on disk, one against the other and against what the disk itself can do: commits that are on the disk when they are
//! answered, lists, opening, and space.
//!
//! The directory is the one for temporary files; `TMPDIR` names another disk.
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]

use std::{
    fs::File,
    hint::black_box,
    os::unix::fs::FileExt,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures::future::join_all;
use orchestrator_core::{
    env::Env,
    store::{Batch, Key, KeyRange, ListOptions, Operation, Revision, Store},
};
use orchestrator_store_disk::{DiskStore, Engine, Limits, Place};
use orchestrator_store_redb::RedbEngine;
use orchestrator_store_sled::SledEngine;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Size of a value, in bytes: that of a small pod.
const VALUE_BYTES: usize = 1500;
/// Keys of a store that is listed and opened.
const KEYS: usize = 150_000;
/// Keys that are written again and again.
const CHURNED_KEYS: usize = 20_000;
/// How often.
const CHURNS: usize = 8;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime")
}

fn put(key: String) -> Operation {
    Operation::Put { key: Key::new(key), value: Bytes::from(vec![7; VALUE_BYTES]), time_to_live: None }
}

fn batch(operations: Vec<Operation>) -> Batch {
    Batch { preconditions: Vec::new(), operations }
}

async fn open<E: Engine>(directory: &TempDir) -> DiskStore<E> {
    DiskStore::open(&Env::real(), directory.path(), Limits::default()).await.expect("opened")
}

/// What a program can have at most that appends and flushes for each commit.
fn flushes(criterion: &mut Criterion) {
    let directory = TempDir::new().expect("a directory");
    let file = File::create(directory.path().join("file")).expect("a file");
    let mut end = 0;
    let mut group = criterion.benchmark_group("disk");
    group.throughput(Throughput::Elements(1));
    group.bench_function("append_and_flush", |bencher| {
        bencher.iter(|| {
            file.write_all_at(&[7; VALUE_BYTES], end).expect("written");
            file.sync_data().expect("flushed");
            end += VALUE_BYTES as u64;
        });
    });
    group.finish();
}

/// One record and one flush at a time, without a store above.
fn bare<E: Engine>(criterion: &mut Criterion, name: &str) {
    let directory = TempDir::new().expect("a directory");
    let (limits, flush) = (Limits::default(), Arc::new(File::sync_data));
    let place = Place { directory: directory.path(), is_new: true, limits: &limits, flush };
    let mut engine = E::open(place).expect("opened");
    let mut number = 0_u64;
    let mut group = criterion.benchmark_group("bare");
    group.throughput(Throughput::Elements(1));
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            engine.apply(vec![(number.to_be_bytes().to_vec(), Some(vec![7; VALUE_BYTES]))]).expect("applied");
            engine.flush().expect("flushed");
            number += 1;
        });
    });
    group.finish();
    Box::new(engine).close().expect("closed");
}

fn commits<E: Engine>(criterion: &mut Criterion, name: &str) {
    let runtime = runtime();
    let directory = TempDir::new().expect("a directory");
    let store = Arc::new(runtime.block_on(open::<E>(&directory)));
    let mut group = criterion.benchmark_group(format!("commit_{name}"));
    group.throughput(Throughput::Elements(1)).measurement_time(Duration::from_secs(10));
    for writers in [1, 16, 256] {
        group.bench_function(BenchmarkId::new("writers", writers), |bencher| {
            bencher.to_async(&runtime).iter_custom(|commits| written(store.clone(), writers, commits));
        });
    }
    group.finish();
    runtime.block_on(store.close());
}

/// How long it takes until this many commits are on the disk.
async fn written<E: Engine>(store: Arc<DiskStore<E>>, writers: u64, commits: u64) -> Duration {
    let begin = Instant::now();
    let each = |writer: u64| {
        let store = store.clone();
        let count = commits / writers + u64::from(writer < commits % writers);
        tokio::spawn(async move {
            for round in 0..count {
                store.commit(batch(vec![put(format!("/{writer}/{}", round % 100))])).await.expect("committed");
            }
        })
    };
    join_all((0..writers).map(each)).await;
    begin.elapsed()
}

fn large<E: Engine>(criterion: &mut Criterion, name: &str) {
    let runtime = runtime();
    let directory = TempDir::new().expect("a directory");
    runtime.block_on(async {
        let store = open::<E>(&directory).await;
        let keys: Vec<usize> = (0..KEYS).collect();
        for some in keys.chunks(500) {
            store.commit(batch(some.iter().map(|key| put(format!("/large/{key}"))).collect())).await.expect("filled");
        }
        store.close().await;
    });
    let mut group = criterion.benchmark_group(format!("150_000_keys_{name}"));
    group.sample_size(10);
    group.bench_function("open", |bencher| {
        bencher.to_async(&runtime).iter_custom(async |times| {
            let mut sum = Duration::ZERO;
            for _ in 0..times {
                let begin = Instant::now();
                let store = open::<E>(&directory).await;
                sum += begin.elapsed();
                store.close().await;
            }
            sum
        });
    });
    let store = runtime.block_on(open::<E>(&directory));
    let list = async |limit| {
        let options = ListOptions { limit, ..ListOptions::default() };
        black_box(store.list(&KeyRange::prefix("/large/"), options).await.expect("listed"))
    };
    group.bench_function("list_all", |bencher| bencher.to_async(&runtime).iter(|| list(None)));
    group.bench_function("list_a_page_of_500", |bencher| bencher.to_async(&runtime).iter(|| list(Some(500))));
    let key = Key::new("/large/4711");
    group.bench_function("get", |bencher| bencher.to_async(&runtime).iter(|| store.get(&key)));
    group.finish();
    runtime.block_on(store.close());
}

/// Space after keys were written again and again, and history is gone.
fn churn<E: Engine>(name: &str) {
    let directory = TempDir::new().expect("a directory");
    let limits = Limits { history_commits: 100, ..Limits::default() };
    runtime().block_on(async {
        let store = DiskStore::<E>::open(&Env::real(), directory.path(), limits).await.expect("opened");
        let (begin, mut revision, mut longest) = (Instant::now(), Revision(0), Duration::ZERO);
        for round in 0..CHURNS {
            for first in (0..CHURNED_KEYS).step_by(100) {
                let key = |number: usize| format!("/{}", number * (7 + 2 * round) % CHURNED_KEYS);
                let operations = (first..first + 100).map(|number| put(key(number))).collect();
                let commit = Instant::now();
                revision = store.commit(batch(operations)).await.expect("committed");
                longest = longest.max(commit.elapsed());
            }
        }
        store.compact(revision).await.expect("compacted");
        let took = begin.elapsed();
        let per_live_byte = async || {
            let status = store.status().await.expect("a status");
            status.size_bytes as f64 / (status.keys * VALUE_BYTES as u64) as f64
        };
        let at_once = per_live_byte().await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        let later = per_live_byte().await;
        tell(format_args!(
            "{name}: {at_once:.2} bytes on disk for a live byte after churn, {later:.2} after 20 s; \
             {took:?} in all, the slowest commit {longest:?}"
        ));
        store.close().await;
    });
}

#[expect(clippy::print_stdout, reason = "a benchmark is read by people")]
fn tell(line: std::fmt::Arguments<'_>) {
    println!("{line}");
}

fn each(criterion: &mut Criterion) {
    bare::<SledEngine>(criterion, "sled");
    bare::<RedbEngine>(criterion, "redb");
    commits::<SledEngine>(criterion, "sled");
    commits::<RedbEngine>(criterion, "redb");
    large::<SledEngine>(criterion, "sled");
    large::<RedbEngine>(criterion, "redb");
    churn::<SledEngine>("sled");
    churn::<RedbEngine>("redb");
}

criterion_group!(benches, flushes, each);
criterion_main!(benches);
