//! A registry of one image, on the loopback address.

use std::{collections::BTreeMap, sync::Arc};

use base64::Engine;
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use orchestrator_core::env::{Env, TaskHandle};
use tokio::net::TcpListener;

/// What is served: media type and bytes, by the end of the path.
pub(crate) type Contents = BTreeMap<String, (String, Bytes)>;

/// The registry; it ends when it is dropped.
pub(crate) struct Registry {
    pub(crate) port: u16,
    _accepting: TaskHandle,
}

impl Registry {
    /// Serves these, to whoever gives these credentials (`user:password`).
    pub(crate) async fn new(contents: Contents, credentials: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let expected = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(credentials));
        let (contents, env) = (Arc::new(contents), Env::real());
        let accepting = env.spawn("registry", async move {
            let mut connections = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (contents, expected) = (Arc::clone(&contents), expected.clone());
                let service = service_fn(move |request| {
                    let answer = answer(&request, &contents, &expected);
                    async move { Ok::<_, std::convert::Infallible>(answer) }
                });
                connections.push(Env::real().spawn("registry-connection", async move {
                    // An attempt at TLS comes first, and fails.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                }));
            }
        });
        Self { port, _accepting: accepting }
    }
}

fn answer(request: &Request<Incoming>, contents: &Contents, expected: &str) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::default());
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if given != Some(expected) {
        *answer.status_mut() = StatusCode::UNAUTHORIZED;
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, "Basic realm=\"test\"".parse().unwrap());
        return answer;
    }
    let path = request.uri().path();
    if path == "/v2/" {
        return answer;
    }
    let found = contents.get(path.rsplit('/').next().unwrap_or_default());
    let Some((media_type, bytes)) = found.filter(|_| path.starts_with("/v2/team/app/")) else {
        *answer.status_mut() = StatusCode::NOT_FOUND;
        return answer;
    };
    answer.headers_mut().insert(header::CONTENT_TYPE, media_type.parse().unwrap());
    answer.headers_mut().insert(header::CONTENT_LENGTH, bytes.len().into());
    if request.method() != http::Method::HEAD {
        *answer.body_mut() = Full::new(bytes.clone());
    }
    answer
}
