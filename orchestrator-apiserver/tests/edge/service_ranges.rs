//! Where the addresses of services and their ports on nodes come from, and what is said when there are none.

use std::{net::Ipv4Addr, sync::Arc};

use k8s_openapi::api::{
    core::v1::Service,
    networking::v1::{IPAddress, ServiceCIDR},
};
use kube_core::params::{DeleteParams, PostParams};
use orchestrator_apiserver::{ApiServer, Config};
use orchestrator_core::{client::Api, env::Simulation, status::ApiResult};
use orchestrator_store_mem::MemStore;
use serde_json::{Value, json};

struct Cluster {
    services: Api<Service>,
    ranges: Api<ServiceCIDR>,
    addresses: Api<IPAddress>,
}

impl Cluster {
    async fn create(&self, name: &str, spec: Value, dry_run: bool) -> ApiResult<Arc<Service>> {
        let service = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap();
        self.services.create(&PostParams { dry_run, ..PostParams::default() }, &service).await
    }

    /// The address that a new service draws.
    async fn drawn(&self, name: &str) -> ApiResult<Ipv4Addr> {
        self.create(name, json!({"ports": [{"port": 80}]}), false).await.map(|service| address(&service))
    }

    /// The error of a new service, which asks for an address.
    async fn refused(&self, address: &str) -> String {
        let spec = json!({"clusterIP": address, "ports": [{"port": 80}]});
        self.create("refused", spec, false).await.unwrap_err().message().to_owned()
    }
}

fn address(service: &Service) -> Ipv4Addr {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()).unwrap().parse().unwrap()
}

fn node_ports(service: &Service) -> Vec<i32> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    ports.iter().filter_map(|port| port.node_port).collect()
}

/// Runs a test against a server whose own range has two addresses, of which its own service has one.
fn run(test: impl AsyncFn(Cluster)) {
    let simulation = Simulation::new(1);
    let env = simulation.env();
    let test = async {
        let config = Config { service_range: "10.7.0.0/30".parse().unwrap(), ..Config::default() };
        let server = ApiServer::builder(&env, Arc::new(MemStore::new(&env))).config(config).build().await.unwrap();
        let client = server.client();
        let services = Api::namespaced(&client, "default");
        test(Cluster { services, ranges: Api::all(&client), addresses: Api::all(&client) }).await;
    };
    simulation.run(test).unwrap();
}

const FULL: &str = "Internal error occurred: failed to allocate a serviceIP: range is full";

fn mismatch(address: &str) -> String {
    format!(
        "Service \"refused\" is invalid: spec.clusterIPs: Invalid value: [\"{address}\"]: failed to allocate IP \
         {address}: the provided network does not match the current range"
    )
}

#[test]
fn addresses_come_from_every_range_that_stays() {
    run(async |cluster| {
        assert_eq!(cluster.drawn("a").await.unwrap(), Ipv4Addr::new(10, 7, 0, 2), "the only one");
        assert_eq!(cluster.drawn("b").await.unwrap_err().message(), FULL);
        assert_eq!(cluster.refused("10.8.0.5").await, mismatch("10.8.0.5"));

        let range = json!({
            "metadata": {"name": "more", "finalizers": ["example.com/wait"]}, "spec": {"cidrs": ["10.8.0.0/28"]},
        });
        let params = PostParams::default();
        cluster.ranges.create(&params, &serde_json::from_value(range).unwrap()).await.unwrap();
        let given = json!({"clusterIP": "10.8.0.5", "ports": [{"port": 80}]});
        cluster.create("given", given, false).await.unwrap();
        for outside in ["10.8.0.0", "10.8.0.15", "10.7.0.0", "10.7.0.3"] {
            assert_eq!(cluster.refused(outside).await, mismatch(outside), "nobody's");
        }
        let mut drawn = vec![Ipv4Addr::new(10, 8, 0, 5)];
        for index in 0..12 {
            drawn.push(cluster.drawn(&format!("more-{index}")).await.unwrap());
        }
        // Thirteen of fourteen are taken; what somebody keeps for other things is the last one.
        let last = (1..15).map(|host| Ipv4Addr::new(10, 8, 0, host)).find(|address| !drawn.contains(address)).unwrap();
        let kept = json!({
            "metadata": {"name": last}, "spec": {"parentRef": {"resource": "gateways", "name": "g"}},
        });
        cluster.addresses.create(&params, &serde_json::from_value(kept).unwrap()).await.unwrap();
        assert_eq!(cluster.drawn("b").await.unwrap_err().message(), FULL);
        cluster.addresses.delete(&last.to_string(), &DeleteParams::default()).await.unwrap();
        assert_eq!(cluster.drawn("b").await.unwrap(), last);
        let object = cluster.addresses.get(&last.to_string()).await.unwrap();
        assert_eq!(object.spec.parent_ref.name, "b");

        // A range that is to go keeps its addresses, and gives no more of them.
        cluster.services.delete("b", &DeleteParams::default()).await.unwrap();
        cluster.ranges.delete("more", &DeleteParams::default()).await.unwrap();
        assert_eq!(cluster.drawn("b").await.unwrap_err().message(), FULL);
        assert_eq!(cluster.refused(&last.to_string()).await, mismatch(&last.to_string()));
        assert_eq!(address(&cluster.services.get("given").await.unwrap()), Ipv4Addr::new(10, 8, 0, 5));
    });
}

#[test]
fn a_range_gives_addresses_while_it_is_ready() {
    run(async |cluster| {
        cluster.drawn("a").await.unwrap();
        let range = json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["10.8.0.0/28"]}});
        let params = PostParams::default();
        let range = cluster.ranges.create(&params, &serde_json::from_value(range).unwrap()).await.unwrap();
        let mut range = Arc::unwrap_or_clone(range);
        for (status, gives) in [("False", false), ("True", true)] {
            let condition = json!({
                "type": "Ready", "status": status, "reason": "r", "message": "m",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            });
            range.status = Some(serde_json::from_value(json!({"conditions": [condition]})).unwrap());
            range = Arc::unwrap_or_clone(cluster.ranges.replace_status("more", &params, &range).await.unwrap());
            assert_eq!(cluster.drawn("b").await.is_ok(), gives, "{status}");
        }
    });
}

#[test]
fn nothing_is_drawn_for_what_is_not_stored() {
    run(async |cluster| {
        cluster.drawn("a").await.unwrap();
        let spec = json!({"ports": [{"port": 80}]});
        let service = cluster.create("b", spec, true).await.unwrap();
        assert_eq!(address(&service), Ipv4Addr::new(10, 7, 0, 0), "that of the network, although all are taken");
    });
}

#[test]
fn the_protocols_of_a_port_are_reached_at_one_port_of_the_nodes() {
    run(async |cluster| {
        let ports = json!([
            {"name": "a", "port": 53, "protocol": "TCP"}, {"name": "b", "port": 53, "protocol": "UDP"},
            {"name": "c", "port": 80},
        ]);
        let drawn = cluster.create("a", json!({"type": "NodePort", "ports": ports}), false).await.unwrap();
        let drawn = node_ports(&drawn);
        assert_eq!((drawn.len(), drawn[0]), (3, drawn[1]));
        assert_ne!(drawn[1], drawn[2]);
        assert!(drawn.iter().all(|port| (30_086..32_768).contains(port)), "the first are for those who ask: {drawn:?}");
    });
}
