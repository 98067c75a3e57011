//! `Api`: typed, dynamic, metadata alone, subresources, errors, and the client's end.

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Namespace},
};
use kube::{
    Api, Client, Error,
    api::{
        ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
        ValidationDirective,
    },
    core::PartialObjectMeta,
    discovery::{Discovery, Scope},
};
use serde_json::json;

use crate::{Door, cluster, config_map, soon};

through_both_doors! {
    typed_objects_make_the_whole_journey,
    lists_come_in_pages,
    kinds_are_discovered_and_used_without_types,
    metadata_comes_without_the_rest,
    errors_are_statuses_with_their_code,
    a_namespace_that_is_deleted_takes_its_objects_along,
    a_client_that_outlives_its_cluster_gets_errors,
}

async fn typed_objects_make_the_whole_journey(door: Door) {
    let cluster = cluster(door).await;
    let api: Api<ConfigMap> = Api::default_namespaced(cluster.kube_client());
    let created = api.create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    let (uid, version) = (created.metadata.uid.unwrap(), created.metadata.resource_version.unwrap());

    let mut changed = api.get("a").await.unwrap();
    assert_eq!(changed.metadata.resource_version.as_ref(), Some(&version));
    changed.data.as_mut().unwrap().insert("value".to_owned(), "2".to_owned());
    let replaced = api.replace("a", &PostParams::default(), &changed).await.unwrap();
    assert_ne!(replaced.metadata.resource_version.as_ref(), Some(&version));
    let stale = api.replace("a", &PostParams::default(), &changed).await.unwrap_err();
    assert_eq!(reason(&stale), (409, "Conflict"));

    let merged = json!({"data": {"value": "3", "more": "4"}});
    let merged = api.patch("a", &PatchParams::default(), &Patch::Merge(merged)).await.unwrap();
    assert_eq!(merged.data.unwrap().into_values().collect::<Vec<_>>(), ["4", "3"]);
    let strategic = Patch::Strategic(json!({"metadata": {"labels": {"value": "3"}}}));
    api.patch("a", &PatchParams::default(), &strategic).await.unwrap();
    let json_patch = serde_json::from_value(json!([
        {"op": "test", "path": "/data/value", "value": "3"}, {"op": "remove", "path": "/data/more"}
    ]));
    let patched = api.patch("a", &PatchParams::default(), &Patch::Json::<()>(json_patch.unwrap())).await.unwrap();
    assert_eq!(patched.data.unwrap().len(), 1);
    assert_eq!(patched.metadata.uid.as_ref(), Some(&uid), "it is one object all the way");

    assert_eq!(api.list(&ListParams::default().labels("value=3")).await.unwrap().items.len(), 1);
    assert_eq!(api.list(&ListParams::default().labels("value=1")).await.unwrap().items.len(), 0);
    assert_eq!(api.list(&ListParams::default().fields("metadata.name=a")).await.unwrap().items.len(), 1);
    api.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(api.get_opt("a").await.unwrap().is_none());
    cluster.shutdown().await;
}

async fn lists_come_in_pages(door: Door) {
    let cluster = cluster(door).await;
    let api: Api<ConfigMap> = Api::namespaced(cluster.kube_client(), "default");
    for index in 0..7 {
        api.create(&PostParams::default(), &config_map(&format!("page-{index}"), "page")).await.unwrap();
    }
    let mut params = ListParams::default().labels("value=page").limit(3);
    let mut names = Vec::new();
    loop {
        let page = api.list(&params).await.unwrap();
        assert!(page.items.len() <= 3);
        names.extend(page.items.into_iter().filter_map(|map| map.metadata.name));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    assert_eq!(names, (0..7).map(|index| format!("page-{index}")).collect::<Vec<_>>());
    api.delete_collection(&DeleteParams::default(), &ListParams::default().labels("value=page")).await.unwrap();
    assert!(api.list(&ListParams::default().labels("value=page")).await.unwrap().items.is_empty());
    cluster.shutdown().await;
}

async fn kinds_are_discovered_and_used_without_types(door: Door) {
    let cluster = cluster(door).await;
    let client = cluster.kube_client();
    let discovery = Discovery::new(client.clone()).run().await.unwrap();
    let (deployments, capabilities) =
        discovery.resolve_gvk(&GroupVersionKind::gvk("apps", "v1", "Deployment")).expect("deployments are found");
    assert_eq!((deployments.plural.as_str(), capabilities.scope), ("deployments", Scope::Namespaced));
    let aggregated = Discovery::new(client.clone()).run_aggregated().await.unwrap();
    assert_eq!(aggregated.groups().count(), discovery.groups().count(), "both ways of discovery tell the same");

    let api: Api<DynamicObject> = Api::default_namespaced_with(client.clone(), &deployments);
    let object = DynamicObject::new("web", &deployments).data(json!({"spec": {
        "replicas": 2,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "web", "image": "web"}]}
        }
    }}));
    let created = api.create(&PostParams::default(), &object).await.unwrap();
    assert_eq!(created.types.unwrap().kind, "Deployment");
    assert_eq!(created.data["spec"]["strategy"]["type"], "RollingUpdate", "defaults are set");

    let typed: Api<Deployment> = Api::default_namespaced(client);
    let three = Patch::Merge(json!({"spec": {"replicas": 3}}));
    let scale = typed.patch_scale("web", &PatchParams::default(), &three).await.unwrap();
    assert_eq!(scale.spec.unwrap().replicas, Some(3));
    assert_eq!(typed.get_scale("web").await.unwrap().spec.unwrap().replicas, Some(3));
    let status = Patch::Merge(json!({"status": {"conditions": [{"type": "Mine", "status": "True"}]}}));
    let patched = typed.patch_status("web", &PatchParams::default(), &status).await.unwrap();
    assert!(patched.status.unwrap().conditions.unwrap().iter().any(|condition| condition.type_ == "Mine"));
    cluster.shutdown().await;
}

