//! Commits that are on the disk when they are answered, against what the disk itself can do; lists; and opening.
//!
//! The directory is the one for temporary files; `TMPDIR` names another disk.
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]

use std::{
    fs::{self, File},
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
    store::{Batch, Key, KeyRange, ListOptions, Operation, Store},
};
use orchestrator_store_sled::{Limits, SledStore};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Size of a value, in bytes: that of a small pod.
const VALUE_BYTES: usize = 1500;
/// Keys of a store that is listed and opened.
const KEYS: usize = 100_000;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime")
}

fn put(key: String) -> Operation {
    Operation::Put { key: Key::new(key), value: Bytes::from(vec![7; VALUE_BYTES]), time_to_live: None }
}

fn batch(operations: Vec<Operation>) -> Batch {
    Batch { preconditions: Vec::new(), operations }
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

fn commits(criterion: &mut Criterion) {
    let runtime = runtime();
    let directory = TempDir::new().expect("a directory");
    let open = async { SledStore::open(&Env::real(), directory.path(), Limits::default()).await };
    let store = Arc::new(runtime.block_on(open).expect("opened"));
    let mut group = criterion.benchmark_group("commit");
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
async fn written(store: Arc<SledStore>, writers: u64, commits: u64) -> Duration {
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

fn large(criterion: &mut Criterion) {
    let runtime = runtime();
    let directory = TempDir::new().expect("a directory");
    let open = async || SledStore::open(&Env::real(), directory.path(), Limits::default()).await.expect("opened");
    runtime.block_on(async {
        let store = open().await;
        let keys: Vec<usize> = (0..KEYS).collect();
        for some in keys.chunks(500) {
            store.commit(batch(some.iter().map(|key| put(format!("/large/{key}"))).collect())).await.expect("filled");
        }
        store.close().await;
    });
    let mut group = criterion.benchmark_group("hundred_thousand_keys");
    group.sample_size(10);
    group.bench_function("open", |bencher| {
        bencher.to_async(&runtime).iter_custom(async |times| {
            let mut sum = Duration::ZERO;
            for _ in 0..times {
                let begin = Instant::now();
                let store = open().await;
                sum += begin.elapsed();
                store.close().await;
            }
            sum
        });
    });
    let store = runtime.block_on(open());
    let list = async |limit| {
        let options = ListOptions { limit, ..ListOptions::default() };
        black_box(store.list(&KeyRange::prefix("/large/"), options).await.expect("listed"))
    };
    group.bench_function("list_all", |bencher| bencher.to_async(&runtime).iter(|| list(None)));
    group.bench_function("list_a_page_of_500", |bencher| bencher.to_async(&runtime).iter(|| list(Some(500))));
    let key = Key::new("/large/4711");
    group.bench_function("get", |bencher| bencher.to_async(&runtime).iter(|| store.get(&key)));
    group.finish();
    let resident = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = resident.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default().to_owned();
    let size = runtime.block_on(store.status()).expect("a status").size_bytes;
    tell(format_args!("{size} bytes on disk, {resident}"));
    runtime.block_on(store.close());
}

#[expect(clippy::print_stdout, reason = "a benchmark is read by people")]
fn tell(line: std::fmt::Arguments<'_>) {
    println!("{line}");
}

criterion_group!(benches, flushes, commits, large);
criterion_main!(benches);
