//! Recorded conversations with the API server of Kubernetes 1.36.2, played against this one.
//!
//! `fixtures/golden-passing.txt` names the conversations that go as recorded. It only grows: a conversation of the list
//! that fails, or one that passes and is not on the list, fails the test, which then prints all differences.

#[path = "golden_support/normalise.rs"]
mod normalise;
#[path = "golden_support/silent_store.rs"]
mod silent_store;

use std::{collections::BTreeSet, fmt::Write, net::Ipv4Addr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::{Either, select};
use http::{Request, Response, header::HeaderValue};
use http_body_util::{BodyExt, Full};
use normalise::{difference, normalise};
use orchestrator_apiserver::{
    AddressRange, ApiServer, Authenticator, Config,
    http::{Body, HttpService},
};
use orchestrator_core::{client::UserInfo, env::Env};
use orchestrator_store_mem::MemStore;
use serde_json::{Value, json};
use silent_store::SilentStore;
use tower_service::Service;

const CASES: &str = include_str!("fixtures/golden-cases.json");
const PASSING: &str = include_str!("fixtures/golden-passing.txt");
const STEP_TIME: Duration = Duration::from_secs(20);
const TOKEN: &str = "administrator";

struct Player {
    env: Env,
    /// The service holds its server weakly.
    _server: ApiServer,
    service: HttpService,
}

/// The configuration of the recorded server, which belongs to a distribution with an authority of its own for services.
fn recorded_config() -> Config {
    let own_authority = json!({"configMap": {
        "name": "openshift-service-ca.crt", "items": [{"key": "service-ca.crt", "path": "service-ca.crt"}],
    }});
    Config {
        service_range: AddressRange { base: Ipv4Addr::new(10, 0, 0, 0), prefix_bits: 16 },
        advertised_address: Some("127.0.0.1:16443".to_owned()),
        token_volume_sources: vec![serde_json::from_value(own_authority).unwrap()],
        ..Config::default()
    }
}

/// Status code, warning and body of an answer.
struct Answer {
    code: u16,
    warning: Option<String>,
    body: Value,
}

impl Player {
    async fn start() -> Self {
        let env = Env::real();
        let store = Arc::new(SilentStore(MemStore::new(&env)));
        let admin = UserInfo::new("admin", &["system:masters"]);
        let builder = ApiServer::builder(&env, store).config(recorded_config());
        let builder = builder.authenticator(Authenticator::default().with_token(TOKEN, admin));
        let server = builder.build().await.unwrap();
        let service = HttpService::unauthenticated(&server);
        let player = Self { env, _server: server, service };
        player.leave_behind().await;
        player
    }

    /// What the recorded server held before: objects that earlier recordings had left there.
    async fn leave_behind(&self) {
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "Bad_Name!"},
        });
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "left"},
            "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 31999}]},
        });
        for (path, object) in [
            ("/apis/rbac.authorization.k8s.io/v1/clusterroles", role),
            ("/api/v1/namespaces/default/services", service),
        ] {
            let answer = self.request("POST", path, &Value::Null, Some(object.to_string().into_bytes())).await;
            assert_eq!(answer.code, 201, "{}", answer.body);
        }
    }

    async fn request(&self, method: &str, path: &str, headers: &Value, body: Option<Vec<u8>>) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header("accept", "application/json");
        let authorization = format!("Bearer {TOKEN}");
        request = request.header("authorization", authorization);
        if let Some(map) = request.headers_mut() {
            if body.is_some() {
                map.insert("content-type", HeaderValue::from_static("application/json"));
            }
            for (name, value) in headers.as_object().into_iter().flatten() {
                let name = http::HeaderName::try_from(name.as_str()).unwrap();
                map.remove(&name);
                if let Some(value) = value.as_str() {
                    map.insert(name, HeaderValue::from_str(value).unwrap());
                }
            }
        }
        let request = request.body(Full::new(Bytes::from(body.unwrap_or_default()))).unwrap();
        let work = async {
            let mut service = self.service.clone();
            let response: Response<Body> = service.call(request).await.unwrap();
            let (parts, body) = response.into_parts();
            (parts, body.collect().await.unwrap().to_bytes())
        };
        let work = std::pin::pin!(work);
        let Either::Left(((parts, bytes), _)) = select(work, self.env.sleep(STEP_TIME)).await else {
            return Answer { code: 0, warning: None, body: "no answer in time".into() };
        };
        let warning = parts.headers.get("warning").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let kind = parts.headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
        Answer { code: parts.status.as_u16(), warning, body: parse(&bytes, kind) }
    }

    /// The first difference, if there is one.
    async fn play(&self, case: &Value) -> Option<String> {
        let namespace = format!("g-{}", &self.env.uid().replace('-', "")[..10]);
        self.prepare(&namespace).await;
        let mut found = None;
        for (index, step) in case["steps"].as_array().into_iter().flatten().enumerate() {
            if let Some(difference) = self.step(step, &namespace).await {
                let (method, path) = (step["method"].as_str().unwrap(), step["path"].as_str().unwrap());
                found = Some(format!("step {index} {method} {path}: {difference}"));
                break;
            }
        }
        for path in case["cleanup"].as_array().into_iter().flatten() {
            let path = path.as_str().unwrap().replace("{ns}", &namespace);
            let body = json!({"gracePeriodSeconds": 0}).to_string().into_bytes();
            self.request("DELETE", &path, &Value::Null, Some(body)).await;
        }
        self.request("DELETE", &format!("/api/v1/namespaces/{namespace}"), &Value::Null, None).await;
        found
    }

    async fn prepare(&self, namespace: &str) {
        let object = |kind: &str, name: &str| {
            Some(json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}}).to_string().into_bytes())
        };
        self.request("POST", "/api/v1/namespaces", &Value::Null, object("Namespace", namespace)).await;
        let accounts = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        self.request("POST", &accounts, &Value::Null, object("ServiceAccount", "default")).await;
    }

    async fn step(&self, step: &Value, namespace: &str) -> Option<String> {
        let body = match &step["body"] {
            Value::Null => None,
            Value::String(text) => Some(text.replace("{ns}", namespace)),
            tree => Some(tree.to_string().replace("{ns}", namespace)),
        };
        let path = step["path"].as_str().unwrap().replace("{ns}", namespace);
        let method = step["method"].as_str().unwrap();
        let got = self.request(method, &path, &step["headers"], body.map(String::into_bytes)).await;
        let want = &step["answer"];
        let mut got_answer = json!({"code": got.code, "body": normalise(&got.body, namespace)});
        if let Some(warning) = got.warning {
            got_answer["warning"] = warning.replace(namespace, "{ns}").into();
        }
        let mut want_answer = json!({"code": want["code"], "body": normalise(&want["body"], "")});
        if let Some(warning) = want.get("warning") {
            want_answer["warning"] = warning.clone();
        }
        match step["compare"].as_str() {
            Some("code") => difference(&want["code"], &got_answer["code"], ".code"),
            Some("status") => difference(&status_of(&want_answer), &status_of(&got_answer), ""),
            _ => difference(&want_answer, &got_answer, ""),
        }
    }
}

