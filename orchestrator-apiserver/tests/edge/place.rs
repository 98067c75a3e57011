//! Where programs in pods find the server: its service, the endpoints of that, and the range of its address.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::{
        core::v1::{Endpoints, Service},
        discovery::v1::EndpointSlice,
        networking::v1::{IPAddress, ServiceCIDR},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube_core::params::{DeleteParams, ListParams, PostParams};
use orchestrator_apiserver::{ApiServer, Config};
use orchestrator_core::{
    client::Api,
    env::{Env, Simulation},
};
use orchestrator_store_mem::MemStore;
use serde_json::json;

/// How long a server is taken for alive that says nothing more.
const SERVER_LIFE: Duration = Duration::from_secs(15);

struct Place {
    env: Env,
    store: MemStore,
}

impl Place {
    /// Starts a server anew, on what the one before has left.
    async fn server_at(&self, address: Option<&str>) -> ApiServer {
        let config = Config { advertised_address: address.map(str::to_owned), ..Config::default() };
        ApiServer::builder(&self.env, Arc::new(self.store.clone())).config(config).build().await.unwrap()
    }

    /// The endpoints of the service of a server that starts when nobody takes the one before for alive any more.
    async fn endpoints_at(&self, address: Option<&str>) -> [Vec<String>; 2] {
        self.env.sleep(2 * SERVER_LIFE).await;
        Self::endpoints(&self.server_at(address).await).await
    }

    /// The endpoints of the servers' service: from its `Endpoints`, and from its slice.
    async fn endpoints(server: &ApiServer) -> [Vec<String>; 2] {
        let client = server.client();
        let whole = Api::<Endpoints>::namespaced(&client, "default").list(&ListParams::default()).await.unwrap();
        let sliced = Api::<EndpointSlice>::namespaced(&client, "default").list(&ListParams::default()).await.unwrap();
        let shown = |address: &str, port: Option<i32>| format!("{address} {}", port.unwrap_or_default());
        let whole = whole.items.iter().flat_map(|found| found.subsets.iter().flatten()).flat_map(|subset| {
            let port = subset.ports.as_ref().map(|ports| ports[0].port);
            subset.addresses.iter().flatten().map(move |address| shown(&address.ip, port))
        });
        let sliced = sliced.items.iter().flat_map(|slice| {
            let port = slice.ports.as_ref().and_then(|ports| ports[0].port);
            slice.endpoints.iter().flatten().map(move |endpoint| shown(&endpoint.addresses[0], port))
        });
        [whole.collect(), sliced.collect()]
    }
}

fn run(test: impl AsyncFn(Place)) {
    let simulation = Simulation::new(1);
    let env = simulation.env();
    simulation.run(async { test(Place { store: MemStore::new(&env), env: env.clone() }).await }).unwrap();
}

#[test]
fn the_endpoints_follow_the_server() {
    run(async |place| {
        let nowhere: [Vec<String>; 2] = Default::default();
        let at = |address: &str| [vec![address.to_owned()], vec![address.to_owned()]];
        assert_eq!(place.endpoints_at(None).await, nowhere);
        assert_eq!(place.endpoints_at(Some("192.0.2.7:6443")).await, at("192.0.2.7 6443"));
        assert_eq!(place.endpoints_at(Some("[2001:db8::7]:8443")).await, at("2001:db8::7 8443"));
        // A slice is of one family for ever: this is another object of the same name.
        assert_eq!(place.endpoints_at(Some("192.0.2.8:6443")).await, at("192.0.2.8 6443"));
        for unreachable in ["127.0.0.1:6443", "api.example.com:6443", "0.0.0.0:6443"] {
            assert_eq!(place.endpoints_at(Some(unreachable)).await, nowhere, "{unreachable}");
        }
    });
}

