//! Streams over SPDY: the bytes of a connection in, and out.
//!
//! Upstream: `k8s.io/apimachinery/pkg/util/httpstream/spdy`.

use std::{
    collections::BTreeMap,
    future,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::{Bytes, BytesMut};
use futures::{
    Sink, SinkExt, StreamExt,
    future::{Either, select},
    stream::BoxStream,
};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use orchestrator_core::{
    env::Env,
    status::{ApiError, ApiResult},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, DuplexStream},
    sync::mpsc,
};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::{
    codec::{BytesCodec, FramedWrite},
    io::ReaderStream,
    sync::CancellationToken,
};

use super::{
    body::{Body, RequestBody},
    channels::closing,
    executor::Tasks,
    pipe::feed,
    respond, upgrade,
    websocket::Socket,
};
use crate::{
    limits,
    spdy::{Connection, Decoder, Encoder, Event, Frame, FrameError, Headers, StreamId, status},
};

/// As requests name it.
pub(super) const VERSION: &str = "SPDY/3.1";

const PROTOCOL_HEADER: HeaderName = HeaderName::from_static("x-stream-protocol-version");

const ACCEPTED_PROTOCOLS_HEADER: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

/// What both sides agreed on.
pub(super) struct Handshake {
    protocol: &'static str,
}

impl Handshake {
    /// The first of the client's protocols that is spoken here, too.
    pub(super) fn negotiate(
        request: &Request<RequestBody>,
        protocols: &[&'static str],
    ) -> ApiResult<Result<Self, Response<Body>>> {
        let values = request.headers().get_all(PROTOCOL_HEADER).iter().filter_map(|value| value.to_str().ok());
        let offered: Vec<&str> =
            values.flat_map(|value| value.split(',')).map(str::trim).filter(|name| !name.is_empty()).collect();
        if offered.is_empty() {
            return Err(ApiError::bad_request("unable to upgrade: X-Stream-Protocol-Version is required"));
        }
        let protocol = offered.iter().find_map(|offer| protocols.iter().find(|protocol| *protocol == offer));
        Ok(protocol.map(|protocol| Self { protocol }).ok_or_else(|| refusal(&offered, protocols)))
    }

    pub(super) fn protocol(&self) -> &'static str {
        self.protocol
    }

    /// Answers that the connection leaves HTTP, and serves it once it has.
    pub(super) fn switch<F>(
        self,
        tasks: &Tasks,
        name: &'static str,
        request: &mut Request<RequestBody>,
        serve: impl FnOnce(Transport) -> F + Send + 'static,
    ) -> Response<Body>
    where
        F: Future<Output = ()> + Send,
    {
        let mut response =
            upgrade::switch(tasks, name, request, VERSION, |connection| serve(Transport::plain(connection)));
        response.headers_mut().insert(PROTOCOL_HEADER, HeaderValue::from_static(self.protocol));
        response
    }
}

