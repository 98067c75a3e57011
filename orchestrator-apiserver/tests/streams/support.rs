//! An API server with a node, and a client that leaves HTTP.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt, future::BoxFuture};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use orchestrator_apiserver::{
    Admission, ApiServer, Config,
    http::{Body, HttpService},
    spdy::{Decoder, Encoder, Frame, Headers, StreamId},
};
use orchestrator_core::{
    client::UserInfo,
    env::{Env, Simulation, TaskGroup},
    node_connector::{LogStream, NodeAnswer, NodeConnector, NodeRequest, PodLogOptions, Target},
    runtime::{AttachOptions, Duplex, ExecOptions, RuntimeError, Session, TerminalSize},
    status::{ApiError, ApiResult, Reason},
};
use orchestrator_store_mem::MemStore;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::{mpsc, oneshot},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};
use tower_service::Service;

pub(crate) const PODS: &str = "/api/v1/namespaces/default/pods";

pub(crate) type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// What a command's side of a session is.
pub(crate) struct Command {
    pub(crate) options: ExecOptions,
    pub(crate) stdin: DuplexStream,
    pub(crate) stdout: DuplexStream,
    pub(crate) sizes: mpsc::Receiver<TerminalSize>,
    /// Its end; closed when nobody waits for it any more.
    pub(crate) exit: oneshot::Sender<Result<i32, RuntimeError>>,
}

/// A node where something answers at port 80: it says each word twice, until it is told to stop. At port 82 nobody
/// reads, and at 8080 and 8443 there is a web server.
#[derive(Debug)]
struct Node {
    tasks: Mutex<TaskGroup>,
    commands: mpsc::UnboundedSender<Command>,
    deaf: mpsc::UnboundedSender<DuplexStream>,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.options.fmt(f)
    }
}

#[async_trait]
impl NodeConnector for Node {
    async fn logs(&self, _: &Target, _: PodLogOptions) -> ApiResult<LogStream> {
        Err(ApiError::method_not_allowed())
    }

    async fn exec(&self, target: &Target, options: ExecOptions) -> ApiResult<Session> {
        assert_eq!((target.pod.as_str(), target.container.as_str()), ("p", "c"));
        let (stdin, from_stdin) = tokio::io::duplex(16);
        let (to_stdout, stdout) = tokio::io::duplex(1024);
        let (resize, sizes) = mpsc::channel(1);
        let (end, exit) = oneshot::channel();
        let exit: BoxFuture<'static, _> = Box::pin(async move { exit.await.unwrap_or(Ok(0)) });
        let resize = options.tty.then_some(resize);
        self.commands.send(Command { options, stdin: from_stdin, stdout: to_stdout, sizes, exit: end }).unwrap();
        Ok(Session { stdin: Some(Box::new(stdin)), stdout: Some(Box::new(stdout)), stderr: None, resize, exit })
    }

    async fn attach(&self, target: &Target, options: AttachOptions) -> ApiResult<Session> {
        let AttachOptions { stdin, stdout, stderr, tty } = options;
        self.exec(target, ExecOptions { command: Vec::new(), stdin, stdout, stderr, tty }).await
    }

    async fn port_forward(&self, target: &Target, port: u16) -> ApiResult<Box<dyn Duplex>> {
        assert_eq!((target.node.as_str(), target.pod.as_str()), ("n", "p"));
        let (near, mut far) = tokio::io::duplex(64);
        match port {
            80 => {
                let echo = async move {
                    let mut word = [0; 4];
                    while far.read_exact(&mut word).await.is_ok() && &word != b"stop" {
                        far.write_all(&[word, word].concat()).await.unwrap();
                    }
                };
                self.tasks.lock().unwrap().spawn("echo", echo);
            }
            82 => self.deaf.send(far).unwrap(),
            8080 => self.tasks.lock().unwrap().spawn("web", crate::proxy::serve(far)),
            8443 => self.tasks.lock().unwrap().spawn("web", crate::proxy::serve_encrypted(far)),
            _ => return Err(ApiError::new(Reason::InternalError, "connection refused")),
        }
        Ok(Box::new(near))
    }

    async fn ask(&self, node: &str, request: NodeRequest) -> ApiResult<NodeAnswer> {
        let words = format!("{node}: {} {} {:?}", request.method, request.path, request.query);
        let body = futures::stream::once(async { Ok(words.into()) });
        Ok(NodeAnswer { code: 202, media: "text/odd", body: Box::pin(body) })
    }
}

