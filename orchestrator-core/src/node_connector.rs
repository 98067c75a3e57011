//! The `NodeConnector` seam: how the API server reaches a pod's containers for logs, exec, attach and port-forward, and a node
//! itself.

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

    /// Asks a node itself, as one asks a kubelet over HTTP. A node need not answer anything.
    async fn ask(&self, node: &str, _request: NodeRequest) -> ApiResult<NodeAnswer> {
        Err(ApiError::unavailable(format!("node {node:?} answers no requests about itself")))
    }
}

/// A log as text, in pieces of any size.
pub type LogStream = BoxStream<'static, ApiResult<Bytes>>;

/// What somebody asks a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeRequest {
    /// The method of HTTP.
    pub method: String,
    /// The path, from its root on: `/pods`.
    pub path: String,
    /// The query, in order, without escapes.
    pub query: Vec<(String, String)>,
}

impl NodeRequest {
    /// The first value of a parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }
}

/// What a node answers.
pub struct NodeAnswer {
    /// The status code of HTTP.
    pub code: u16,
    /// The media type of the body.
    pub media: &'static str,
    /// The body, in pieces of any size.
    pub body: LogStream,
}

impl fmt::Debug for NodeAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeAnswer").field("code", &self.code).field("media", &self.media).finish_non_exhaustive()
    }
}

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

    fn find(&self, node: &str) -> ApiResult<Arc<dyn NodeConnector>> {
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        nodes
            .get(node)
            .cloned()
            .ok_or_else(|| ApiError::new(Reason::InternalError, format!("node {node:?} cannot be reached")))
    }
}

#[async_trait]
impl NodeConnector for NodeDirectory {
    async fn logs(&self, target: &Target, options: PodLogOptions) -> ApiResult<LogStream> {
        self.find(&target.node)?.logs(target, options).await
    }

    async fn exec(&self, target: &Target, options: ExecOptions) -> ApiResult<Session> {
        self.find(&target.node)?.exec(target, options).await
    }

    async fn attach(&self, target: &Target, options: AttachOptions) -> ApiResult<Session> {
        self.find(&target.node)?.attach(target, options).await
    }

    async fn port_forward(&self, target: &Target, port: u16) -> ApiResult<Box<dyn Duplex>> {
        self.find(&target.node)?.port_forward(target, port).await
    }

    async fn ask(&self, node: &str, request: NodeRequest) -> ApiResult<NodeAnswer> {
        self.find(node)?.ask(node, request).await
    }
}
