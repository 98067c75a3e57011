//! The controllers of clouds, on a cloud that is scripted and on the local one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{LoadBalancerStatus, Node, NodeAddress, Service};
use kube_core::params::DeleteParams;
use orchestrator_controllers::{
    CloudError, CloudProvider, InstanceMetadata, Instances, LoadBalancers, LocalCloud, Route, Routes,
};
use orchestrator_core::meta;
use serde_json::{Value, json};

use crate::world::{self, Setup, World};

/// A cloud that does as it is told, and tells what was asked of it.
#[derive(Debug, Default)]
struct Scripted(Mutex<Script>);

#[derive(Debug, Default)]
struct Script {
    machines: BTreeSet<String>,
    switched_off: BTreeSet<String>,
    balanced: BTreeMap<String, Vec<String>>,
    routes: Vec<Route>,
    broken: bool,
}

impl Scripted {
    fn change<T>(&self, change: impl FnOnce(&mut Script) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }

    fn unless_broken<T>(&self, change: impl FnOnce(&mut Script) -> T) -> Result<T, CloudError> {
        self.change(|script| match script.broken {
            true => Err(CloudError::Failed("out of order".to_owned())),
            false => Ok(change(script)),
        })
    }
}

impl CloudProvider for Scripted {
    fn instances(&self) -> Option<&dyn Instances> {
        Some(self)
    }

    fn load_balancers(&self) -> Option<&dyn LoadBalancers> {
        Some(self)
    }

    fn routes(&self) -> Option<&dyn Routes> {
        Some(self)
    }
}

#[async_trait]
impl Instances for Scripted {
    async fn exists(&self, node: &Node) -> Result<bool, CloudError> {
        self.unless_broken(|script| script.machines.contains(meta::name(&node.metadata)))
    }

    async fn is_shut_down(&self, node: &Node) -> Result<bool, CloudError> {
        self.unless_broken(|script| script.switched_off.contains(meta::name(&node.metadata)))
    }

    async fn metadata(&self, node: &Node) -> Result<Option<InstanceMetadata>, CloudError> {
        let name = meta::name(&node.metadata);
        let address = |type_: &str, address: &str| NodeAddress { type_: type_.to_owned(), address: address.to_owned() };
        self.unless_broken(|script| {
            script.machines.contains(name).then(|| InstanceMetadata {
                provider_id: format!("scripted://{name}"),
                zone: "z".to_owned(),
                addresses: vec![address("InternalIP", "10.0.0.1"), address("Hostname", name)],
                ..Default::default()
            })
        })
    }
}

#[async_trait]
impl LoadBalancers for Scripted {
    async fn get(&self, service: &Service) -> Result<Option<LoadBalancerStatus>, CloudError> {
        let name = meta::name(&service.metadata);
        self.unless_broken(|script| script.balanced.contains_key(name).then(LoadBalancerStatus::default))
    }

    async fn ensure(&self, service: &Service, nodes: &[Arc<Node>]) -> Result<LoadBalancerStatus, CloudError> {
        self.update(service, nodes).await?;
        let ingress = json!({"ingress": [{"hostname": format!("{}.example.com", meta::name(&service.metadata))}]});
        Ok(serde_json::from_value(ingress).unwrap())
    }

    async fn update(&self, service: &Service, nodes: &[Arc<Node>]) -> Result<(), CloudError> {
        let names = nodes.iter().map(|node| meta::name(&node.metadata).to_owned()).collect();
        self.unless_broken(|script| drop(script.balanced.insert(meta::name(&service.metadata).to_owned(), names)))
    }

    async fn delete(&self, service: &Service) -> Result<(), CloudError> {
        self.unless_broken(|script| drop(script.balanced.remove(meta::name(&service.metadata))))
    }
}

#[async_trait]
impl Routes for Scripted {
    async fn list(&self) -> Result<Vec<Route>, CloudError> {
        Ok(self.change(|script| script.routes.clone()))
    }

    async fn create(&self, hint: &str, route: &Route) -> Result<(), CloudError> {
        self.unless_broken(|script| script.routes.push(Route { name: hint.to_owned(), ..route.clone() }))
    }

