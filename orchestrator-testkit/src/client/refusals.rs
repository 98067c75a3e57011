//! Refusals: each with a code, a reason and what is wrong.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Preconditions;
use orchestrator_core::{
    client::{Call, DeleteOptions, FieldValidation, ListOptions, PatchBody, Reply, WriteOptions},
    env::Env,
    object::Object,
    status::{ApiError, Reason},
};
use serde_json::json;

use super::{
    Subject,
    place::{Place, version_of},
};
use crate::harness::Outcome;

fn check(error: &ApiError, reason: Reason, code: i32) {
    assert_eq!((error.reason(), error.code()), (reason, code), "{error}");
    assert!(!error.message().is_empty(), "a refusal without a word");
}

/// Code, reason, and what it is about.
pub async fn refusals_say_why(subject: &dyn Subject, env: &Env) -> Outcome {
    let place = Place::new(subject, env).await;
    let maps = place.config_maps();
    let error = maps.get("none").await.unwrap_err();
    check(&error, Reason::NotFound, 404);
    assert_eq!(error.message(), "configmaps \"none\" not found");
    let details = error.status().details.clone().unwrap_or_default();
    assert_eq!((details.kind.as_deref(), details.name.as_deref()), (Some("configmaps"), Some("none")));
    check(&maps.delete("none").await.unwrap_err(), Reason::NotFound, 404);
    check(&maps.replace(&json!({"metadata": {"name": "none"}})).await.unwrap_err(), Reason::NotFound, 404);

    maps.add("a", json!({})).await;
    let error = maps.create(&json!({"metadata": {"name": "a"}})).await.unwrap_err();
    check(&error, Reason::AlreadyExists, 409);
    assert_eq!(error.message(), "configmaps \"a\" already exists");

    // Every broken rule is told, each at its field.
    let error = maps.create(&json!({"metadata": {"name": "Not_A_Name"}, "data": {"a/b": "c"}})).await.unwrap_err();
    check(&error, Reason::Invalid, 422);
    let causes = error.status().details.clone().unwrap_or_default().causes.unwrap_or_default();
    let fields: Vec<_> = causes.iter().filter_map(|cause| cause.field.as_deref()).collect();
    assert_eq!(fields, ["metadata.name", "data[a/b]"], "{error}");
    assert!(causes.iter().all(|cause| cause.reason.as_deref() == Some("FieldValueInvalid")), "{causes:?}");
    place.leave().await;
    Outcome::Held
}

/// Requests that make no sense are answered with what is wrong, not with something else.
pub async fn odd_requests_are_refused(subject: &dyn Subject, env: &Env) -> Outcome {
    let place = Place::new(subject, env).await;
    let maps = place.config_maps();
    let strange = place.collection("example.invalid", "v1", "things", true);
    check(&strange.get("a").await.unwrap_err(), Reason::NotFound, 404);
    check(
        &maps.create(&json!({"metadata": {"name": "a", "namespace": "other"}})).await.unwrap_err(),
        Reason::BadRequest,
        400,
    );
    let wrong_kind = json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "a"}});
    check(&maps.create(&wrong_kind).await.unwrap_err(), Reason::BadRequest, 400);
    check(&maps.create(&json!({"metadata": {"name": "a"}, "data": 7})).await.unwrap_err(), Reason::BadRequest, 400);
    check(&maps.names("a in (b", "").await.unwrap_err(), Reason::BadRequest, 400);
    check(&maps.names("", "data.a=b").await.unwrap_err(), Reason::BadRequest, 400);
    let nowhere = ListOptions { continue_token: Some("nonsense".to_owned()), ..ListOptions::default() };
    check(&maps.page(nowhere).await.err().expect("a token that nobody made"), Reason::BadRequest, 400);
    let never = ListOptions { resource_version: Some("x".to_owned()), ..ListOptions::default() };
    check(&maps.page(never).await.err().expect("a version that is none"), Reason::BadRequest, 400);
    maps.add("a", json!({})).await;
    let part = maps.call(Some("a"), Some("no-such-part"), Call::Get { resource_version: None }).await;
    check(&part.unwrap_err(), Reason::NotFound, 404);
    place.leave().await;
    Outcome::Held
}