pub(crate) struct Api {
    /// The service holds its server weakly.
    _server: ApiServer,
    service: HttpService,
    pub(crate) env: Env,
    commands: tokio::sync::Mutex<mpsc::UnboundedReceiver<Command>>,
    deaf: tokio::sync::Mutex<mpsc::UnboundedReceiver<DuplexStream>>,
}

impl Api {
    async fn start(env: &Env) -> Self {
        let admission = Admission { service_account: false, ..Admission::default() };
        let config = Config { admission, ..Config::default() };
        let (commands, command_ends) = mpsc::unbounded_channel();
        let (deaf, deaf_ends) = mpsc::unbounded_channel();
        let tasks = Mutex::new(TaskGroup::new(env));
        let node = Arc::new(Node { tasks, commands, deaf });
        let builder = ApiServer::builder(env, Arc::new(MemStore::new(env))).config(config).nodes(node);
        let server = builder.build().await.unwrap();
        let service = HttpService::new(&server, UserInfo::admin());
        let api =
            Self { service, _server: server, env: env.clone(), commands: command_ends.into(), deaf: deaf_ends.into() };
        let container = json!({"name": "c", "image": "i"});
        for (name, node) in [("p", json!("n")), ("homeless", json!(null))] {
            let pod = json!({"metadata": {"name": name}, "spec": {"nodeName": node, "containers": [container]}});
            api.create(PODS, &pod).await;
        }
        api
    }

    pub(crate) async fn create(&self, path: &str, object: &Value) {
        let request = Request::post(path).header("content-type", "application/json");
        let created = self.send(request.body(Full::new(object.to_string().into())).unwrap()).await;
        assert_eq!(created.status(), 201, "{}", text(created).await);
    }

    /// Writes the status of an object.
    pub(crate) async fn status(&self, path: &str, status: &Value) {
        let request = Request::patch(format!("{path}/status")).header("content-type", "application/merge-patch+json");
        let body = json!({ "status": status }).to_string();
        let written = self.send(request.body(Full::new(body.into())).unwrap()).await;
        assert_eq!(written.status(), 200, "{}", text(written).await);
    }

    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Response<Body> {
        self.service.clone().call(request).await.unwrap()
    }

    /// Asks for a WebSocket.
    pub(crate) async fn ask_for_socket(&self, path: &str, protocol: &str) -> Response<Body> {
        let request = Request::get(format!("{PODS}/{path}"))
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        let request = if protocol.is_empty() { request } else { request.header("sec-websocket-protocol", protocol) };
        self.send(request.body(Full::default()).unwrap()).await
    }

    /// Asks for SPDY.
    pub(crate) async fn ask_for_spdy(&self, path: &str, protocols: &[&str]) -> Response<Body> {
        let request =
            Request::post(format!("{PODS}/{path}")).header("connection", "Upgrade").header("upgrade", "SPDY/3.1");
        let request =
            protocols.iter().fold(request, |request, name| request.header("X-Stream-Protocol-Version", *name));
        self.send(request.body(Full::default()).unwrap()).await
    }

    pub(crate) async fn socket(&self, path: &str, protocol: &str) -> Socket {
        let mut response = self.ask_for_socket(path, protocol).await;
        assert_eq!(response.status(), 101, "{response:?}");
        let agreed = response.headers().get("sec-websocket-protocol").map(|agreed| agreed.to_str().unwrap());
        assert!(agreed.map_or(protocol.is_empty(), |agreed| protocol.split(", ").any(|offer| offer == agreed)));
        let upgraded = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
        WebSocketStream::from_raw_socket(upgraded, Role::Client, None).await
    }

    pub(crate) async fn spdy(&self, path: &str, protocols: &[&str]) -> Client {
        let mut response = self.ask_for_spdy(path, protocols).await;
        assert_eq!((response.status().as_u16(), &response.headers()["upgrade"]), (101, &"SPDY/3.1".parse().unwrap()));
        let upgraded = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
        Client::new(Connection::Plain(Box::new(upgraded)))
    }

    /// The pod's end of a connection to port 82.
    pub(crate) async fn deaf(&self) -> DuplexStream {
        self.deaf.lock().await.recv().await.unwrap()
    }

    /// The command of the newest session.
    pub(crate) async fn command(&self) -> Command {
        self.commands.lock().await.recv().await.unwrap()
    }
}

