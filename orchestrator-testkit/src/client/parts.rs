//! Parts of objects that have rules of their own, and requests in somebody's name.

use orchestrator_core::{
    client::{Call, PatchBody, UserInfo, WriteOptions},
    env::Env,
    status::Reason,
};
use serde_json::{Value, json};

use super::{
    Subject,
    place::{Place, deployment},
};
use crate::harness::Outcome;

/// The object's own place does not touch its status, the status' place nothing but it; only the spec moves the generation.
pub async fn status_and_spec_are_apart(subject: &dyn Subject, env: &Env) -> Outcome {
    let place = Place::new(subject, env).await;
    let deployments = place.deployments();
    let mut tree = deployment("a");
    tree["status"] = json!({"replicas": 7});
    let made = deployments.create(&tree).await.unwrap();
    assert_eq!(made["status"].get("replicas"), None, "nobody creates a status: {made}");
    assert_eq!(made["metadata"]["generation"], 1);

    let mut written = made.clone();
    written["spec"]["replicas"] = 5.into();
    written["metadata"]["labels"] = json!({"x": "y"});
    written["status"] = json!({"observedGeneration": 1, "collisionCount": 3});
    let written = deployments.replace_part(Some("status"), &written).await.unwrap();
    assert_eq!(written["status"]["collisionCount"], 3);
    assert_eq!((&written["spec"], &written["metadata"]["generation"]), (&made["spec"], &json!(1)));
    assert_eq!(deployments.get("a").await.unwrap()["status"]["collisionCount"], 3);

    let mut changed = deployments.get("a").await.unwrap();
    changed["spec"]["minReadySeconds"] = 9.into();
    changed["status"] = json!({"collisionCount": 4});
    let changed = deployments.replace(&changed).await.unwrap();
    assert_eq!((&changed["spec"]["minReadySeconds"], &changed["status"]["collisionCount"]), (&json!(9), &json!(3)));
    assert_eq!(changed["metadata"]["generation"], 2);

    let patch = PatchBody::Merge(json!({"spec": {"minReadySeconds": 1}, "status": {"collisionCount": 5}}));
    let call = Call::Patch { patch, options: WriteOptions::default() };
    let patched = deployments.call(Some("a"), Some("status"), call).await.unwrap();
    assert_eq!((&patched["spec"], &patched["status"]["collisionCount"]), (&changed["spec"], &json!(5)));
    let labelled = deployments.patch("a", PatchBody::Merge(json!({"metadata": {"labels": {"x": "z"}}}))).await.unwrap();
    assert_eq!(labelled["metadata"]["generation"], 2, "labels are no spec");
    assert_eq!(labelled["status"]["collisionCount"], 5);
    place.leave().await;
    Outcome::Held
}

/// `scale` reads and writes the number of replicas, and nothing else.
pub async fn scale_is_a_part_of_its_own(subject: &dyn Subject, env: &Env) -> Outcome {
    let place = Place::new(subject, env).await;
    let deployments = place.deployments();
    deployments.create(&deployment("a")).await.unwrap();
    let read = Call::Get { resource_version: None };
    let mut scale: Value = deployments.call(Some("a"), Some("scale"), read).await.unwrap();
    assert_eq!((&scale["kind"], &scale["apiVersion"]), (&json!("Scale"), &json!("autoscaling/v1")));
    assert_eq!(scale["spec"].get("replicas").unwrap_or(&json!(0)), &json!(0));
    scale["spec"]["replicas"] = 2.into();
    let written = deployments.replace_part(Some("scale"), &scale).await.unwrap();
    assert_eq!(written["spec"]["replicas"], 2);
    let scaled = deployments.get("a").await.unwrap();
    assert_eq!((&scaled["spec"]["replicas"], &scaled["metadata"]["generation"]), (&json!(2), &json!(2)));
    // It was read before the write.
    let error = deployments.replace_part(Some("scale"), &scale).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Conflict, "{error}");
    let call =
        Call::Patch { patch: PatchBody::Merge(json!({"spec": {"replicas": 0}})), options: WriteOptions::default() };
    deployments.call(Some("a"), Some("scale"), call).await.unwrap();
    assert_eq!(deployments.get("a").await.unwrap()["spec"]["replicas"], 0);
    place.leave().await;
    Outcome::Held
}

/// A client with a user asks as that user, with all that he is; the client that it was made of stays who it was.
pub async fn clients_speak_for_their_users(subject: &dyn Subject, env: &Env) -> Outcome {
    let place = Place::new(subject, env).await;
    let reviews = place.collection("authentication.k8s.io", "v1", "selfsubjectreviews", false);
    let who = async |reviews: &super::place::Collection| {
        reviews.create(&json!({})).await.unwrap()["status"]["userInfo"].clone()
    };
    let own = who(&reviews).await;
    let jane = UserInfo {
        name: "jane".to_owned(),
        uid: "7".to_owned(),
        groups: vec!["system:authenticated".to_owned(), "writers".to_owned()],
        extra: [("example.org/scopes".to_owned(), vec!["a".to_owned(), "b".to_owned()])].into(),
    };
    let other = place.client.with_user(jane);
    let seen = who(&reviews.through(other.clone())).await;
    assert_eq!((&seen["username"], &seen["uid"]), (&json!("jane"), &json!("7")), "{seen}");
    assert_eq!(seen["extra"], json!({"example.org/scopes": ["a", "b"]}), "{seen}");
    let groups: Vec<&str> = seen["groups"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(groups.contains(&"writers") && groups.contains(&"system:authenticated"), "{seen}");
    assert!(!groups.contains(&"system:masters"), "{seen}");

    let maps = place.config_maps().through(other);
    let error = maps.get("a").await.unwrap_err();
    assert_eq!((error.reason(), error.code()), (Reason::Forbidden, 403), "{error}");
    assert!(error.message().contains("jane"), "{error}");
    assert_eq!(maps.watch(maps.watching("1")).await.err().map(|error| error.reason()), Some(Reason::Forbidden));
    assert_eq!(who(&reviews).await, own);
    place.leave().await;
    Outcome::Held
}
