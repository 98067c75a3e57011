//! Port-forward: connections to ports of a pod, in the ways that old and new clients ask for.
//!
//! `kubectl` since 1.31 tunnels SPDY through a WebSocket, before it spoke SPDY alone. Other clients use the channels of a
//! WebSocket.

use std::sync::Arc;

use http::{Request, Response};
use orchestrator_core::{
    node_connector::{NodeConnector, Target},
    runtime::Duplex,
    status::{ApiError, ApiResult},
};

use super::{
    body::{Body, RequestBody},
    channels::Coding,
    executor::Tasks,
    port_forward_channels, port_forward_streams,
    query::Query,
    spdy::Transport,
    upgrade::Upgrade,
};
use crate::{field::Field, limits, pipeline::Scope, server::ApiServer};

/// SPDY inside of a WebSocket; upstream: KEP-4006.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

/// Protocols over WebSockets, of which the client prefers one. The last one is spoken with clients that name none.
const OVER_WEB_SOCKET: [&str; 4] = [TUNNEL, "v4.channel.k8s.io", "v4.base64.channel.k8s.io", ""];

/// The protocol over SPDY.
const OVER_SPDY: [&str; 1] = ["portforward.k8s.io"];

/// Connects a client with ports of a pod.
pub(super) async fn port_forward(
    server: &ApiServer,
    tasks: &Tasks,
    scope: &Scope,
    query: &Query,
    mut request: Request<RequestBody>,
) -> ApiResult<Response<Body>> {
    let name = scope.name()?;
    let pod = server.server().find_pod(&scope.namespace, name).await?;
    let root = Field::root(pod.tree()?);
    let target = Target {
        node: root.at("spec.nodeName").text().to_owned(),
        namespace: scope.namespace.clone(),
        pod: name.to_owned(),
        pod_uid: root.at("metadata.uid").text().to_owned(),
        container: String::new(),
    };
    if target.node.is_empty() {
        return Err(ApiError::bad_request(format!("pod {name} does not have a host assigned")));
    }
    let pod = ForwardedPod { nodes: server.server().nodes.clone(), target };
    let (task, env) = ("port-forward", tasks.env().clone());
    let upgrade = match Upgrade::negotiate(&request, &OVER_WEB_SOCKET, &OVER_SPDY)? {
        Ok(upgrade) => upgrade,
        Err(refusal) => return Ok(refusal),
    };
    Ok(match upgrade {
        Upgrade::WebSocket(handshake) if handshake.protocol() == TUNNEL => {
            let serve = move |socket| port_forward_streams::run(env, Transport::tunnel(socket), pod);
            handshake.switch(tasks, task, &mut request, serve)
        }
        Upgrade::WebSocket(handshake) => {
            let ports = ports(query)?;
            let coding = Coding::of(handshake.protocol());
            let serve = move |socket| port_forward_channels::run(env, socket, coding, pod, ports);
            handshake.switch(tasks, task, &mut request, serve)
        }
        Upgrade::Spdy(handshake) => {
            let serve = move |transport| port_forward_streams::run(env, transport, pod);
            handshake.switch(tasks, task, &mut request, serve)
        }
    })
}

/// The ports that are asked for.
fn ports(query: &Query) -> ApiResult<Vec<u16>> {
    let texts = query.all("ports").flat_map(|ports| ports.split(','));
    let ports = texts.map(|text| match text.parse() {
        Ok(port @ 1..) => Ok(port),
        _ => Err(ApiError::bad_request(format!("port {text:?} must be a number between 1 and 65535"))),
    });
    let ports: Vec<u16> = ports.take(limits::FORWARDED_PORTS + 1).collect::<ApiResult<_>>()?;
    match ports.len() {
        0 => Err(ApiError::bad_request("query parameter \"ports\" is required")),
        1..=limits::FORWARDED_PORTS => Ok(ports),
        _ => Err(ApiError::bad_request(format!("more than {} ports", limits::FORWARDED_PORTS))),
    }
}

/// A pod whose ports are forwarded.
pub(super) struct ForwardedPod {
    nodes: Arc<dyn NodeConnector>,
    target: Target,
}

impl ForwardedPod {
    /// Connects to a port, or says why not.
    pub(super) async fn connect(&self, port: u16) -> Result<Box<dyn Duplex>, String> {
        self.nodes.port_forward(&self.target, port).await.map_err(|error| {
            let (pod, uid) = (&self.target.pod, &self.target.pod_uid);
            format!("error forwarding port {port} to pod {pod}, uid {uid}: {error}")
        })
    }
}
