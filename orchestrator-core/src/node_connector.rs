//! The `NodeConnector` seam: how the API server reaches a pod's containers for logs, exec, attach and port-forward.

use std::{collections::BTreeMap, fmt, sync::Arc, sync::PoisonError, sync::RwLock};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use jiff::Timestamp;

use crate::{
    runtime::{AttachOptions, Duplex, ExecOptions, Session},
    status::{ApiError, ApiResult, Reason},
};

/// Reaches the containers of one node, or of all of them.
#[async_trait]
pub trait NodeConnector: Send + Sync + fmt::Debug {
    /// A container's log as text, oldest line first.
    async fn logs(&self, target: &Target, options: PodLogOptions) -> ApiResult<LogStream>;

    /// Runs a command in a container.
    async fn exec(&self, target: &Target, options: ExecOptions) -> ApiResult<Session>;

    /// Joins the streams of a container's own process.
    async fn attach(&self, target: &Target, options: AttachOptions) -> ApiResult<Session>;

    /// Connects to a TCP port of the pod; the target's container is not looked at.
    async fn port_forward(&self, target: &Target, port: u16) -> ApiResult<Box<dyn Duplex>>;
}

/// A log as text, in pieces of any size.
pub type LogStream = BoxStream<'static, ApiResult<Bytes>>;

/// A container of a pod on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `spec.nodeName` of the pod.
    pub node: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's UID.
    pub pod_uid: String,
    /// The container's name.
    pub container: String,
}

/// Which part of a log, and how: upstream's `PodLogOptions`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodLogOptions {
    /// Goes on until the container has ended.
    pub follow: bool,
    /// The run before the present one.
    pub previous: bool,
    /// Only lines from this time on.
    pub since: Option<Timestamp>,
    /// Only this many lines, the last ones.
    pub tail_lines: Option<usize>,
    /// At most this much text, in bytes.
    pub limit_bytes: Option<usize>,
    /// Each line begins with its time.
    pub timestamps: bool,
}

/// Connectors by node name: for nodes that live in this process.
#[derive(Clone, Debug, Default)]
pub struct NodeDirectory {
    nodes: Arc<RwLock<BTreeMap<String, Arc<dyn NodeConnector>>>>,
}

impl NodeDirectory {
    /// Makes a node reachable.
    pub fn insert(&self, node: &str, connector: Arc<dyn NodeConnector>) {
        self.nodes.write().unwrap_or_else(PoisonError::into_inner).insert(node.to_owned(), connector);
    }

    /// Forgets a node.
    pub fn remove(&self, node: &str) {
        self.nodes.write().unwrap_or_else(PoisonError::into_inner).remove(node);
    }

    fn find(&self, target: &Target) -> ApiResult<Arc<dyn NodeConnector>> {
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        nodes
            .get(&target.node)
            .cloned()
            .ok_or_else(|| ApiError::new(Reason::InternalError, format!("node {:?} cannot be reached", target.node)))
    }
}

#[async_trait]
impl NodeConnector for NodeDirectory {
    async fn logs(&self, target: &Target, options: PodLogOptions) -> ApiResult<LogStream> {
        self.find(target)?.logs(target, options).await
    }

    async fn exec(&self, target: &Target, options: ExecOptions) -> ApiResult<Session> {
        self.find(target)?.exec(target, options).await
    }

    async fn attach(&self, target: &Target, options: AttachOptions) -> ApiResult<Session> {
        self.find(target)?.attach(target, options).await
    }

    async fn port_forward(&self, target: &Target, port: u16) -> ApiResult<Box<dyn Duplex>> {
        self.find(target)?.port_forward(target, port).await
    }
}
