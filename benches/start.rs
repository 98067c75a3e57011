//! How long a cluster takes to start: to its first write, and until pods can be made.
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]

mod support;

use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use orchestrator::{Cluster, client::Api, env::Env, k8s_openapi::api::core::v1::ConfigMap, kube::api::PostParams};

async fn first_write() -> Duration {
    let begin = Instant::now();
    let cluster = Cluster::builder().start().await.expect("the cluster starts");
    let api: Api<ConfigMap> = Api::namespaced(&cluster.client(), "default");
    let map = ConfigMap { metadata: kube_metadata("first"), ..ConfigMap::default() };
    api.create(&PostParams::default(), &map).await.expect("the first write");
    let taken = begin.elapsed();
    cluster.shutdown().await;
    taken
}

async fn ready() -> Duration {
    let begin = Instant::now();
    let env = Env::real();
    let mut builder = Cluster::builder().env(&env).listen("127.0.0.1:0".parse().expect("an address"));
    for node in support::simulated_nodes(&env, 3) {
        builder = builder.node(node);
    }
    let cluster = builder.start().await.expect("the cluster starts");
    support::wait_for_account(&cluster).await;
    let nodes = cluster.wait_until::<orchestrator::k8s_openapi::api::core::v1::Node>("", support::PATIENCE, |nodes| {
        nodes.len() == 3 && nodes.iter().all(|node| support::node_is_ready(node))
    });
    nodes.await.expect("the nodes are ready");
    let taken = begin.elapsed();
    cluster.shutdown().await;
    taken
}

fn kube_metadata(name: &str) -> orchestrator::kube::core::ObjectMeta {
    orchestrator::kube::core::ObjectMeta { name: Some(name.to_owned()), ..Default::default() }
}

fn start(criterion: &mut Criterion) {
    let runtime = support::runtime();
    let mut group = criterion.benchmark_group("start");
    group.sample_size(20);
    group.bench_function("to_first_write", |bencher| {
        bencher.iter_custom(|times| runtime.block_on(async { repeat(times, first_write).await }));
    });
    group.bench_function("to_three_ready_nodes_over_https", |bencher| {
        bencher.iter_custom(|times| runtime.block_on(async { repeat(times, ready).await }));
    });
    group.finish();
}

async fn repeat<F: Future<Output = Duration>>(times: u64, run: impl Fn() -> F) -> Duration {
    let mut total = Duration::ZERO;
    for _ in 0..times {
        total += run().await;
    }
    total
}

criterion_group!(benches, start);
criterion_main!(benches);
