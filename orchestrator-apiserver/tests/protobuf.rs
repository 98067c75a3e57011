//! What clients get that send and accept protobuf, as those in Go do.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use orchestrator_apiserver::{
    ApiServer,
    http::{Body, HttpService},
};
use orchestrator_core::{client::UserInfo, env::Env};
use orchestrator_store_mem::MemStore;
use serde_json::{Value, json};
use tower_service::Service;

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// What Go clients accept.
const GO: &str = "application/vnd.kubernetes.protobuf,application/json";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const THINGS: &str = "/apis/example.com/v1/things";

struct Api {
    /// The service holds its server weakly.
    _server: ApiServer,
    service: HttpService,
}

struct Answer {
    code: u16,
    media: String,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        assert_eq!(self.media, "application/json");
        serde_json::from_slice(&self.body).unwrap()
    }

    /// An object in protobuf that has these words.
    fn assert_protobuf(&self, code: u16, words: &[&str]) {
        assert_eq!((self.code, self.media.as_str()), (code, PROTOBUF), "{}", self.body.escape_ascii());
        assert!(self.body.starts_with(b"k8s\0"));
        for word in words {
            assert!(contains(&self.body, word), "{word} in {}", self.body.escape_ascii());
        }
    }
}

fn contains(bytes: &[u8], word: &str) -> bool {
    bytes.windows(word.len()).any(|window| window == word.as_bytes())
}

impl Api {
    async fn start() -> Self {
        let env = Env::real();
        let store = Arc::new(MemStore::new(&env));
        let server = ApiServer::builder(&env, store).build().await.unwrap();
        let admin = UserInfo::new("admin", &["system:masters", "system:authenticated"]);
        let service = HttpService::new(&server, admin);
        let api = Self { _server: server, service };
        let map = json!({"metadata": {"name": "a", "labels": {"x": "y"}}, "data": {"key": "a value"}});
        assert_eq!(api.post(MAPS, &map).await.code, 201);
        api
    }

    async fn open(&self, method: &str, path: &str, headers: [(&str, &str); 2], body: Bytes) -> Response<Body> {
        let request = Request::builder().method(method).uri(path);
        let request = headers.into_iter().fold(request, |request, (name, value)| request.header(name, value));
        self.service.clone().call(request.body(Full::new(body)).unwrap()).await.unwrap()
    }

    async fn send(&self, method: &str, path: &str, headers: [(&str, &str); 2], body: Bytes) -> Answer {
        let (parts, body) = self.open(method, path, headers, body).await.into_parts();
        Answer {
            code: parts.status.as_u16(),
            media: parts.headers["content-type"].to_str().unwrap().to_owned(),
            body: body.collect().await.unwrap().to_bytes(),
        }
    }

    async fn get(&self, path: &str, accept: &str) -> Answer {
        self.send("GET", path, [("accept", accept), ("x-none", "")], Bytes::new()).await
    }

    async fn post(&self, path: &str, object: &Value) -> Answer {
        let headers = [("accept", "application/json"), ("content-type", "application/json")];
        self.send("POST", path, headers, object.to_string().into()).await
    }

    /// A custom kind, and an object of it.
    async fn define(&self) {
        let definition = json!({
            "metadata": {"name": "things.example.com"},
            "spec": {
                "group": "example.com",
                "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
                "scope": "Cluster",
                "versions": [{
                    "name": "v1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {
                        "type": "object",
                        "properties": {"spec": {"type": "object", "additionalProperties": {"type": "integer"}}},
                    }},
                }],
            },
        });
        let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        assert_eq!(self.post(definitions, &definition).await.code, 201);
        let thing = json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a"}});
        assert_eq!(self.post(THINGS, &thing).await.code, 201);
    }
}

#[tokio::test]
async fn objects_and_lists() {
    let api = Api::start().await;
    api.get(&format!("{MAPS}/a"), GO).await.assert_protobuf(200, &["ConfigMap", "a value"]);
    api.get(MAPS, GO).await.assert_protobuf(200, &["ConfigMapList", "a value"]);
    let partial = format!("{PROTOBUF};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1");
    let partial = api.get(MAPS, &partial).await;
    partial.assert_protobuf(200, &["PartialObjectMetadataList", "meta.k8s.io/v1"]);
    assert!(!contains(&partial.body, "a value"));
    let table = format!("{PROTOBUF};as=Table;g=meta.k8s.io;v=v1");
    assert_eq!(api.get(MAPS, &table).await.json()["code"], 406, "tables have no form in protobuf");
    let table = format!("{table},application/json;as=Table;g=meta.k8s.io;v=v1");
    assert_eq!(api.get(MAPS, &table).await.json()["kind"], "Table");
}

