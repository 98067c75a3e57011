//! Server-side apply through the pipeline, and the managers that every write leaves, in virtual time.

mod narrow;

use std::{future::Future, sync::Arc, time::Duration};

use narrow::NarrowStore;
use orchestrator_apiserver::{ApiServer, Config};
use orchestrator_core::{
    client::{Call, Client, PatchBody, Reply, Request, Resource, WriteOptions},
    env::{Env, Simulation},
    object::Object,
    status::ApiError,
    store::Store,
};
use orchestrator_store_mem::MemStore;
use serde_json::{Value, json};

struct World {
    env: Env,
    /// A client holds its server.
    client: Client,
}

fn run<F: Future<Output = ()> + Send + 'static>(config: Config, test: impl FnOnce(World) -> F + Send + 'static) {
    run_on(config, |store| store, test);
}

fn run_on<F: Future<Output = ()> + Send + 'static>(
    config: Config,
    wrap: fn(Arc<dyn Store>) -> Arc<dyn Store>,
    test: impl FnOnce(World) -> F + Send + 'static,
) {
    let simulation = Simulation::new(1);
    let env = simulation.env();
    let run = async move {
        let store = wrap(Arc::new(MemStore::new(&env)));
        let server = ApiServer::builder(&env, store).config(config).build().await.unwrap();
        test(World { env, client: server.client() }).await;
    };
    simulation.run(run).unwrap();
}

impl World {
    async fn call(&self, resource: Resource, path: &str, call: Call) -> Result<(Value, bool), ApiError> {
        let mut path = path.split('/').map(str::to_owned);
        let cluster = resource.plural == "customresourcedefinitions";
        let request = Request {
            user: None,
            resource,
            namespace: (!cluster).then(|| "default".to_owned()),
            name: path.next().filter(|name| !name.is_empty()),
            subresource: path.next(),
            call,
        };
        match self.client.request(request).await? {
            Reply::Object { object, created, .. } => Ok((object.to_tree().unwrap(), created)),
            Reply::List { .. } => panic!("a list"),
        }
    }

    async fn patch(&self, resource: Resource, path: &str, patch: PatchBody, manager: &str) -> Result<Value, ApiError> {
        let options = WriteOptions { field_manager: Some(manager.to_owned()), ..WriteOptions::default() };
        self.call(resource, path, Call::Patch { patch, options }).await.map(|(object, _)| object)
    }

    async fn apply(&self, resource: Resource, path: &str, object: Value, manager: &str) -> Result<Value, ApiError> {
        self.patch(resource, path, PatchBody::Apply(object), manager).await
    }

    async fn create(&self, resource: Resource, object: Value, manager: &str) -> Value {
        let options = WriteOptions { field_manager: Some(manager.to_owned()), ..WriteOptions::default() };
        let call = Call::Create { object: Object::from_tree(object), options };
        self.call(resource, "", call).await.unwrap().0
    }

    async fn get(&self, resource: Resource, name: &str) -> Result<Value, ApiError> {
        self.call(resource, name, Call::Get { resource_version: None }).await.map(|(object, _)| object)
    }
}

fn config_maps() -> Resource {
    Resource::new("", "v1", "configmaps")
}

fn deployments() -> Resource {
    Resource::new("apps", "v1", "deployments")
}

fn config_map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": data})
}

fn deployment(replicas: Option<i64>) -> Value {
    let mut deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {
            "selector": {"matchLabels": {"app": "a"}},
            "template": {
                "metadata": {"labels": {"app": "a"}},
                "spec": {"containers": [{"name": "c", "image": "b"}]},
            },
        },
    });
    if let Some(replicas) = replicas {
        deployment["spec"]["replicas"] = replicas.into();
    }
    deployment
}

/// Manager, operation, subresource and time of each entry.
fn managers(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    let text = |entry: &Value, name: &str| entry[name].as_str().unwrap_or("-").to_owned();
    entries
        .map(|entry| ["manager", "operation", "subresource", "time"].map(|name| text(entry, name)).join(" "))
        .collect()
}

