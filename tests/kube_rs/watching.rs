//! `watcher`, with both ways to begin, of objects and of their metadata, `reflector` and waiting.

use std::{collections::BTreeSet, time::Duration};

use futures::{Stream, StreamExt, TryStreamExt, stream::BoxStream};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Namespace, Pod},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt, reflector, wait,
        watcher::{self, Config, Event, watcher},
    },
};
use orchestrator::env::Env;
use serde_json::json;

use crate::{Door, cluster, config_map, next, soon};

through_both_doors! {
    a_watcher_that_lists_first_sees_everything_once,
    a_watcher_that_lists_in_pages_sees_everything_once,
    a_watcher_that_reads_any_version_sees_everything_once,
    a_watcher_with_streaming_lists_sees_everything_once,
    metadata_is_watched_without_the_rest,
    a_reflector_mirrors_a_kind,
    a_watcher_carries_on_when_its_watch_ends,
    conditions_are_waited_for,
}

async fn a_watcher_that_lists_first_sees_everything_once(door: Door) {
    sees_everything_once(door, Config::default().labels("value")).await;
}

async fn a_watcher_that_lists_in_pages_sees_everything_once(door: Door) {
    sees_everything_once(door, Config::default().labels("value").page_size(2)).await;
}

async fn a_watcher_that_reads_any_version_sees_everything_once(door: Door) {
    sees_everything_once(door, Config::default().labels("value").any_semantic()).await;
}

async fn a_watcher_with_streaming_lists_sees_everything_once(door: Door) {
    sees_everything_once(door, Config::default().labels("value").streaming_lists()).await;
}

async fn sees_everything_once(door: Door, config: Config) {
    let cluster = cluster(door).await;
    let api: Api<ConfigMap> = Api::default_namespaced(cluster.kube_client());
    for name in ["a", "b", "c", "d", "e"] {
        api.create(&PostParams::default(), &config_map(name, "1")).await.unwrap();
    }
    let mut events = watcher(api.clone(), config).boxed();
    assert_eq!(initial(&mut events).await, ["a", "b", "c", "d", "e"].map(str::to_owned).into());

    api.create(&PostParams::default(), &config_map("f", "1")).await.unwrap();
    api.patch("f", &PatchParams::default(), &Patch::Merge(json!({"data": {"value": "2"}}))).await.unwrap();
    api.delete("a", &DeleteParams::default()).await.unwrap();
    // Leaving the selection looks like a deletion.
    api.patch("b", &PatchParams::default(), &Patch::Merge(json!({"metadata": {"labels": {"value": null}}})))
        .await
        .unwrap();
    let mut told = Vec::new();
    while told.len() < 4 {
        told.push(match next("a change", &mut events).await.unwrap() {
            Event::Apply(map) => format!("{}={}", map.name_any(), map.data.unwrap()["value"]),
            Event::Delete(map) => format!("{} gone", map.name_any()),
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(told, ["f=1", "f=2", "a gone", "b gone"]);
    cluster.shutdown().await;
}

/// The names in the events with which a watcher begins.
async fn initial<K: ResourceExt + std::fmt::Debug>(
    events: &mut (impl Stream<Item = watcher::Result<Event<K>>> + Unpin),
) -> BTreeSet<String> {
    assert!(matches!(next("the beginning", events).await.unwrap(), Event::Init));
    let mut names = BTreeSet::new();
    loop {
        match next("the state", events).await.unwrap() {
            Event::InitApply(object) => assert!(names.insert(object.name_any()), "twice: {}", object.name_any()),
            Event::InitDone => return names,
            other => panic!("{other:?}"),
        }
    }
}

async fn metadata_is_watched_without_the_rest(door: Door) {
    let cluster = cluster(door).await;
    let api: Api<ConfigMap> = Api::default_namespaced(cluster.kube_client());
    api.create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    let partial: Api<PartialObjectMeta<ConfigMap>> = Api::default_namespaced(cluster.kube_client());
    for config in [Config::default(), Config::default().streaming_lists()] {
        let mut events = watcher(partial.clone(), config.labels("value")).boxed();
        assert_eq!(initial(&mut events).await, BTreeSet::from(["a".to_owned()]));
        let labels = json!({"metadata": {"labels": {"value": "2"}}});
        api.patch("a", &PatchParams::default(), &Patch::Merge(labels)).await.unwrap();
        let Event::Apply(map) = next("the change", &mut events).await.unwrap() else { panic!("not a change") };
        assert_eq!(map.labels()["value"], "2");
        api.patch("a", &PatchParams::default(), &Patch::Merge(json!({"metadata": {"labels": {"value": "1"}}})))
            .await
            .unwrap();
    }
    cluster.shutdown().await;
}

async fn a_reflector_mirrors_a_kind(door: Door) {
    for config in [Config::default(), Config::default().streaming_lists()] {
        let cluster = cluster(door).await;
        let api: Api<Namespace> = Api::all(cluster.kube_client());
        let (reader, writer) = reflector::store();
        let mut stream: BoxStream<_> = reflector(writer, watcher(api.clone(), config)).default_backoff().boxed();
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some("new".to_owned());
        api.create(&PostParams::default(), &namespace).await.unwrap();
        let find = |name: &str| reader.get(&reflector::ObjectRef::new(name));
        while find("new").is_none() {
            next("the namespace comes", &mut stream).await.unwrap();
        }
        assert!(find("default").is_some() && find("kube-system").is_some());
        api.delete("new", &DeleteParams::default()).await.unwrap();
        while find("new").is_some() {
            next("the namespace goes", &mut stream).await.unwrap();
        }
        let mut mirrored: Vec<_> = reader.state().iter().map(|namespace| namespace.name_any()).collect();
        mirrored.sort();
        let listed: Vec<_> = api.list(&Default::default()).await.unwrap().iter().map(ResourceExt::name_any).collect();
        assert_eq!(mirrored, listed);
        cluster.shutdown().await;
    }
}

async fn a_watcher_carries_on_when_its_watch_ends(door: Door) {
    let cluster = cluster(door).await;
    let api: Api<ConfigMap> = Api::default_namespaced(cluster.kube_client());
    let config = Config::default().labels("value").timeout(1);
    let mut events = watcher(api.clone(), config).boxed();
    assert_eq!(initial(&mut events).await, BTreeSet::new());
    // Each of these waits is longer than a watch lives: the server ends it and the watcher takes it up again.
    for name in ["a", "b"] {
        let quiet = Env::real().timeout(Duration::from_millis(1500), events.try_next()).await;
        assert!(quiet.is_err(), "nothing has changed: {quiet:?}");
        api.create(&PostParams::default(), &config_map(name, "1")).await.unwrap();
        let Event::Apply(map) = next("the change", &mut events).await.unwrap() else { panic!("not a change") };
        assert_eq!(map.name_any(), name);
    }
    cluster.shutdown().await;
}

async fn conditions_are_waited_for(door: Door) {
    let cluster = cluster(door).await;
    let client = cluster.kube_client();
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let definition = serde_json::from_value(json!({
        "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]
        }
    }));
    definitions.create(&PostParams::default(), &definition.unwrap()).await.unwrap();
    let established = wait::await_condition(definitions, "things.example.com", wait::conditions::is_crd_established());
    soon("the definition is established", established).await.unwrap();
    let pods: Api<Pod> = Api::default_namespaced(client);
    let missing = wait::await_condition(pods, "none", wait::conditions::is_deleted(""));
    soon("what is not there counts as deleted", missing).await.unwrap();
    cluster.shutdown().await;
}
