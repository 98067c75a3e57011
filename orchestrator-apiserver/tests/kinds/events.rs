//! Events are one object in two groups.

use futures::StreamExt;
use orchestrator_core::{
    client::{Backend, Call, ListOptions, PatchBody, Resource, WatchEvent, WatchRequest},
    status::ApiResult,
};
use serde_json::{Value, json};

use crate::forms::Forms;

const CORE: &str = "";
const NEWER: &str = "events.k8s.io";

fn events(group: &'static str) -> Resource {
    Resource::new(group, "v1", "events")
}

fn run(test: impl AsyncFn(Forms)) {
    Forms::run(events, "e", test);
}

/// The names of the events that are selected.
async fn names(api: &Forms, group: &'static str, field_selector: &str) -> ApiResult<Vec<String>> {
    let options = ListOptions { field_selector: field_selector.to_owned(), ..ListOptions::default() };
    let list = api.call(group, None, Call::List(options)).await?;
    let name = |event: &Value| event["metadata"]["name"].as_str().unwrap().to_owned();
    Ok(list.as_array().unwrap().iter().map(name).collect())
}

fn core_event(name: &str) -> Value {
    json!({
        "metadata": {"name": name}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
        "source": {"component": "kubelet"}, "count": 3, "firstTimestamp": "2026-01-01T00:00:00Z",
        "lastTimestamp": "2026-01-01T00:01:00Z", "message": "it did", "reason": "Did", "type": "Normal",
    })
}

fn newer_event(name: &str) -> Value {
    json!({
        "metadata": {"name": name}, "regarding": {"kind": "Pod", "name": "q", "namespace": "default"},
        "action": "Do", "eventTime": "2026-01-01T00:00:00.000000Z", "note": "it did", "reason": "Did",
        "reportingController": "example.com/c", "reportingInstance": "c-1", "type": "Normal",
    })
}

#[test]
fn each_group_shows_what_the_other_one_wrote() {
    run(async |api| {
        api.create(CORE, core_event("e")).await.unwrap();
        let newer = api.get(NEWER).await;
        assert_eq!(newer["apiVersion"], "events.k8s.io/v1");
        assert_eq!(newer["regarding"]["name"], "p");
        assert_eq!((&newer["note"], &newer["deprecatedCount"]), (&json!("it did"), &json!(3)));
        assert_eq!(newer["deprecatedSource"], json!({"component": "kubelet"}));
        assert_eq!(newer["deprecatedLastTimestamp"], "2026-01-01T00:01:00Z");
        for gone in ["involvedObject", "message", "count", "reportingComponent", "reportingController"] {
            assert!(newer.get(gone).is_none(), "{gone}");
        }
        // What the newer group would not let in may still change by way of it, as far as anything may.
        api.patch(NEWER, PatchBody::Merge(json!({"metadata": {"labels": {"a": "b"}}})), "m").await.unwrap();
        let core = api.get(CORE).await;
        assert_eq!((&core["metadata"]["labels"]["a"], &core["count"]), (&json!("b"), &json!(3)));
        assert_eq!((&core["reportingComponent"], &core["reportingInstance"]), (&json!(""), &json!("")));
        let error = api.patch(NEWER, PatchBody::Merge(json!({"deprecatedCount": 4})), "m").await.unwrap_err();
        assert_eq!(error.message(), "Event \"e\" is invalid: count: Invalid value: 4: field is immutable");
        api.patch(CORE, PatchBody::Merge(json!({"count": 4})), "m").await.unwrap();
        assert_eq!(api.get(NEWER).await["deprecatedCount"], 4);
    });
}

