//! What a server made for itself comes back when somebody deletes it.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::{
    core::v1::{ConfigMap, Namespace, Service},
    networking::v1::ServiceCIDR,
};
use kube_core::params::{DeleteParams, ListParams};
use orchestrator_apiserver::ApiServer;
use orchestrator_core::{
    client::{Api, Call, Request, Resource, WriteOptions},
    env::Simulation,
    object::Object,
};
use orchestrator_store_mem::MemStore;
use serde_json::json;

#[test]
fn what_is_deleted_comes_back() {
    let simulation = Simulation::new(1);
    let env = simulation.env();
    let test = async {
        let server = ApiServer::builder(&env, Arc::new(MemStore::new(&env))).build().await.unwrap();
        let client = server.client();
        let services: Api<Service> = Api::namespaced(&client, "default");
        let ranges: Api<ServiceCIDR> = Api::all(&client);
        let namespaces: Api<Namespace> = Api::all(&client);
        // The server follows its store by then.
        env.sleep(Duration::from_secs(1)).await;
        let before = services.get("kubernetes").await.unwrap();
        services.delete("kubernetes", &DeleteParams::default()).await.unwrap();
        ranges.delete("kubernetes", &DeleteParams::default()).await.unwrap();
        namespaces.delete("kube-node-lease", &DeleteParams::default()).await.unwrap();
        finalize(&server, "kube-node-lease").await;
        assert!(services.get("kubernetes").await.unwrap_err().is_not_found());
        assert!(namespaces.get("kube-node-lease").await.unwrap_err().is_not_found());
        env.sleep(Duration::from_secs(11)).await;
        let after = services.get("kubernetes").await.unwrap();
        assert_eq!(after.spec, before.spec);
        assert_ne!(after.metadata.uid, before.metadata.uid);
        let range = ranges.get("kubernetes").await.unwrap();
        assert!(range.metadata.deletion_timestamp.is_none());
        assert_eq!(range.status.as_ref().unwrap().conditions.as_ref().unwrap()[0].status, "True");
        namespaces.get("kube-node-lease").await.unwrap();

        // What others made does not.
        let maps: Api<ConfigMap> = Api::namespaced(&client, "default");
        let version = maps.list(&ListParams::default()).await.unwrap().resource_version;
        env.sleep(Duration::from_secs(60)).await;
        assert_eq!(maps.list(&ListParams::default()).await.unwrap().resource_version, version, "nothing is written");
    };
    simulation.run(test).unwrap();
}

/// Nobody else takes the last finalizer of a namespace off here.
async fn finalize(server: &ApiServer, name: &str) {
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}, "spec": {"finalizers": []}});
    let request = Request {
        user: None,
        resource: Resource::new("", "v1", "namespaces"),
        namespace: None,
        name: Some(name.to_owned()),
        subresource: Some("finalize".to_owned()),
        call: Call::Replace { object: Object::from_tree(namespace), options: WriteOptions::default() },
    };
    server.client().request(request).await.unwrap();
}