#[test]
fn applying_creates_and_then_changes_only_what_differs() {
    run(Config::default(), |world| async move {
        let options = || WriteOptions { field_manager: Some("m".to_owned()), ..WriteOptions::default() };
        let apply =
            |data: Value, options: WriteOptions| Call::Patch { patch: PatchBody::Apply(config_map(data)), options };
        let dry = WriteOptions { dry_run: true, ..options() };
        assert!(world.call(config_maps(), "x", apply(json!({"a": "1"}), dry)).await.unwrap().1);
        assert!(world.get(config_maps(), "x").await.unwrap_err().is_not_found());
        let (first, created) = world.call(config_maps(), "x", apply(json!({"a": "1"}), options())).await.unwrap();
        assert!(created);
        assert_eq!(managers(&first), ["m Apply - 2026-01-01T00:00:00Z"]);
        world.env.sleep(Duration::from_secs(10)).await;
        let (again, created) = world.call(config_maps(), "x", apply(json!({"a": "1"}), options())).await.unwrap();
        assert!(!created);
        assert_eq!(again, first);
        let (changed, _) = world.call(config_maps(), "x", apply(json!({"b": "2"}), options())).await.unwrap();
        assert_eq!(changed["data"], json!({"b": "2"}));
        assert_eq!(managers(&changed), ["m Apply - 2026-01-01T00:00:10Z"]);
    });
}

#[test]
fn what_cannot_be_applied_is_refused_as_upstream_refuses_it() {
    run(Config::default(), |world| async move {
        let message = |result: Result<Value, ApiError>| result.unwrap_err().to_string();
        let nameless = world.apply(config_maps(), "x", config_map(json!({})), "").await;
        assert_eq!(
            message(nameless),
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch"
        );
        let forced = WriteOptions { force: true, ..WriteOptions::default() };
        let call = Call::Patch { patch: PatchBody::Merge(json!({})), options: forced };
        assert_eq!(
            message(world.call(config_maps(), "x", call).await.map(|(object, _)| object)),
            "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch"
        );
        let long = world.apply(config_maps(), "x", config_map(json!({})), &"m".repeat(129)).await;
        assert!(message(long).ends_with("fieldManager: Too long: may not be more than 128 bytes"));
        let other = world.apply(config_maps(), "x", deployment(None), "m").await;
        assert_eq!(message(other), "invalid object type: apps/v1, Kind=Deployment");
        assert_eq!(
            message(world.apply(config_maps(), "y", config_map(json!({})), "m").await),
            "the name of the object (x) does not match the name on the URL (y)"
        );
        let missing = world.apply(deployments(), "d/status", deployment(None), "m").await.unwrap_err();
        assert!(missing.is_not_found());
        let no_object = world.patch(config_maps(), "x", PatchBody::Apply(json!([])), "m").await;
        assert!(message(no_object).starts_with("error decoding YAML: "));
        assert!(world.get(config_maps(), "x").await.unwrap_err().is_not_found());
    });
}

