//! Attacks on whatever reads: each is refused, with little work and little memory.
//!
//! CPU time is that of the thread on which client and server live; memory is the most that the process used meanwhile. Rows are
//! from the issues of Kubernetes named beside them, and more of their like. Where upstream answers 500, so does this server: it
//! means that the patch could not be followed.
//!
//! | attack | answer | precedent |
//! |---|---|---|
//! | YAML: ten times nine levels of anchors | 400 | CVE-2019-11253 |
//! | YAML: one long anchor, referred to 200,000 times | 400 | CVE-2019-11253 |
//! | YAML: anchors by merge keys | 400 | CVE-2019-11253 |
//! | YAML: 3 MiB of nested lists | 400 | |
//! | YAML: 3 MiB of nested maps | 400 | |
//! | YAML: 1 MiB of keys that are maps | 400 | |
//! | YAML: 100,000 keys twice | 400 | |
//! | YAML: 50,000 anchors that nobody refers to | 400 | |
//! | JSON: 3 MiB of open lists | 400 | |
//! | JSON: 3 MiB of open objects | 400 | |
//! | JSON: one key 100,000 times | 400 | |
//! | JSON: 100,000 fields that nobody knows | 400 | |
//! | JSON: a number of a million digits | 400 | |
//! | JSON: an exponent of a million digits | 400 | |
//! | JSON: 3 MiB of escapes in a name | 422 | |
//! | JSON: 20,000 bad labels | 422 | |
//! | JSON: 1,000,000 empty items | 400 | |
//! | JSON: more than a body holds | 413 | |
//! | protobuf: a length that lies | 400 | CVE-2019-11254 |
//! | protobuf: a length beyond all numbers | 400 | |
//! | protobuf: 3 MiB of schemas in schemas | 400 | |
//! | protobuf: 3 MiB of fields that nobody knows | 400 | |
//! | protobuf: 1,000,000 empty items | 400 | |
//! | a gzip bomb | 400 | |
//! | CBOR: a length that lies | 415 | |
//! | a selector of 60,000 open brackets | 400 | |
//! | a selector of 30,000 values that is not closed | 400 | |
//! | a field selector of 20,000 terms | 400 | |
//! | a path of 30,000 segments | 404 | |
//! | a path of 20,000 escapes | 404 | |
//! | a continue token of 60,000 letters | 400 | |
//! | JSON patch: 10,001 operations | 413 | CVE-2019-1002100 |
//! | JSON patch: 60 copies, each of all there is | 413 | CVE-2019-1002100 |
//! | JSON patch: a path of 100,000 steps | 400 | |
//! | JSON patch: an index beyond all numbers | 422 | |
//! | JSON patch: a move into itself | 422 | |
//! | JSON patch: 5,000 moves of 100,000 values | 422 | |
//! | JSON patch: 5,000 inserts at the front of a list | 422 | |
//! | merge patch: 200,000 levels | 400 | |
//! | merge patch: more than an object may hold | 422 | |
//! | strategic patch: 200,000 levels | 400 | |
//! | strategic patch: a directive that nobody knows | 500 | |
//! | strategic patch: 4,000 containers in an order of their own | 422 | |
//! | strategic patch: 100,000 finalizers to be deleted from none | 422 | |
//! | apply: 200,000 levels | 400 | |
//! | apply: 10,000 managers | 400 | |
//! | apply: 10,000 containers of one name | 500 | |
//! | apply: 5,000 containers | 422 | |
//! | update: 5,000 managers | 422 | |

use std::{fs, time::Duration};

use http::{Request, StatusCode};
use http_body_util::BodyExt;
use kube::client::Body;
use orchestrator::Cluster;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use crate::MEASURING;

/// What one row may take, on a machine of today.
const CPU: Duration = Duration::from_millis(100);

/// The same on a machine that is slower: as often what reading an honest body of 3 MiB takes there. On a machine of today
/// the two are about the same.
const HONEST_BODIES: u32 = 4;

/// What one row may take at its worst moment; other tests go on at the same time.
const MEGABYTES: usize = 192;

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const JSON_PATCH: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// An attack by its name in the table, and how it is answered.
struct Row {
    name: &'static str,
    request: Request<Vec<u8>>,
    code: u16,
}

