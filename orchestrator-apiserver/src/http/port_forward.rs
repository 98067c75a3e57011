//! Port-forward over a WebSocket: two channels for each port, one for its data and one for what goes wrong.
//!
//! Upstream: `pkg/kubelet/cri/streaming/portforward/websocket.go`. The first message of each channel is the port, two bytes in
//! little endian.

use std::sync::Arc;

use futures::{SinkExt, StreamExt, future, stream::SplitSink};
use http::{Request, Response};
use orchestrator_core::{
    node_connector::{NodeConnector, Target},
    runtime::Duplex,
    status::{ApiError, ApiResult},
};
use tokio::{
    io::{AsyncWriteExt, ReadHalf, WriteHalf},
    sync::mpsc,
};
use tokio_tungstenite::tungstenite::Message;

use super::{
    body::{Body, RequestBody},
    executor::Tasks,
    query::Query,
    websocket::{Handshake, Socket, closing, framed, pump},
};
use crate::{field::Field, limits, pipeline::Scope, server::ApiServer};

const PROTOCOLS: [&str; 1] = ["v4.channel.k8s.io"];

type Writer = Option<WriteHalf<Box<dyn Duplex>>>;

/// Connects a client with ports of a pod.
pub(super) async fn port_forward(
    server: &ApiServer,
    tasks: &Tasks,
    scope: &Scope,
    query: &Query,
    mut request: Request<RequestBody>,
) -> ApiResult<Response<Body>> {
    let ports = ports(query)?;
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
    let handshake = Handshake::negotiate(&request, &PROTOCOLS)?;
    let nodes = server.server().nodes.clone();
    Ok(handshake.switch(tasks, "port-forward", &mut request, move |socket| run(socket, nodes, target, ports)))
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

/// Carries data until all ports are at their end or the client goes.
async fn run(socket: Socket, nodes: Arc<dyn NodeConnector>, target: Target, ports: Vec<u16>) {
    let (sink, mut source) = socket.split();
    let (sender, outgoing) = mpsc::channel(16);
    let channels = (0_u8..=u8::MAX).step_by(2);
    let work = async {
        let connections =
            ports.iter().zip(channels).map(|(port, channel)| open(&*nodes, &target, *port, channel, &sender));
        let (readers, mut writers): (Vec<_>, Vec<Writer>) = future::join_all(connections).await.into_iter().unzip();
        let output = async {
            future::join_all(readers.into_iter().flatten().map(|(reader, at)| pump(reader, at, sender.clone()))).await;
            let _ = sender.send(closing()).await;
        };
        let input = async {
            while let Some(Ok(message)) = source.next().await {
                match message {
                    Message::Close(_) => break,
                    Message::Ping(data) => drop(sender.send(Message::Pong(data)).await),
                    message => incoming(&message.into_data(), &mut writers).await,
                }
            }
        };
        // The client has gone, or nothing will come any more.
        future::select(std::pin::pin!(output), std::pin::pin!(input)).await;
        drop(sender);
    };
    // What is on its way goes out before the end.
    future::join(work, write(sink, outgoing)).await;
}

type Reader = Option<(ReadHalf<Box<dyn Duplex>>, u8)>;

/// Connects one port, and says on its channels which one it is, or why it is none.
async fn open(
    nodes: &dyn NodeConnector,
    target: &Target,
    port: u16,
    channel: u8,
    sender: &mpsc::Sender<Message>,
) -> (Reader, Writer) {
    for channel in [channel, channel + 1] {
        let _ = sender.send(framed(channel, &port.to_le_bytes())).await;
    }
    match nodes.port_forward(target, port).await {
        Ok(connection) => {
            let (reader, writer) = tokio::io::split(connection);
            (Some((reader, channel)), Some(writer))
        }
        Err(error) => {
            let (pod, uid) = (&target.pod, &target.pod_uid);
            let text = format!("error forwarding port {port} to pod {pod}, uid {uid}: {error}");
            let _ = sender.send(framed(channel + 1, text.as_bytes())).await;
            (None, None)
        }
    }
}

async fn write(mut sink: SplitSink<Socket, Message>, mut outgoing: mpsc::Receiver<Message>) {
    while let Some(message) = outgoing.recv().await {
        if sink.send(message).await.is_err() {
            return;
        }
    }
    let _ = sink.flush().await;
}

/// One message of the client. A port that takes nothing more is closed.
async fn incoming(data: &[u8], writers: &mut [Writer]) {
    let [channel, data @ ..] = data else { return };
    let Some(place) = writers.get_mut(usize::from(channel / 2)).filter(|_| channel.is_multiple_of(2)) else { return };
    if let Some(writer) = place
        && writer.write_all(data).await.is_err()
    {
        *place = None;
    }
}
