//! HTTP through the server: to pods and to the pods of services, in the clear and encrypted, and out of HTTP.

use std::{convert::Infallible, fmt::Write, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Either, Full};
use hyper::{body::Incoming, service::service_fn, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use orchestrator_apiserver::http::{Body, CertificateAuthority};
use orchestrator_core::runtime::Duplex;
use rustls::{ServerConfig, crypto::ring};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::mpsc::{UnboundedSender, unbounded_channel},
};
use tokio_rustls::TlsAcceptor;

use crate::support::{Api, PODS, run, text};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

/// The pod's side of a connection.
pub(crate) async fn serve(stream: impl Duplex + 'static) {
    let (sender, mut upgrades) = unbounded_channel();
    let pages = service_fn(move |request| page(request, sender.clone()));
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), pages);
    let _ = connection.with_upgrades().await;
    while let Some(upgrade) = upgrades.recv().await {
        let mut words = TokioIo::new(upgrade.await.unwrap());
        let mut word = [0; 4];
        while words.read_exact(&mut word).await.is_ok() {
            words.write_all(&word.map(|letter| letter.to_ascii_uppercase())).await.unwrap();
        }
    }
}

/// The same, behind a certificate that nobody knows.
pub(crate) async fn serve_encrypted(stream: DuplexStream) {
    let issued = CertificateAuthority::generate().unwrap().issue_server(&["elsewhere"], &[]).unwrap();
    let certificate = CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let config = config.with_single_cert(vec![certificate], key).unwrap();
    serve(TlsAcceptor::from(Arc::new(config)).accept(stream).await.unwrap()).await;
}

type Page = Response<Either<Full<Bytes>, Incoming>>;

/// Shows what it was asked, unless the path says otherwise.
async fn page(mut request: Request<Incoming>, upgrades: UnboundedSender<OnUpgrade>) -> Result<Page, Infallible> {
    let answer = Response::builder().header("access-control-allow-origin", "*").header("x-kept", "1");
    let page = match request.uri().path() {
        "/move" => answer.status(302).header("location", "/moved?a=b").body(Either::Left(Full::default())),
        "/page" => {
            let page = Full::from("<a href=\"/x\">x</a>");
            answer.header("content-type", "text/html").body(Either::Left(page))
        }
        "/echo" => answer.status(201).body(Either::Right(request.into_body())),
        "/leave" if request.headers().contains_key("upgrade") => {
            upgrades.send(hyper::upgrade::on(&mut request)).unwrap();
            let answer = answer.status(101).header("connection", "upgrade").header("upgrade", "words");
            answer.body(Either::Left(Full::default()))
        }
        _ => {
            let mut seen = format!("{} {}\n", request.method(), request.uri());
            for (name, value) in request.headers() {
                let _ = writeln!(seen, "{name}: {}", value.to_str().unwrap());
            }
            answer.header("connection", "x-secret").header("x-secret", "1").body(Either::Left(Full::new(seen.into())))
        }
    };
    Ok(page.unwrap())
}

async fn ask(api: &Api, method: &str, path: &str, headers: &[(&str, &str)]) -> Response<Body> {
    let request = Request::builder().method(method).uri(path).header("host", "server");
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    api.send(request.body(Full::from("a body")).unwrap()).await
}

async fn refused(api: &Api, path: &str, code: u16, words: &str) {
    let response = ask(api, "GET", path, &[]).await;
    assert_eq!(response.status().as_u16(), code, "{path}");
    let status: Value = serde_json::from_str(&text(response).await).unwrap();
    assert_eq!(status["message"], words, "{path}");
}

