//! Server-side apply: of typed objects, of dynamic ones and of metadata alone, with conflicts and the managers of fields.

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Pod},
};
use kube::{
    Api, Error, ResourceExt,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
    core::{PartialObjectMeta, PartialObjectMetaExt},
};
use serde_json::json;

use crate::{Door, cluster, config_map};

through_both_doors! {
    typed_objects_are_applied,
    dynamic_objects_are_applied,
    lists_are_merged_by_their_keys,
    metadata_alone_is_applied,
    a_status_is_applied_apart,
}

/// The managers of an object's fields, and how they came to them.
fn managers(object: &impl ResourceExt) -> Vec<(String, String)> {
    let entries = object.managed_fields().iter();
    entries
        .map(|entry| (entry.manager.clone().unwrap_or_default(), entry.operation.clone().unwrap_or_default()))
        .collect()
}

fn applies(names: &[&str]) -> Vec<(String, String)> {
    names.iter().map(|name| ((*name).to_owned(), "Apply".to_owned())).collect()
}

async fn typed_objects_are_applied(door: Door) {
    let cluster = cluster(door).await;
    let api: Api<ConfigMap> = Api::default_namespaced(cluster.kube_client());
    let made = api.patch("a", &PatchParams::apply("one"), &Patch::Apply(config_map("a", "1"))).await.unwrap();
    assert_eq!(managers(&made), applies(&["one"]));
    let same = api.patch("a", &PatchParams::apply("one"), &Patch::Apply(config_map("a", "1"))).await.unwrap();
    assert_eq!(same.resource_version(), made.resource_version(), "nothing is written that changes nothing");

    let refused = api.patch("a", &PatchParams::apply("two"), &Patch::Apply(config_map("a", "2"))).await.unwrap_err();
    let Error::Api(status) = refused else { panic!("not a refusal: {refused}") };
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    let causes = status.details.unwrap().causes;
    let fields: Vec<&str> = causes.iter().map(|cause| cause.field.as_str()).collect();
    assert_eq!(fields, [".data.value", ".metadata.labels.value"]);

    let forced = PatchParams::apply("two").force();
    let taken = api.patch("a", &forced, &Patch::Apply(config_map("a", "2"))).await.unwrap();
    assert_eq!((taken.labels()["value"].as_str(), managers(&taken)), ("2", applies(&["two"])));
    // What its only manager applies no more is gone.
    let mut less = config_map("a", "2");
    less.data = None;
    let left = api.patch("a", &forced, &Patch::Apply(less)).await.unwrap();
    assert_eq!(left.data, None);
    assert!(matches!(
        api.patch("a", &PatchParams::default(), &Patch::Apply(config_map("a", "3"))).await,
        Err(Error::Api(status)) if status.code == 422 && status.message.contains("fieldManager: Required value")
    ));
    cluster.shutdown().await;
}

async fn dynamic_objects_are_applied(door: Door) {
    let cluster = cluster(door).await;
    let resource = ApiResource::erase::<ConfigMap>(&());
    let api: Api<DynamicObject> = Api::default_namespaced_with(cluster.kube_client(), &resource);
    for value in ["1", "2"] {
        let object = DynamicObject::new("a", &resource).data(json!({"data": {"value": value}}));
        let applied = api.patch("a", &PatchParams::apply("one"), &Patch::Apply(&object)).await.unwrap();
        assert_eq!((&applied.data["data"]["value"], managers(&applied)), (&json!(value), applies(&["one"])));
    }
    cluster.shutdown().await;
}

async fn lists_are_merged_by_their_keys(door: Door) {
    let cluster = cluster(door).await;
    let api: Api<Deployment> = Api::default_namespaced(cluster.kube_client());
    let deployment = |containers: serde_json::Value| {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": containers}},
        }})
    };
    let first = deployment(json!([{"name": "a", "image": "a:1", "ports": [{"containerPort": 80, "protocol": "TCP"}]}]));
    api.patch("web", &PatchParams::apply("one"), &Patch::Apply(first)).await.unwrap();
    let second = deployment(json!([{"name": "b", "image": "b:1"}]));
    let both = api.patch("web", &PatchParams::apply("two"), &Patch::Apply(second)).await.unwrap();
    let names = |deployment: Deployment| -> Vec<String> {
        let containers = deployment.spec.unwrap().template.spec.unwrap().containers;
        containers.into_iter().map(|container| container.name).collect()
    };
    assert_eq!(names(both), ["a", "b"]);
    let none = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}});
    let left = api.patch("web", &PatchParams::apply("two"), &Patch::Apply(none)).await.unwrap();
    assert_eq!(names(left), ["a"]);
    cluster.shutdown().await;
}

async fn metadata_alone_is_applied(door: Door) {
    let cluster = cluster(door).await;
    let api: Api<ConfigMap> = Api::default_namespaced(cluster.kube_client());
    api.patch("a", &PatchParams::apply("one"), &Patch::Apply(config_map("a", "1"))).await.unwrap();
    let metadata = kube::api::ObjectMeta {
        annotations: Some([("seen".to_owned(), "yes".to_owned())].into()),
        ..Default::default()
    };
    let partial: PartialObjectMeta<ConfigMap> = metadata.into_request_partial();
    let applied = api.patch_metadata("a", &PatchParams::apply("two"), &Patch::Apply(&partial)).await.unwrap();
    assert_eq!((applied.annotations()["seen"].as_str(), managers(&applied)), ("yes", applies(&["one", "two"])));
    assert_eq!(api.get("a").await.unwrap().data.unwrap()["value"], "1");
    cluster.shutdown().await;
}

async fn a_status_is_applied_apart(door: Door) {
    let cluster = cluster(door).await;
    let api: Api<Pod> = Api::default_namespaced(cluster.kube_client());
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"},
        "spec": {"containers": [{"name": "main", "image": "a"}]}});
    api.patch("a", &PatchParams::apply("one"), &Patch::Apply(pod)).await.unwrap();
    let status = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"},
        "status": {"conditions": [{"type": "example.com/Mine", "status": "True"}]}});
    let applied = api.patch_status("a", &PatchParams::apply("two"), &Patch::Apply(status)).await.unwrap();
    let conditions = applied.status.as_ref().unwrap().conditions.as_ref().unwrap();
    assert!(conditions.iter().any(|condition| condition.type_ == "example.com/Mine"));
    let subresource = applied.managed_fields().iter().find(|entry| entry.manager.as_deref() == Some("two"));
    assert_eq!(subresource.unwrap().subresource.as_deref(), Some("status"));
    cluster.shutdown().await;
}