fn row(name: &'static str, code: u16, method: &str, path: &str, kind: &str, body: impl Into<Vec<u8>>) -> Row {
    let request = Request::builder().method(method).uri(path).header("content-type", kind);
    Row { name, code, request: request.body(body.into()).unwrap() }
}

fn post(name: &'static str, code: u16, kind: &str, body: impl Into<Vec<u8>>) -> Row {
    row(name, code, "POST", &format!("{DEPLOYMENTS}?fieldValidation=Strict"), kind, body)
}

fn patch(name: &'static str, code: u16, kind: &str, body: impl Into<Vec<u8>>) -> Row {
    let parameters = if kind == APPLY { "?fieldManager=a&force=true" } else { "?fieldValidation=Strict" };
    row(name, code, "PATCH", &format!("{DEPLOYMENTS}/present{parameters}"), kind, body)
}

fn get(name: &'static str, code: u16, path: &str) -> Row {
    row(name, code, "GET", path, JSON, "")
}

fn deployment(containers: &Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "present"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": containers}}}})
}

fn many(count: usize, item: impl Fn(usize) -> String) -> String {
    (0..count).map(item).collect::<Vec<_>>().join(",")
}

fn yaml() -> Vec<Row> {
    let level = |level: usize| match level {
        0 => "a0: &a0 [lol]\n".to_owned(),
        level => format!("a{level}: &a{level} [{}]\n", many(9, |_| format!("*a{}", level - 1))),
    };
    let merged = |level: usize| match level {
        0 => "a0: &a0 {x: 1}\n".to_owned(),
        level => format!(
            "a{level}: &a{level} {{<<: [{}], b: {}}}\n",
            many(9, |_| format!("*a{}", level - 1)),
            many(1, |_| format!("*a{}", level - 1))
        ),
    };
    let size = 3 << 20;
    vec![
        post("YAML: ten times nine levels of anchors", 400, YAML, (0..10).map(level).collect::<String>()),
        post(
            "YAML: one long anchor, referred to 200,000 times",
            400,
            YAML,
            format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 19), many(200_000, |_| "*a".to_owned())),
        ),
        post("YAML: anchors by merge keys", 400, YAML, (0..40).map(merged).collect::<String>()),
        post("YAML: 3 MiB of nested lists", 400, YAML, "[".repeat(size)),
        post("YAML: 3 MiB of nested maps", 400, YAML, "{a: ".repeat(size / 4)),
        post("YAML: 1 MiB of keys that are maps", 400, YAML, "? ".repeat(1 << 19)),
        post("YAML: 100,000 keys twice", 400, YAML, "a: 1\n".repeat(100_000)),
        post(
            "YAML: 50,000 anchors that nobody refers to",
            400,
            YAML,
            format!("a: [{}]", many(50_000, |at| format!("&a{at} 1"))),
        ),
    ]
}

