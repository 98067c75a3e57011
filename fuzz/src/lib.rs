//! The API server, asked in process; what it must never do, whatever it is asked.

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use orchestrator_apiserver::{
    Admission, ApiServer, Config,
    http::{Body, HttpService},
};
use orchestrator_core::{client::UserInfo, env::Env};
use orchestrator_store_mem::MemStore;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use tower_service::Service;

/// Where objects of three very different kinds are.
const COLLECTIONS: [&str; 3] = [
    "/api/v1/namespaces/default/configmaps",
    "/apis/apps/v1/namespaces/default/deployments",
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
];

/// An object of the second kind that is there.
const PRESENT: &str = "/apis/apps/v1/namespaces/default/deployments/present";

/// A server with a deployment. Nothing that is asked of it is kept.
struct Server {
    runtime: Runtime,
    /// The service holds its server weakly.
    _server: ApiServer,
    service: HttpService,
}

thread_local! {
    static SERVER: Server = Server::start();
}

impl Server {
    fn start() -> Self {
        let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
        let (server, service) = runtime.block_on(async {
            let env = Env::real();
            let admission = Admission { service_account: false, ..Admission::default() };
            let config = Config { admission, ..Config::default() };
            let builder = ApiServer::builder(&env, std::sync::Arc::new(MemStore::new(&env))).config(config);
            let server = builder.build().await.expect("a server");
            let service = HttpService::new(&server, UserInfo::admin());
            (server, service)
        });
        let this = Self { runtime, _server: server, service };
        let container =
            json!({"name": "a", "image": "i", "ports": [{"containerPort": 80}], "env": [{"name": "A", "value": "1"}]});
        let present = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "present"},
            "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {
                "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container]},
            }},
        });
        let create = request(Method::POST, COLLECTIONS[1], "application/json", present.to_string());
        assert_eq!(this.ask(create).0, StatusCode::CREATED);
        this
    }

    fn ask(&self, request: Request<Full<Bytes>>) -> (StatusCode, Bytes) {
        self.runtime.block_on(async {
            let response: Response<Body> = self.service.clone().call(request).await.expect("an answer");
            let status = response.status();
            (status, response.into_body().collect().await.expect("all of an answer").to_bytes())
        })
    }
}

fn request(method: Method, path: &str, kind: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let request = Request::builder().method(method).uri(path).header("content-type", kind);
    request.body(Full::new(body.into())).expect("a request")
}

/// Asks, and looks at the answer: something may be wrong with what was asked, and nothing with who was asked.
fn ask(request: Request<Full<Bytes>>) {
    let (status, body) = SERVER.with(|server| server.ask(request));
    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    // Upstream answers 500 without a reason to patches that it cannot follow.
    let usual =
        status == StatusCode::INTERNAL_SERVER_ERROR && answer["reason"].is_null() && answer["message"].is_string();
    assert!(status < StatusCode::INTERNAL_SERVER_ERROR || usual, "{status}: {answer}");
}

/// Creates an object of each kind.
pub fn create(kind: &str, body: &[u8]) {
    for collection in COLLECTIONS {
        let path = format!("{collection}?dryRun=All&fieldValidation=Strict");
        ask(request(Method::POST, &path, kind, Bytes::copy_from_slice(body)));
    }
}

/// Patches the object that is there.
pub fn patch(kind: &str, body: &[u8]) {
    let path = format!("{PRESENT}?dryRun=All&fieldManager=fuzz&force={}", kind.contains("apply"));
    let path = if kind.contains("apply") { path } else { path.replace("&force=false", "") };
    ask(request(Method::PATCH, &path, kind, Bytes::copy_from_slice(body)));
}

/// Reads what is at a path, if it is one.
pub fn get(path: &[u8]) {
    let Ok(text) = std::str::from_utf8(path) else { return };
    // A watch does not end.
    if text.contains("watch") || text.contains("follow") {
        return;
    }
    let Ok(uri) = text.parse::<Uri>() else { return };
    if uri.path().starts_with('/') {
        let request = Request::builder().uri(uri).body(Full::default());
        SERVER.with(|server| server.ask(request.expect("a request")));
    }
}
