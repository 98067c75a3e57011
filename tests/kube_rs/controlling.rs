//! `runtime::Controller` with owned objects, finalizers and events, of a derived custom type.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::StreamExt;
use k8s_openapi::{api::core::v1::ConfigMap, api::events::v1::Event as StoredEvent};
use kube::{
    Api, Client, CustomResource, CustomResourceExt, Resource, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams},
    runtime::{
        Controller,
        controller::Action,
        events::{Event, EventType, Recorder, Reporter},
        finalizer::{self, finalizer},
        wait, watcher,
    },
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::oneshot;

use crate::{Door, cluster, soon};

through_both_doors! {
    a_controller_keeps_its_objects_and_cleans_up,
}

/// A greeting that is to be kept in a config map.
#[derive(CustomResource, Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[kube(group = "example.com", version = "v1", kind = "Greeting", namespaced, status = "GreetingStatus")]
pub(crate) struct GreetingSpec {
    text: String,
}

/// What became of it.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
pub(crate) struct GreetingStatus {
    kept: bool,
}

const FINALIZER: &str = "example.com/greeting";

struct Context {
    client: Client,
    recorder: Recorder,
}

async fn reconcile(greeting: Arc<Greeting>, context: Arc<Context>) -> Result<Action, finalizer::Error<kube::Error>> {
    let api: Api<Greeting> = Api::namespaced(context.client.clone(), &greeting.namespace().unwrap_or_default());
    finalizer(&api, FINALIZER, greeting, |event| async {
        match event {
            finalizer::Event::Apply(greeting) => keep(&greeting, &context).await,
            finalizer::Event::Cleanup(greeting) => say(&greeting, &context, "Forgotten").await,
        }
    })
    .await
}

/// Keeps the config map in line, by server-side apply where it is absent or different, and tells so.
async fn keep(greeting: &Greeting, context: &Context) -> Result<Action, kube::Error> {
    let namespace = greeting.namespace().unwrap_or_default();
    let name = greeting.name_any();
    let maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), &namespace);
    let data = BTreeMap::from([("text".to_owned(), greeting.spec.text.clone())]);
    match maps.get_opt(&name).await? {
        Some(map) if map.data.as_ref() == Some(&data) => {}
        Some(_) => {
            maps.patch(&name, &PatchParams::default(), &Patch::Merge(json!({"data": data}))).await?;
        }
        None => {
            let metadata = ObjectMeta {
                name: Some(name.clone()),
                owner_references: greeting.controller_owner_ref(&()).map(|owner| vec![owner]),
                ..ObjectMeta::default()
            };
            let map = ConfigMap { metadata, data: Some(data), ..ConfigMap::default() };
            maps.create(&PostParams::default(), &map).await?;
            say(greeting, context, "Kept").await?;
        }
    }
    if !greeting.status.as_ref().is_some_and(|status| status.kept) {
        let api: Api<Greeting> = Api::namespaced(context.client.clone(), &namespace);
        let status = json!({"status": {"kept": true}});
        api.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await?;
    }
    Ok(Action::await_change())
}

async fn say(greeting: &Greeting, context: &Context, reason: &str) -> Result<Action, kube::Error> {
    let event = Event {
        type_: EventType::Normal,
        reason: reason.to_owned(),
        note: Some(greeting.spec.text.clone()),
        action: "Reconcile".to_owned(),
        secondary: None,
    };
    context.recorder.publish(&event, &greeting.object_ref(&())).await?;
    Ok(Action::await_change())
}