fn json() -> Vec<Row> {
    let size = 3 << 20;
    let inside = |text: String| {
        format!(r#"{{"apiVersion":"apps/v1","kind":"Deployment","metadata":{{"name":"a"}},"spec":{{{text}}}}}"#)
    };
    let escapes = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "NAME"}}).to_string();
    let labels = format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"a","labels":{{{}}}}}}}"#,
        many(20_000, |at| format!(r#""bad label {at}":"-""#))
    );
    vec![
        post("JSON: 3 MiB of open lists", 400, JSON, "[".repeat(size)),
        post("JSON: 3 MiB of open objects", 400, JSON, r#"{"a":"#.repeat(size / 5)),
        post("JSON: one key 100,000 times", 400, JSON, inside(many(100_000, |_| r#""replicas":1"#.to_owned()))),
        post("JSON: 100,000 fields that nobody knows", 400, JSON, inside(many(100_000, |at| format!(r#""a{at}":1"#)))),
        post(
            "JSON: a number of a million digits",
            400,
            JSON,
            inside(format!(r#""replicas":{}"#, "1".repeat(1_000_000))),
        ),
        post(
            "JSON: an exponent of a million digits",
            400,
            JSON,
            inside(format!(r#""replicas":1e{}"#, "1".repeat(1_000_000))),
        ),
        row(
            "JSON: 3 MiB of escapes in a name",
            422,
            "POST",
            MAPS,
            JSON,
            escapes.replace("NAME", &"\\u0041".repeat(500_000)),
        ),
        row("JSON: 20,000 bad labels", 422, "POST", MAPS, JSON, labels),
        post(
            "JSON: 1,000,000 empty items",
            400,
            JSON,
            inside(format!(r#""a":[{}]"#, many(1_000_000, |_| "{}".to_owned()))),
        ),
        post("JSON: more than a body holds", 413, JSON, inside(format!(r#""a":"{}""#, "x".repeat(size)))),
    ]
}

/// A field with a length of its own choice.
fn field(number: u8, length: u64, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    let mut rest = length;
    while rest >= 0x80 {
        bytes.push(rest.to_le_bytes()[0] | 0x80);
        rest >>= 7;
    }
    bytes.push(rest.to_le_bytes()[0]);
    bytes.extend_from_slice(content);
    bytes
}

fn message(number: u8, content: &[u8]) -> Vec<u8> {
    field(number, content.len() as u64, content)
}

/// An object in its envelope.
fn envelope(version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let kind = [message(1, version.as_bytes()), message(2, kind.as_bytes())].concat();
    [b"k8s\0".to_vec(), message(1, &kind), message(2, raw)].concat()
}

/// A deployment in its envelope.
fn enveloped(raw: &[u8]) -> Vec<u8> {
    envelope("apps/v1", "Deployment", raw)
}

/// Schemas of the form `not: {not: {not: `, almost as large as a body may be.
fn negations() -> Vec<u8> {
    let (mut pieces, mut length) = (Vec::new(), 0_u64);
    while length < 3_000_000 {
        // Number 28 takes two bytes; the length follows as in any field.
        let piece = [vec![0xe2, 0x01], field(0, length, b"").split_off(1)].concat();
        length += piece.len() as u64;
        pieces.push(piece);
    }
    pieces.reverse();
    pieces.concat()
}

fn other_encodings() -> Vec<Row> {
    let unknown = [0x7a, 0x01, 0x00].repeat(1 << 20);
    // spec.template.spec.containers
    let items = [0x12, 0x00].repeat(1_000_000);
    let containers = message(2, &message(3, &message(2, &items)));
    let bomb = {
        let mut compress = flate2::Compress::new(flate2::Compression::best(), true);
        let mut packed = Vec::with_capacity(1 << 20);
        compress.compress_vec(&vec![b' '; 64 << 20], &mut packed, flate2::FlushCompress::Finish).unwrap();
        packed
    };
    let mut gzip = post("a gzip bomb", 400, JSON, bomb);
    gzip.request.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
    vec![
        post("protobuf: a length that lies", 400, PROTOBUF, enveloped(&field(1, u64::from(u32::MAX), b"x"))),
        post("protobuf: a length beyond all numbers", 400, PROTOBUF, enveloped(&field(1, u64::MAX, b"x"))),
        row(
            "protobuf: 3 MiB of schemas in schemas",
            400,
            "POST",
            DEFINITIONS,
            PROTOBUF,
            envelope(
                "apiextensions.k8s.io/v1",
                "CustomResourceDefinition",
                &message(2, &message(7, &message(4, &message(1, &negations())))),
            ),
        ),
        post("protobuf: 3 MiB of fields that nobody knows", 400, PROTOBUF, enveloped(&unknown[..unknown.len() - 100])),
        post("protobuf: 1,000,000 empty items", 400, PROTOBUF, enveloped(&containers)),
        gzip,
        post("CBOR: a length that lies", 415, "application/cbor", vec![0xd9, 0xd9, 0xf7, 0x9b, 0xff, 0xff, 0xff, 0xff]),
    ]
}

fn parameters() -> Vec<Row> {
    let pods = "/api/v1/namespaces/default/pods";
    vec![
        get("a selector of 60,000 open brackets", 400, &format!("{pods}?labelSelector={}", "(".repeat(60_000))),
        get(
            "a selector of 30,000 values that is not closed",
            400,
            &format!("{pods}?labelSelector=a+in+({}", "b,".repeat(30_000)),
        ),
        get("a field selector of 20,000 terms", 400, &format!("{pods}?fieldSelector={}", "a=,".repeat(20_000))),
        get("a path of 30,000 segments", 404, &"/a".repeat(30_000)),
        get("a path of 20,000 escapes", 404, &format!("/api/{}", "%2e".repeat(20_000))),
        get("a continue token of 60,000 letters", 400, &format!("{pods}?continue={}", "A".repeat(60_000))),
    ]
}

fn patches() -> Vec<Row> {
    let depth = 200_000;
    let deep = format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
    let copies =
        |step: usize| format!(r#"{{"op":"copy","from":"/metadata/labels","path":"/metadata/labels/k{step}"}}"#);
    let doubling = format!(r#"[{{"op":"add","path":"/metadata/labels","value":{{"a":"b"}}}},{}]"#, many(60, copies));
    let inserts = |_| r#"{"op":"add","path":"/spec/template/spec/containers/0","value":{"name":"a"}}"#.to_owned();
    let add = format!(r#"{{"op":"add","path":"/spec/k0","value":[{}]}}"#, many(100_000, |_| "1".to_owned()));
    let moves = |at: usize| format!(r#"{{"op":"move","from":"/spec/k{at}","path":"/spec/k{}"}}"#, at + 1);
    let operation = |text: String| format!("[{text}]");
    let named = |at: usize| format!(r#"{{"name":"c{at}"}}"#);
    let in_order = format!(
        r#"{{"spec":{{"template":{{"spec":{{"$setElementOrder/containers":[{}],"containers":[{}]}}}}}}}}"#,
        many(4_000, |at| named(3_999 - at)),
        many(4_000, named)
    );
    let delete = format!(
        r#"{{"metadata":{{"finalizers":["not a name"],"$deleteFromPrimitiveList/finalizers":[{}]}}}}"#,
        many(100_000, |at| format!(r#""a.b/{at}""#))
    );
    vec![
        patch(
            "JSON patch: 10,001 operations",
            413,
            JSON_PATCH,
            operation(many(10_001, |_| r#"{"op":"test","path":"/kind","value":"Deployment"}"#.to_owned())),
        ),
        patch("JSON patch: 60 copies, each of all there is", 413, JSON_PATCH, doubling),
        patch(
            "JSON patch: a path of 100,000 steps",
            400,
            JSON_PATCH,
            operation(format!(r#"{{"op":"add","path":"{}","value":1}}"#, "/a".repeat(100_000))),
        ),
        patch(
            "JSON patch: an index beyond all numbers",
            422,
            JSON_PATCH,
            operation(format!(
                r#"{{"op":"add","path":"/spec/template/spec/containers/{}","value":1}}"#,
                "9".repeat(100_000)
            )),
        ),
        patch(
            "JSON patch: a move into itself",
            422,
            JSON_PATCH,
            operation(r#"{"op":"move","from":"/spec","path":"/spec/a/b"}"#.to_owned()),
        ),
        patch("JSON patch: 5,000 moves of 100,000 values", 422, JSON_PATCH, format!("[{add},{}]", many(5_000, moves))),
        patch("JSON patch: 5,000 inserts at the front of a list", 422, JSON_PATCH, operation(many(5_000, inserts))),
        patch("merge patch: 200,000 levels", 400, MERGE, deep.clone()),
        patch(
            "merge patch: more than an object may hold",
            422,
            MERGE,
            json!({"metadata": {"annotations": {"a": "x".repeat(2 << 20)}}}).to_string(),
        ),
        patch("strategic patch: 200,000 levels", 400, STRATEGIC, deep.clone()),
        patch("strategic patch: a directive that nobody knows", 500, STRATEGIC, r#"{"spec":{"$patch":"explode"}}"#),
        patch("strategic patch: 4,000 containers in an order of their own", 422, STRATEGIC, in_order),
        patch("strategic patch: 100,000 finalizers to be deleted from none", 422, STRATEGIC, delete),
    ]
}

fn applied() -> Vec<Row> {
    let depth = 200_000;
    let deep = format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
    let managers: Vec<Value> = (0..10_000)
        .map(|at| json!({"manager": format!("m{at}"), "operation": "Apply", "apiVersion": "apps/v1", "time": "2024-01-01T00:00:00Z",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:metadata": {"f:labels": {"f:a": {}}}}}))
        .collect();
    let mut managed = deployment(&json!([{"name": "a", "image": "i"}]));
    let mut updated = managed.clone();
    updated["metadata"]["managedFields"] = managers[..5_000].into();
    updated["spec"]["replicas"] = json!(-1);
    managed["metadata"]["managedFields"] = managers.into();
    let one_name: Vec<Value> = vec![json!({"name": "a"}); 10_000];
    let containers: Vec<Value> = (0..5_000).map(|at| json!({"name": format!("c{at}")})).collect();
    vec![
        patch("apply: 200,000 levels", 400, APPLY, deep),
        patch("apply: 10,000 managers", 400, APPLY, managed.to_string()),
        patch("apply: 10,000 containers of one name", 500, APPLY, deployment(&one_name.into()).to_string()),
        patch("apply: 5,000 containers", 422, APPLY, deployment(&containers.into()).to_string()),
        row("update: 5,000 managers", 422, "PUT", &format!("{DEPLOYMENTS}/present"), JSON, updated.to_string()),
    ]
}

/// CPU time of this thread.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap())
}

/// What one row may take here.
fn allowed() -> Duration {
    let item = json!({"name": "a", "image": "registry/image:1", "ports": [{"containerPort": 80}], "tty": false});
    let body = Value::from(vec![item; (3 << 20) / 83]).to_string();
    let honest = (0..3).map(|_| {
        let start = cpu();
        let tree: Value = serde_json::from_str(&body).unwrap();
        drop(tree);
        cpu() - start
    });
    CPU.max(honest.min().unwrap() * HONEST_BODIES)
}

/// A line of this process's status, in megabytes.
fn megabytes(line: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let kilobytes = status.lines().find_map(|text| text.strip_prefix(line)?.split_whitespace().next()?.parse().ok());
    kilobytes.map_or(0, |kilobytes: usize| kilobytes / 1024)
}

/// The rows of the table above: their names and codes.
fn table() -> Vec<(String, u16)> {
    let lines = include_str!("attacks.rs").lines().filter_map(|line| line.strip_prefix("//! | "));
    lines
        .filter_map(|line| {
            let mut cells = line.split(" | ");
            Some((cells.next()?.to_owned(), cells.next()?.parse().ok()?))
        })
        .collect()
}

#[tokio::test(flavor = "current_thread")]
async fn attacks_are_cheap_to_refuse() {
    let _alone = MEASURING.lock().await;
    let rows: Vec<Row> =
        [yaml(), json(), other_encodings(), parameters(), patches(), applied()].into_iter().flatten().collect();
    let listed: Vec<(String, u16)> = rows.iter().map(|row| (row.name.to_owned(), row.code)).collect();
    assert_eq!(table(), listed, "the table of this file");
    let cluster = Cluster::builder().control_plane(false).start().await.unwrap();
    let client = cluster.kube_client();
    let present = deployment(&json!([{"name": "a", "image": "i"}])).to_string();
    let made = row("", 201, "POST", DEPLOYMENTS, JSON, present);
    assert_eq!(client.send(made.request.map(Body::from)).await.unwrap().status(), StatusCode::CREATED);
    let before = cluster.store().status().await.unwrap().revision;
    let (allowed, mut wrong) = (allowed(), Vec::new());
    for Row { name, request, code } in rows {
        let memory = megabytes("VmRSS:");
        fs::write("/proc/self/clear_refs", "5").unwrap();
        let start = cpu();
        let answer = client.send(request.map(Body::from)).await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let took = cpu() - start;
        let grown = megabytes("VmHWM:").saturating_sub(memory);
        if status != code || took > allowed || grown > MEGABYTES {
            let text = String::from_utf8_lossy(&body);
            let text: String = text.chars().take(300).collect();
            wrong.push(format!("{name}: {status} in the place of {code}, {took:?} of CPU, {grown} MB: {text}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert_eq!(cluster.store().status().await.unwrap().revision, before, "nothing is stored");
    cluster.shutdown().await;
}
