//! Bodies, paths and parameters that make no sense, or too much of it.

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use crate::{
    Bystander, MEASURING, Stage,
    client::{Answer, NO_STATUS},
    resident_megabytes,
};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const MERGE: &str = "application/merge-patch+json";
const JSON_PATCH: &str = "application/json-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

/// What all of this may take, with all tests at once; what grows without bound takes a thousand times more.
const MEGABYTES: usize = 768;

/// A body, and how it is refused.
type Case = (&'static str, Method, String, &'static str, Bytes, u16, &'static str);

/// Sends each case on a stage with one config map, `present`: each is refused as it says, and nothing is stored.
async fn all_refused(cases: Vec<Case>) {
    let _alone = MEASURING.lock().await;
    let stage = Stage::new().await;
    let made = stage.https.ask(Method::POST, MAPS, JSON, config_map("present").to_string()).await;
    assert_eq!(made.code, 201, "{made:?}");
    let (before, memory) = (stage.revision().await, resident_megabytes());
    let bystander = Bystander::start(&stage.https);
    let mut wrong = Vec::new();
    for (name, method, path, kind, body, code, reason) in cases {
        let answer = stage.https.ask(method, &path, kind, body).await;
        if answer.code != code {
            wrong.push(format!("{name}: {answer:?} in the place of {code} {reason}"));
        } else if answer.refusal() != (code, reason) {
            wrong.push(format!("{name}: {:?} in the place of {reason}", answer.refusal()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(bystander.stop().await > 0);
    assert_eq!(stage.revision().await, before, "nothing is stored");
    let grown = resident_megabytes().saturating_sub(memory);
    assert!(grown < MEGABYTES, "memory has grown by {grown} MB");
    stage.cluster.shutdown().await;
}

fn post(name: &'static str, body: impl Into<Bytes>, code: u16, reason: &'static str) -> Case {
    (name, Method::POST, MAPS.to_owned(), JSON, body.into(), code, reason)
}

fn patch(name: &'static str, kind: &'static str, body: impl Into<Bytes>, code: u16, reason: &'static str) -> Case {
    (name, Method::PATCH, format!("{MAPS}/present"), kind, body.into(), code, reason)
}

fn get(name: &'static str, path: String, code: u16, reason: &'static str) -> Case {
    (name, Method::GET, path, "", Bytes::new(), code, reason)
}

fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"key": "value"}})
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_bodies() {
    let deployment = |replicas: Value| {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"a": "a"}},
            "template": {"metadata": {"labels": {"a": "a"}}, "spec": {"containers": [{"name": "a", "image": "a"}]}}}})
    };
    let typed = |name, replicas| {
        let body = deployment(replicas).to_string();
        (name, Method::POST, DEPLOYMENTS.to_owned(), JSON, body.into(), 400, "BadRequest")
    };
    let yaml = |name, body: &'static str| (name, Method::POST, MAPS.to_owned(), YAML, body.into(), 400, "BadRequest");
    all_refused(vec![
        post("half a body", r#"{"apiVersion": "v1", "kind": "#, 400, "BadRequest"),
        post("no body", "", 400, "BadRequest"),
        post("a list", "[]", 400, "BadRequest"),
        post("null", "null", 422, "Invalid"),
        post("a number", "7", 400, "BadRequest"),
        post("more than a body", format!("{}{}", config_map("a"), config_map("b")), 400, "BadRequest"),
        post("no text", vec![0xff, 0xfe, 0x00, 0x7b], 400, "BadRequest"),
        post("half a letter", r#"{"kind": "\ud800"}"#, 400, "BadRequest"),
        post("another kind", config_map("a").to_string().replace("ConfigMap", "Secret"), 400, "BadRequest"),
        post(
            "a kind that nobody knows",
            config_map("a").to_string().replace("ConfigMap", "Nothing"),
            400,
            "BadRequest",
        ),
        post("another version", config_map("a").to_string().replace("v1", "v9"), 400, "BadRequest"),
        post(
            "text in the place of a map",
            config_map("a").to_string().replace(r#"{"key":"value"}"#, "5"),
            400,
            "BadRequest",
        ),
        post("metadata that is a list", r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":[]}"#, 400, "BadRequest"),
        typed("text in the place of a number", json!("three")),
        typed("a fraction", json!(1.5)),
        typed("a number that is too large", json!(3_000_000_000_u64)),
        yaml("YAML that is none", "a: [b"),
        yaml("YAML of two documents with nonsense", "a: b: c: d"),
        yaml("an anchor of nothing", "apiVersion: *nothing"),
        yaml("an anchor of itself", "&a [*a]"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_names_kinds_and_versions() {
    let put = |name, body: Value, code, reason| {
        (name, Method::PUT, format!("{MAPS}/present"), JSON, body.to_string().into(), code, reason)
    };
    let mut stale = config_map("present");
    stale["metadata"]["resourceVersion"] = json!("1");
    let mut odd = config_map("present");
    odd["metadata"]["resourceVersion"] = json!("soon");
    let mut foreign = config_map("present");
    foreign["metadata"]["uid"] = json!("00000000-0000-4000-8000-000000000000");
    let named = |name: &str| config_map(name).to_string();
    let method = |name, method: &'static [u8]| {
        (name, Method::from_bytes(method).unwrap(), MAPS.to_owned(), "", Bytes::new(), 405, "MethodNotAllowed")
    };
    all_refused(vec![
        post("capitals", named("Name"), 422, "Invalid"),
        post("a path", named("../../etc/passwd"), 422, "Invalid"),
        post("too long a name", named(&"a".repeat(254)), 422, "Invalid"),
        post("no name", named(""), 422, "Invalid"),
        post("a bad key", config_map("a").to_string().replace(r#""key""#, r#""a/b""#), 422, "Invalid"),
        post(
            "another namespace",
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","namespace":"b"}}"#,
            400,
            "BadRequest",
        ),
        post(
            "a version of its own",
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","resourceVersion":"5"}}"#,
            500,
            "",
        ),
        put("a stale version", stale, 409, "Conflict"),
        put("a version that is none", odd, 500, ""),
        put("another object", foreign, 409, "Conflict"),
        put("another name", config_map("other"), 400, "BadRequest"),
        get("nothing of this kind", MAPS.replace("configmaps", "nothings"), 404, "NotFound"),
        get("no such group", "/apis/nothing.example.com/v1/things".to_owned(), 404, NO_STATUS),
        get("a bad escape", format!("{MAPS}/%zz"), 400, "BadRequest"),
        get("a name with a slash", format!("{MAPS}/a%2Fb"), 400, "BadRequest"),
        get("a bad selector", format!("{MAPS}?labelSelector=a%3D%3D%3Db"), 400, "BadRequest"),
        get("a bad field", format!("{MAPS}?fieldSelector=nothing%3Da"), 400, "BadRequest"),
        get("a bad limit", format!("{MAPS}?limit=many"), 400, "BadRequest"),
        get("a bad token", format!("{MAPS}?continue=nonsense"), 400, "BadRequest"),
        get("a version that is none", format!("{MAPS}?resourceVersion=soon"), 400, "BadRequest"),
        get(
            "a version far ahead",
            format!("{MAPS}?resourceVersion=99999999&resourceVersionMatch=Exact"),
            504,
            "Timeout",
        ),
        method("a word in the place of a method", b"BREW"),
        method("a method of another protocol", b"PROPFIND"),
    ])
    .await;
}

/// Text nested this deep takes a naive reader's stack.
const DEPTH: usize = 200_000;

#[tokio::test(flavor = "multi_thread")]
async fn deep_bodies() {
    let lists = format!("{}{}", "[".repeat(DEPTH), "]".repeat(DEPTH));
    let objects = format!("{}1{}", r#"{"a":"#.repeat(DEPTH), "}".repeat(DEPTH));
    let inside = |nested: &str| {
        format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"a"}},"unknown":{nested}}}"#)
    };
    let yaml_blocks: String = (0..1_500).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    let yaml = |name, body: String| (name, Method::POST, MAPS.to_owned(), YAML, body.into(), 400, "BadRequest");
    let operation = format!(r#"[{{"op":"add","path":"/data","value":{objects}}}]"#);
    all_refused(vec![
        post("lists", lists.clone(), 400, "BadRequest"),
        post("objects", objects.clone(), 400, "BadRequest"),
        post("open lists", "[".repeat(3 << 20), 400, "BadRequest"),
        post("an unknown field", inside(&objects), 400, "BadRequest"),
        yaml("lists in YAML", lists.clone()),
        yaml("objects in YAML", objects.clone()),
        yaml("blocks in YAML", yaml_blocks),
        yaml("lists of lists in YAML", "- ".repeat(DEPTH)),
        patch("a merge patch", MERGE, objects.clone(), 400, "BadRequest"),
        patch("a strategic patch", STRATEGIC, objects.clone(), 400, "BadRequest"),
        patch("a JSON patch", JSON_PATCH, operation, 400, "BadRequest"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_too_large_or_grow() {
    let large = format!(r#"{{"data":{{"a":"{}"}}}}"#, "x".repeat(4 << 20));
    let operations =
        |count: usize| Value::from(vec![json!({"op": "test", "path": "/kind", "value": "ConfigMap"}); count]);
    // Each step doubles what is there: 2^60 values in the end.
    let doubling: Vec<Value> =
        (0..60).map(|step| json!({"op": "copy", "from": "/data", "path": format!("/data/k{step}")})).collect();
    let mut laughs = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for step in 1..40 {
        let references = vec![format!("*a{}", step - 1); 10].join(", ");
        laughs += &format!("a{step}: &a{step} [{references}]\n");
    }
    let quadratic = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 19), vec!["*a"; 200_000].join(", "));
    let yaml =
        |name, body: String, code, reason| (name, Method::POST, MAPS.to_owned(), YAML, body.into(), code, reason);
    let megabytes = |count: usize| {
        let mut map = config_map("large");
        map["data"]["key"] = json!("x".repeat(count << 20));
        map.to_string()
    };
    all_refused(vec![
        post("a large body", large.clone(), 413, "RequestEntityTooLarge"),
        patch("a large patch", MERGE, large, 413, "RequestEntityTooLarge"),
        post("more than a config map holds", megabytes(2), 422, "Invalid"),
        patch("many operations", JSON_PATCH, operations(10_001).to_string(), 413, "RequestEntityTooLarge"),
        patch("operations that double", JSON_PATCH, json!(doubling).to_string(), 413, "RequestEntityTooLarge"),
        yaml("anchors that explode", laughs, 400, "BadRequest"),
        yaml("one anchor, many times", quadratic, 400, "BadRequest"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn types_that_are_not_spoken() {
    all_refused(vec![
        (
            "a picture",
            Method::POST,
            MAPS.to_owned(),
            "image/png",
            config_map("a").to_string().into(),
            415,
            "UnsupportedMediaType",
        ),
        patch("a patch without a type", "text/plain", "{}", 415, "UnsupportedMediaType"),
        patch("a merge patch that is text", MERGE, "text", 400, "BadRequest"),
        patch("a JSON patch that is an object", JSON_PATCH, "{}", 400, "BadRequest"),
        patch("an operation that nobody knows", JSON_PATCH, r#"[{"op":"turn","path":"/data"}]"#, 422, "Invalid"),
        patch("a path into nothing", JSON_PATCH, r#"[{"op":"remove","path":"/data/none"}]"#, 422, "Invalid"),
        patch("a merge patch of the wrong type", MERGE, r#"{"data":{"key":{"a":1}}}"#, 422, "Invalid"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_are_named_twice_or_unknown() {
    let stage = Stage::new().await;
    let body =
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","name":"b"},"data":{"k":"1"},"wrong":1}"#;
    let ask = async |validation: &str| -> Answer {
        let path = format!("{MAPS}?dryRun=All&fieldValidation={validation}");
        stage.https.ask(Method::POST, &path, JSON, body).await
    };
    let before = stage.revision().await;
    let strict = ask("Strict").await;
    assert_eq!(strict.refusal(), (400, "BadRequest"));
    let message = strict.body["message"].as_str().unwrap();
    assert!(message.contains(r#"duplicate field "metadata.name""#), "{message}");
    assert!(message.contains(r#"unknown field "wrong""#), "{message}");
    let warned = ask("Warn").await;
    assert_eq!((warned.code, warned.warnings.len()), (201, 2), "{warned:?}");
    assert_eq!(warned.body["metadata"]["name"], "b", "the last one counts");
    let ignored = ask("Ignore").await;
    assert_eq!((ignored.code, ignored.warnings.len()), (201, 0), "{ignored:?}");
    let odd = ask("Perhaps").await;
    assert_eq!(odd.refusal().0, 422, "{odd:?}");
    assert_eq!(stage.revision().await, before, "nothing is stored");
    stage.cluster.shutdown().await;
}
