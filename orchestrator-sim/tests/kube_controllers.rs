//! Controllers on kube-rs, as they are: explored under faults, and driven in virtual time.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    runtime::{
        Controller,
        controller::Action,
        finalizer::{Error as FinalizerError, Event, finalizer},
        watcher,
    },
};
use orchestrator_sim::{
    Objects, TestCluster,
    explore::{Counterexample, Explorer, Failure, Fault, explore_kube},
};
use serde_json::{Value, json};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NAMESPACE: &str = "default";
const FINALIZER: &str = "example.com/ledger";

fn map(name: &str, rest: Value) -> ConfigMap {
    let mut tree = json!({"metadata": {"name": name, "namespace": NAMESPACE}});
    tree.as_object_mut().unwrap().extend(rest.as_object().cloned().unwrap_or_default());
    serde_json::from_value(tree).unwrap()
}

fn name(map: &ConfigMap) -> &str {
    map.metadata.name.as_deref().unwrap_or_default()
}

/// Children are told from parents by their names.
fn is_parent(map: &ConfigMap) -> bool {
    !name(map).contains('-')
}

fn maps(client: &Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), NAMESPACE)
}

/// Runs a reconciler of config maps on kube-rs's loop.
async fn run<F, E>(client: Client, reconcile: fn(Arc<ConfigMap>, Arc<Client>) -> F)
where
    F: Future<Output = Result<Action, E>> + Send + 'static,
    E: std::error::Error + Send + 'static,
{
    Controller::new(maps(&client), watcher::Config::default())
        .run(reconcile, |_, _, _| Action::requeue(Duration::from_secs(5)), Arc::new(client))
        .for_each(|_| async {})
        .await;
}

fn found(explorer: &Explorer) -> Box<Counterexample> {
    match explorer.run() {
        Err(Failure::Broken(counterexample)) => counterexample,
        other => panic!("nothing was found: {other:?}"),
    }
}

fn passes(explorer: &Explorer) {
    if let Err(failure) = explorer.run() {
        panic!("{failure}");
    }
}

fn children(objects: &Objects) -> usize {
    objects.list::<ConfigMap>().iter().filter(|map| name(map).starts_with("a-")).count()
}

fn has_one_child(explorer: Explorer) -> Explorer {
    explorer
        .creates(&map("a", json!({})))
        .never("there are two children", |objects| children(objects) > 1)
        .eventually("there is a child", |objects| children(objects) == 1)
        .seeds(30)
}

/// Draws the child's name, and writes down that it is there afterwards.
async fn draw_a_child(map: Arc<ConfigMap>, client: Arc<Client>) -> Result<Action, kube::Error> {
    if is_parent(&map) && map.data.is_none() {
        let child = json!({"metadata": {"generateName": "a-", "namespace": NAMESPACE}});
        let child: ConfigMap = serde_json::from_value(child).expect("a config map");
        let child = maps(&client).create(&PostParams::default(), &child).await?;
        let patch = Patch::Merge(json!({"data": {"child": name(&child)}}));
        maps(&client).patch(name(&map), &PatchParams::default(), &patch).await?;
    }
    Ok(Action::await_change())
}

/// Applies a child of a name that follows from the parent's.
async fn apply_a_child(map: Arc<ConfigMap>, client: Arc<Client>) -> Result<Action, kube::Error> {
    if is_parent(&map) {
        let child = format!("{}-child", name(&map));
        let patch = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": child}, "data": {"of": name(&map)},
        });
        let patch = Patch::Apply(patch);
        maps(&client).patch(&child, &PatchParams::apply("example.com").force(), &patch).await?;
    }
    Ok(Action::await_change())
}

#[test]
fn a_child_of_a_drawn_name_comes_twice_after_a_crash() {
    let counterexample = found(&has_one_child(explore_kube(|client| run(client, draw_a_child))));
    assert_eq!(counterexample.plan.to_string(), "crash-after-write=1");
    assert!(counterexample.to_string().contains("create configmaps default/a-"), "{counterexample}");
    passes(&has_one_child(explore_kube(|client| run(client, apply_a_child))));
}

/// What stands in the ledger: something that is not the parent's child, so that somebody has to strike it out.
fn is_entered(objects: &Objects) -> bool {
    objects.get::<ConfigMap>(NAMESPACE, "ledger-a").is_some()
}

fn keeps_a_ledger(explorer: Explorer) -> Explorer {
    explorer
        .creates(&map("a", json!({})))
        .settles()
        .deletes::<ConfigMap>(NAMESPACE, "a")
        .eventually("what is gone stands in no ledger", |objects| {
            objects.get::<ConfigMap>(NAMESPACE, "a").is_none() && !is_entered(objects)
        })
        .seeds(30)
}

