//! Port-forward over a WebSocket: data both ways, what goes wrong, and the end.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use orchestrator_apiserver::{
    Admission, ApiServer, Config,
    http::{Body, HttpService},
};
use orchestrator_core::{
    client::UserInfo,
    env::{Env, Simulation, TaskGroup},
    node_connector::{LogStream, NodeConnector, PodLogOptions, Target},
    runtime::{AttachOptions, Duplex, ExecOptions, Session},
    status::{ApiError, ApiResult, Reason},
};
use orchestrator_store_mem::MemStore;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};
use tower_service::Service;

const PODS: &str = "/api/v1/namespaces/default/pods";

/// A node where something answers at port 80: it says each word twice, until it is told to stop.
#[derive(Debug)]
struct Node(Mutex<TaskGroup>);

#[async_trait]
impl NodeConnector for Node {
    async fn logs(&self, _: &Target, _: PodLogOptions) -> ApiResult<LogStream> {
        Err(ApiError::method_not_allowed())
    }

    async fn exec(&self, _: &Target, _: ExecOptions) -> ApiResult<Session> {
        Err(ApiError::method_not_allowed())
    }

    async fn attach(&self, _: &Target, _: AttachOptions) -> ApiResult<Session> {
        Err(ApiError::method_not_allowed())
    }

    async fn port_forward(&self, target: &Target, port: u16) -> ApiResult<Box<dyn Duplex>> {
        assert_eq!((target.node.as_str(), target.pod.as_str()), ("n", "p"));
        if port != 80 {
            return Err(ApiError::new(Reason::InternalError, "connection refused"));
        }
        let (near, mut far) = tokio::io::duplex(64);
        let echo = async move {
            let mut word = [0; 4];
            while far.read_exact(&mut word).await.is_ok() && &word != b"stop" {
                far.write_all(&[word, word].concat()).await.unwrap();
            }
        };
        self.0.lock().unwrap().spawn("echo", echo);
        Ok(Box::new(near))
    }
}

struct Api {
    /// The service holds its server weakly.
    _server: ApiServer,
    service: HttpService,
}

impl Api {
    async fn start(env: &Env) -> Self {
        let admission = Admission { service_account: false, ..Admission::default() };
        let config = Config { admission, ..Config::default() };
        let node = Arc::new(Node(Mutex::new(TaskGroup::new(env))));
        let builder = ApiServer::builder(env, Arc::new(MemStore::new(env))).config(config).nodes(node);
        let server = builder.build().await.unwrap();
        let api = Self { service: HttpService::new(&server, UserInfo::admin()), _server: server };
        let container = json!({"name": "c", "image": "i"});
        for (name, node) in [("p", json!("n")), ("homeless", json!(null))] {
            let pod = json!({"metadata": {"name": name}, "spec": {"nodeName": node, "containers": [container]}});
            let request = Request::post(PODS).header("content-type", "application/json");
            let created = api.send(request.body(Full::new(pod.to_string().into())).unwrap()).await;
            assert_eq!(created.status(), 201);
        }
        api
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Response<Body> {
        self.service.clone().call(request).await.unwrap()
    }

    async fn forward(&self, path: &str, protocol: &str) -> Response<Body> {
        let request = Request::get(format!("{PODS}/{path}"))
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("sec-websocket-protocol", protocol);
        self.send(request.body(Full::default()).unwrap()).await
    }
}

fn run(test: impl AsyncFn(Api)) {
    for seed in 0..4 {
        let simulation = Simulation::new(seed);
        let env = simulation.env();
        simulation.run(async { test(Api::start(&env).await).await }).unwrap();
    }
}

#[test]
fn ports_are_carried_side_by_side() {
    run(async |api| {
        let mut response = api.forward("p/portforward?ports=80,81", "v5.channel.k8s.io, v4.channel.k8s.io").await;
        assert_eq!(
            (response.status().as_u16(), &response.headers()["sec-websocket-protocol"]),
            (101, &"v4.channel.k8s.io".parse().unwrap())
        );
        let upgraded = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
        let mut socket = WebSocketStream::from_raw_socket(upgraded, Role::Client, None).await;

        let mut channels = [const { Vec::new() }; 4];
        let mut sent = false;
        while let Some(Ok(Message::Binary(message))) = socket.next().await {
            channels[usize::from(message[0])].extend_from_slice(&message[1..]);
            if !sent && channels[0].len() == 2 {
                sent = true;
                for data in [b"\x00ping", b"\x00stop", b"\x01none", b"\x09none"] {
                    socket.send(Message::binary(&data[..])).await.unwrap();
                }
            }
        }
        assert_eq!(channels[0], b"\x50\x00pingping");
        assert_eq!((&channels[1][..], &channels[2][..]), (&b"\x50\x00"[..], &b"\x51\x00"[..]));
        let error = String::from_utf8_lossy(&channels[3][2..]);
        assert!(error.starts_with("error forwarding port 81 to pod p, uid "), "{error}");
        assert!(error.ends_with(": connection refused"), "{error}");
    });
}

#[test]
fn what_makes_no_sense_is_refused() {
    run(async |api| {
        let refused = [
            ("p/portforward", "v4.channel.k8s.io", 400, "is required"),
            ("p/portforward?ports=0", "v4.channel.k8s.io", 400, "between 1 and 65535"),
            ("p/portforward?ports=80&ports=x", "v4.channel.k8s.io", 400, "between 1 and 65535"),
            ("p/portforward?ports=80", "v9", 400, "unable to negotiate"),
            ("homeless/portforward?ports=80", "v4.channel.k8s.io", 400, "does not have a host"),
            ("nobody/portforward?ports=80", "v4.channel.k8s.io", 404, "not found"),
        ];
        for (path, protocol, code, words) in refused {
            let response = api.forward(path, protocol).await;
            assert_eq!(response.status().as_u16(), code, "{path}");
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let text = String::from_utf8_lossy(&body);
            assert!(text.contains(words), "{text}");
        }
    });
}
