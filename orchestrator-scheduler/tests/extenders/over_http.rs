//! HTTP, against a server on the loopback address.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Node, Pod};
use orchestrator_core::{
    env::{Env, TaskHandle},
    scheduler::{PodInfo, Preemption, Scheduler, Snapshot, Verdict},
};
use orchestrator_scheduler::{
    config::{ConfigReason, Configuration},
    extender::{Counter, Extender, Offer},
    http::{HttpExtender, HttpExtenderOptions, InvalidExtender, TlsOptions},
    limits::EXTENDER_ANSWER_BYTES,
};
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Answers each path with a status and a body, and remembers what came.
struct Server {
    port: u16,
    requests: Arc<Mutex<Vec<(String, Value)>>>,
    _accepting: TaskHandle,
}

type Answers = fn(&str) -> (u16, Vec<u8>);

async fn answer(
    request: Request<Incoming>,
    answers: Answers,
    requests: Arc<Mutex<Vec<(String, Value)>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let is_json = request.headers().get("content-type").is_some_and(|kind| kind == "application/json");
    let body = request.into_body().collect().await.unwrap().to_bytes();
    assert!(is_json, "{path}");
    requests.lock().unwrap().push((path.clone(), serde_json::from_slice(&body).unwrap()));
    if path.ends_with("/never") {
        std::future::pending::<()>().await;
    }
    let (status, body) = answers(&path);
    Ok(Response::builder().status(status).body(Full::from(body)).unwrap())
}

impl Server {
    async fn start(answers: Answers, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
        let seen = requests.clone();
        let accepting = Env::real().spawn("extender", async move {
            let mut connections = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, tls) = (seen.clone(), tls.clone());
                connections.push(Env::real().spawn("extender-connection", async move {
                    let service = service_fn(move |request| answer(request, answers, seen.clone()));
                    // A client that does not trust the server, or goes away, is no failure here.
                    let _ = match tls {
                        None => http1::Builder::new().serve_connection(TokioIo::new(stream), service).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => http1::Builder::new().serve_connection(TokioIo::new(stream), service).await,
                            Err(_) => return,
                        },
                    };
                }));
            }
        });
        Self { port, requests, _accepting: accepting }
    }

    fn requests(&self) -> Vec<(String, Value)> {
        self.requests.lock().unwrap().clone()
    }

    fn options(&self) -> HttpExtenderOptions {
        HttpExtenderOptions {
            url_prefix: format!("http://127.0.0.1:{}/scheduler/", self.port),
            filter_verb: "filter".to_owned(),
            prioritize_verb: "prioritize".to_owned(),
            preempt_verb: "preempt".to_owned(),
            bind_verb: "bind".to_owned(),
            ..HttpExtenderOptions::default()
        }
    }
}

fn really<F: Future<Output = ()>>(run: impl FnOnce() -> F) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async { run().await });
}

fn pod(more: Value) -> PodInfo {
    let metadata = json!({"name": "p", "namespace": "x", "uid": "u"});
    let mut pod = json!({"metadata": metadata, "spec": {"containers": [{"name": "c"}]}});
    for (field, value) in more.as_object().unwrap() {
        pod["spec"][field] = value.clone();
    }
    PodInfo::from(serde_json::from_value::<Pod>(pod).unwrap())
}

fn node(name: &str) -> Arc<Node> {
    Arc::new(serde_json::from_value(json!({"metadata": {"name": name}})).unwrap())
}

fn usual(path: &str) -> (u16, Vec<u8>) {
    let answer = match path {
        "/scheduler/filter" => json!({
            "Nodes": {"items": [{"metadata": {"name": "a"}}]}, "NodeNames": ["a"], "FailedNodes": {"b": "too warm"},
        }),
        "/scheduler/prioritize" => json!([{"Host": "a", "Score": 3}, {"Host": "b", "Score": 10}]),
        "/scheduler/preempt" => {
            json!({"NodeNameToMetaVictims": {"a": {"Pods": [{"UID": "v"}], "NumPDBViolations": 1}}})
        }
        "/scheduler/bind" => json!({"Error": ""}),
        _ => return (404, Vec::new()),
    };
    (200, answer.to_string().into_bytes())
}