#[test]
fn both_groups_list_and_watch_the_same_events() {
    run(async |api| {
        api.create(CORE, core_event("a")).await.unwrap();
        api.create(NEWER, newer_event("b")).await.unwrap();
        for (group, api_version, message) in [(CORE, "v1", "message"), (NEWER, "events.k8s.io/v1", "note")] {
            let list = api.call(group, None, Call::List(ListOptions::default())).await.unwrap();
            for event in list.as_array().unwrap() {
                assert_eq!((&event["apiVersion"], &event[message]), (&json!(api_version), &json!("it did")));
            }
            assert_eq!(list.as_array().unwrap().len(), 2);
        }
        let mut request = WatchRequest::new(events(NEWER), None);
        request.field_selector = "regarding.name=p".to_owned();
        let mut events = api.server.watch(request).await.unwrap();
        let WatchEvent::Added(event) = events.next().await.unwrap().unwrap() else { panic!("no addition") };
        assert_eq!(event.tree().unwrap()["regarding"]["name"], "p");
    });
}

#[test]
fn each_group_selects_by_its_own_names() {
    run(async |api| {
        api.create(CORE, core_event("a")).await.unwrap();
        api.create(NEWER, newer_event("b")).await.unwrap();
        for (group, selector, selected) in [
            (CORE, "involvedObject.name=p", &["a"][..]),
            (CORE, "source=kubelet", &["a"]),
            (CORE, "source=example.com/c", &["b"]),
            (CORE, "reportingComponent=example.com/c", &["b"]),
            (NEWER, "regarding.name=q", &["b"]),
            (NEWER, "regarding.kind=Pod,reason=Did,type!=Warning", &["a", "b"]),
            (NEWER, "reportingController=example.com/c", &["b"]),
            (NEWER, "metadata.name=a", &["a"]),
        ] {
            assert_eq!(names(&api, group, selector).await.unwrap(), selected, "{group} {selector}");
        }
        for (group, field) in [(CORE, "regarding.name"), (NEWER, "involvedObject.name"), (NEWER, "source")] {
            let error = names(&api, group, &format!("{field}=x")).await.unwrap_err();
            assert_eq!(error.message(), format!("field label not supported: {field}"));
        }
    });
}

#[test]
fn managers_of_both_groups_know_of_each_other() {
    run(async |api| {
        let mut core = core_event("e");
        (core["apiVersion"], core["kind"]) = ("v1".into(), "Event".into());
        api.patch(CORE, PatchBody::Apply(core.clone()), "first").await.unwrap();
        let newer = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"}, "deprecatedCount": 9,
        });
        let error = api.patch(NEWER, PatchBody::Apply(newer), "second").await.unwrap_err();
        assert!(error.is_conflict() && error.message().contains("\"first\": .count"), "{error}");
        // Who applied in the one group takes back in the other.
        let less = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e", "labels": {"a": "b"}},
            "regarding": core["involvedObject"], "deprecatedSource": core["source"], "deprecatedCount": 3,
            "note": "it did", "reason": "Did", "type": "Normal", "deprecatedFirstTimestamp": core["firstTimestamp"],
            "deprecatedLastTimestamp": core["lastTimestamp"],
        });
        let applied = api.patch(NEWER, PatchBody::Apply(less), "first").await.unwrap();
        let managers = applied["metadata"]["managedFields"].as_array().unwrap();
        assert_eq!((managers.len(), &managers[0]["apiVersion"]), (1, &json!("events.k8s.io/v1")));
        assert_eq!(managers[0]["fieldsV1"]["f:deprecatedCount"], json!({}));
    });
}

#[test]
fn a_series_is_of_at_least_two() {
    run(async |api| {
        let mut event = newer_event("e");
        event["series"] = json!({"count": 1});
        let error = api.create(NEWER, event.clone()).await.unwrap_err();
        assert_eq!(
            error.message(),
            "Event \"e\" is invalid: [series.count: Invalid value: \"\": should be at least 2, \
             series.lastObservedTime: Required value]"
        );
        event["series"] = json!({"count": 2, "lastObservedTime": "2026-01-01T00:00:00.000000Z"});
        api.create(NEWER, event).await.unwrap();
        assert_eq!(api.get(CORE).await["series"]["count"], 2);
    });
}
