//! A registry on the loopback address that does what it is told: it asks who is there, breaks off, and lies.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{StreamExt, stream};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Bytes, Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use orchestrator_core::env::{Env, TaskHandle};
use tokio::net::TcpListener;

use crate::support::{TestImage, digest};

/// How the registry behaves.
#[derive(Clone, Debug, Default)]
pub(crate) struct Behaviour {
    /// `Authorization` that it wants, and the challenge that says so.
    pub(crate) authorization: Option<(String, String)>,
    /// What its server of tokens wants and gives, at `/token`.
    pub(crate) token: Option<(Option<String>, String)>,
    /// Ends each answer with a blob after so many bytes.
    pub(crate) break_after_bytes: Option<usize>,
    /// Sends whole blobs where a part was asked for.
    pub(crate) ignores_ranges: bool,
    /// Answers to some paths, instead of what it has.
    pub(crate) answers: BTreeMap<String, (StatusCode, Vec<u8>)>,
}

/// The registry; it ends when it is dropped.
pub(crate) struct Registry {
    pub(crate) host: String,
    state: Arc<State>,
    _accepting: TaskHandle,
}

struct State {
    behaviour: Mutex<Behaviour>,
    /// By the end of the path.
    contents: Mutex<BTreeMap<String, (String, Vec<u8>)>>,
    requests: Mutex<Vec<String>>,
}

impl Registry {
    pub(crate) async fn new(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let state = Arc::new(State {
            behaviour: Mutex::new(behaviour),
            contents: Mutex::default(),
            requests: Mutex::default(),
        });
        let shared = Arc::clone(&state);
        let accepting = Env::real().spawn("registry", async move {
            let mut connections = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                let service = service_fn(move |request| {
                    let answer = state.answer(&request);
                    async move { Ok::<_, Infallible>(answer) }
                });
                connections.push(Env::real().spawn("registry-connection", async move {
                    // A client that goes away, or an answer that breaks off, is no failure here.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                }));
            }
        });
        Self { host, state, _accepting: accepting }
    }

    pub(crate) fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.state.behaviour.lock().unwrap());
    }

    /// Puts an image there under a tag.
    pub(crate) fn put(&self, tag: &str, image: &TestImage) {
        for blob in image.layers.iter().chain([&image.configuration]) {
            self.put_bytes(&format!("blobs/sha256:{}", digest(blob)), "application/octet-stream", blob);
        }
        let kind = "application/vnd.oci.image.manifest.v1+json";
        self.put_bytes(&format!("manifests/{tag}"), kind, &image.manifest);
        self.put_bytes(&format!("manifests/sha256:{}", digest(&image.manifest)), kind, &image.manifest);
    }

    pub(crate) fn put_bytes(&self, path: &str, media_type: &str, bytes: &[u8]) {
        self.state.contents.lock().unwrap().insert(path.to_owned(), (media_type.to_owned(), bytes.to_vec()));
    }

    /// Paths that were asked for so far, with the first byte where it was not the first of all.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.state.requests.lock().unwrap().clone()
    }
}

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

impl State {
    fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        let behaviour = self.behaviour.lock().unwrap().clone();
        let head = |name: header::HeaderName| {
            request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        let (path, given) = (request.uri().path(), head(header::AUTHORIZATION));
        let from_byte = head(header::RANGE).trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap_or(0);
        self.requests.lock().unwrap().push(if from_byte == 0 {
            path.to_owned()
        } else {
            format!("{path} from {from_byte}")
        });
        if path == "/token" {
            let (wanted, token) = behaviour.token.clone().unwrap_or_default();
            return match wanted {
                Some(wanted) if wanted != given => whole(StatusCode::UNAUTHORIZED, "", Vec::new()),
                _ => whole(StatusCode::OK, "application/json", format!("{{\"token\":\"{token}\"}}").into_bytes()),
            };
        }
        if let Some((wanted, challenge)) = &behaviour.authorization
            && given != *wanted
        {
            let mut answer = whole(StatusCode::UNAUTHORIZED, "", Vec::new());
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge.parse().unwrap());
            return answer;
        }
        let Some(key) = path.strip_prefix("/v2/team/app/") else { return whole(StatusCode::NOT_FOUND, "", Vec::new()) };
        if let Some((status, body)) = behaviour.answers.get(key) {
            return whole(*status, "application/json", body.clone());
        }
        let contents = self.contents.lock().unwrap();
        let Some((media_type, bytes)) = contents.get(key) else { return whole(StatusCode::NOT_FOUND, "", Vec::new()) };
        if !key.starts_with("blobs/") {
            return whole(StatusCode::OK, media_type, bytes.clone());
        }
        let start = if behaviour.ignores_ranges { 0 } else { usize::min(from_byte, bytes.len()) };
        let mut answer = part(&bytes[start..], behaviour.break_after_bytes);
        if start > 0 {
            *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
            let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
            answer.headers_mut().insert(header::CONTENT_RANGE, range.parse().unwrap());
        }
        answer
    }
}

fn whole(status: StatusCode, media_type: &str, bytes: Vec<u8>) -> Response<Body> {
    let mut answer = part(&bytes, None);
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, media_type.parse().unwrap());
    answer
}

/// An answer that says how long it is, and may end earlier.
fn part(bytes: &[u8], break_after_bytes: Option<usize>) -> Response<Body> {
    let sent = &bytes[..bytes.len().min(break_after_bytes.unwrap_or(usize::MAX))];
    let first = stream::iter([Ok(Frame::data(Bytes::copy_from_slice(sent)))]);
    let is_cut = sent.len() < bytes.len();
    let rest = stream::iter(is_cut.then_some(())).then(|()| async {
        // What was sent before has to leave, or it would be thrown away with the connection.
        Env::real().sleep(Duration::from_millis(10)).await;
        Err(std::io::Error::other("broken off"))
    });
    let mut answer = Response::new(StreamBody::new(first.chain(rest)).boxed_unsync());
    answer.headers_mut().insert(header::CONTENT_LENGTH, bytes.len().into());
    answer
}