#[test]
fn pods_see_the_request_and_not_who_asks() {
    run(async |api| {
        let headers =
            [("authorization", "Bearer secret"), ("connection", "x-private"), ("x-private", "1"), ("x-own", "1")];
        let path = format!("{PODS}/p:8080/proxy/a%2Fb/c/?d=e");
        let response = ask(&api, "PUT", &path, &headers).await;
        assert_eq!(response.status(), 200);
        let names: Vec<&str> = response.headers().keys().map(http::HeaderName::as_str).collect();
        assert!(names.contains(&"x-kept") && !names.contains(&"x-secret"), "{names:?}");
        assert!(!names.contains(&"access-control-allow-origin"), "{names:?}");
        let seen = text(response).await;
        assert!(seen.starts_with("PUT /a%2Fb/c/?d=e\n"), "{seen}");
        for line in ["host: server", "x-own: 1", &format!("x-forwarded-uri: {PODS}/p:8080/proxy/a%2Fb/c/")] {
            assert!(seen.lines().any(|seen| seen == line), "{line} in {seen}");
        }
        assert!(!seen.contains("secret") && !seen.contains("x-private"), "{seen}");
    });
}

#[test]
fn links_and_roots_stay_behind_the_proxy() {
    run(async |api| {
        let root = ask(&api, "GET", &format!("{PODS}/p:8080/proxy?a=b"), &[]).await;
        assert_eq!(root.status(), 301);
        assert_eq!(root.headers()["location"], format!("{PODS}/p:8080/proxy/?a=b"));
        assert!(text(ask(&api, "POST", &format!("{PODS}/p:8080/proxy"), &[]).await).await.starts_with("POST /\n"));
        let moved = ask(&api, "GET", &format!("{PODS}/p:8080/proxy/move"), &[]).await;
        assert_eq!(moved.status(), 302);
        assert_eq!(moved.headers()["location"], format!("{PODS}/p:8080/proxy/moved?a=b"));
        let page = ask(&api, "GET", &format!("{PODS}/p:8080/proxy/page"), &[]).await;
        assert_eq!(text(page).await, format!("<a href=\"{PODS}/p:8080/proxy/x\">x</a>"));
    });
}

#[test]
fn bodies_of_any_size_go_both_ways() {
    run(async |api| {
        let body = Bytes::from(vec![b'x'; 300_000]);
        let request = Request::post(format!("{PODS}/p:8080/proxy/echo"));
        let response = api.send(request.body(Full::new(body.clone())).unwrap()).await;
        assert_eq!(response.status(), 201);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), body);
    });
}

#[test]
fn encrypted_pods_are_reached() {
    run(async |api| {
        let response = ask(&api, "GET", &format!("{PODS}/https:p:8443/proxy/x"), &[]).await;
        assert!(text(response).await.starts_with("GET /x\n"));
    });
}

#[test]
fn connections_leave_http() {
    run(async |api| {
        let headers = [("connection", "Upgrade"), ("upgrade", "words")];
        let mut response = ask(&api, "GET", &format!("{PODS}/p:8080/proxy/leave"), &headers).await;
        assert_eq!((response.status().as_u16(), &response.headers()["upgrade"]), (101, &"words".parse().unwrap()));
        let mut words = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
        for _ in 0..2 {
            words.write_all(b"word").await.unwrap();
            let mut word = [0; 4];
            words.read_exact(&mut word).await.unwrap();
            assert_eq!(&word, b"WORD");
        }
    });
}

#[test]
fn what_cannot_be_reached_is_said_as_upstream() {
    run(async |api| {
        refused(&api, &format!("{PODS}/p:81/proxy/"), 503, "error trying to reach service: connection refused").await;
        refused(&api, &format!("{PODS}/homeless/proxy/"), 400, "address not allowed").await;
        refused(&api, &format!("{PODS}/nobody:80/proxy/"), 404, "pods \"nobody\" not found").await;
        refused(&api, &format!("{PODS}/ftp:p:21/proxy/"), 400, "invalid pod request \"ftp:p:21\"").await;
        refused(&api, &format!("{SERVICES}/none/proxy/"), 404, "services \"none\" not found").await;
        let nowhere = "the server could not find the requested resource";
        refused(&api, "/api/v1/pods/p:8080/proxy/", 404, nowhere).await;
        refused(&api, "/api/v1/nodes/n/proxy/metrics", 404, "nodes \"n\" not found").await;
        let odd = ask(&api, "TRACE", &format!("{PODS}/p:8080/proxy/"), &[]).await;
        assert_eq!(odd.status(), 405);
    });
}