#[test]
fn each_duty_is_one_post() {
    really(async || {
        for knows_nodes in [false, true] {
            let server = Server::start(usual, None).await;
            let options = HttpExtenderOptions { node_cache_capable: knows_nodes, ..server.options() };
            let extender = HttpExtender::new(options).unwrap();
            let pod = pod(json!({}));
            let nodes = [node("a"), node("b")];
            let filtered = extender.filter(&pod, &nodes).await.unwrap();
            assert_eq!((filtered.right, &*filtered.failed["b"]), (vec!["a".to_owned()], "too warm"));
            assert_eq!(extender.prioritize(&pod, &nodes).await.unwrap()["b"], 10);
            let victim =
                Pod { metadata: serde_json::from_value(json!({"name": "v", "uid": "v"})).unwrap(), ..Pod::default() };
            let preemption = Preemption { node: "a".to_owned(), victims: vec![Arc::new(PodInfo::from(victim))] };
            let offers = [Offer { preemption, violations: 1 }];
            let counter = Counter { node: "a".to_owned(), victims: vec!["v".to_owned()], violations: 1 };
            assert_eq!(extender.preempt(&pod, &offers).await.unwrap(), [counter]);
            extender.bind(&pod, "a").await.unwrap();
            let requests = server.requests();
            let paths: Vec<&str> = requests.iter().map(|(path, _)| path.as_str()).collect();
            assert_eq!(paths, ["/scheduler/filter", "/scheduler/prioritize", "/scheduler/preempt", "/scheduler/bind"]);
            assert_eq!(requests[0].1["Pod"]["metadata"]["name"], "p");
            assert_eq!(requests[0].1["NodeNames"], if knows_nodes { json!(["a", "b"]) } else { Value::Null });
            assert_eq!(requests[0].1["Nodes"].is_null(), knows_nodes);
            let (whole, meta) = ("NodeNameToVictims", "NodeNameToMetaVictims");
            let (given, absent) = if knows_nodes { (meta, whole) } else { (whole, meta) };
            let victim = &requests[2].1[given]["a"];
            assert_eq!((&victim["NumPDBViolations"], &requests[2].1[absent]), (&json!(1), &Value::Null));
            let name = if knows_nodes { &victim["Pods"][0]["UID"] } else { &victim["Pods"][0]["metadata"]["uid"] };
            assert_eq!(name, "v");
            assert_eq!(requests[3].1, json!({"PodName": "p", "PodNamespace": "x", "PodUID": "u", "Node": "a"}));
        }
    });
}

#[test]
fn what_goes_wrong_is_told_as_upstream_does() {
    really(async || {
        let server = Server::start(
            |path| match path {
                "/scheduler/odd" => (200, b"{".to_vec()),
                "/scheduler/says" => (200, json!({"Error": "out of order"}).to_string().into_bytes()),
                "/scheduler/endless" => (200, vec![b' '; EXTENDER_ANSWER_BYTES + 1]),
                _ => (503, Vec::new()),
            },
            None,
        )
        .await;
        let filter = async |verb: &str| {
            let options = HttpExtenderOptions { filter_verb: verb.to_owned(), ..server.options() };
            let extender = HttpExtender::new(options).unwrap();
            extender.filter(&pod(json!({})), &[node("a")]).await.unwrap_err().to_string()
        };
        let url = format!("http://127.0.0.1:{}/scheduler", server.port);
        assert_eq!(filter("down").await, format!("failed down with extender at URL {url}/down, code 503"));
        assert_eq!(filter("says").await, "out of order");
        assert!(filter("odd").await.starts_with("EOF while parsing"));
        assert_eq!(filter("endless").await, format!("Post \"{url}/endless\": length limit exceeded"));
        let nobody = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = nobody.local_addr().unwrap().port();
        drop(nobody);
        let url_prefix = format!("http://127.0.0.1:{port}");
        let extender = HttpExtender::new(HttpExtenderOptions { url_prefix, ..server.options() }).unwrap();
        let refused = extender.filter(&pod(json!({})), &[]).await.unwrap_err().to_string();
        assert!(
            refused.starts_with(&format!("Post \"http://127.0.0.1:{port}/filter\": Connection refused")),
            "{refused}"
        );
        // Who gives the answer up leaves nothing behind.
        let options = HttpExtenderOptions { bind_verb: "never".to_owned(), ..server.options() };
        let extender = HttpExtender::new(options).unwrap();
        let given_up = Env::real().timeout(Duration::from_millis(50), extender.bind(&pod(json!({})), "a")).await;
        assert!(given_up.is_err());
    });
}

#[test]
fn extenders_are_interested_in_the_resources_that_they_manage() {
    let options = HttpExtenderOptions {
        url_prefix: "http://127.0.0.1".to_owned(),
        managed_resources: vec!["example.com/a".to_owned()],
        ..HttpExtenderOptions::default()
    };
    let extender = HttpExtender::new(options).unwrap();
    let asks = |field: &str, kind: &str, resource: &str| {
        let container = json!({"name": "c", "resources": {kind: {resource: "1"}}});
        extender.is_interested(&pod(json!({field: [container]})))
    };
    assert!(asks("containers", "requests", "example.com/a") && asks("initContainers", "limits", "example.com/a"));
    assert!(!asks("containers", "requests", "cpu") && !extender.is_interested(&pod(json!({}))));
}