#[test]
fn each_endpoint_has_managers_of_its_own() {
    run(Config::default(), |world| async move {
        world.create(deployments(), deployment(Some(1)), "creator").await;
        world.env.sleep(Duration::from_secs(1)).await;
        let mut status = deployment(None);
        status["spec"] = Value::Null;
        status["status"] = json!({"conditions": [{"type": "Available", "status": "True"}]});
        status["metadata"]["labels"] = json!({"a": "b"});
        let object = world.apply(deployments(), "d/status", status, "controller").await.unwrap();
        assert_eq!(
            managers(&object),
            ["controller Apply status 2026-01-01T00:00:01Z", "creator Update - 2026-01-01T00:00:00Z"]
        );
        assert_eq!(
            object["metadata"]["managedFields"][0]["fieldsV1"],
            json!({"f:status": {"f:conditions": {"k:{\"type\":\"Available\"}": {".": {}, "f:status": {}, "f:type": {}}}}})
        );
        let scale = PatchBody::Merge(json!({"spec": {"replicas": 3}}));
        world.patch(deployments(), "d/scale", scale, "hpa").await.unwrap();
        let error = world.apply(deployments(), "d", deployment(Some(2)), "m").await.unwrap_err();
        let conflict = "conflict with \"hpa\" with subresource \"scale\" using apps/v1";
        assert_eq!(error.to_string(), format!("Apply failed with 1 conflict: {conflict}: .spec.replicas"));
        let causes = error.status().details.as_ref().unwrap().causes.clone().unwrap();
        assert_eq!(causes[0].message.as_deref(), Some(conflict));
        assert_eq!(causes[0].field.as_deref(), Some(".spec.replicas"));
        assert_eq!(causes[0].reason.as_deref(), Some("FieldManagerConflict"));
    });
}

#[test]
fn a_scale_is_applied_to() {
    run(Config::default(), |world| async move {
        world.apply(deployments(), "d", deployment(Some(1)), "m").await.unwrap();
        let scale = |replicas: i64| {
            json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"},
                "spec": {"replicas": replicas}})
        };
        let error = world.apply(deployments(), "d/scale", scale(4), "hpa").await.unwrap_err();
        assert_eq!(error.to_string(), "Apply failed with 1 conflict: conflict with \"m\": .spec.replicas");
        world.apply(deployments(), "d", deployment(None), "m").await.unwrap();
        let applied = world.apply(deployments(), "d/scale", scale(4), "hpa").await.unwrap();
        assert_eq!(applied["spec"], json!({"replicas": 4}));
        let object = world.get(deployments(), "d").await.unwrap();
        let entry = &object["metadata"]["managedFields"][0];
        assert_eq!((&entry["manager"], &entry["subresource"]), (&json!("hpa"), &json!("scale")));
        assert_eq!(entry["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
    });
}

#[test]
fn custom_objects_are_merged_by_their_schema() {
    run(Config::default(), |world| async move {
        let items = json!({
            "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "properties": {"name": {"type": "string"}, "value": {"type": "integer"}}},
        });
        let schema = json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {"items": items, "plain": {"type": "string"}}},
        }});
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "things.a.example"},
            "spec": {
                "group": "a.example", "scope": "Namespaced",
                "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
            },
        });
        let definitions = Resource::new("apiextensions.k8s.io", "v1", "customresourcedefinitions");
        world.create(definitions, definition, "m").await;
        let things = || Resource::new("a.example", "v1", "things");
        let thing = |spec: Value| json!({"apiVersion": "a.example/v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": spec});
        world.apply(things(), "t", thing(json!({"items": [{"name": "a", "value": 1}]})), "m1").await.unwrap();
        let both = world.apply(things(), "t", thing(json!({"items": [{"name": "b"}]})), "m2").await.unwrap();
        assert_eq!(both["spec"]["items"], json!([{"name": "a", "value": 1}, {"name": "b"}]));
        let changed = thing(json!({"items": [{"name": "a", "value": 2}]}));
        assert_eq!(
            world.apply(things(), "t", changed, "m2").await.unwrap_err().to_string(),
            "Apply failed with 1 conflict: conflict with \"m1\": .spec.items[name=\"a\"].value"
        );
        assert_eq!(
            world.apply(things(), "t", thing(json!({"nosuch": 1})), "m2").await.unwrap_err().to_string(),
            "failed to create typed patch object (/t; a.example/v1, Kind=Thing): .spec.nosuch: field not declared in schema"
        );
        let updated = PatchBody::Merge(json!({"spec": {"plain": "x"}}));
        let updated = world.patch(things(), "t", updated, "u").await.unwrap();
        assert_eq!(updated["metadata"]["managedFields"][2]["fieldsV1"], json!({"f:spec": {"f:plain": {}}}));
    });
}

