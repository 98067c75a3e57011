//! Requests in process: typed clients on the pipeline, with no socket and no JSON between.
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]

mod support;

use std::{
    hint::black_box,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures::{StreamExt, future::join_all};
use orchestrator::{
    client::Api,
    k8s_openapi::api::core::v1::Pod,
    kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchParams},
};
use serde_json::json;

const LISTED: u64 = 1_000;
const WATCHERS: u64 = 50;

fn requests(criterion: &mut Criterion) {
    let runtime = support::runtime();
    let cluster = runtime.block_on(support::api_server());
    let api: Api<Pod> = Api::namespaced(&cluster.client(), "default");
    let next = AtomicU64::new(0);
    let mut group = criterion.benchmark_group("in_process");
    group.throughput(Throughput::Elements(1));
    group.bench_function("create_and_delete_pod", |bencher| {
        bencher.to_async(&runtime).iter(|| async {
            let name = format!("pod-{}", next.fetch_add(1, Ordering::Relaxed));
            api.create(&PostParams::default(), &support::pod(&name)).await.expect("created");
            api.delete(&name, &DeleteParams { grace_period_seconds: Some(0), ..Default::default() })
                .await
                .expect("deleted");
        });
    });
    runtime.block_on(api.create(&PostParams::default(), &support::pod("kept"))).expect("created");
    group.bench_function("get_pod", |bencher| {
        bencher.to_async(&runtime).iter(|| async { black_box(api.get("kept").await.expect("there")) });
    });
    group.bench_function("merge_patch_pod", |bencher| {
        bencher.to_async(&runtime).iter(|| async {
            let patch = json!({"metadata": {"labels": {"revision": next.fetch_add(1, Ordering::Relaxed).to_string()}}});
            api.patch("kept", &PatchParams::default(), &Patch::Merge(patch)).await.expect("patched")
        });
    });
    group.finish();
    lists(criterion, &runtime, &api);
    fan_out(criterion, &runtime, &api);
    runtime.block_on(cluster.shutdown());
}

fn lists(criterion: &mut Criterion, runtime: &tokio::runtime::Runtime, api: &Api<Pod>) {
    runtime.block_on(async {
        for index in 0..LISTED {
            api.create(&PostParams::default(), &support::pod(&format!("listed-{index}"))).await.expect("created");
        }
    });
    let mut group = criterion.benchmark_group("in_process_list");
    group.throughput(Throughput::Elements(LISTED));
    for (name, params) in
        [("all", ListParams::default()), ("by_label_that_none_has", ListParams::default().labels("app=none"))]
    {
        group.bench_function(name, |bencher| {
            bencher.to_async(runtime).iter(|| async { black_box(api.list(&params).await.expect("listed")) });
        });
    }
    group.finish();
}

/// One write, seen by all watchers.
fn fan_out(criterion: &mut Criterion, runtime: &tokio::runtime::Runtime, api: &Api<Pod>) {
    let mut group = criterion.benchmark_group("in_process_watch");
    group.throughput(Throughput::Elements(WATCHERS));
    group.bench_function("one_write_to_fifty_watchers", |bencher| {
        bencher.iter_custom(|times| runtime.block_on(fan_out_once(api, times)));
    });
    group.finish();
}

async fn fan_out_once(api: &Api<Pod>, times: u64) -> Duration {
    let version = api.list(&ListParams::default().limit(1)).await.expect("listed").resource_version;
    let watch = async || api.watch(&WatchParams::default(), &version).await.expect("watched");
    let mut watches = join_all((0..WATCHERS).map(|_| watch())).await;
    let begin = Instant::now();
    for turn in 0..times {
        let patch = json!({"metadata": {"labels": {"turn": format!("{turn}-{}", begin.elapsed().as_nanos())}}});
        api.patch("kept", &PatchParams::default(), &Patch::Merge(patch)).await.expect("patched");
        for watch in &mut watches {
            watch.next().await.expect("open").expect("an event");
        }
    }
    begin.elapsed()
}

criterion_group!(benches, requests);
criterion_main!(benches);
