//! Objects: creating, reading, replacing, deleting.

use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::api::core::v1::ConfigMap;
use kube_core::params::{DeleteParams, PostParams};
use orchestrator_core::{
    client::{Api, Call, DeleteOptions, PatchBody, Reply, WriteOptions},
    env::Env,
    object::Object,
};
use serde_json::{Value, json};

use super::{
    Subject,
    place::{Place, name_of, version_of},
};
use crate::harness::Outcome;

/// An object is there from its creation to its deletion, and the server says what it made of it.
pub async fn objects_come_and_go(subject: &dyn Subject, env: &Env) -> Outcome {
    let place = Place::new(subject, env).await;
    let maps = place.config_maps();
    let sent = json!({"metadata": {"name": "a", "labels": {"x": "y"}}, "data": {"k": "v"}});
    let call = Call::Create { object: Object::from_tree(sent), options: WriteOptions::default() };
    let Reply::Object { object, created, .. } = maps.reply(None, None, call).await.unwrap() else {
        panic!("an object was asked for, a list came")
    };
    assert!(created, "the client is told that the object is new");
    let made = object.to_tree().unwrap();
    assert_eq!((&made["kind"], &made["apiVersion"]), (&json!("ConfigMap"), &json!("v1")));
    assert_eq!(made["metadata"]["namespace"], place.namespace.as_str());
    for given in ["uid", "resourceVersion", "creationTimestamp"] {
        assert!(made["metadata"][given].as_str().is_some_and(|text| !text.is_empty()), "{given} of {made}");
    }
    assert_eq!(maps.get("a").await.unwrap(), made, "what is read is what was answered");

    let mut next = made.clone();
    next["data"] = json!({"k": "w"});
    let replaced = maps.replace(&next).await.unwrap();
    assert_eq!(replaced["data"], next["data"]);
    assert_eq!(replaced["metadata"]["uid"], made["metadata"]["uid"]);
    assert_ne!(version_of(&replaced), version_of(&made));
    // Nothing new is nothing written.
    assert_eq!(version_of(&maps.replace(&replaced).await.unwrap()), version_of(&replaced));

    maps.delete("a").await.unwrap();
    assert_eq!(maps.find("a").await, None);
    let again = maps.add("a", json!({})).await;
    assert_ne!(again["metadata"]["uid"], made["metadata"]["uid"], "the same name later is another object");
    place.leave().await;
    Outcome::Held
}

/// The same through types.
pub async fn typed_objects_come_and_go(subject: &dyn Subject, env: &Env) -> Outcome {
    let place = Place::new(subject, env).await;
    let maps: Api<ConfigMap> = Api::namespaced(&place.client, &place.namespace);
    let mut map = ConfigMap::default();
    map.metadata.name = Some("a".to_owned());
    map.data = Some([("k".to_owned(), "v".to_owned())].into());
    let made = maps.create(&PostParams::default(), &map).await.unwrap();
    assert_eq!(made.data, map.data);
    assert_eq!(maps.get("a").await.unwrap(), made);
    let list = maps.list(&Default::default()).await.unwrap();
    assert_eq!(list.items, std::slice::from_ref(&made));
    let mut next = ConfigMap::clone(&made);
    next.immutable = Some(true);
    let replaced = maps.replace("a", &PostParams::default(), &next).await.unwrap();
    assert_eq!(replaced.immutable, Some(true));
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    assert_eq!(maps.get_opt("a").await.unwrap(), None);
    place.leave().await;
    Outcome::Held
}

/// Quotes, line ends, letters of all scripts and large values come back as they were.
pub async fn contents_come_back_as_they_were(subject: &dyn Subject, env: &Env) -> Outcome {
    let place = Place::new(subject, env).await;
    let maps = place.config_maps();
    let data = json!({
        "quotes": "\"a\\b\" \u{0}\u{1f}",
        "lines": "one\r\ntwo\n\n",
        "letters": "é 漢字 😀 \u{2028}",
        "json": "{\"metadata\":{\"resourceVersion\":\"1\"},\"items\":[]}",
        "long": "0123456789abcdef".repeat(32 << 10),
        "empty": "",
    });
    maps.create(&json!({"metadata": {"name": "a"}, "data": data})).await.unwrap();
    assert_eq!(maps.get("a").await.unwrap()["data"], data);
    let page = maps.page(Default::default()).await.unwrap();
    assert_eq!(page.items[0]["data"], data);
    place.leave().await;
    Outcome::Held
}

/// Names with colons reach the object that they name.
pub async fn names_of_any_form_travel(subject: &dyn Subject, env: &Env) -> Outcome {
    let place = Place::new(subject, env).await;
    let roles = place.collection("rbac.authorization.k8s.io", "v1", "clusterroles", false);
    let name = format!("contract:{}:a.b_c~(d)", env.name_suffix(8));
    roles.create(&json!({"metadata": {"name": name}, "rules": []})).await.unwrap();
    assert_eq!(name_of(&roles.get(&name).await.unwrap()), name);
    assert_eq!(roles.names("", &format!("metadata.name={name}")).await.unwrap(), std::slice::from_ref(&name));
    roles.delete(&name).await.unwrap();
    assert_eq!(roles.find(&name).await, None);
    place.leave().await;
    Outcome::Held
}