async fn metadata_comes_without_the_rest(door: Door) {
    let cluster = cluster(door).await;
    let client = cluster.kube_client();
    let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
    api.create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    let one: PartialObjectMeta<ConfigMap> = api.get_metadata("a").await.unwrap();
    assert_eq!(one.types.as_ref().unwrap().kind, "PartialObjectMetadata");
    assert_eq!(one.metadata.labels.as_ref().unwrap()["value"], "1");
    let many = api.list_metadata(&ListParams::default().labels("value")).await.unwrap();
    assert_eq!(many.items.iter().map(|item| item.metadata.name.as_deref()).collect::<Vec<_>>(), [Some("a")]);
    let labels = json!({"metadata": {"annotations": {"seen": "yes"}}});
    let patched = api.patch_metadata("a", &PatchParams::default(), &Patch::Merge(labels)).await.unwrap();
    assert_eq!(patched.metadata.annotations.unwrap()["seen"], "yes");

    // A view of metadata works through `Api` itself, too.
    let resource = ApiResource::erase::<ConfigMap>(&());
    let partial: Api<PartialObjectMeta<DynamicObject>> = Api::default_namespaced_with(client, &resource);
    assert_eq!(partial.get("a").await.unwrap().metadata.uid, one.metadata.uid);
    cluster.shutdown().await;
}

async fn errors_are_statuses_with_their_code(door: Door) {
    let cluster = cluster(door).await;
    let client = cluster.kube_client();
    let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
    assert_eq!(reason(&api.get("nothing").await.unwrap_err()), (404, "NotFound"));
    api.create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    let again = api.create(&PostParams::default(), &config_map("a", "1")).await.unwrap_err();
    assert_eq!(reason(&again), (409, "AlreadyExists"));
    let bad = api.create(&PostParams::default(), &config_map("Not A Name", "1")).await.unwrap_err();
    assert_eq!(reason(&bad), (422, "Invalid"));
    let elsewhere: Api<ConfigMap> = Api::namespaced(client.clone(), "nowhere");
    let refused = elsewhere.create(&PostParams::default(), &config_map("a", "1")).await.unwrap_err();
    assert_eq!(reason(&refused), (404, "NotFound"));
    let strict = PatchParams { field_validation: Some(ValidationDirective::Strict), ..PatchParams::default() };
    let unknown = api.patch("a", &strict, &Patch::Merge(json!({"wrong": 1}))).await.unwrap_err();
    assert_eq!(reason(&unknown).0, 422, "{unknown}");
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    api.create(&dry, &config_map("dry", "1")).await.unwrap();
    assert!(api.get_opt("dry").await.unwrap().is_none(), "nothing is stored");
    cluster.shutdown().await;
}

async fn a_namespace_that_is_deleted_takes_its_objects_along(door: Door) {
    let cluster = cluster(door).await;
    let client = cluster.kube_client();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some("gone-soon".to_owned());
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    let api: Api<ConfigMap> = Api::namespaced(client, "gone-soon");
    api.create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    let params = DeleteParams::default();
    let deleted = kube::runtime::wait::delete::delete_and_finalize(namespaces, "gone-soon", &params);
    soon("the namespace goes", deleted).await.unwrap();
    assert!(api.list(&ListParams::default()).await.unwrap().items.is_empty());
    cluster.shutdown().await;
}

async fn a_client_that_outlives_its_cluster_gets_errors(door: Door) {
    let cluster = cluster(door).await;
    let client = cluster.kube_client();
    assert!(version(&client).await.is_ok());
    cluster.shutdown().await;
    assert!(soon("an answer", version(&client)).await.is_err(), "there is no cluster any more");
}

async fn version(client: &Client) -> Result<Namespace, Error> {
    Api::<Namespace>::all(client.clone()).get("default").await
}

/// The code and the reason of a refusal.
fn reason(error: &Error) -> (u16, &str) {
    match error {
        Error::Api(status) => (status.code, status.reason.as_str()),
        other => panic!("not a refusal: {other}"),
    }
}