#[tokio::test]
async fn what_was_read_can_be_written() {
    let api = Api::start().await;
    let path = format!("{MAPS}/a");
    let read = api.get(&path, PROTOBUF).await;
    let written = api.send("PUT", &path, [("accept", GO), ("content-type", PROTOBUF)], read.body.clone()).await;
    written.assert_protobuf(200, &["a value"]);
    assert_eq!(written.body, read.body, "nothing was changed");
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let labels = json!({"app": "a"});
    let deployment = json!({
        "metadata": {"name": "a"},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "a", "image": "a"}]}},
        },
    });
    let created = api.post(path, &deployment).await.json();
    let path = format!("{path}/a");
    let read = api.get(&path, PROTOBUF).await;
    let headers = [("accept", "application/json"), ("content-type", PROTOBUF)];
    let written = api.send("PUT", &path, headers, read.body).await.json();
    assert_eq!(written, created, "a zero that says something is kept");
}

#[tokio::test]
async fn errors() {
    let api = Api::start().await;
    api.get(&format!("{MAPS}/b"), GO).await.assert_protobuf(404, &["Status", "Failure", "NotFound"]);
    api.get("/api/v1/nothings", GO).await.assert_protobuf(404, &["Status"]);
    let refused = api.get(MAPS, "image/png").await.json();
    assert_eq!(refused["reason"], "NotAcceptable");
    let message = "only the following media types are accepted: application/json, application/yaml, \
                   application/vnd.kubernetes.protobuf";
    assert_eq!(refused["message"], message);
    let headers = [("accept", "application/json"), ("content-type", PROTOBUF)];
    for body in [&b"{}"[..], b"k8s\0\x0a\xff\xff\xff\xff\x0f", b"k8s\0\x0a\x05\x0a\x02v1\x12"] {
        let refused = api.send("POST", MAPS, headers, Bytes::copy_from_slice(body)).await;
        assert_eq!(refused.json()["reason"], "BadRequest", "{}", body.escape_ascii());
    }
}

#[tokio::test]
async fn events_are_written_as_the_group_has_them_that_was_asked() {
    let api = Api::start().await;
    let event = json!({
        "metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
        "message": "it did", "reason": "Did", "type": "Normal",
    });
    assert_eq!(api.post("/api/v1/namespaces/default/events", &event).await.code, 201);
    let path = "/apis/events.k8s.io/v1/namespaces/default/events";
    api.get(&format!("{path}/e"), PROTOBUF).await.assert_protobuf(200, &["events.k8s.io/v1", "Event", "it did"]);
    api.get(path, PROTOBUF).await.assert_protobuf(200, &["EventList", "it did"]);
    // Items of lists do not say what they are.
    let list = api.get(path, "application/json").await.json();
    assert_eq!((&list["items"][0]["note"], list["items"][0].get("kind")), (&json!("it did"), None));
}

#[tokio::test]
async fn custom_kinds_have_no_protobuf() {
    let api = Api::start().await;
    api.define().await;
    let path = format!("{THINGS}/a");
    assert_eq!(api.get(&path, GO).await.json()["kind"], "Thing");
    api.get(&path, PROTOBUF).await.assert_protobuf(406, &["NotAcceptable"]);
    api.get(&format!("{THINGS}/b"), GO).await.assert_protobuf(404, &["NotFound"]);
    let partial = format!("{PROTOBUF};as=PartialObjectMetadata;g=meta.k8s.io;v=v1");
    api.get(&path, &partial).await.assert_protobuf(200, &["PartialObjectMetadata"]);
    api.get(THINGS, &partial).await.assert_protobuf(200, &["PartialObjectMetadataList"]);
    let headers = [("accept", "application/json"), ("content-type", PROTOBUF)];
    let refused = api.send("POST", THINGS, headers, Bytes::from_static(b"k8s\0")).await;
    assert_eq!(refused.code, 400);
    let message = "Thing in version \"v1\" cannot be handled as a Thing: object *unstructured.Unstructured does not implement \
                   the protobuf marshalling interface and cannot be encoded to a protobuf message";
    assert_eq!(refused.json()["message"], message);
}

