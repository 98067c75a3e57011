//! The seam to a cloud.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{LoadBalancerStatus, Node, NodeAddress, Service};

/// Why a cloud did not do something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloudError {
    /// Another controller does it.
    #[error("implemented by alternate to cloud provider")]
    ImplementedElsewhere,
    /// It failed.
    #[error("{0}")]
    Failed(String),
}

/// A cloud: what it offers, the controllers make use of.
pub trait CloudProvider: Send + Sync + fmt::Debug {
    /// The machines that nodes run on.
    fn instances(&self) -> Option<&dyn Instances> {
        None
    }

    /// Load balancers for services.
    fn load_balancers(&self) -> Option<&dyn LoadBalancers> {
        None
    }

    /// Routes to the pods of nodes.
    fn routes(&self) -> Option<&dyn Routes> {
        None
    }
}

/// What a cloud knows of the machine of a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InstanceMetadata {
    /// Its name in the cloud, such as `cloud://zone/machine`.
    pub provider_id: String,
    /// Its kind; may be empty.
    pub instance_type: String,
    /// Its addresses.
    pub addresses: Vec<NodeAddress>,
    /// Where it stands; may be empty.
    pub zone: String,
    /// Where that is; may be empty.
    pub region: String,
    /// Further labels of its node, none of Kubernetes' own.
    pub labels: Vec<(String, String)>,
}

/// The machines of a cloud.
#[async_trait]
pub trait Instances: Send + Sync {
    /// Whether the machine of a node exists.
    async fn exists(&self, node: &Node) -> Result<bool, CloudError>;

    /// Whether it is switched off.
    async fn is_shut_down(&self, node: &Node) -> Result<bool, CloudError>;

    /// What is known of it; nothing when the cloud has nothing to say about this node.
    async fn metadata(&self, node: &Node) -> Result<Option<InstanceMetadata>, CloudError>;
}

/// The load balancers of a cloud, one for a service. Every call may be repeated.
#[async_trait]
pub trait LoadBalancers: Send + Sync {
    /// The load balancer of a service, if it has one.
    async fn get(&self, service: &Service) -> Result<Option<LoadBalancerStatus>, CloudError>;

    /// Makes the load balancer of a service, or changes it to what the service says now.
    async fn ensure(&self, service: &Service, nodes: &[Arc<Node>]) -> Result<LoadBalancerStatus, CloudError>;

    /// Changes to which nodes it leads.
    async fn update(&self, service: &Service, nodes: &[Arc<Node>]) -> Result<(), CloudError>;

    /// Removes it, if it is there.
    async fn delete(&self, service: &Service) -> Result<(), CloudError>;
}

/// A way to the pods of a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Its name in the cloud; empty before it has one.
    pub name: String,
    /// The node that it leads to; none when that is gone, and packets get lost.
    pub node: Option<String>,
    /// The pods' addresses, such as `10.244.1.0/24`.
    pub destination: String,
}

/// The routes of a cloud.
#[async_trait]
pub trait Routes: Send + Sync {
    /// All routes of the cluster.
    async fn list(&self) -> Result<Vec<Route>, CloudError>;

    /// Makes a route. The hint is unique to the node and may become a part of its name.
    async fn create(&self, hint: &str, route: &Route) -> Result<(), CloudError>;

    /// Removes a route.
    async fn delete(&self, route: &Route) -> Result<(), CloudError>;
}