/// `generateName` makes names that differ.
pub async fn generated_names_are_unique(subject: &dyn Subject, env: &Env) -> Outcome {
    let place = Place::new(subject, env).await;
    let maps = place.config_maps();
    let mut names = BTreeSet::new();
    for _ in 0..50 {
        let made = maps.create(&json!({"metadata": {"generateName": "some-"}})).await.unwrap();
        let name = name_of(&made);
        assert!(name.starts_with("some-") && name.len() > "some-".len(), "{name}");
        assert!(names.insert(name.clone()), "{name} twice");
    }
    place.leave().await;
    Outcome::Held
}

/// A dry run answers as if it had been done, and nothing is done.
pub async fn dry_runs_change_nothing(subject: &dyn Subject, env: &Env) -> Outcome {
    let place = Place::new(subject, env).await;
    let maps = place.config_maps();
    let dry = WriteOptions { dry_run: true, ..WriteOptions::default() };
    let made = maps.create_with(&json!({"metadata": {"name": "a"}}), dry.clone()).await.unwrap();
    assert_eq!(name_of(&made), "a");
    assert_eq!(maps.find("a").await, None, "created");

    let kept = maps.create(&json!({"metadata": {"name": "b"}, "data": {"k": "v"}})).await.unwrap();
    let mut next = kept.clone();
    next["data"] = json!({"k": "w"});
    let call = Call::Replace { object: Object::from_tree(next.clone()), options: dry.clone() };
    assert_eq!(maps.call(Some("b"), None, call).await.unwrap()["data"], next["data"]);
    let call = Call::Patch { patch: PatchBody::Merge(json!({"data": {"k": "x"}})), options: dry.clone() };
    assert_eq!(maps.call(Some("b"), None, call).await.unwrap()["data"], json!({"k": "x"}));
    let gone = DeleteOptions { dry_run: true, ..DeleteOptions::default() };
    maps.delete_with("b", gone.clone()).await.unwrap();
    maps.reply(None, None, Call::DeleteCollection(gone, Default::default())).await.unwrap();
    assert_eq!(maps.get("b").await.unwrap(), kept);
    // A refusal stays one.
    assert!(maps.create_with(&json!({"metadata": {"name": "b"}}), dry).await.unwrap_err().is_already_exists());
    place.leave().await;
    Outcome::Held
}

/// An object with finalizers is marked, not deleted; it goes with the last of them.
pub async fn finalizers_hold_objects(subject: &dyn Subject, env: &Env) -> Outcome {
    let place = Place::new(subject, env).await;
    let maps = place.config_maps();
    let finalizers = json!(["example.org/one", "example.org/two"]);
    let made = maps.create(&json!({"metadata": {"name": "a", "finalizers": finalizers}})).await.unwrap();
    let mut watch = maps.watch(maps.watching(&version_of(&made))).await.unwrap();
    for _ in 0..2 {
        maps.delete("a").await.unwrap();
        let held = maps.get("a").await.unwrap();
        assert!(held["metadata"]["deletionTimestamp"].is_string(), "{held}");
        assert_eq!(held["metadata"]["finalizers"], finalizers);
        assert_eq!(held["metadata"]["uid"], made["metadata"]["uid"]);
    }
    let keep = |names: Value| PatchBody::Merge(json!({"metadata": {"finalizers": names}}));
    maps.patch("a", keep(json!(["example.org/two"]))).await.unwrap();
    assert!(maps.find("a").await.is_some());
    maps.patch("a", keep(Value::Null)).await.unwrap();
    assert_eq!(maps.find("a").await, None);
    assert_eq!(watch.events(3).await, ["modified a", "modified a", "deleted a"]);
    place.leave().await;
    Outcome::Held
}

/// Many who read, add and write, and begin again when they are refused, lose nothing.
pub async fn concurrent_updates_lose_none(subject: &dyn Subject, env: &Env) -> Outcome {
    const WRITERS: usize = 8;
    const ROUNDS: usize = 5;
    let place = Place::new(subject, env).await;
    let maps = place.config_maps();
    maps.create(&json!({"metadata": {"name": "a"}, "data": {"count": "0"}})).await.unwrap();
    let writer = async || {
        for _ in 0..ROUNDS {
            loop {
                let mut tree = maps.get("a").await.unwrap();
                let count: usize = tree["data"]["count"].as_str().unwrap().parse().unwrap();
                tree["data"]["count"] = (count + 1).to_string().into();
                // Others come in between, also where a request takes no time.
                env.sleep(Duration::from_millis(1)).await;
                match maps.replace(&tree).await {
                    Ok(_) => break,
                    Err(error) => assert!(error.is_conflict(), "{error}"),
                }
            }
        }
    };
    futures::future::join_all((0..WRITERS).map(|_| writer())).await;
    assert_eq!(maps.get("a").await.unwrap()["data"]["count"], (WRITERS * ROUNDS).to_string());
    place.leave().await;
    Outcome::Held
}