    async fn delete(&self, route: &Route) -> Result<(), CloudError> {
        self.unless_broken(|script| script.routes.retain(|known| known != route))
    }
}

async fn ready(world: &World, node: &str, ready: &str) {
    world.patch_status::<Node>("", node, json!({"conditions": [{"type": "Ready", "status": ready}]})).await;
}

/// Runs all controllers of a cloud and a test beside them.
fn simulate<C: CloudProvider + 'static>(cloud: impl Fn() -> C, test: impl AsyncFn(&World, &C)) {
    let names =
        ["cloud-node-controller", "cloud-node-lifecycle-controller", "node-route-controller", "service-lb-controller"];
    let set_up = |setup: &mut Setup| {
        let cloud = Arc::new(cloud());
        setup.options.cloud = Some(cloud.clone());
        setup.options.cluster_cidrs = vec!["10.244.0.0/16".to_owned()];
        cloud
    };
    world::simulate(&names, set_up, async |world, cloud| test(world, cloud).await);
}

fn node(name: &str) -> Value {
    let taint = json!({"key": "node.cloudprovider.kubernetes.io/uninitialized", "effect": "NoSchedule"});
    json!({"metadata": {"name": name}, "spec": {"taints": [taint]}})
}

#[test]
fn nodes_follow_their_machines() {
    simulate(Scripted::default, async |world, cloud| {
        cloud.change(|script| script.machines.extend(["a", "b"].map(str::to_owned)));
        for name in ["a", "b"] {
            world.create::<Node>("", node(name)).await;
            ready(world, name, "True").await;
        }
        world.wait(2).await;
        let tree = world.tree::<Node>("", "a").unwrap();
        assert_eq!((&tree["spec"]["providerID"], tree["spec"].get("taints")), (&json!("scripted://a"), None));
        assert_eq!(tree["metadata"]["labels"]["topology.kubernetes.io/zone"], "z");
        assert_eq!(tree["status"]["addresses"][0]["address"], "10.0.0.1");
        cloud.change(|script| script.switched_off.insert("a".to_owned()));
        ready(world, "a", "Unknown").await;
        world.wait(10).await;
        let taints = |name: &str| world.tree::<Node>("", name).unwrap()["spec"]["taints"].clone();
        assert_eq!(taints("a")[0]["key"], "node.cloudprovider.kubernetes.io/shutdown");
        ready(world, "a", "True").await;
        world.wait(10).await;
        assert!(taints("a").as_array().is_none_or(Vec::is_empty));
        cloud.change(|script| (script.machines.remove("b"), script.broken = true));
        ready(world, "b", "Unknown").await;
        world.wait(10).await;
        assert!(world.tree::<Node>("", "b").is_some(), "a cloud that cannot say does not mean that it is gone");
        cloud.change(|script| script.broken = false);
        world.wait(10).await;
        assert!(world.tree::<Node>("", "b").is_none());
        let reasons = world.reasons().await;
        assert!(["Synced", "DeletingNode"].iter().all(|reason| reasons.contains(*reason)), "{reasons:?}");
    });
}

#[test]
fn routes_follow_nodes() {
    simulate(Scripted::default, async |world, cloud| {
        cloud.change(|script| script.machines.extend(["a", "b"].map(str::to_owned)));
        for (name, range) in [("a", "10.244.0.0/24"), ("b", "10.244.1.0/24")] {
            world.create::<Node>("", json!({"metadata": {"name": name}, "spec": {"podCIDRs": [range]}})).await;
        }
        world.wait(12).await;
        let destinations = || {
            let mut all =
                cloud.change(|script| script.routes.iter().map(|it| it.destination.clone()).collect::<Vec<_>>());
            all.sort();
            all
        };
        assert_eq!(destinations(), ["10.244.0.0/24", "10.244.1.0/24"]);
        let condition = || world.tree::<Node>("", "a").unwrap()["status"]["conditions"][0].clone();
        assert_eq!(
            (&condition()["type"], &condition()["reason"]),
            (&json!("NetworkUnavailable"), &json!("RouteCreated"))
        );
        cloud.change(|script| (script.routes.clear(), script.broken = true));
        world.wait(12).await;
        assert_eq!(condition()["reason"], "NoRouteCreated");
        assert!(world.reasons().await.contains("FailedToCreateRoute"));
        cloud.change(|script| script.broken = false);
        world.api::<Node>("").delete("b", &DeleteParams::default()).await.unwrap();
        world.wait(24).await;
        assert_eq!(destinations(), ["10.244.0.0/24"]);
        assert_eq!(condition()["reason"], "RouteCreated");
        // Until the addresses of the machine have been written as well.
        world.wait(300).await;
    });
}