#[test]
fn tls_trusts_whom_it_is_told_to() {
    really(async || {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new(["extender.test".to_owned()]).unwrap().self_signed(&key).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let secret = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], secret).unwrap();
        let server = Server::start(usual, Some(TlsAcceptor::from(Arc::new(config)))).await;
        let url_prefix = format!("https://127.0.0.1:{}/scheduler", server.port);
        let bind = async |enable_https: bool, tls: TlsOptions| {
            let options = HttpExtenderOptions { url_prefix: url_prefix.clone(), enable_https, tls, ..server.options() };
            HttpExtender::new(options).map(|extender| async move { extender.bind(&pod(json!({})), "a").await })
        };
        let trusting = |name: &str| TlsOptions {
            server_name: Some(name.to_owned()),
            authorities: Some(certificate.pem().into_bytes()),
            ..TlsOptions::default()
        };
        bind(false, trusting("extender.test")).await.unwrap().await.unwrap();
        assert!(bind(true, trusting("other.test")).await.unwrap().await.is_err());
        bind(true, TlsOptions::default()).await.unwrap().await.unwrap();
        bind(false, TlsOptions { insecure: true, ..TlsOptions::default() }).await.unwrap().await.unwrap();
        assert_eq!(bind(false, TlsOptions::default()).await.err(), Some(InvalidExtender::Untrusted));
        let other = rcgen::CertificateParams::new(["extender.test".to_owned()]).unwrap();
        let other = other.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem().into_bytes();
        let distrusting = TlsOptions { authorities: Some(other), ..trusting("extender.test") };
        assert!(bind(true, distrusting).await.unwrap().await.is_err());
    });
}

const HEAD: &str = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n";

#[test]
fn a_configuration_names_extenders() {
    let read = |extenders: &str| Configuration::from_yaml(&format!("{HEAD}extenders: {extenders}"));
    let configuration = read(
        "
- {urlPrefix: 'http://127.0.0.1:1/', filterVerb: f, httpTimeout: 2s, ignorable: true}
- urlPrefix: http://localhost:2/x
  prioritizeVerb: p
  preemptVerb: v
  bindVerb: b
  weight: 5
  nodeCacheCapable: true
  managedResources: [{name: example.com/a, ignoredByScheduler: true}, {name: example.com/b}]
  tlsConfig: {}
",
    )
    .unwrap();
    let [last, ignorable] = configuration.profiles[0].extenders.as_slice() else { panic!("{configuration:?}") };
    assert_eq!((last.name(), ignorable.name()), ("http://localhost:2/x", "http://127.0.0.1:1/"));
    assert_eq!((last.timeout(), ignorable.timeout()), (Duration::from_secs(5), Duration::from_secs(2)));
    let duties = last.duties();
    assert_eq!((duties.filters, duties.prioritizes, duties.preempts, duties.binds), (false, Some(5), true, true));
    let mut cluster = Snapshot::default();
    let allocatable = json!({"cpu": "1", "memory": "1Gi", "pods": "1"});
    let node = json!({"metadata": {"name": "a"}, "status": {"allocatable": allocatable}});
    cluster.set_node(Arc::new(serde_json::from_value(node).unwrap()));
    let fits = |resource: &str| {
        let container = json!({"name": "c", "resources": {"requests": {resource: "1"}}});
        let verdict = configuration.profiles[0].schedule(&pod(json!({"containers": [container]})), &cluster, 0);
        matches!(verdict, Verdict::Node(_))
    };
    assert!(fits("example.com/a"), "the extender alone looks at it");
    assert!(!fits("example.com/b") && !fits("example.com/c"));
    let refused = |extender: &str| {
        let error = read(&format!("[{{urlPrefix: 'http://x', {extender}}}]")).unwrap_err();
        (error.path, error.reason)
    };
    let weightless = refused("prioritizeVerb: p");
    assert_eq!(weightless.0, "extenders[0].weight");
    assert_eq!(refused("managedResources: [{name: cpu}]").0, "extenders[0].managedResources[0].name");
    assert_eq!(
        refused("managedResources: [{name: e.com/a}, {name: e.com/a}]"),
        ("extenders[0].managedResources[1].name".to_owned(), ConfigReason::Duplicate("e.com/a".to_owned()))
    );
    assert_eq!(refused("httpTimeout: -1s").0, "extenders[0].httpTimeout");
    assert_eq!(refused("nonsense: 1"), ("extenders[0].nonsense".to_owned(), ConfigReason::UnknownField));
    assert_eq!(refused("tlsConfig: {caFile: /nowhere/at/all}").0, "extenders[0].tlsConfig.caFile");
    assert_eq!(refused("tlsConfig: {certData: YQ==}").0, "extenders[0].tlsConfig.certData");
    let twice = read("[{urlPrefix: 'http://x', bindVerb: b}, {urlPrefix: 'http://y', bindVerb: b}]").unwrap_err();
    assert_eq!(
        twice.to_string(),
        "extenders: invalid value found 2 extenders implementing bind: only one extender can implement bind"
    );
    for url in ["", "x", "ftp://x", "http://user@x", "http:///y"] {
        let error = read(&format!("[{{urlPrefix: '{url}'}}]")).unwrap_err();
        assert_eq!(error.path, "extenders[0].urlPrefix", "{url}");
    }
    let error = read("[{urlPrefix: 'https://x'}]").unwrap_err();
    assert_eq!(error.path, "extenders[0].tlsConfig");
}