#[test]
fn nodes_answer_about_themselves() {
    run(async |api| {
        api.create("/api/v1/nodes", &json!({"metadata": {"name": "n"}})).await;
        for node in ["n", "n:10250", "https:n:"] {
            let answer = ask(&api, "GET", &format!("/api/v1/nodes/{node}/proxy/stats/summary?a=b%20c"), &[]).await;
            assert_eq!(
                (answer.status().as_u16(), &answer.headers()["content-type"]),
                (202, &"text/odd".parse().unwrap())
            );
            assert_eq!(text(answer).await, "n: GET /stats/summary [(\"a\", \"b c\")]");
        }
        let root = ask(&api, "GET", "/api/v1/nodes/n/proxy", &[]).await;
        assert_eq!(root.headers()["location"], "/api/v1/nodes/n/proxy/");
        let changed = ask(&api, "POST", "/api/v1/nodes/n/proxy/run", &[]).await;
        assert_eq!(text(changed).await, "n: POST /run []");
        // Its machine has no address.
        refused(&api, "/api/v1/nodes/n:8080/proxy/", 400, "address not allowed").await;
        for (name, address, code) in [("local", "127.0.0.1", 400), ("far", "192.0.2.1", 503)] {
            api.create("/api/v1/nodes", &json!({"metadata": {"name": name}})).await;
            let addresses = json!([{"type": "InternalIP", "address": address}]);
            api.status(&format!("/api/v1/nodes/{name}"), &json!({ "addresses": addresses })).await;
            let status = ask(&api, "GET", &format!("/api/v1/nodes/{name}:8080/proxy/"), &[]).await.status();
            assert_eq!(status, code, "{name}");
        }
    });
}

#[test]
fn services_lead_to_a_pod_that_is_ready() {
    run(async |api| {
        api.status(&format!("{PODS}/p"), &json!({"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]})).await;
        let port = json!({"name": "web", "port": 80, "targetPort": 8080});
        api.create(SERVICES, &json!({"metadata": {"name": "s"}, "spec": {"ports": [port]}})).await;
        refused(&api, &format!("{SERVICES}/s:web/proxy/"), 503, "no endpoints available for service \"s\"").await;
        let endpoint = |name: &str, is_ready: bool| {
            json!({
                "addresses": ["10.0.0.1"],
                "conditions": {"ready": is_ready},
                "targetRef": {"kind": "Pod", "name": name, "namespace": "default"},
            })
        };
        // Nobody is led to what is no pod, or not the address of the pod.
        let strange = json!([
            {"addresses": ["10.0.0.1"]},
            {"addresses": ["10.0.0.2"], "targetRef": {"kind": "Pod", "name": "p", "namespace": "default"}},
            {"addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "name": "p", "namespace": "other"}},
        ]);
        let slice = json!({
            "metadata": {"name": "s-0", "labels": {"kubernetes.io/service-name": "s"}},
            "addressType": "IPv4",
            "ports": [{"name": "web", "port": 8080, "protocol": "TCP"}],
            "endpoints": strange,
        });
        api.create(SLICES, &slice).await;
        refused(&api, &format!("{SERVICES}/s:web/proxy/"), 503, "no endpoints available for service \"s:web\"").await;
        let slice = json!({
            "metadata": {"name": "s-1", "labels": {"kubernetes.io/service-name": "s"}},
            "addressType": "IPv4",
            "ports": [{"name": "web", "port": 8080, "protocol": "TCP"}],
            "endpoints": [endpoint("gone", true), endpoint("unready", false), endpoint("homeless", true), endpoint("p", true)],
        });
        api.create(SLICES, &slice).await;
        for id in ["s:web", "s:80", "http:s:web"] {
            let response = ask(&api, "GET", &format!("{SERVICES}/{id}/proxy/x"), &[]).await;
            assert!(text(response).await.starts_with("GET /x\n"), "{id}");
        }
        refused(&api, &format!("{SERVICES}/s:81/proxy/"), 503, "no service port 81 found for service \"s\"").await;
        refused(&api, &format!("{SERVICES}/s/proxy/"), 503, "no endpoints available for service \"s\"").await;
    });
}
