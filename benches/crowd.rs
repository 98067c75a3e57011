//! A crowd of watchers of one kind: how long a change takes to reach them.
//!
//! `cargo bench --bench crowd -- [WATCHERS UPDATES_A_SECOND]`, one run, printed as lines. First each watcher sees all changes,
//! in process; then each sees those of one node, as agents of nodes watch their pods: in process, and over HTTPS with a
//! connection for each.
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
#![expect(clippy::print_stdout, reason = "a program for people to look at")]

mod support;

use std::time::{Duration, Instant};

use futures::{StreamExt, future::join_all, stream::BoxStream};
use http_body_util::BodyExt;
use orchestrator::{
    Cluster,
    client::{Api, WatchEvent},
    k8s_openapi::api::core::v1::Pod,
    kube::{
        self,
        api::{ListParams, Patch, PatchParams, PostParams, WatchParams},
    },
};
use serde_json::json;

/// How long changes are made.
const RUN: Duration = Duration::from_secs(5);

/// How long after the last change watchers are listened to.
const REST: Duration = Duration::from_secs(2);

/// The label that says when a change was made, in nanoseconds of the run.
const WHEN: &str = "when";

/// When each change came to one watcher that had been made when.
type Arrivals = BoxStream<'static, Vec<Duration>>;

fn main() {
    let (watchers, rate) = support::two_numbers((1_000, 1_000));
    support::runtime().block_on(run(watchers, rate));
}

async fn run(watchers: usize, rate: usize) {
    let cluster = support::api_server().await;
    let api: Api<Pod> = Api::namespaced(&cluster.client(), "default");
    for index in 0..watchers {
        let mut pod = support::pod(&format!("pod-{index}"));
        pod.spec.get_or_insert_default().node_name = Some(format!("node-{index}"));
        api.create(&PostParams::default(), &pod).await.expect("created");
    }
    let everything = |_| WatchParams::default();
    let one_node = |index: usize| WatchParams::default().fields(&format!("spec.nodeName=node-{index}"));
    let outside = connections(&cluster, watchers).await;
    let begin = Instant::now();

    let streams = join_all((0..watchers).map(|index| in_process(&api, everything(index), begin))).await;
    measure("in process, all changes", &api, streams, (watchers, rate), begin).await;
    let streams = join_all((0..watchers).map(|index| in_process(&api, one_node(index), begin))).await;
    measure("in process, changes of one node", &api, streams, (watchers, rate), begin).await;
    let watch = |(index, client)| over_https(client, one_node(index), begin);
    let streams = join_all(outside.iter().enumerate().map(watch)).await;
    measure("over HTTPS, changes of one node", &api, streams, (watchers, rate), begin).await;
    cluster.shutdown().await;
}

/// A client for each watcher, so that each has a connection of its own.
async fn connections(cluster: &Cluster, count: usize) -> Vec<kube::Client> {
    let config = support::remote_config(cluster).await;
    (0..count).map(|_| kube::Client::try_from(config.clone()).expect("a client")).collect()
}

async fn in_process(api: &Api<Pod>, params: WatchParams, begin: Instant) -> Arrivals {
    let version = api.list(&ListParams::default().limit(1)).await.expect("listed").resource_version;
    let events = api.watch(&params, &version).await.expect("watched");
    events
        .map(move |event| {
            let (WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object)) =
                event.expect("an event")
            else {
                return Vec::new();
            };
            let labels = object.metadata().expect("metadata").labels.as_ref();
            let made = labels.and_then(|labels| labels.get(WHEN)).and_then(|made| made.parse().ok());
            Vec::from_iter(made.map(|made| begin.elapsed().saturating_sub(Duration::from_nanos(made))))
        })
        .boxed()
}

async fn over_https(client: &kube::Client, params: WatchParams, begin: Instant) -> Arrivals {
    let request = kube::core::Request::new("/api/v1/pods").watch(&params, "0").expect("a request");
    let response = client.send(request.map(kube::client::Body::from)).await.expect("watched");
    assert!(response.status().is_success(), "{}", response.status());
    let mut rest = Vec::new();
    response
        .into_body()
        .into_data_stream()
        .map(move |piece| {
            rest.extend_from_slice(&piece.expect("the watch stays open"));
            let now = begin.elapsed();
            let end = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            let lines = String::from_utf8_lossy(&rest[..end]);
            let marks = lines.split("\"when\":\"").skip(1).filter_map(|mark| mark.split('"').next()?.parse().ok());
            let late = marks.map(|made| now.saturating_sub(Duration::from_nanos(made))).collect();
            rest.drain(..end);
            late
        })
        .boxed()
}

/// Makes changes at a rate, and prints how late they came.
async fn measure(what: &str, api: &Api<Pod>, streams: Vec<Arrivals>, (pods, rate): (usize, usize), begin: Instant) {
    let start = begin.elapsed();
    let end = tokio::time::Instant::now() + RUN + REST;
    let listeners = streams.into_iter().map(|mut arrivals| {
        tokio::spawn(async move {
            let mut all = Vec::new();
            while let Ok(Some(late)) = tokio::time::timeout_at(end, arrivals.next()).await {
                // Changes of an earlier run are shown to those who list first.
                all.extend(late.into_iter().filter(|late| begin.elapsed().saturating_sub(*late) >= start));
            }
            all
        })
    });
    let listeners: Vec<_> = listeners.collect();
    let used = support::processor_time();
    let made = change(api, pods, rate, begin).await;
    let mut late: Vec<Duration> =
        join_all(listeners).await.into_iter().flat_map(|all| all.expect("listened")).collect();
    late.sort_unstable();
    let part = |percent: usize| late.get(late.len() * percent / 100).or(late.last()).copied().unwrap_or_default();
    println!(
        "{what}: {made} changes in {:.1} s, {} arrivals, p50 {:.1} ms, p99 {:.1} ms, {:.1} s of processor time",
        RUN.as_secs_f64(),
        late.len(),
        part(50).as_secs_f64() * 1e3,
        part(99).as_secs_f64() * 1e3,
        support::processor_time().saturating_sub(used).as_secs_f64(),
    );
}

/// Changes one pod after the other, and says how many changes it made.
async fn change(api: &Api<Pod>, pods: usize, rate: usize, begin: Instant) -> usize {
    let end = tokio::time::Instant::now() + RUN;
    let mut pace = tokio::time::interval(Duration::from_secs(1) / u32::try_from(rate).unwrap_or(u32::MAX));
    let mut writes = Vec::new();
    for index in 0.. {
        if pace.tick().await > end {
            break;
        }
        let api = api.clone();
        writes.push(tokio::spawn(async move {
            let patch = json!({"metadata": {"labels": {WHEN: begin.elapsed().as_nanos().to_string()}}});
            api.patch(&format!("pod-{}", index % pods), &PatchParams::default(), &Patch::Merge(patch)).await
        }));
    }
    let made = join_all(writes).await;
    made.into_iter().filter(|write| matches!(write, Ok(Ok(_)))).count()
}
