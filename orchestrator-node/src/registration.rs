//! The node in the API: its Node object, its status, and the Lease that says it lives.
//!
//! Upstream: <https://kubernetes.io/docs/reference/node/node-status/>.

use std::{collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{
        coordination::v1::{Lease, LeaseSpec},
        core::v1::{ContainerImage, Node as ApiNode, NodeAddress, NodeCondition, NodeSpec, NodeStatus, NodeSystemInfo},
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference},
};
use kube_core::params::PostParams;
use orchestrator_core::{
    client::{Api, Call, PatchBody, WriteOptions},
    controller::Cache,
    events::Event,
    object::{ObjectKey, time},
    runtime::Image,
    status::ApiResult,
};
use serde_json::json;

use crate::{
    limits::{API_RETRY, IMAGES_IN_STATUS, LEASE_DURATION_SECONDS, LEASE_RENEWAL, NODE_STATUS_REPORT},
    node::Node,
};

/// The release whose behaviour this node has.
const KUBELET_VERSION: &str = "v1.36.2";
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// Keeps the node registered and alive in the API, until it is dropped.
pub(crate) async fn run(node: Arc<Node>) {
    let nodes = node.caches.cache::<ApiNode>();
    nodes.synced().await;
    let mut keeper = Keeper { node, nodes, reported_at: None, runtime_version: None, lease_known: false };
    let mut failing = false;
    loop {
        // Boxed, because it mostly waits and there is one for each node.
        let result = Box::pin(keeper.keep()).await;
        if let Err(error) = &result
            && !failing
        {
            tracing::warn!(node = keeper.node.name, %error, "the node's registration failed and is tried again");
        }
        failing = result.is_err();
        keeper.node.env.sleep(if failing { API_RETRY } else { LEASE_RENEWAL }).await;
    }
}

struct Keeper {
    node: Arc<Node>,
    nodes: Cache<ApiNode>,
    reported_at: Option<Timestamp>,
    runtime_version: Option<String>,
    lease_known: bool,
}

impl Keeper {
    async fn keep(&mut self) -> ApiResult<()> {
        let present = self.nodes.get(&ObjectKey::new("", &self.node.name));
        let present = match present {
            Some(node) => node,
            None => self.register().await?,
        };
        self.report(&present).await?;
        self.renew_lease(&present).await
    }

    async fn register(&mut self) -> ApiResult<Arc<ApiNode>> {
        let api: Api<ApiNode> = Api::all(&self.node.client);
        self.reported_at = None;
        self.lease_known = false;
        match api.create(&PostParams::default(), &new_node(&self.node)).await {
            Err(error) if error.is_already_exists() => api.get(&self.node.name).await,
            result => {
                if result.is_ok() {
                    let message = "Starting kubelet.";
                    self.node.tell_node(Event::normal("Starting", message));
                }
                result
            }
        }
    }

    /// Writes the status when it changed, or when it was not written for long.
    async fn report(&mut self, present: &ApiNode) -> ApiResult<()> {
        let now = self.node.env.now();
        let runtime = self.node.runtime.status().await;
        let ready = match runtime {
            Ok(status) => {
                self.runtime_version = Some(format!("{}://{}", status.name, status.version));
                status.ready.map_err(|defect| format!("container runtime is down: {defect}"))
            }
            Err(error) => Err(format!("container runtime status check may not have completed yet: {error}")),
        };
        let images = self.node.runtime.list_images().await.unwrap_or_default();
        let old = present.status.clone().unwrap_or_default();
        let runtime_version = self.runtime_version.clone().unwrap_or_default();
        let new = status(&self.node, &old, &ready, &runtime_version, &images, now);
        let patience = SignedDuration::try_from(NODE_STATUS_REPORT).unwrap_or(SignedDuration::MAX);
        let due = self.reported_at.is_none_or(|at| now.duration_since(at) >= patience);
        if !due && without_heartbeats(&new) == without_heartbeats(&old) {
            return Ok(());
        }
        let api: Api<ApiNode> = Api::all(&self.node.client);
        let patch = PatchBody::Strategic(json!({"status": new}));
        self.write(&api, Some("status"), patch).await?;
        self.reported_at = Some(now);
        self.tell_of_readiness(&old, &new);
        Ok(())
    }

    fn tell_of_readiness(&self, old: &NodeStatus, new: &NodeStatus) {
        let ready = |status: &NodeStatus| {
            let mut conditions = status.conditions.iter().flatten();
            conditions.find(|condition| condition.type_ == "Ready").map(|condition| condition.status.clone())
        };
        if ready(old) != ready(new) {
            let reason = if ready(new).as_deref() == Some("True") { "NodeReady" } else { "NodeNotReady" };
            let message = format!("Node {} status is now: {reason}", self.node.name);
            self.node.tell_node(Event::normal(reason, message));
        }
    }

    async fn renew_lease(&mut self, present: &ApiNode) -> ApiResult<()> {
        let api: Api<Lease> = Api::namespaced(&self.node.client, LEASE_NAMESPACE);
        let lease = lease(&self.node.name, present, self.node.env.now());
        if self.lease_known {
            match self.write(&api, None, PatchBody::Merge(json!({"spec": lease.spec}))).await {
                Err(error) if error.is_not_found() => {}
                result => return result,
            }
        }
        let created = api.create(&PostParams::default(), &lease).await;
        self.lease_known = match &created {
            Ok(_) => true,
            Err(error) => error.is_already_exists(),
        };
        match created {
            Err(error) if error.is_already_exists() => {
                self.write(&api, None, PatchBody::Merge(json!({"spec": lease.spec}))).await
            }
            result => result.map(drop),
        }
    }

