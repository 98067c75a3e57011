//! The ceiling of a load generator: a server that answers what it asks with constants, over the same HTTPS.
//!
//! `cargo bench --bench ceiling -- ADDRESS OBJECTS` serves until it is ended. What a client reaches against it is what
//! the client and the connection can do on this machine; what it reaches against the API server is read against that.
//! The constants are one pod as the API server serves it, and lists of `OBJECTS` of those. A patch that sets the label
//! `upd` is shown to all watchers.
#![expect(clippy::disallowed_methods, reason = "a server without a cluster, in real time")]
#![expect(clippy::print_stdout, reason = "a program for people to look at")]

mod support;

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use orchestrator::{
    apiserver::{ApiServer, http::CertificateAuthority},
    client::Api,
    env::Env,
    k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount},
    kube::api::PostParams,
    store_mem::MemStore,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::broadcast};
use tokio_rustls::{TlsAcceptor, rustls};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failure = Box<dyn std::error::Error>;
type Body = BoxBody<Bytes, Infallible>;

/// Changes that a watcher may be behind with.
const WATCH_BACKLOG: usize = 4_096;

/// Objects of a page, whatever limit is asked for.
const PAGE_OBJECTS: usize = 500;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().collect();
    let address = arguments.iter().find_map(|it| it.parse().ok()).unwrap_or(SocketAddr::from(([127, 0, 0, 1], 16_444)));
    let objects = arguments.iter().find_map(|it| it.parse().ok()).unwrap_or(5_000);
    support::runtime().block_on(serve(address, objects))
}

async fn serve(address: SocketAddr, objects: usize) -> Result<(), Failure> {
    let constants = Arc::new(Constants::new(&served_pod().await?, objects));
    let acceptor = TlsAcceptor::from(Arc::new(tls()?));
    let listener = TcpListener::bind(address).await?;
    println!("constants for {objects} objects on https://{}", listener.local_addr()?);
    loop {
        let (connection, _) = listener.accept().await?;
        connection.set_nodelay(true)?;
        let (acceptor, constants) = (acceptor.clone(), constants.clone());
        tokio::spawn(async move {
            let Ok(connection) = acceptor.accept(connection).await else { return };
            let service = hyper::service::service_fn(move |request| answer(constants.clone(), request));
            // A client that goes away is no concern of anyone's.
            let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(connection), service).await;
        });
    }
}

fn tls() -> Result<rustls::ServerConfig, Failure> {
    let issued = CertificateAuthority::generate()?.issue_server(&["localhost"], &[[127, 0, 0, 1].into()])?;
    let certificate = CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// A pod as the API server answers when one is made.
async fn served_pod() -> Result<Value, Failure> {
    let env = Env::real();
    let server = ApiServer::builder(&env, Arc::new(MemStore::new(&env))).build().await?;
    let client = server.client();
    let accounts: Api<ServiceAccount> = Api::namespaced(&client, "default");
    let namespaces: Api<Namespace> = Api::all(&client);
    drop(
        namespaces
            .create(&PostParams::default(), &serde_json::from_value(json!({"metadata": {"name": "default"}}))?)
            .await,
    );
    accounts.create(&PostParams::default(), &serde_json::from_value(json!({"metadata": {"name": "default"}}))?).await?;
    let pod = serde_json::from_value(json!({
        "metadata": {"name": "p0", "labels": {"app": "bench", "upd": "", "tier": "backend"}},
        "spec": support::pod_spec(),
    }))?;
    let created = Api::<Pod>::namespaced(&client, "default").create(&PostParams::default(), &pod).await?;
    Ok(serde_json::to_value(&*created)?)
}

struct Constants {
    pod: Bytes,
    all: Bytes,
    none: Bytes,
    /// Each page of the list, in order.
    pages: Vec<Bytes>,
    /// What stands before and behind the value of the label `upd` in a change.
    change: (String, String),
    changes: broadcast::Sender<Bytes>,
}

impl Constants {
    fn new(pod: &Value, objects: usize) -> Self {
        let list = |count: usize, next: &str| -> Bytes {
            let metadata = json!({"resourceVersion": "1", "continue": next});
            let items = vec![pod; count];
            json!({"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": items}).to_string().into()
        };
        let last = objects.div_ceil(PAGE_OBJECTS).max(1);
        let next = |page: usize| if page == last { String::new() } else { page.to_string() };
        let mut changed = pod.clone();
        changed["metadata"]["labels"]["upd"] = "HERE".into();
        let line = json!({"type": "MODIFIED", "object": changed}).to_string() + "\n";
        let (before, behind) = line.split_once("HERE").unwrap_or_default();
        Self {
            pod: pod.to_string().into(),
            all: list(objects, ""),
            none: list(0, ""),
            pages: (1..=last).map(|page| list(PAGE_OBJECTS.min(objects), &next(page))).collect(),
            change: (before.to_owned(), behind.to_owned()),
            changes: broadcast::Sender::new(WATCH_BACKLOG),
        }
    }

    fn list(&self, query: &str) -> Bytes {
        if query.contains("labelSelector=") {
            return self.none.clone();
        }
        if !query.contains("limit=") {
            return self.all.clone();
        }
        let page = query.split("continue=").nth(1).and_then(|it| it.parse().ok()).unwrap_or(0);
        self.pages.get(page).unwrap_or(&self.none).clone()
    }

    fn show(&self, patch: &[u8]) {
        let patch = String::from_utf8_lossy(patch);
        if let Some(value) = patch.split("\"upd\":\"").nth(1).and_then(|it| it.split('"').next()) {
            let line = format!("{}{value}{}", self.change.0, self.change.1);
            // Without watchers nobody hears of it.
            let _ = self.changes.send(line.into());
        }
    }
}

async fn answer(constants: Arc<Constants>, request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
    let (head, body) = request.into_parts();
    let query = head.uri.query().unwrap_or_default();
    let is_list = head.uri.path().ends_with("/pods");
    let (status, body) = match head.method {
        Method::GET if query.contains("watch=1") => (StatusCode::OK, watch(&constants)),
        Method::GET if is_list => (StatusCode::OK, whole(constants.list(query))),
        Method::POST => {
            body.collect().await?;
            (StatusCode::CREATED, whole(constants.pod.clone()))
        }
        Method::PATCH => {
            constants.show(&body.collect().await?.to_bytes());
            (StatusCode::OK, whole(constants.pod.clone()))
        }
        _ => {
            body.collect().await?;
            (StatusCode::OK, whole(constants.pod.clone()))
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    Ok(response)
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).boxed()
}

fn watch(constants: &Constants) -> Body {
    let changes = stream::unfold(constants.changes.subscribe(), async |mut changes| {
        let line = changes.recv().await.ok()?;
        Some((line, changes))
    });
    BodyExt::boxed(StreamBody::new(changes.map(|line| Ok(Frame::data(line)))))
}