#[test]
fn servers_on_one_store_are_announced_together() {
    run(async |place| {
        let both = |addresses: &[&str]| [(); 2].map(|()| addresses.iter().map(ToString::to_string).collect::<Vec<_>>());
        let first = place.server_at(Some("192.0.2.7:6443")).await;
        let second = place.server_at(Some("192.0.2.8:6443")).await;
        assert_eq!(Place::endpoints(&first).await, both(&["192.0.2.7 6443", "192.0.2.8 6443"]));
        // One that others cannot reach takes nothing away, neither at once nor later.
        let third = place.server_at(None).await;
        place.env.sleep(3 * SERVER_LIFE).await;
        assert_eq!(Place::endpoints(&third).await, both(&["192.0.2.7 6443", "192.0.2.8 6443"]));
        // One that dies is missed after a while, one that ends at once.
        drop(first);
        place.env.sleep(2 * SERVER_LIFE).await;
        assert_eq!(Place::endpoints(&third).await, both(&["192.0.2.8 6443"]));
        let first = place.server_at(Some("192.0.2.7:6443")).await;
        second.drain();
        second.withdraw().await.unwrap();
        assert_eq!(Place::endpoints(&third).await, both(&["192.0.2.7 6443"]));
        // The last one leaves its endpoints: a server will come back. One that nobody reaches knows better.
        first.drain();
        first.withdraw().await.unwrap();
        assert_eq!(Place::endpoints(&first).await, both(&["192.0.2.7 6443"]));
        drop((first, second));
        place.env.sleep(2 * SERVER_LIFE).await;
        assert_eq!(Place::endpoints(&third).await, both(&[]));
    });
}

#[test]
fn a_definition_is_served_by_all_servers() {
    run(async |place| {
        let (one, other) = (place.server_at(None).await, place.server_at(None).await);
        let definition: CustomResourceDefinition = serde_json::from_value(json!({
            "metadata": {"name": "widgets.example.com"},
            "spec": {
                "group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
                "versions": [{
                    "name": "v1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {"type": "object"}},
                }],
            },
        }))
        .unwrap();
        let definitions = Api::<CustomResourceDefinition>::all(&one.client());
        let served = |server: &ApiServer| server.resource_of("example.com/v1", "Widget").is_some();
        for _ in 0..2 {
            definitions.create(&PostParams::default(), &definition).await.unwrap();
            place.env.sleep(Duration::from_millis(1)).await;
            assert!(served(&one) && served(&other));
            assert!(served(&place.server_at(None).await), "one that starts later");
            definitions.delete("widgets.example.com", &DeleteParams::default()).await.unwrap();
            place.env.sleep(Duration::from_millis(1)).await;
            assert!(!served(&one) && !served(&other));
        }
    });
}

#[test]
fn the_range_of_services_is_there_and_ready() {
    run(async |place| {
        for _ in 0..2 {
            let client = place.server_at(None).await.client();
            let range = Api::<ServiceCIDR>::all(&client).get("kubernetes").await.unwrap();
            assert_eq!(range.spec.as_ref().unwrap().cidrs, Some(vec!["10.96.0.0/12".to_owned()]));
            let conditions = range.status.as_ref().unwrap().conditions.as_ref().unwrap();
            assert_eq!((conditions.len(), &*conditions[0].type_, &*conditions[0].status), (1, "Ready", "True"));
        }
    });
}

#[test]
fn an_address_is_an_object_while_a_service_has_it() {
    run(async |place| {
        let client = place.server_at(None).await.client();
        let (services, addresses) = (Api::<Service>::namespaced(&client, "default"), Api::<IPAddress>::all(&client));
        let service = |name: &str, address: &str| -> Service {
            let spec = json!({"clusterIP": address, "ports": [{"port": 80}]});
            serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap()
        };
        let own = addresses.get("10.96.0.1").await.unwrap();
        assert_eq!(own.spec.parent_ref.name, "kubernetes");
        assert!(own.metadata.uid.is_some() && own.metadata.creation_timestamp.is_some());
        let params = PostParams::default();
        services.create(&params, &service("a", "10.96.7.7")).await.unwrap();
        // Without the object the address is still the service's.
        addresses.delete("10.96.7.7", &DeleteParams::default()).await.unwrap();
        let taken = services.create(&params, &service("b", "10.96.7.7")).await.unwrap_err();
        assert!(taken.message().ends_with("failed to allocate IP 10.96.7.7: provided IP is already allocated"));
        services.delete("a", &DeleteParams::default()).await.unwrap();
        services.create(&params, &service("b", "10.96.7.7")).await.unwrap();
        services.delete("b", &DeleteParams::default()).await.unwrap();
        assert_eq!(addresses.get_opt("10.96.7.7").await.unwrap(), None);
        // What somebody keeps for other things is no service's.
        let kept = json!({
            "metadata": {"name": "10.96.7.7"}, "spec": {"parentRef": {"resource": "gateways", "name": "g"}},
        });
        addresses.create(&params, &serde_json::from_value(kept).unwrap()).await.unwrap();
        services.create(&params, &service("b", "10.96.7.7")).await.unwrap_err();
    });
}
