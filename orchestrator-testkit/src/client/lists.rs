//! Lists: selectors, pages, the past; and collections that are deleted.

use orchestrator_core::{
    client::{Call, DeleteOptions, ListOptions, VersionMatch},
    env::Env,
};
use serde_json::json;

use super::{
    Subject,
    place::{Collection, Place, name_of, version_of},
};
use crate::harness::Outcome;

/// Selectors of labels and of fields select.
pub async fn selectors_choose(subject: &dyn Subject, env: &Env) -> Outcome {
    let place = Place::new(subject, env).await;
    let maps = place.config_maps();
    maps.add("a", json!({"tier": "web", "env": "test"})).await;
    maps.add("b", json!({"tier": "web"})).await;
    maps.add("c", json!({"tier": "data", "env": "live"})).await;
    for (labels, fields, expected) in [
        ("tier=web", "", vec!["a", "b"]),
        ("tier==web,env=test", "", vec!["a"]),
        ("tier!=web", "metadata.name!=kube-root-ca.crt", vec!["c"]),
        ("tier in (web,data),env", "", vec!["a", "c"]),
        ("tier,env notin (test)", "", vec!["b", "c"]),
        ("tier,!env", "", vec!["b"]),
        ("", "metadata.name=b", vec!["b"]),
        ("tier=web", "metadata.name!=b", vec!["a"]),
        ("tier=data", "metadata.name=b", vec![]),
        ("tier=none", "", vec![]),
    ] {
        assert_eq!(maps.names(labels, fields).await.unwrap(), expected, "{labels:?} {fields:?}");
    }
    place.leave().await;
    Outcome::Held
}

/// A list is of one namespace, or of all, and its items say what they are.
pub async fn lists_are_of_one_namespace_or_of_all(subject: &dyn Subject, env: &Env) -> Outcome {
    let (one, other) = (Place::new(subject, env).await, Place::new(subject, env).await);
    let label = format!("contract={}", one.namespace);
    for place in [&one, &other] {
        place.config_maps().add("a", json!({"contract": one.namespace})).await;
    }
    let options = || ListOptions { label_selector: label.clone(), ..ListOptions::default() };
    let page = one.config_maps().page(options()).await.unwrap();
    assert_eq!(page.items.len(), 1);
    let page = one.config_maps().everywhere().page(options()).await.unwrap();
    let mut found: Vec<_> = page.items.iter().map(|item| item["metadata"]["namespace"].clone()).collect();
    found.sort_by_key(|namespace| namespace.to_string());
    let mut expected = [json!(one.namespace), json!(other.namespace)];
    expected.sort_by_key(|namespace| namespace.to_string());
    assert_eq!(found, expected);
    for item in &page.items {
        assert_eq!((&item["kind"], &item["apiVersion"]), (&json!("ConfigMap"), &json!("v1")), "{item}");
        assert!(!version_of(item).is_empty(), "{item}");
    }
    one.leave().await;
    other.leave().await;
    Outcome::Held
}

/// All pages of a list show one state, whatever is written meanwhile, and hold every object once.
pub async fn lists_come_in_pages_of_one_snapshot(subject: &dyn Subject, env: &Env) -> Outcome {
    let place = Place::new(subject, env).await;
    let maps = place.config_maps();
    for number in 0..7 {
        maps.add(&format!("m{number}"), json!({"paged": "yes"})).await;
    }
    let mut options = ListOptions { label_selector: "paged".to_owned(), limit: Some(3), ..ListOptions::default() };
    let first = maps.page(options.clone()).await.unwrap();
    assert_eq!(first.items.iter().map(name_of).collect::<Vec<_>>(), ["m0", "m1", "m2"]);
    maps.delete("m4").await.unwrap();
    maps.add("m5x", json!({"paged": "yes"})).await;
    let (mut names, mut next) = (Vec::new(), first.next);
    while let Some(token) = next {
        options.continue_token = Some(token);
        let page = maps.page(options.clone()).await.unwrap();
        assert_eq!(page.version, first.version, "every page is of one state");
        assert!(page.items.len() <= 3);
        names.extend(page.items.iter().map(name_of));
        next = page.next;
    }
    assert_eq!(names, ["m3", "m4", "m5", "m6"]);
    // Without a selector the server knows how much is left, or says nothing of it.
    let page = maps.page(ListOptions { limit: Some(2), ..ListOptions::default() }).await.unwrap();
    let rest = maps.page(ListOptions { continue_token: page.next, ..ListOptions::default() }).await.unwrap();
    assert!(page.remaining.is_none_or(|remaining| remaining == rest.items.len() as u64));
    assert_eq!(rest.next, None);
    place.leave().await;
    Outcome::Held
}

/// A list shows the state that it is asked for, and a state that is not there yet is refused.
pub async fn lists_show_the_past_when_asked(subject: &dyn Subject, env: &Env) -> Outcome {
    let place = Place::new(subject, env).await;
    let maps = place.config_maps();
    let first = maps.add("a", json!({"past": "yes"})).await;
    maps.add("b", json!({"past": "yes"})).await;
    let at = async |maps: &Collection, version: String, version_match: VersionMatch| {
        let options = ListOptions {
            label_selector: "past".to_owned(),
            resource_version: Some(version),
            version_match: Some(version_match),
            ..ListOptions::default()
        };
        let page = maps.page(options).await?;
        Ok::<_, orchestrator_core::status::ApiError>((page.items.iter().map(name_of).collect::<Vec<_>>(), page.version))
    };
    let (names, version) = at(&maps, version_of(&first), VersionMatch::Exact).await.unwrap();
    assert_eq!((names, version), (vec!["a".to_owned()], version_of(&first)));
    let (names, _) = at(&maps, version_of(&first), VersionMatch::NotOlderThan).await.unwrap();
    assert!(names.starts_with(&["a".to_owned()]), "{names:?}");
    let error = at(&maps, format!("{}", u64::MAX >> 1), VersionMatch::NotOlderThan).await.unwrap_err();
    assert_eq!(error.code(), 504, "{error}");
    place.leave().await;
    Outcome::Held
}

/// Deleting a collection deletes what is selected, in its namespace, and nothing else.
pub async fn collections_are_deleted_by_selection(subject: &dyn Subject, env: &Env) -> Outcome {
    let (place, other) = (Place::new(subject, env).await, Place::new(subject, env).await);
    let maps = place.config_maps();
    for (name, tier) in [("a", "web"), ("b", "data"), ("c", "web")] {
        maps.add(name, json!({"tier": tier})).await;
    }
    other.config_maps().add("a", json!({"tier": "web"})).await;
    let list = ListOptions { label_selector: "tier=web".to_owned(), ..ListOptions::default() };
    maps.reply(None, None, Call::DeleteCollection(DeleteOptions::default(), list)).await.unwrap();
    assert_eq!(maps.names("tier", "").await.unwrap(), ["b"]);
    assert_eq!(other.config_maps().names("tier", "").await.unwrap(), ["a"]);
    let list = ListOptions { field_selector: "metadata.name=b".to_owned(), ..ListOptions::default() };
    maps.reply(None, None, Call::DeleteCollection(DeleteOptions::default(), list)).await.unwrap();
    assert_eq!(maps.names("tier", "").await.unwrap(), [""; 0]);
    place.leave().await;
    other.leave().await;
    Outcome::Held
}