#[tokio::test]
async fn definitions_of_custom_kinds_go_both_ways() {
    let api = Api::start().await;
    api.define().await;
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things.example.com";
    let before = api.get(path, "application/json").await.json();
    let read = api.get(path, GO).await;
    read.assert_protobuf(200, &["CustomResourceDefinition", "integer"]);
    let headers = [("accept", "application/json"), ("content-type", PROTOBUF)];
    assert_eq!(api.send("PUT", path, headers, read.body).await.json()["spec"], before["spec"]);
}

#[tokio::test]
async fn how_to_delete() {
    let api = Api::start().await;
    // Dry run, and nothing else, of a custom object as of any other.
    let options = Bytes::from_static(b"k8s\0\x0a\x13\x0a\x02v1\x12\x0dDeleteOptions\x12\x05\x2a\x03All");
    let headers = [("accept", GO), ("content-type", PROTOBUF)];
    let path = format!("{MAPS}/a");
    api.send("DELETE", &path, headers, options.clone()).await.assert_protobuf(200, &[]);
    assert_eq!(api.get(&path, GO).await.code, 200);
    api.define().await;
    let path = format!("{THINGS}/a");
    let answer = api.send("DELETE", &path, headers, options).await;
    assert_eq!((answer.code, answer.media.as_str()), (200, "application/json"));
    assert_eq!(api.get(&path, GO).await.code, 200);
    let headers = [("accept", "application/json"), ("content-type", "text/plain")];
    assert_eq!(api.send("DELETE", &path, headers, Bytes::from_static(b"now")).await.code, 415);
}

/// The events that are there when a watch begins, without their lengths.
async fn events(api: &Api, query: &str, accept: &str, count: usize) -> Vec<Vec<u8>> {
    let path = format!("{MAPS}?watch=true&{query}");
    let response = api.open("GET", &path, [("accept", accept), ("x-none", "")], Bytes::new()).await;
    assert_eq!(response.headers()["content-type"], "application/vnd.kubernetes.protobuf;stream=watch");
    let (mut body, mut bytes, mut events) = (response.into_body(), Vec::new(), Vec::new());
    while events.len() < count {
        let Some((length, rest)) = bytes.split_first_chunk() else {
            bytes.extend(body.frame().await.unwrap().unwrap().into_data().unwrap());
            continue;
        };
        let (event, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        events.push(event.to_vec());
        bytes = rest.to_vec();
    }
    events
}

#[tokio::test]
async fn watches() {
    let api = Api::start().await;
    let state = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let whole = events(&api, state, GO, 2).await;
    assert!(whole[0].starts_with(b"\x0a\x05ADDED\x12"));
    for word in ["k8s\0", "ConfigMap", "a value"] {
        assert!(contains(&whole[0], word), "{word}");
    }
    assert!(whole[1].starts_with(b"\x0a\x08BOOKMARK\x12"));
    assert!(contains(&whole[1], "k8s.io/initial-events-end"));
    let partial = format!("{PROTOBUF};as=PartialObjectMetadata;g=meta.k8s.io;v=v1");
    let partial = events(&api, state, &partial, 2).await;
    assert!(contains(&partial[0], "PartialObjectMetadata") && !contains(&partial[0], "a value"));
    assert!(contains(&partial[1], "PartialObjectMetadata"));
    let error = events(&api, "resourceVersion=1000000", GO, 1).await;
    assert!(error[0].starts_with(b"\x0a\x05ERROR\x12") && contains(&error[0], "Failure"));
    let refused = api.get(&format!("{MAPS}?watch=true"), "application/yaml").await;
    assert_eq!(refused.code, 406);
}

#[tokio::test]
async fn discovery() {
    let api = Api::start().await;
    api.get("/api", GO).await.assert_protobuf(200, &["APIVersions"]);
    api.get("/apis", GO).await.assert_protobuf(200, &["APIGroupList", "rbac.authorization.k8s.io"]);
    api.get("/apis/apps", GO).await.assert_protobuf(200, &["APIGroup"]);
    api.get("/apis/apps/v1", GO).await.assert_protobuf(200, &["APIResourceList", "deployments"]);
    assert!(api.get("/version", GO).await.json()["gitVersion"].is_string());
}