/// The answer to a client that speaks none of these: text, and what it could speak.
fn refusal(offered: &[&str], protocols: &[&'static str]) -> Response<Body> {
    let (client, server) = (offered.join(" "), protocols.join(" "));
    let text = format!(
        "unable to upgrade: unable to negotiate protocol: client supports [{client}], server accepts [{server}]\n"
    );
    let mut response = respond::text(StatusCode::FORBIDDEN, text);
    for protocol in protocols {
        response.headers_mut().append(ACCEPTED_PROTOCOLS_HEADER, HeaderValue::from_static(protocol));
    }
    response
}

/// What carries the bytes. `None` says on its way out that nothing follows.
pub(super) struct Transport {
    source: BoxStream<'static, Bytes>,
    sink: Pin<Box<dyn Sink<Option<Bytes>, Error = std::io::Error> + Send>>,
}

impl Transport {
    fn plain(connection: upgrade::Connection) -> Self {
        let (reader, writer) = tokio::io::split(connection);
        let source = ReaderStream::with_capacity(reader, limits::STREAM_MESSAGE_BYTES);
        let sink = FramedWrite::new(writer, BytesCodec::new());
        Self {
            source: source.scan((), |(), bytes| future::ready(bytes.ok())).boxed(),
            sink: Box::pin(
                sink.with(|bytes: Option<Bytes>| future::ready(Ok::<_, std::io::Error>(bytes.unwrap_or_default()))),
            ),
        }
    }

    /// The binary messages of a WebSocket.
    pub(super) fn tunnel(socket: Socket) -> Self {
        let (sink, source) = socket.split();
        let source = source.scan((), |(), message| {
            future::ready(match message {
                Ok(Message::Binary(bytes)) => Some(bytes),
                Ok(Message::Close(_)) | Err(_) => None,
                Ok(_) => Some(Bytes::new()),
            })
        });
        let sink = sink.sink_map_err(std::io::Error::other);
        Self {
            source: source.boxed(),
            sink: Box::pin(sink.with(|bytes: Option<Bytes>| {
                future::ready(Ok::<_, std::io::Error>(bytes.map_or_else(closing, Message::Binary)))
            })),
        }
    }
}

/// A stream that a client has opened.
pub(super) struct Stream {
    pub(super) id: StreamId,
    pub(super) headers: Headers,
    /// What the client sends.
    pub(super) reader: DuplexStream,
    pub(super) writer: Writer,
    /// The client wants nothing of it any more.
    pub(super) reset: CancellationToken,
}

/// Sends on a stream.
#[derive(Clone)]
pub(super) struct Writer {
    id: StreamId,
    shared: Arc<Shared>,
}

/// What the streams of a connection share.
struct Shared {
    connection: Mutex<Connection>,
    outgoing: mpsc::Sender<Frame>,
}

impl Shared {
    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a frame, if there is one. Whether it was sent.
    async fn send(&self, frame: Option<Frame>) -> bool {
        match frame {
            Some(frame) => self.outgoing.send(frame).await.is_ok(),
            None => false,
        }
    }
}

impl Writer {
    /// Says that the stream is served.
    pub(super) async fn accept(&self) {
        let frame = self.shared.connection().accept(self.id);
        self.shared.send(frame).await;
    }

    /// Sends data; `false` when the stream takes none any more.
    pub(super) async fn send(&self, data: Bytes) -> bool {
        let frame = self.shared.connection().send(self.id, data);
        self.shared.send(frame).await
    }

    /// Sends all that is read, until its end.
    pub(super) async fn pump(&self, mut reader: impl AsyncRead + Unpin) {
        let mut buffer = vec![0; limits::STREAM_MESSAGE_BYTES];
        while let Ok(count @ 1..) = reader.read(&mut buffer).await {
            if !self.send(Bytes::copy_from_slice(buffer.get(..count).unwrap_or_default())).await {
                return;
            }
        }
    }

    /// Says that nothing follows.
    pub(super) async fn finish(&self) {
        let frame = self.shared.connection().finish(self.id);
        self.shared.send(frame).await;
    }

    /// Ends the stream in both directions.
    pub(super) async fn reset(&self, status: u32) {
        let frame = self.shared.connection().reset(self.id, status);
        self.shared.send(frame).await;
    }
}

/// Serves a connection until all is said or the client has gone.
pub(super) async fn serve<F>(env: Env, transport: Transport, handle: impl FnOnce(mpsc::Receiver<Stream>) -> F)
where
    F: Future<Output = ()>,
{
    let Transport { mut source, sink } = transport;
    let (outgoing, frames) = mpsc::channel(16);
    let (opened, streams) = mpsc::channel(16);
    let handler = handle(streams);
    let (reading, probes) = (&mut source, env.clone());
    let work = async move {
        let shared = Arc::new(Shared { connection: Mutex::default(), outgoing });
        let reader = pin!(Reader { env: probes, shared: shared.clone(), opened, inputs: BTreeMap::new() }.run(reading));
        select(pin!(handler), reader).await;
        let farewell = shared.connection().go_away();
        shared.send(Some(farewell)).await;
    };
    // What is on its way goes out before the end; when nothing can go out, that is the end.
    match select(Box::pin(work), Box::pin(write(sink, frames))).await {
        Either::Left(((), write)) => write.await,
        Either::Right(_) => return,
    }
    // To close a connection with unread bytes in it would take from the client what it has not read.
    let _ = env.timeout(limits::DRAIN_TIME, async { while source.next().await.is_some() {} }).await;
}

async fn write(
    mut sink: Pin<Box<dyn Sink<Option<Bytes>, Error = std::io::Error> + Send>>,
    mut frames: mpsc::Receiver<Frame>,
) {
    let mut encoder = Encoder::default();
    while let Some(frame) = frames.recv().await {
        let mut bytes = BytesMut::new();
        encoder.put(&frame, &mut bytes);
        if sink.send(Some(bytes.freeze())).await.is_err() {
            return;
        }
    }
    if sink.send(None).await.is_ok() {
        let _ = sink.close().await;
    }
}

/// Reads what a client sends.
struct Reader {
    env: Env,
    shared: Arc<Shared>,
    opened: mpsc::Sender<Stream>,
    inputs: BTreeMap<StreamId, Input>,
}

/// Where the data of a stream goes; nowhere after its end, or when nobody reads it.
struct Input {
    pipe: Option<DuplexStream>,
    reset: CancellationToken,
}

impl Reader {
    async fn run(mut self, source: &mut BoxStream<'static, Bytes>) {
        let mut decoder = Decoder::default();
        while let Some(bytes) = source.next().await {
            decoder.give(&bytes);
            if let Err(error) = self.frames(&mut decoder).await {
                tracing::debug!(%error, "a client speaks no SPDY");
                return;
            }
        }
    }

    async fn frames(&mut self, decoder: &mut Decoder) -> Result<(), FrameError> {
        while let Some(frame) = decoder.take()? {
            let events = self.shared.connection().receive(frame)?;
            for event in events {
                self.handle(event).await;
            }
        }
        Ok(())
    }

    async fn handle(&mut self, event: Event) {
        match event {
            Event::Opened(id, headers) => self.open(id, headers).await,
            Event::Data(id, data) => {
                let outgoing = &self.shared.outgoing;
                // Those of servers are even.
                let probe = || drop(outgoing.try_send(Frame::Ping(2)));
                if let Some(input) = self.inputs.get_mut(&id)
                    && let Some(pipe) = &mut input.pipe
                    && !feed(&self.env, pipe, &data, probe).await
                {
                    input.pipe = None;
                }
            }
            Event::Finished(id) => {
                if let Some(input) = self.inputs.get_mut(&id) {
                    input.pipe = None;
                }
            }
            Event::Reset(id) => {
                if let Some(input) = self.inputs.remove(&id) {
                    input.reset.cancel();
                }
            }
            Event::Answer(frame) => drop(self.shared.send(Some(frame)).await),
        }
    }

    async fn open(&mut self, id: StreamId, headers: Headers) {
        let (near, far) = tokio::io::duplex(limits::STREAM_BUFFER_BYTES);
        let reset = CancellationToken::new();
        let writer = Writer { id, shared: self.shared.clone() };
        let stream = Stream { id, headers, reader: far, writer: writer.clone(), reset: reset.clone() };
        if self.opened.send(stream).await.is_err() {
            writer.reset(status::REFUSED_STREAM).await;
            return;
        }
        {
            let connection = self.shared.connection();
            self.inputs.retain(|id, _| connection.is_open(*id));
        }
        self.inputs.insert(id, Input { pipe: Some(near), reset });
    }
}