#[test]
fn managers_are_forgotten_on_demand() {
    run(Config::default(), |world| async move {
        world.create(config_maps(), config_map(json!({"a": "1"})), "u").await;
        let reset = PatchBody::Merge(json!({"metadata": {"managedFields": []}}));
        let object = world.patch(config_maps(), "x", reset, "u").await.unwrap();
        assert_eq!(managers(&object), Vec::<String>::new());
        let changed = PatchBody::Merge(json!({"data": {"a": "2"}}));
        assert_eq!(managers(&world.patch(config_maps(), "x", changed, "u").await.unwrap()), Vec::<String>::new());
        let object = world.apply(config_maps(), "x", config_map(json!({"b": "1"})), "m").await.unwrap();
        assert_eq!(object["data"], json!({"a": "2", "b": "1"}));
        assert_eq!(
            managers(&object),
            ["m Apply - 2026-01-01T00:00:00Z", "before-first-apply Update - 2026-01-01T00:00:00Z"]
        );
    });
}

#[test]
fn tracking_may_wait_for_the_first_apply() {
    let config = Config { track_updates: false, ..Config::default() };
    run(config, |world| async move {
        let created = world.create(config_maps(), config_map(json!({"a": "1"})), "u").await;
        assert_eq!(created["metadata"].get("managedFields"), None);
        let changed = PatchBody::Merge(json!({"data": {"a": "2"}}));
        let changed = world.patch(config_maps(), "x", changed, "u").await.unwrap();
        assert_eq!(changed["metadata"].get("managedFields"), None);
        let object = world.apply(config_maps(), "x", config_map(json!({"b": "1"})), "m").await.unwrap();
        assert_eq!(managers(&object).len(), 2);
    });
}

#[test]
fn a_client_has_a_name_for_all_it_writes() {
    run(Config::default(), |world| async move {
        let world = World { client: world.client.with_field_manager("named"), ..world };
        let call =
            Call::Create { object: Object::from_tree(config_map(json!({"a": "1"}))), options: WriteOptions::default() };
        let (object, _) = world.call(config_maps(), "", call).await.unwrap();
        assert_eq!(managers(&object), ["named Update - 2026-01-01T00:00:00Z"]);
        let call = Call::Patch { patch: PatchBody::Apply(object), options: WriteOptions::default() };
        assert!(world.call(config_maps(), "x", call).await.unwrap_err().to_string().contains("fieldManager"));
    });
}

#[test]
fn what_is_too_large_is_kept_without_its_managers() {
    let narrow = |inner| -> Arc<dyn Store> { Arc::new(NarrowStore { inner, bytes: 400 }) };
    run_on(Config::default(), narrow, |world| async move {
        let object = world.create(config_maps(), config_map(json!({"a": "1"})), "u").await;
        assert_eq!(managers(&object).len(), 1);
        let more = PatchBody::Merge(json!({"data": {"b": "2"}}));
        let object = world.patch(config_maps(), "x", more, "v").await.unwrap();
        assert_eq!(object["data"], json!({"a": "1", "b": "2"}));
        assert_eq!(object["metadata"].get("managedFields"), None);
        let too_much = PatchBody::Merge(json!({"data": {"c": "c".repeat(400)}}));
        assert!(world.patch(config_maps(), "x", too_much, "v").await.unwrap_err().to_string().contains("too large"));
        // Who applies wants to manage fields, and is not served without.
        let many: serde_json::Map<String, Value> = (0..12).map(|index| (format!("k{index}"), "".into())).collect();
        let applied = PatchBody::Apply(config_map(many.into()));
        let refused = world.patch(config_maps(), "x", applied, "a").await.unwrap_err();
        assert!(refused.to_string().contains("too large"), "{refused}");
        assert_eq!(world.get(config_maps(), "x").await.unwrap()["data"], json!({"a": "1", "b": "2"}));
    });
}
