//! Watches: nothing missed, nothing twice, and an end that is told.

use std::time::Duration;

use orchestrator_core::{
    client::{PatchBody, WatchEvent, WatchRequest},
    env::Env,
};
use serde_json::json;

use super::{
    Subject,
    place::{PATIENCE, Place, version_of},
};
use crate::harness::Outcome;

/// A watch from the version of a list tells all that happened after it, once and in order.
pub async fn a_watch_from_a_list_misses_nothing(subject: &dyn Subject, env: &Env) -> Outcome {
    let place = Place::new(subject, env).await;
    let maps = place.config_maps();
    maps.add("before", json!({})).await;
    let version = maps.version().await;
    maps.add("a", json!({})).await;
    let mut watch = maps.watch(maps.watching(&version)).await.unwrap();
    let changed = maps.patch("a", PatchBody::Merge(json!({"data": {"k": "v"}}))).await.unwrap();
    maps.add("b", json!({})).await;
    maps.delete("a").await.unwrap();
    maps.delete("before").await.unwrap();
    assert_eq!(watch.told().await.0, "added a");
    assert_eq!(watch.told().await, ("modified a".to_owned(), version_of(&changed)));
    assert_eq!(watch.events(3).await, ["added b", "deleted a", "deleted before"]);
    // Whoever comes back after an event goes on behind it.
    let mut again = maps.watch(maps.watching(&version_of(&changed))).await.unwrap();
    assert_eq!(again.events(3).await, ["added b", "deleted a", "deleted before"]);
    place.leave().await;
    Outcome::Held
}

/// A watch from version `0` tells what is there first.
pub async fn a_watch_begins_with_the_present_when_asked(subject: &dyn Subject, env: &Env) -> Outcome {
    let place = Place::new(subject, env).await;
    let maps = place.config_maps();
    maps.add("a", json!({"seen": "yes"})).await;
    maps.add("b", json!({"seen": "yes"})).await;
    let request = WatchRequest { label_selector: "seen".to_owned(), ..maps.watching("0") };
    let mut watch = maps.watch(request).await.unwrap();
    let mut present = watch.events(2).await;
    present.sort();
    assert_eq!(present, ["added a", "added b"]);
    maps.delete("a").await.unwrap();
    assert_eq!(watch.events(1).await, ["deleted a"]);
    place.leave().await;
    Outcome::Held
}

