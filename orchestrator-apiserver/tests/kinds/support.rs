//! A server that answers requests of HTTP without a socket.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use orchestrator_apiserver::{
    Admission, ApiServer, Authorizer, Config, DefaultAuthorizer,
    http::{Body, HttpService},
};
use orchestrator_core::{client::UserInfo, env::Env};
use orchestrator_store_mem::MemStore;
use serde_json::{Value, json};
use tower_service::Service;

pub(crate) const JSON: &str = "application/json";
pub(crate) const MERGE: &str = "application/merge-patch+json";
pub(crate) const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

pub(crate) struct Api {
    /// The service holds its server weakly.
    _server: ApiServer,
    service: HttpService,
}

pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) warnings: Vec<String>,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }

    /// The object, from somebody who was not refused.
    pub(crate) fn object(self) -> Value {
        assert!(self.code < 300, "{} {}", self.code, self.body);
        self.body
    }

    pub(crate) fn assert_refused(&self, code: u16, message: &str) {
        assert_eq!((self.code, self.message()), (code, message), "{}", self.body);
    }
}

impl Api {
    pub(crate) async fn start() -> Self {
        Self::start_with(Arc::new(DefaultAuthorizer)).await
    }

    pub(crate) async fn start_with(authorizer: Arc<dyn Authorizer>) -> Self {
        let env = Env::real();
        let admission = Admission { service_account: false, ..Admission::default() };
        let config = Config { admission, ..Config::default() };
        let builder = ApiServer::builder(&env, Arc::new(MemStore::new(&env))).config(config).authorizer(authorizer);
        let server = builder.build().await.unwrap();
        let admin = UserInfo::new("admin", &["system:masters", "system:authenticated"]);
        let service = HttpService::new(&server, admin);
        Self { _server: server, service }
    }

    pub(crate) async fn send(&self, method: &str, path: &str, media: &str, body: impl Into<Bytes>) -> Answer {
        let request = Request::builder().method(method).uri(path).header("content-type", media);
        let request = request.header("accept", JSON).body(Full::new(body.into())).unwrap();
        let (parts, body): (_, Body) = self.service.clone().call(request).await.unwrap().into_parts();
        let warnings = parts.headers.get_all("warning").iter().map(|value| value.to_str().unwrap().to_owned());
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes)));
        Answer { code: parts.status.as_u16(), warnings: warnings.collect(), body }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, JSON, "").await
    }

    pub(crate) async fn post(&self, path: &str, object: &Value) -> Answer {
        self.send("POST", path, JSON, object.to_string()).await
    }

    pub(crate) async fn put(&self, path: &str, object: &Value) -> Answer {
        self.send("PUT", path, JSON, object.to_string()).await
    }

    pub(crate) async fn merge(&self, path: &str, patch: &Value) -> Answer {
        self.send("PATCH", path, MERGE, patch.to_string()).await
    }

    /// Serves `things` of the cluster, whose specs have this schema.
    pub(crate) async fn define(&self, spec: Value, more: Value) -> Answer {
        let mut version = json!({
            "name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}},
        });
        version.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let names = json!({"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"});
        let spec = json!({"group": "example.com", "names": names, "scope": "Cluster", "versions": [version]});
        self.post(DEFINITIONS, &json!({"metadata": {"name": "things.example.com"}, "spec": spec})).await
    }
}

pub(crate) const THINGS: &str = "/apis/example.com/v1/things";

pub(crate) fn thing(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": name}, "spec": spec})
}