    /// Changes what the API holds of the node. Nobody reads the answer.
    async fn write<K>(&self, api: &Api<K>, subresource: Option<&str>, patch: PatchBody) -> ApiResult<()> {
        let call = Call::Patch { patch, options: WriteOptions::default() };
        api.send(Some(&self.node.name), subresource, call).await.map(drop)
    }
}

/// The labels that every node has, with the configured ones.
pub(crate) fn standard_labels(node: &Node) -> BTreeMap<String, String> {
    let config = &node.config;
    let hostname = config.hostname.clone().unwrap_or_else(|| node.name.clone());
    let (os, arch) = (config.system.operating_system.clone(), config.system.architecture.clone());
    let standard = [
        ("kubernetes.io/hostname", hostname),
        ("kubernetes.io/os", os.clone()),
        ("kubernetes.io/arch", arch.clone()),
        ("beta.kubernetes.io/os", os),
        ("beta.kubernetes.io/arch", arch),
    ];
    let mut labels: BTreeMap<String, String> =
        standard.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    labels.extend(config.labels.clone());
    labels
}

fn new_node(node: &Node) -> ApiNode {
    let config = &node.config;
    ApiNode {
        metadata: ObjectMeta {
            name: Some(node.name.clone()),
            labels: Some(standard_labels(node)),
            annotations: Some(config.annotations.clone()).filter(|annotations| !annotations.is_empty()),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            pod_cidr: config.pod_cidr.clone(),
            pod_cidrs: config.pod_cidr.clone().map(|cidr| vec![cidr]),
            provider_id: config.provider_id.clone(),
            taints: Some(config.taints.clone()).filter(|taints| !taints.is_empty()),
            ..NodeSpec::default()
        }),
        status: None,
    }
}

/// The status that a node shows.
fn status(
    node: &Node,
    old: &NodeStatus,
    ready: &Result<(), String>,
    runtime_version: &str,
    images: &[Image],
    now: Timestamp,
) -> NodeStatus {
    let config = &node.config;
    let address = |kind: &str, address: String| NodeAddress { type_: kind.to_owned(), address };
    let mut addresses: Vec<NodeAddress> =
        config.addresses.iter().map(|it| address("InternalIP", it.to_string())).collect();
    addresses.push(address("Hostname", config.hostname.clone().unwrap_or_else(|| node.name.clone())));
    let images = images.iter().take(IMAGES_IN_STATUS).map(|image| ContainerImage {
        names: Some(vec![image.name.clone()]),
        size_bytes: i64::try_from(image.size_bytes).ok(),
    });
    let images: Vec<ContainerImage> = images.collect();
    let version = |given: &str| if given.is_empty() { KUBELET_VERSION.to_owned() } else { given.to_owned() };
    NodeStatus {
        addresses: Some(addresses),
        allocatable: Some(node.allocatable.clone()),
        capacity: Some(config.capacity.clone()),
        conditions: Some(conditions(old, ready, now)),
        images: (!images.is_empty()).then_some(images),
        node_info: Some(NodeSystemInfo {
            container_runtime_version: runtime_version.to_owned(),
            kubelet_version: version(&config.system.kubelet_version),
            ..config.system.clone()
        }),
        ..NodeStatus::default()
    }
}

fn conditions(old: &NodeStatus, ready: &Result<(), String>, now: Timestamp) -> Vec<NodeCondition> {
    let own = [
        ("MemoryPressure", false, "KubeletHasSufficientMemory", "kubelet has sufficient memory available".to_owned()),
        ("DiskPressure", false, "KubeletHasNoDiskPressure", "kubelet has no disk pressure".to_owned()),
        ("PIDPressure", false, "KubeletHasSufficientPID", "kubelet has sufficient PID available".to_owned()),
        match ready {
            Ok(()) => ("Ready", true, "KubeletReady", "kubelet is posting ready status".to_owned()),
            Err(defect) => ("Ready", false, "KubeletNotReady", defect.clone()),
        },
    ];
    let condition = |(kind, yes, reason, message): (&str, bool, &str, String)| {
        let status = if yes { "True" } else { "False" };
        let mut present = old.conditions.iter().flatten();
        let present = present.find(|condition| condition.type_ == kind && condition.status == status);
        NodeCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_heartbeat_time: Some(time(now)),
            last_transition_time: present.and_then(|it| it.last_transition_time.clone()).or_else(|| Some(time(now))),
        }
    };
    own.into_iter().map(condition).collect()
}

/// The part of a status whose change is worth a write at once.
fn without_heartbeats(status: &NodeStatus) -> NodeStatus {
    let own = ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"];
    let conditions = status.conditions.iter().flatten().filter(|condition| own.contains(&condition.type_.as_str()));
    let conditions = conditions.map(|condition| NodeCondition { last_heartbeat_time: None, ..condition.clone() });
    NodeStatus {
        addresses: status.addresses.clone(),
        allocatable: status.allocatable.clone(),
        capacity: status.capacity.clone(),
        conditions: Some(conditions.collect()),
        images: status.images.clone(),
        node_info: status.node_info.clone(),
        ..NodeStatus::default()
    }
}

fn lease(name: &str, node: &ApiNode, now: Timestamp) -> Lease {
    Lease {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(LEASE_NAMESPACE.to_owned()),
            owner_references: node.metadata.uid.clone().map(|uid| {
                vec![OwnerReference {
                    api_version: "v1".to_owned(),
                    kind: "Node".to_owned(),
                    name: name.to_owned(),
                    uid,
                    ..OwnerReference::default()
                }]
            }),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(name.to_owned()),
            lease_duration_seconds: Some(LEASE_DURATION_SECONDS),
            renew_time: Some(MicroTime(now)),
            ..LeaseSpec::default()
        }),
    }
}
