//! The controllers of cloud-controller-manager, over a [`CloudProvider`]: machines, load balancers, routes.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/architecture/cloud-controller/>.

mod local;
pub(crate) mod node;
pub(crate) mod node_lifecycle;
mod provider;
pub(crate) mod route;
pub(crate) mod service_lb;

use k8s_openapi::api::core::v1::{Node, ObjectReference};

pub use local::LocalCloud;
pub use provider::{CloudError, CloudProvider, InstanceMetadata, Instances, LoadBalancers, Route, Routes};

/// Tells that a node has not been seen by the cloud's controllers.
const UNINITIALIZED: &str = "node.cloudprovider.kubernetes.io/uninitialized";

/// A node as the Events of these controllers name it.
fn reference(node: &Node) -> ObjectReference {
    ObjectReference {
        kind: Some("Node".to_owned()),
        name: node.metadata.name.clone(),
        uid: node.metadata.uid.clone(),
        ..Default::default()
    }
}

fn has_taint(node: &Node, key: &str) -> bool {
    node.spec.iter().flat_map(|spec| spec.taints.iter().flatten()).any(|taint| taint.key == key)
}