#[test]
fn load_balancers_follow_services_and_nodes() {
    simulate(Scripted::default, async |world, cloud| {
        let service =
            |name: &str| json!({"metadata": {"name": name}, "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}});
        world.create::<Service>("default", service("s")).await;
        world.wait(2).await;
        let status = || world.tree::<Service>("default", "s").unwrap()["status"]["loadBalancer"].clone();
        assert_eq!(status()["ingress"][0]["hostname"], "s.example.com");
        cloud.change(|script| script.machines.insert("a".to_owned()));
        world.create::<Node>("", json!({"metadata": {"name": "a"}})).await;
        world.wait(2).await;
        let balanced = || cloud.change(|script| script.balanced.get("s").cloned());
        assert_eq!(balanced(), Some(vec!["a".to_owned()]));
        let excluded = json!({"metadata": {"labels": {"node.kubernetes.io/exclude-from-external-load-balancers": ""}}});
        world.patch::<Node>("", "a", excluded).await;
        world.wait(2).await;
        assert_eq!(balanced(), Some(Vec::new()));
        world.patch::<Service>("default", "s", json!({"spec": {"type": "ClusterIP"}})).await;
        world.wait(2).await;
        assert_eq!((balanced(), status().get("ingress")), (None, None));
        world.patch::<Service>("default", "s", json!({"spec": {"type": "LoadBalancer"}})).await;
        world.wait(2).await;
        world.api::<Service>("default").delete("s", &DeleteParams::default()).await.unwrap();
        world.wait(2).await;
        assert_eq!((balanced(), world.tree::<Service>("default", "s")), (None, None));
        cloud.change(|script| script.broken = true);
        world.create::<Service>("default", service("late")).await;
        world.wait(5).await;
        cloud.change(|script| script.broken = false);
        world.wait(60).await;
        assert!(cloud.change(|script| script.balanced.contains_key("late")));
        let reasons = world.reasons().await;
        for reason in [
            "SyncLoadBalancerFailed",
            "EnsuringLoadBalancer",
            "EnsuredLoadBalancer",
            "UpdatedLoadBalancer",
            "UnAvailableLoadBalancer",
            "DeletingLoadBalancer",
            "DeletedLoadBalancer",
            "Type",
        ] {
            assert!(reasons.contains(reason), "{reason}: {reasons:?}");
        }
        // Until the addresses of the machine have been written as well.
        world.wait(300).await;
    });
}

#[test]
fn the_local_cloud_gives_addresses_of_the_machine() {
    let cloud = || LocalCloud::new(["192.0.2.1".parse().unwrap()]);
    simulate(cloud, async |world, _| {
        for (name, port) in [("a", 80), ("b", 443)] {
            let spec = json!({"type": "LoadBalancer", "ports": [{"port": port}]});
            world.create::<Service>("default", json!({"metadata": {"name": name}, "spec": spec})).await;
        }
        world.wait(2).await;
        let address = |name: &str| world.tree::<Service>("default", name).unwrap()["status"]["loadBalancer"].clone();
        assert_eq!(address("a"), json!({"ingress": [{"ip": "192.0.2.1"}]}));
        assert_eq!(address("b"), json!({"ingress": [{"ip": "192.0.2.1"}]}));
        world.patch::<Service>("default", "b", json!({"spec": {"ports": [{"port": 80}]}})).await;
        world.wait(2).await;
        assert!(world.reasons().await.contains("SyncLoadBalancerFailed"), "the port is taken");
        world.api::<Service>("default").delete("a", &DeleteParams::default()).await.unwrap();
        world.wait(600).await;
        assert_eq!(address("b"), json!({"ingress": [{"ip": "192.0.2.1"}]}));
    });
}