/// Initial events end with a bookmark that says so, and a watch from there misses nothing.
pub async fn initial_events_have_an_end(subject: &dyn Subject, env: &Env) -> Outcome {
    let place = Place::new(subject, env).await;
    let maps = place.config_maps();
    maps.add("a", json!({"seen": "yes"})).await;
    let request = WatchRequest {
        label_selector: "seen".to_owned(),
        bookmarks: true,
        send_initial_events: true,
        resource_version: None,
        ..maps.watching("")
    };
    let mut watch = maps.watch(request).await.unwrap();
    let mut added = 0;
    let version = loop {
        match watch.next().await.expect("the watch goes on").expect("the watch has not failed") {
            WatchEvent::Added(_) => added += 1,
            WatchEvent::Bookmark { resource_version, initial_events_end: true } => break resource_version,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(added, 1);
    maps.add("b", json!({"seen": "yes"})).await;
    assert_eq!(watch.events(1).await, ["added b"]);
    let request = WatchRequest { label_selector: "seen".to_owned(), ..maps.watching(&version) };
    assert_eq!(maps.watch(request).await.unwrap().events(1).await, ["added b"]);
    place.leave().await;
    Outcome::Held
}

/// For whoever selects, an object comes and goes with what is selected by, and its end is told in its last selected state.
pub async fn selectors_make_objects_enter_and_leave(subject: &dyn Subject, env: &Env) -> Outcome {
    let place = Place::new(subject, env).await;
    let maps = place.config_maps();
    let version = version_of(&maps.add("a", json!({"tier": "data"})).await);
    let selected = |labels: &str, fields: &str| WatchRequest {
        label_selector: labels.to_owned(),
        field_selector: fields.to_owned(),
        ..maps.watching(&version)
    };
    let mut web = maps.watch(selected("tier=web", "")).await.unwrap();
    let mut only_b = maps.watch(selected("", "metadata.name=b")).await.unwrap();
    let label = |tier: &str| PatchBody::Merge(json!({"metadata": {"labels": {"tier": tier}}}));
    maps.patch("a", label("web")).await.unwrap();
    maps.patch("a", PatchBody::Merge(json!({"data": {"k": "v"}}))).await.unwrap();
    let left = maps.patch("a", label("data")).await.unwrap();
    maps.add("b", json!({"tier": "web"})).await;
    maps.delete("a").await.unwrap();
    assert_eq!(web.events(2).await, ["added a", "modified a"]);
    let gone = loop {
        match web.next().await.expect("the watch goes on").expect("the watch has not failed") {
            WatchEvent::Deleted(object) => break object.to_tree().unwrap(),
            WatchEvent::Bookmark { .. } => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(gone["metadata"]["labels"]["tier"], "web", "the last state in the selection");
    assert_eq!(version_of(&gone), version_of(&left), "at the version of the change");
    assert_eq!(web.events(1).await, ["added b"]);
    assert_eq!(only_b.events(1).await, ["added b"]);
    place.leave().await;
    Outcome::Held
}

/// A silent watch with bookmarks learns how far it is, and goes on from there.
pub async fn bookmarks_say_how_far_a_watch_is(subject: &dyn Subject, env: &Env) -> Outcome {
    let place = Place::new(subject, env).await;
    let maps = place.config_maps();
    let version = maps.version().await;
    let request = || WatchRequest { label_selector: "seen".to_owned(), bookmarks: true, ..maps.watching(&version) };
    let mut watch = maps.watch(request()).await.unwrap();
    let number = |version: &str| version.parse::<u64>().expect("versions are numbers, since Kubernetes 1.35");
    let unseen = version_of(&maps.add("unseen", json!({})).await);
    let reached = loop {
        match watch.next().await.expect("the watch goes on").expect("the watch has not failed") {
            WatchEvent::Bookmark { resource_version, initial_events_end } => {
                assert!(!initial_events_end, "nobody asked for initial events");
                if number(&resource_version) >= number(&unseen) {
                    break resource_version;
                }
            }
            other => panic!("{other:?}"),
        }
    };
    maps.add("a", json!({"seen": "yes"})).await;
    assert_eq!(watch.events(1).await, ["added a"]);
    let again = WatchRequest { label_selector: "seen".to_owned(), ..maps.watching(&reached) };
    assert_eq!(maps.watch(again).await.unwrap().events(1).await, ["added a"]);
    place.leave().await;
    Outcome::Held
}

/// A watch from a version that the server has forgotten is told so, and nothing else.
pub async fn a_watch_of_what_was_forgotten_is_told(subject: &dyn Subject, env: &Env) -> Outcome {
    let place = Place::new(subject, env).await;
    let maps = place.config_maps();
    let old = version_of(&maps.add("a", json!({})).await);
    maps.add("b", json!({})).await;
    if !subject.forget_history().await {
        return Outcome::Skipped("forgetting history");
    }
    let error = match maps.watch(maps.watching(&old)).await {
        Err(error) => error,
        Ok(mut watch) => {
            let error = watch.next().await.expect("an answer").expect_err("what was forgotten cannot be told");
            assert!(watch.next().await.is_none(), "nothing comes after an error");
            error
        }
    };
    assert!(error.is_expired(), "{error}");
    assert_eq!(error.code(), 410);
    let version = maps.version().await;
    let mut watch = maps.watch(maps.watching(&version)).await.unwrap();
    maps.add("c", json!({})).await;
    assert_eq!(watch.events(1).await, ["added c"], "from the present on everything is as before");
    place.leave().await;
    Outcome::Held
}

/// A watch with a timeout ends by then, without an error.
pub async fn watches_end_at_their_time(subject: &dyn Subject, env: &Env) -> Outcome {
    let place = Place::new(subject, env).await;
    let maps = place.config_maps();
    let version = maps.version().await;
    let time = Duration::from_secs(1);
    let request = WatchRequest { timeout: Some(time), ..maps.watching(&version) };
    let begun = env.monotonic();
    let mut watch = maps.watch(request).await.unwrap();
    assert!(watch.next().await.is_none());
    let took = env.monotonic() - begun;
    assert!(took >= time && took < PATIENCE, "{took:?}");
    place.leave().await;
    Outcome::Held
}
