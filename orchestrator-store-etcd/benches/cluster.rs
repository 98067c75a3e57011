//! Commits, lists and gets on one etcd process, its directory on the disk for temporary files; `TMPDIR` names another disk.
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]

#[expect(dead_code, reason = "tests do more to members")]
#[path = "../tests/etcd/support/etcd.rs"]
mod etcd;

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures::{StreamExt, future::join_all};
use orchestrator_core::{
    env::Env,
    store::{Batch, Key, KeyRange, ListOptions, Operation, Store, WatchItem, WatchOptions},
};
use orchestrator_store_etcd::{EtcdConfig, EtcdStore};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use etcd::Cluster;

/// Size of a value, in bytes: that of a small pod.
const VALUE_BYTES: usize = 1500;
/// Keys of a store that is listed.
const KEYS: usize = 100_000;
/// Operations of one commit that fills the store, as many as etcd takes.
const BATCH: usize = 128;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime")
}

fn put(key: String) -> Operation {
    Operation::Put { key: Key::new(key), value: Bytes::from(vec![7; VALUE_BYTES]), time_to_live: None }
}

fn batch(operations: Vec<Operation>) -> Batch {
    Batch { preconditions: Vec::new(), operations }
}

/// A store on a member whose directory is on a disk.
fn store(runtime: &Runtime) -> (Arc<EtcdStore>, Cluster) {
    let cluster = Cluster::start_in(TempDir::new().expect("a directory"), 1, &etcd::Options::default());
    let config = EtcdConfig { endpoints: cluster.urls(), ..EtcdConfig::default() };
    let store = runtime.block_on(async { EtcdStore::connect(&Env::real(), config).await });
    (Arc::new(store.expect("connected")), cluster)
}

fn commits(criterion: &mut Criterion) {
    let runtime = runtime();
    let (store, _cluster) = store(&runtime);
    let mut group = criterion.benchmark_group("commit");
    group.throughput(Throughput::Elements(1)).measurement_time(Duration::from_secs(10));
    for writers in [1, 16, 256] {
        group.bench_function(BenchmarkId::new("writers", writers), |bencher| {
            bencher.to_async(&runtime).iter_custom(|commits| written(store.clone(), writers, commits));
        });
    }
    group.finish();
}

/// How long it takes until this many commits are acknowledged.
async fn written(store: Arc<EtcdStore>, writers: u64, commits: u64) -> Duration {
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

/// From a commit to the moment when a watch tells of it.
fn watches(criterion: &mut Criterion) {
    let runtime = runtime();
    let (store, _cluster) = store(&runtime);
    criterion.bench_function("commit_to_watch", |bencher| {
        bencher.to_async(&runtime).iter_custom(async |times| {
            let mut watch = store.watch(KeyRange::prefix("/"), WatchOptions::default()).await.expect("a watch");
            let begin = Instant::now();
            for round in 0..times {
                let at = store.commit(batch(vec![put(format!("/{}", round % 100))])).await.expect("committed");
                while let Some(item) = watch.next().await {
                    match item.expect("told") {
                        WatchItem::Changes { revision, .. } if revision == at => break,
                        _ => {}
                    }
                }
            }
            begin.elapsed()
        });
    });
}

fn large(criterion: &mut Criterion) {
    let runtime = runtime();
    let (store, _cluster) = store(&runtime);
    runtime.block_on(async {
        let keys: Vec<usize> = (0..KEYS).collect();
        for some in keys.chunks(BATCH) {
            store.commit(batch(some.iter().map(|key| put(format!("/large/{key}"))).collect())).await.expect("filled");
        }
    });
    let mut group = criterion.benchmark_group("hundred_thousand_keys");
    group.sample_size(10);
    let list = async |limit| {
        let options = ListOptions { limit, ..ListOptions::default() };
        black_box(store.list(&KeyRange::prefix("/large/"), options).await.expect("listed"))
    };
    group.bench_function("list_all", |bencher| bencher.to_async(&runtime).iter(|| list(None)));
    group.bench_function("list_a_page_of_500", |bencher| bencher.to_async(&runtime).iter(|| list(Some(500))));
    let key = Key::new("/large/4711");
    group.bench_function("get", |bencher| bencher.to_async(&runtime).iter(|| store.get(&key)));
    group.finish();
}

criterion_group!(benches, commits, watches, large);
criterion_main!(benches);
