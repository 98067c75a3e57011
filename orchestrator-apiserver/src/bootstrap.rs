//! What a server makes for itself before anyone asks: system namespaces, priority classes, flow schemas, the
//! `kubernetes` service and the range of its address.

use orchestrator_core::{
    client::{Call, PatchBody, Request, Resource, WriteOptions},
    object::Object,
    status::ApiResult,
};
use serde_json::{Value, json};

use crate::{address_range::AddressRange, announce, pipeline::Server, server::OWN_MANAGER};

/// Upstream's `--secure-port`.
const USUAL_PORT: u16 = 6443;

/// Upstream's name of the range that a server is started with.
const DEFAULT_RANGE: &str = "kubernetes";

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// Those of them that come back when they are deleted: resource, namespace and name.
pub(crate) fn own_objects() -> Vec<(Resource, &'static str, &'static str)> {
    let namespaces = NAMESPACES.map(|name| (Resource::new("", "v1", "namespaces"), "", name));
    let others = [
        (Resource::new("", "v1", "services"), "default", announce::SERVICE),
        (Resource::new("networking.k8s.io", "v1", "servicecidrs"), "", DEFAULT_RANGE),
    ];
    namespaces.into_iter().chain(others).collect()
}

impl Server {
    /// Makes what is missing. Running it again changes nothing.
    pub(crate) async fn bootstrap(&self) -> ApiResult<()> {
        for name in NAMESPACES {
            let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            self.ensure(Resource::new("", "v1", "namespaces"), None, namespace).await?;
        }
        for class in priority_classes() {
            self.ensure(Resource::new("scheduling.k8s.io", "v1", "priorityclasses"), None, class).await?;
        }
        self.refresh_flows().await?;
        self.ensure_service_range().await?;
        let service = kubernetes_service(self.config.service_range, self.own_port());
        self.ensure(Resource::new("", "v1", "services"), Some("default".to_owned()), service).await?;
        self.announce().await.map(drop)
    }

    /// The range that services get their addresses from, as an object that says it is in use.
    async fn ensure_service_range(&self) -> ApiResult<()> {
        let resource = Resource::new("networking.k8s.io", "v1", "servicecidrs");
        let range = service_range(&self.config.service_range.to_string());
        self.ensure(resource.clone(), None, range).await?;
        let stored = self.find_object("networking.k8s.io", "servicecidrs", "", DEFAULT_RANGE).await?;
        if let Some(stored) = stored
            && stored.to_tree()?.pointer("/status/conditions/0").is_some()
        {
            return Ok(());
        }
        let request = Request {
            user: None,
            resource,
            namespace: None,
            name: Some(DEFAULT_RANGE.to_owned()),
            subresource: Some("status".to_owned()),
            call: apply_as(OWN_MANAGER, service_range_status(&self.now())),
        };
        self.handle(request).await.map(drop)
    }

    /// The port that the server is to be found at, as far as it is known before it listens.
    fn own_port(&self) -> u16 {
        let address = self.config.advertised_address.as_deref().unwrap_or_default();
        address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(USUAL_PORT)
    }

    async fn ensure(&self, resource: Resource, namespace: Option<String>, tree: Value) -> ApiResult<()> {
        let options = WriteOptions { field_manager: Some(OWN_MANAGER.to_owned()), ..WriteOptions::default() };
        let call = Call::Create { object: Object::from_tree(tree), options };
        let request = Request { user: None, resource, namespace, name: None, subresource: None, call };
        match self.handle(request).await {
            Err(error) if !error.is_already_exists() => Err(error),
            _ => Ok(()),
        }
    }
}

/// Applies a configuration of the server's own, whoever else manages its fields.
pub(crate) fn apply_as(manager: &str, configuration: Value) -> Call {
    let options = WriteOptions { field_manager: Some(manager.to_owned()), force: true, ..WriteOptions::default() };
    Call::Patch { patch: PatchBody::Apply(configuration), options }
}

fn priority_classes() -> [Value; 2] {
    let class = |name: &str, value: i64, description: &str| {
        json!({
            "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
            "value": value, "description": description, "preemptionPolicy": "PreemptLowerPriority",
        })
    };
    [
        class(
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
        class(
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
    ]
}

fn service_range(range: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": DEFAULT_RANGE},
        "spec": {"cidrs": [range]},
    })
}

fn service_range_status(now: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": DEFAULT_RANGE},
        "status": {"conditions": [{
            "type": "Ready", "status": "True", "reason": "", "lastTransitionTime": now,
            "message": "Kubernetes default Service CIDR is ready",
        }]},
    })
}

/// The service under which pods find the API: the first address of the range.
fn kubernetes_service(range: AddressRange, port: u16) -> Value {
    let address = std::net::Ipv4Addr::from(u32::from(range.base).wrapping_add(1)).to_string();
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kubernetes", "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {
            "type": "ClusterIP", "clusterIP": address, "clusterIPs": [address],
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}],
        },
    })
}