async fn a_controller_keeps_its_objects_and_cleans_up(door: Door) {
    let cluster = cluster(door).await;
    let client = cluster.kube_client();
    serve_greetings(&client).await;
    let greetings: Api<Greeting> = Api::default_namespaced(client.clone());
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let reporter = Reporter { controller: "greeter".to_owned(), instance: Some("greeter-1".to_owned()) };
    let context = Context { client: client.clone(), recorder: Recorder::new(client.clone(), reporter) };
    let (stop, stopped) = oneshot::channel::<()>();
    let controller = Controller::new(greetings.clone(), watcher::Config::default())
        .owns(maps.clone(), watcher::Config::default().streaming_lists())
        .graceful_shutdown_on(async { drop(stopped.await) })
        .run(reconcile, |_, _, _| Action::requeue(Duration::from_millis(100)), Arc::new(context));
    let controller = controller.map(|run| run.map_err(|error| error.to_string())).collect::<Vec<_>>();
    let runs = tokio::runtime::Handle::current().spawn(controller);

    let hello = Greeting::new("hello", GreetingSpec { text: "hello".to_owned() });
    greetings.create(&PostParams::default(), &hello).await.unwrap();
    has_text(&maps, "hello").await;
    let kept = |greeting: Option<&Greeting>| greeting.and_then(|it| it.status.clone()).is_some_and(|it| it.kept);
    soon("the status", wait::await_condition(greetings.clone(), "hello", kept)).await.unwrap();
    assert_eq!(greetings.get("hello").await.unwrap().finalizers(), [FINALIZER]);

    // What is changed by others is put right, what is deleted comes back: events of owned objects lead to the owner.
    maps.patch("hello", &PatchParams::default(), &Patch::Merge(json!({"data": {"text": "spoilt"}}))).await.unwrap();
    has_text(&maps, "hello").await;
    let uid = maps.get("hello").await.unwrap().uid().unwrap();
    maps.delete("hello", &DeleteParams::default()).await.unwrap();
    let another = |map: Option<&ConfigMap>| map.is_some_and(|map| map.uid().as_ref() != Some(&uid));
    soon("another map", wait::await_condition(maps.clone(), "hello", another)).await.unwrap();
    greetings
        .patch("hello", &PatchParams::default(), &Patch::Merge(json!({"spec": {"text": "good morning"}})))
        .await
        .unwrap();
    has_text(&maps, "good morning").await;

    // The finalizer holds the object until the controller has cleaned up; then the garbage collector takes the map.
    let params = DeleteParams::default();
    let gone = wait::delete::delete_and_finalize(greetings.clone(), "hello", &params);
    soon("the greeting goes", gone).await.unwrap();
    let absent = |map: Option<&ConfigMap>| map.is_none();
    soon("the map goes", wait::await_condition(maps, "hello", absent)).await.unwrap();
    assert_eq!(reasons(&client).await, ["Forgotten", "Kept", "Kept"]);

    stop.send(()).unwrap();
    let runs = soon("the controller ends", runs).await.unwrap();
    assert!(runs.iter().any(Result::is_ok), "{runs:?}");
    cluster.shutdown().await;
}

async fn serve_greetings(client: &Client) {
    let definitions = Api::all(client.clone());
    definitions.create(&PostParams::default(), &Greeting::crd()).await.unwrap();
    let established =
        wait::await_condition(definitions, "greetings.example.com", wait::conditions::is_crd_established());
    soon("greetings are served", established).await.unwrap();
}

async fn has_text(maps: &Api<ConfigMap>, text: &str) {
    let condition = |map: Option<&ConfigMap>| {
        map.and_then(|map| map.data.as_ref()?.get("text").cloned()).is_some_and(|present| present == text)
    };
    soon("the map", wait::await_condition(maps.clone(), "hello", condition)).await.unwrap();
}

/// What the controller told, in order of the alphabet, each as often as it was told.
async fn reasons(client: &Client) -> Vec<String> {
    let events: Api<StoredEvent> = Api::default_namespaced(client.clone());
    let events = events.list(&ListParams::default()).await.unwrap();
    let own = events.items.into_iter().filter(|event| event.reporting_controller.as_deref() == Some("greeter"));
    let mut reasons = Vec::new();
    for event in own {
        let times = event.series.map_or(1, |series| series.count);
        (0..times).for_each(|_| reasons.push(event.reason.clone().unwrap_or_default()));
    }
    reasons.sort();
    reasons
}

#[test]
fn the_definition_names_the_kind() {
    assert_eq!((Greeting::kind(&()), Greeting::crd_name()), ("Greeting".into(), "greetings.example.com"));
}
