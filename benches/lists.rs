//! Very long lists over HTTPS: how long one takes, and how much memory it holds while it is written.
//!
//! `cargo bench --bench lists -- [PODS]`, one run, printed as lines. The client counts bytes and decodes nothing.
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
#![expect(clippy::print_stdout, reason = "a program for people to look at")]

mod support;

use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};
use http_body_util::BodyExt;
use orchestrator::{
    client::Api,
    k8s_openapi::api::core::v1::Pod,
    kube::{self, api::PostParams},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Pods that are made at the same time.
const WRITERS: usize = 16;

/// How often the memory is looked at.
const LOOK: Duration = Duration::from_millis(5);

const LISTS: [(&str, &str, &str); 4] = [
    ("JSON", "/api/v1/pods", "application/json"),
    ("JSON, from the cache", "/api/v1/pods?resourceVersion=0", "application/json"),
    ("protobuf", "/api/v1/pods", "application/vnd.kubernetes.protobuf"),
    ("metadata", "/api/v1/pods", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"),
];

fn main() {
    let pods = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(150_000);
    support::runtime().block_on(run(pods));
}

async fn run(pods: usize) {
    let cluster = support::api_server().await;
    let api: Api<Pod> = Api::namespaced(&cluster.client(), "default");
    let begin = Instant::now();
    let create =
        async |index: usize| api.create(&PostParams::default(), &support::pod(&format!("pod-{index}"))).await.map(drop);
    let made = stream::iter((0..pods).map(create)).buffer_unordered(WRITERS).try_collect::<()>().await;
    made.expect("created");
    println!("{pods} pods made in process: {:.1} s", begin.elapsed().as_secs_f64());
    let client = kube::Client::try_from(support::remote_config(&cluster).await).expect("a client");
    for (what, path, media) in LISTS {
        for _ in 0..3 {
            list(&client, what, path, media).await;
        }
    }
    cluster.shutdown().await;
}

async fn list(client: &kube::Client, what: &str, path: &str, media: &str) {
    let idle = support::resident_bytes();
    let request =
        http::Request::get(path).header("accept", media).body(kube::client::Body::empty()).expect("a request");
    let begin = Instant::now();
    let length = async {
        let response = client.send(request).await.expect("listed");
        assert!(response.status().is_success(), "{}", response.status());
        let pieces = response.into_body().into_data_stream();
        pieces.try_fold(0, async |length, piece| Ok(length + piece.len())).await.expect("the list to its end")
    };
    let (length, most) = beside(length, LOOK, idle).await;
    println!(
        "{what}: {:.1} MB in {:.3} s, resident {:.1} MB before and {:.1} MB at most ({:.2} times)",
        support::megabytes(length as u64),
        begin.elapsed().as_secs_f64(),
        support::megabytes(idle),
        support::megabytes(most),
        most as f64 / idle as f64
    );
}

/// The result of a future, and the most memory that was resident while it ran.
async fn beside<T>(work: impl Future<Output = T>, look: Duration, idle: u64) -> (T, u64) {
    let mut most = idle;
    let mut work = std::pin::pin!(work);
    loop {
        let done = tokio::time::timeout(look, &mut work).await;
        most = most.max(support::resident_bytes());
        if let Ok(result) = done {
            return (result, most);
        }
    }
}
