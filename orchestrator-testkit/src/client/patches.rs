//! Patches: JSON, merge, strategic.

use orchestrator_core::{client::PatchBody, env::Env, status::Reason};
use serde_json::json;

use super::{
    Subject,
    place::{Place, deployment, version_of},
};
use crate::harness::Outcome;

/// The steps of a JSON patch happen in order, all or none.
pub async fn json_patches_apply_whole_or_not_at_all(subject: &dyn Subject, env: &Env) -> Outcome {
    let place = Place::new(subject, env).await;
    let maps = place.config_maps();
    maps.create(&json!({"metadata": {"name": "a"}, "data": {"x": "1", "y": "2"}})).await.unwrap();
    let steps = json!([
        {"op": "test", "path": "/data/x", "value": "1"},
        {"op": "move", "from": "/data/x", "path": "/data/w"},
        {"op": "remove", "path": "/data/y"},
        {"op": "add", "path": "/metadata/labels", "value": {"example.org/a": "b"}},
        {"op": "replace", "path": "/metadata/labels/example.org~1a", "value": "c"},
        {"op": "add", "path": "/data/new", "value": "3"},
        {"op": "replace", "path": "/data/new", "value": "4"},
    ]);
    let patched = maps.patch("a", PatchBody::Json(steps)).await.unwrap();
    assert_eq!(patched["data"], json!({"w": "1", "new": "4"}));
    assert_eq!(patched["metadata"]["labels"], json!({"example.org/a": "c"}));
    let failing = json!([
        {"op": "add", "path": "/data/late", "value": "5"},
        {"op": "test", "path": "/data/w", "value": "other"},
    ]);
    let error = maps.patch("a", PatchBody::Json(failing)).await.unwrap_err();
    assert_eq!(error.code(), 422, "{error}");
    assert_eq!(maps.get("a").await.unwrap(), patched);
    place.leave().await;
    Outcome::Held
}

/// In a merge patch null removes, members merge, lists are replaced.
pub async fn merge_patches_remove_what_is_null(subject: &dyn Subject, env: &Env) -> Outcome {
    let place = Place::new(subject, env).await;
    let maps = place.config_maps();
    let finalizers = json!(["example.org/one", "example.org/two"]);
    let sent = json!({"metadata": {"name": "a", "finalizers": finalizers}, "data": {"x": "1", "y": "2"}});
    maps.create(&sent).await.unwrap();
    let patch = json!({"metadata": {"finalizers": ["example.org/three"]}, "data": {"x": null, "z": "3"}});
    let patched = maps.patch("a", PatchBody::Merge(patch)).await.unwrap();
    assert_eq!(patched["data"], json!({"y": "2", "z": "3"}));
    assert_eq!(patched["metadata"]["finalizers"], json!(["example.org/three"]));
    // What changes nothing is not written.
    let same = maps.patch("a", PatchBody::Merge(json!({"data": {"y": "2"}}))).await.unwrap();
    assert_eq!(version_of(&same), version_of(&patched));
    let freed = PatchBody::Merge(json!({"metadata": {"finalizers": null}}));
    assert_eq!(maps.patch("a", freed).await.unwrap()["metadata"].get("finalizers"), None);
    place.leave().await;
    Outcome::Held
}

/// Many who patch one object at once, without a word of its version, are all heard.
pub async fn concurrent_patches_lose_none(subject: &dyn Subject, env: &Env) -> Outcome {
    const WRITERS: usize = 12;
    let place = Place::new(subject, env).await;
    let maps = place.config_maps();
    maps.create(&json!({"metadata": {"name": "a"}, "data": {"first": "1"}})).await.unwrap();
    let writer = async |number: usize| {
        let change = json!({"data": {format!("by-{number}"): "1"}});
        let step = json!([{"op": "add", "path": format!("/data/by-{number}"), "value": "1"}]);
        let patch = match number % 3 {
            0 => PatchBody::Merge(change),
            1 => PatchBody::Strategic(change),
            _ => PatchBody::Json(step),
        };
        maps.patch("a", patch).await.unwrap();
    };
    futures::future::join_all((0..WRITERS).map(writer)).await;
    assert_eq!(maps.get("a").await.unwrap()["data"].as_object().unwrap().len(), WRITERS + 1);
    place.leave().await;
    Outcome::Held
}

/// A strategic patch finds the items of lists by their keys, and removes those that it is told to.
pub async fn strategic_patches_merge_lists_by_key(subject: &dyn Subject, env: &Env) -> Outcome {
    let place = Place::new(subject, env).await;
    let deployments = place.deployments();
    deployments.create(&deployment("a")).await.unwrap();
    let containers = |list| json!({"spec": {"template": {"spec": {"containers": list}}}});
    let list = json!([{"name": "side", "image": "three"}, {"name": "extra", "image": "four"}]);
    let patched = deployments.patch("a", PatchBody::Strategic(containers(list))).await.unwrap();
    let images = |tree: &serde_json::Value| -> Vec<(String, String)> {
        let list = tree["spec"]["template"]["spec"]["containers"].as_array().unwrap().clone();
        let mut images: Vec<_> = list
            .iter()
            .map(|item| (item["name"].as_str().unwrap().to_owned(), item["image"].as_str().unwrap().to_owned()))
            .collect();
        images.sort();
        images
    };
    let pair = |name: &str, image: &str| (name.to_owned(), image.to_owned());
    assert_eq!(images(&patched), [pair("extra", "four"), pair("main", "one"), pair("side", "three")]);
    let list = json!([{"name": "main", "$patch": "delete"}]);
    let patched = deployments.patch("a", PatchBody::Strategic(containers(list))).await.unwrap();
    assert_eq!(images(&patched), [pair("extra", "four"), pair("side", "three")]);
    place.leave().await;
    Outcome::Held
}

/// A patch of nothing makes nothing, and a patch that makes no sense is refused.
pub async fn patches_need_their_object(subject: &dyn Subject, env: &Env) -> Outcome {
    let place = Place::new(subject, env).await;
    let maps = place.config_maps();
    for patch in [PatchBody::Merge(json!({})), PatchBody::Strategic(json!({})), PatchBody::Json(json!([]))] {
        assert_eq!(maps.patch("none", patch).await.unwrap_err().reason(), Reason::NotFound);
    }
    let kept = maps.add("a", json!({})).await;
    for patch in [
        PatchBody::Json(json!([{"op": "walk", "path": "/data"}])),
        PatchBody::Json(json!({"data": {}})),
        PatchBody::Merge(json!({"data": [1]})),
        PatchBody::Merge(json!({"metadata": {"name": "b"}})),
    ] {
        let error = maps.patch("a", patch.clone()).await.expect_err("a patch that makes no sense");
        assert!((400..500).contains(&error.code()), "{patch:?}: {error}");
    }
    assert_eq!(maps.get("a").await.unwrap(), kept);
    place.leave().await;
    Outcome::Held
}