/// A write that is based on an older version changes nothing.
pub async fn stale_writes_are_refused(subject: &dyn Subject, env: &Env) -> Outcome {
    let place = Place::new(subject, env).await;
    let maps = place.config_maps();
    let old = maps.create(&json!({"metadata": {"name": "a"}, "data": {"k": "1"}})).await.unwrap();
    let new = maps.patch("a", PatchBody::Merge(json!({"data": {"k": "2"}}))).await.unwrap();
    let mut late = old.clone();
    late["data"]["k"] = "3".into();
    check(&maps.replace(&late).await.unwrap_err(), Reason::Conflict, 409);
    let stale = json!({"metadata": {"resourceVersion": version_of(&old)}, "data": {"k": "3"}});
    check(&maps.patch("a", PatchBody::Merge(stale)).await.unwrap_err(), Reason::Conflict, 409);
    let mut stranger = new.clone();
    stranger["metadata"]["uid"] = "00000000-0000-0000-0000-000000000000".into();
    check(&maps.replace(&stranger).await.unwrap_err(), Reason::Conflict, 409);
    assert_eq!(maps.get("a").await.unwrap(), new);
    // Without a version the last one to write is right.
    late["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    assert_eq!(maps.replace(&late).await.unwrap()["data"]["k"], "3");
    place.leave().await;
    Outcome::Held
}

/// A deletion happens only to the object that the caller means.
pub async fn preconditions_guard_deletions(subject: &dyn Subject, env: &Env) -> Outcome {
    let place = Place::new(subject, env).await;
    let maps = place.config_maps();
    let old = maps.add("a", json!({})).await;
    let new = maps.patch("a", PatchBody::Merge(json!({"data": {"k": "2"}}))).await.unwrap();
    let only = |uid: Option<&str>, version: Option<&str>| DeleteOptions {
        preconditions: Some(Preconditions {
            uid: uid.map(str::to_owned),
            resource_version: version.map(str::to_owned),
        }),
        ..DeleteOptions::default()
    };
    let uid = new["metadata"]["uid"].as_str().unwrap();
    for wrong in [only(Some("other"), None), only(None, Some(&version_of(&old))), only(Some(uid), Some("1"))] {
        check(&maps.delete_with("a", wrong).await.unwrap_err(), Reason::Conflict, 409);
        assert_eq!(maps.get("a").await.unwrap(), new);
    }
    maps.delete_with("a", only(Some(uid), Some(&version_of(&new)))).await.unwrap();
    assert_eq!(maps.find("a").await, None);
    place.leave().await;
    Outcome::Held
}

/// Fields that nobody knows are refused, told or dropped, as asked.
pub async fn unknown_fields_are_told(subject: &dyn Subject, env: &Env) -> Outcome {
    let place = Place::new(subject, env).await;
    let maps = place.config_maps();
    let object = |name: &str| Object::from_tree(json!({"metadata": {"name": name}, "dota": {"k": "v"}}));
    let create = async |name: &str, field_validation: FieldValidation| {
        let options = WriteOptions { field_validation, ..WriteOptions::default() };
        match maps.reply(None, None, Call::Create { object: object(name), options }).await? {
            Reply::Object { object, warnings, .. } => Ok((object.to_tree().unwrap(), warnings)),
            Reply::List { .. } => panic!("an object was asked for, a list came"),
        }
    };
    let error: ApiError = create("a", FieldValidation::Strict).await.unwrap_err();
    check(&error, Reason::BadRequest, 400);
    assert!(error.message().contains("unknown field \"dota\""), "{error}");
    assert_eq!(maps.find("a").await, None);
    let (made, warnings) = create("b", FieldValidation::Warn).await.unwrap();
    assert_eq!(warnings, ["unknown field \"dota\""]);
    assert_eq!(made.get("dota"), None);
    let (made, warnings) = create("c", FieldValidation::Ignore).await.unwrap();
    assert_eq!((made.get("dota"), warnings.len()), (None, 0));
    place.leave().await;
    Outcome::Held
}