pub(crate) fn run(test: impl AsyncFn(Api)) {
    for seed in 0..4 {
        let simulation = Simulation::new(seed);
        let env = simulation.env();
        simulation.run(async { test(Api::start(&env).await).await }).unwrap();
    }
}

pub(crate) async fn text(response: Response<Body>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8_lossy(&body).into_owned()
}

/// What carries frames.
pub(crate) enum Connection {
    Plain(Box<dyn Duplex>),
    Tunnel(Box<Socket>),
}

impl Connection {
    async fn send(&mut self, bytes: Bytes) {
        match self {
            Self::Plain(connection) => connection.write_all(&bytes).await.unwrap(),
            Self::Tunnel(socket) => socket.send(Message::Binary(bytes)).await.unwrap(),
        }
    }

    /// What has come; nothing at the end.
    async fn receive(&mut self) -> Bytes {
        match self {
            Self::Plain(connection) => {
                let mut bytes = BytesMut::with_capacity(5000);
                connection.read_buf(&mut bytes).await.unwrap();
                bytes.freeze()
            }
            Self::Tunnel(socket) => match socket.next().await {
                Some(Ok(Message::Binary(bytes))) => bytes,
                _ => Bytes::new(),
            },
        }
    }
}

/// A client that speaks SPDY.
pub(crate) struct Client {
    connection: Connection,
    encoder: Encoder,
    decoder: Decoder,
    /// What has come on each stream, and whether it is at its end.
    pub(crate) streams: BTreeMap<StreamId, (Vec<u8>, bool)>,
    pub(crate) resets: BTreeMap<StreamId, u32>,
    pub(crate) pings: Vec<u32>,
    newest: StreamId,
}

impl Client {
    pub(crate) fn new(connection: Connection) -> Self {
        Self {
            connection,
            encoder: Encoder::default(),
            decoder: Decoder::default(),
            streams: BTreeMap::new(),
            resets: BTreeMap::new(),
            pings: Vec::new(),
            newest: 0,
        }
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &'static [u8]) {
        self.connection.send(Bytes::from_static(bytes)).await;
    }

    pub(crate) async fn send(&mut self, frame: Frame) {
        let mut bytes = BytesMut::new();
        self.encoder.put(&frame, &mut bytes);
        self.connection.send(bytes.freeze()).await;
    }

    pub(crate) async fn open(&mut self, headers: &[(&str, &str)]) -> StreamId {
        self.newest = if self.newest == 0 { 1 } else { self.newest + 2 };
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (stream, headers) = (self.newest, Some(Headers(headers)));
        self.send(Frame::SynStream { stream, headers, finished: false, unidirectional: false }).await;
        stream
    }

    pub(crate) async fn data(&mut self, stream: StreamId, data: impl Into<Bytes>, finished: bool) {
        self.send(Frame::Data { stream, data: data.into(), finished }).await;
    }

    /// Reads until this is true. Whether it became true before the end.
    pub(crate) async fn until(&mut self, is: impl Fn(&Self) -> bool) -> bool {
        while !is(self) {
            let bytes = self.connection.receive().await;
            if bytes.is_empty() {
                return false;
            }
            self.decoder.give(&bytes);
            while let Some(frame) = self.decoder.take().unwrap() {
                match frame {
                    Frame::SynReply { stream, .. } => assert_eq!(self.streams.insert(stream, Default::default()), None),
                    Frame::Data { stream, data, finished } => {
                        let (text, ended) = self.streams.get_mut(&stream).unwrap();
                        assert!(!*ended);
                        text.extend_from_slice(&data);
                        *ended = finished;
                    }
                    Frame::RstStream { stream, status } => assert_eq!(self.resets.insert(stream, status), None),
                    Frame::Ping(id) => self.pings.push(id),
                    Frame::GoAway { status, .. } => assert_eq!(status, 0),
                    frame => panic!("{frame:?}"),
                }
            }
        }
        true
    }

    /// Reads all that comes.
    pub(crate) async fn rest(&mut self) {
        assert!(!self.until(|_| false).await);
    }

    pub(crate) fn text(&self, stream: StreamId) -> &str {
        self.streams.get(&stream).map_or("", |(text, _)| std::str::from_utf8(text).unwrap())
    }

    pub(crate) fn has_ended(&self, stream: StreamId) -> bool {
        self.streams.get(&stream).is_some_and(|(_, ended)| *ended)
    }
}