fn status_of(answer: &Value) -> Value {
    let body = &answer["body"];
    json!({
        "code": answer["code"], "kind": body["kind"], "status": body["status"], "reason": body["reason"],
        "details": body["details"],
    })
}

fn parse(bytes: &[u8], kind: &str) -> Value {
    let text = || json!({"<text>": String::from_utf8_lossy(bytes).chars().take(2000).collect::<String>()});
    let json = kind.contains("json") || matches!(bytes.first(), Some(b'{' | b'['));
    if bytes.is_empty() || !json {
        return text();
    }
    serde_json::from_slice(bytes).unwrap_or_else(|_| {
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(serde_json::from_slice).collect::<Result<Vec<Value>, _>>().map_or_else(|_| text(), Value::from)
    })
}

#[tokio::test]
async fn conversations_go_as_recorded() {
    let cases: Vec<Value> = serde_json::from_str(CASES).unwrap();
    let expected: BTreeSet<&str> = PASSING.lines().filter(|line| !line.is_empty()).collect();
    let player = Player::start().await;
    let mut passing = BTreeSet::new();
    let mut failures = String::new();
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        match player.play(case).await {
            None => drop(passing.insert(name)),
            Some(difference) => writeln!(failures, "FAIL {name}: {difference}").unwrap(),
        }
    }
    player.service.shutdown().await;
    let lost: Vec<_> = expected.difference(&passing).collect();
    let won: Vec<_> = passing.difference(&expected).collect();
    let list = passing.iter().map(|name| format!("{name}\n")).collect::<String>();
    assert!(
        lost.is_empty() && won.is_empty(),
        "{failures}\n{} of {} pass; no longer: {lost:?}; new: {won:?}; the whole list:\n{list}",
        passing.len(),
        cases.len()
    );
}