async fn enter(client: &Client) -> Result<Action, kube::Error> {
    let patch = Patch::Apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ledger-a"}}));
    maps(client).patch("ledger-a", &PatchParams::apply("example.com").force(), &patch).await?;
    Ok(Action::await_change())
}

async fn strike_out(client: &Client) -> Result<Action, kube::Error> {
    match maps(client).delete("ledger-a", &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        result => drop(result?),
    }
    Ok(Action::await_change())
}

/// Kube-rs's own helper keeps the parent until all is struck out.
async fn with_finalizer(map: Arc<ConfigMap>, client: Arc<Client>) -> Result<Action, FinalizerError<kube::Error>> {
    if !is_parent(&map) || name(&map).starts_with("kube") {
        return Ok(Action::await_change());
    }
    let api = maps(&client);
    let step = |event| async move {
        match event {
            Event::Apply(_) => enter(&client).await,
            Event::Cleanup(_) => strike_out(&client).await,
        }
    };
    finalizer(&api, FINALIZER, map, step).await
}

/// The same for the parent as it is now, not as it was when the cache was filled.
async fn with_a_fresh_look(map: Arc<ConfigMap>, client: Arc<Client>) -> Result<Action, FinalizerError<kube::Error>> {
    match maps(&client).get_opt(name(&map)).await.map_err(FinalizerError::ApplyFailed)? {
        Some(map) => with_finalizer(Arc::new(map), client).await,
        None => Ok(Action::await_change()),
    }
}

/// Strikes out when it happens to see that the parent is being deleted, which nothing waits for.
async fn without_finalizer(map: Arc<ConfigMap>, client: Arc<Client>) -> Result<Action, kube::Error> {
    match is_parent(&map) && !name(&map).starts_with("kube") {
        true if map.metadata.deletion_timestamp.is_some() => strike_out(&client).await,
        true => enter(&client).await,
        false => Ok(Action::await_change()),
    }
}

#[test]
fn a_ledger_needs_a_finalizer() {
    let counterexample = found(&keeps_a_ledger(explore_kube(|client| run(client, without_finalizer))));
    assert!(counterexample.plan.faults.is_empty(), "{counterexample}");

    // The helper trusts the cache: who is told of the past enters what is gone.
    let explorer = keeps_a_ledger(explore_kube(|client| run(client, with_finalizer)));
    passes(&explorer.clone().faults(|fault| !matches!(fault, Fault::BackInTime(..))));
    let counterexample = found(&explorer);
    assert!(matches!(counterexample.plan.faults[..], [Fault::BackInTime(..)]), "{counterexample}");
    passes(&keeps_a_ledger(explore_kube(|client| run(client, with_a_fresh_look))));
}

/// Writes an entry each hour.
async fn hourly(map: Arc<ConfigMap>, client: Arc<Client>) -> Result<Action, kube::Error> {
    let entry = json!({"metadata": {"generateName": "entry-", "namespace": NAMESPACE}, "data": {"of": name(&map)}});
    let entry: ConfigMap = serde_json::from_value(entry).expect("a config map");
    maps(&client).create(&PostParams::default(), &entry).await?;
    Ok(Action::requeue(Duration::from_secs(3600)))
}

#[test]
fn hours_pass_in_no_time() {
    let cluster = TestCluster::builder().beside_tokio().build().unwrap();
    cluster.create(&map("clock", json!({}))).unwrap();
    cluster
        .start("clock", |process| async move {
            let client = process.kube_client();
            Controller::new(maps(&client), watcher::Config::default().fields("metadata.name=clock"))
                .run(hourly, |_, _, _| Action::requeue(Duration::from_secs(5)), Arc::new(client))
                .for_each(|_| async {})
                .await;
        })
        .unwrap();
    let entries = || cluster.list::<ConfigMap>().iter().filter(|map| name(map).starts_with("entry-")).count();
    cluster.settle().unwrap();
    assert_eq!(entries(), 1);
    cluster.advance(Duration::from_secs(3 * 3600)).unwrap();
    assert_eq!(entries(), 4);
    // One that is killed writes nothing; its next life begins with an entry.
    cluster.kill("clock").unwrap();
    cluster.advance(Duration::from_secs(2 * 3600)).unwrap();
    assert_eq!(entries(), 4);
    cluster.restart("clock").unwrap();
    cluster.settle().unwrap();
    assert_eq!(entries(), 5);
}
