//! Port-forward over SPDY: two streams for each connection, one for its data and one for what goes wrong.
//!
//! Upstream: `k8s.io/kubelet/pkg/cri/streaming/portforward/httpstream.go`.

use std::{collections::BTreeMap, future::pending, pin::pin};

use futures::{
    StreamExt,
    future::{Either, select},
    stream::FuturesUnordered,
};
use orchestrator_core::{env::Env, runtime::Duplex};
use tokio::sync::{mpsc, oneshot};

use super::{
    pipe::drain,
    port_forward::ForwardedPod,
    spdy::{Stream, Transport, Writer, serve},
};
use crate::{
    limits,
    spdy::{Headers, StreamId, status},
};

/// Carries connections until the client goes.
pub(super) async fn run(env: Env, transport: Transport, pod: ForwardedPod) {
    serve(env.clone(), transport, async move |opened| accept(&env, &pod, opened).await).await;
}

/// The two streams of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Data,
    Error,
}

/// What a new stream is for.
struct Purpose {
    request: String,
    kind: Kind,
    port: u16,
}

/// What the headers of a stream say; `None` when they make no sense.
fn purpose(id: StreamId, headers: &Headers) -> Option<Purpose> {
    let port = headers.get("port").parse().ok().filter(|port| *port > 0)?;
    let kind = match headers.get("streamtype") {
        "data" => Kind::Data,
        "error" => Kind::Error,
        _ => return None,
    };
    let request = match headers.get("requestid") {
        // Old clients do not number their requests; they open the error stream, and then the one for data.
        "" if kind == Kind::Error => id.to_string(),
        "" => id.saturating_sub(2).to_string(),
        request => request.to_owned(),
    };
    Some(Purpose { request, kind, port })
}

/// A connection that waits for its other stream.
struct Half {
    kind: Kind,
    writer: Writer,
    other: oneshot::Sender<Stream>,
}

/// Serves all streams that are opened.
async fn accept(env: &Env, pod: &ForwardedPod, mut opened: mpsc::Receiver<Stream>) {
    let mut halves: BTreeMap<String, Half> = BTreeMap::new();
    let mut connections = FuturesUnordered::new();
    loop {
        let ended = async {
            match connections.next().await {
                Some(request) => request,
                None => pending().await,
            }
        };
        let stream = match select(pin!(opened.recv()), pin!(ended)).await {
            Either::Left((Some(stream), _)) => stream,
            Either::Left((None, _)) => return,
            Either::Right((request, _)) => {
                // Its other stream never came; or the number is used again, by a connection that waits.
                if halves.get(&request).is_some_and(|half| half.other.is_closed()) {
                    halves.remove(&request);
                }
                continue;
            }
        };
        let Some(Purpose { request, kind, port }) = purpose(stream.id, &stream.headers) else {
            stream.writer.reset(status::CANCEL).await;
            continue;
        };
        stream.writer.accept().await;
        match halves.remove(&request) {
            Some(half) if half.kind == kind => {
                refuse(&half, &request, stream).await;
                halves.insert(request, half);
            }
            // Whoever waits no longer has told the client already.
            Some(half) => drop(half.other.send(stream)),
            None => {
                let (other, second) = oneshot::channel();
                halves.insert(request.clone(), Half { kind, writer: stream.writer.clone(), other });
                connections.push(connection(env, pod, Waiting { request, kind, port, stream, second }));
            }
        }
    }
}

async fn refuse(half: &Half, request: &str, stream: Stream) {
    let kind = if half.kind == Kind::Error { "error" } else { "data" };
    if half.kind == Kind::Error {
        let text = format!("error processing stream for request {request}: {kind} stream already assigned");
        half.writer.send(text.into()).await;
    }
    stream.writer.reset(status::CANCEL).await;
}

/// The first stream of a connection, and the way that the second comes.
struct Waiting {
    request: String,
    kind: Kind,
    port: u16,
    stream: Stream,
    second: oneshot::Receiver<Stream>,
}

/// One connection, from its first stream to its end.
async fn connection(env: &Env, pod: &ForwardedPod, waiting: Waiting) -> String {
    let Waiting { request, kind, port, stream, second } = waiting;
    match env.timeout(limits::STREAM_CREATION_TIME, second).await {
        Ok(Ok(other)) => {
            let (data, error) = if kind == Kind::Data { (stream, other) } else { (other, stream) };
            forward(pod, port, data, error).await;
        }
        _ => {
            if kind == Kind::Error {
                stream.writer.send(format!("(request={request}) timed out waiting for streams").into()).await;
                stream.writer.finish().await;
            }
            stream.writer.reset(status::CANCEL).await;
        }
    }
    request
}

async fn forward(pod: &ForwardedPod, port: u16, data: Stream, error: Stream) {
    match pod.connect(port).await {
        Ok(connection) => carry(connection, data).await,
        Err(text) => {
            error.writer.send(text.into()).await;
            data.writer.finish().await;
        }
    }
    error.writer.finish().await;
}

/// Carries data both ways until the pod has said all, or the client wants no more.
async fn carry(connection: Box<dyn Duplex>, data: Stream) {
    let Stream { reader, writer, reset, .. } = data;
    let (from_pod, to_pod) = tokio::io::split(connection);
    let output = writer.pump(from_pod);
    let input = async {
        drain(reader, Some(to_pod)).await;
        // The pod may go on when the client has said all.
        pending::<()>().await;
    };
    let (output, input) = (pin!(output), pin!(input));
    select(select(output, input), pin!(reset.cancelled())).await;
    writer.finish().await;
}
