//! Extenders over HTTP, as upstream speaks to them. Nothing else in this crate names HTTP.
//!
//! Each call is one POST of JSON over a connection of its own; answers are bounded, and whoever calls bounds the time.

mod tls;
mod wire;

use std::{collections::BTreeMap, pin::pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::future::{Either, select};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, Uri, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Node, Pod};
use orchestrator_core::scheduler::PodInfo;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use self::tls::Tls;
pub use self::tls::TlsOptions;
use crate::{
    extender::{Counter, Duties, Extender, ExtenderError, Filtered, Offer},
    limits::{EXTENDER_ANSWER_BYTES, EXTENDER_LONGEST},
};

/// What upstream's configuration says of an extender. Without a verb it does not have that duty.
#[derive(Clone, Debug)]
pub struct HttpExtenderOptions {
    /// What all of its URLs begin with.
    pub url_prefix: String,
    /// What the URL for looking at nodes ends with.
    pub filter_verb: String,
    /// What the URL for comparing nodes ends with.
    pub prioritize_verb: String,
    /// What the URL for looking at victims ends with.
    pub preempt_verb: String,
    /// What the URL for binding ends with.
    pub bind_verb: String,
    /// What its scores are multiplied by.
    pub weight: i64,
    /// Speaks TLS; without an authority to trust, with anyone.
    pub enable_https: bool,
    /// Whom TLS trusts.
    pub tls: TlsOptions,
    /// How long an answer may take.
    pub timeout: Duration,
    /// It knows the nodes: it is told their names only.
    pub node_cache_capable: bool,
    /// It is only interested in pods that ask for one of these resources; in all pods if there are none.
    pub managed_resources: Vec<String>,
    /// Scheduling goes on without it when it fails.
    pub ignorable: bool,
}

impl Default for HttpExtenderOptions {
    fn default() -> Self {
        let none = String::new;
        Self {
            url_prefix: none(),
            filter_verb: none(),
            prioritize_verb: none(),
            preempt_verb: none(),
            bind_verb: none(),
            weight: 1,
            enable_https: false,
            tls: TlsOptions::default(),
            timeout: EXTENDER_LONGEST,
            node_cache_capable: false,
            managed_resources: Vec::new(),
            ignorable: false,
        }
    }
}

/// Why an extender cannot be called at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidExtender {
    /// Its URL does not say where it is.
    #[error("must be a URL such as http://127.0.0.1:8888/scheduler")]
    Url,
    /// Certificates or a key cannot be used.
    #[error("{0}")]
    Tls(String),
    /// Nobody is named to be trusted.
    #[error(
        "over https, caData or caFile, or insecure, must be set, or enableHTTPS: the machine's own authorities are not used"
    )]
    Untrusted,
}

/// An extender over HTTP. It needs the tokio runtime of [`Env::real`](orchestrator_core::env::Env::real).
#[derive(Debug)]
pub struct HttpExtender {
    options: HttpExtenderOptions,
    uri: Uri,
    host: String,
    port: u16,
    tls: Option<Tls>,
}

impl HttpExtender {
    /// As the options say.
    pub fn new(options: HttpExtenderOptions) -> Result<Self, InvalidExtender> {
        let uri: Uri = options.url_prefix.parse().map_err(|_| InvalidExtender::Url)?;
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(InvalidExtender::Url),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or(InvalidExtender::Url)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let has_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        if has_user || uri.query().is_some() {
            return Err(InvalidExtender::Url);
        }
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let tls = if is_tls { Some(Tls::new(&options.tls, options.enable_https, &host)?) } else { None };
        Ok(Self { options, uri, host, port, tls })
    }

    /// Whether any of a pod's containers asks for a resource that the extender manages.
    fn manages(&self, pod: &Pod) -> bool {
        let managed = |name: &String| self.options.managed_resources.contains(name);
        let spec = pod.spec.as_ref();
        let containers =
            spec.into_iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
        let resources = containers.filter_map(|container| container.resources.as_ref());
        let amounts = resources.flat_map(|resources| resources.requests.iter().chain(&resources.limits));
        amounts.flat_map(BTreeMap::keys).any(managed)
    }

    async fn send(&self, verb: &str, body: Result<Vec<u8>, serde_json::Error>) -> Result<Value, ExtenderError> {
        let url = format!("{}/{verb}", self.options.url_prefix.trim_end_matches('/'));
        let failed = |error: String| ExtenderError::new(format!("Post {url:?}: {error}"));
        let body = body.map_err(|error| failed(error.to_string()))?;
        let (status, answer) = self.exchange(verb, body).await.map_err(|error| failed(error.to_string()))?;
        if status != StatusCode::OK {
            let code = status.as_u16();
            return Err(ExtenderError::new(format!("failed {verb} with extender at URL {url}, code {code}")));
        }
        serde_json::from_slice(&answer).map_err(|error| ExtenderError::new(error.to_string()))
    }

    async fn exchange(&self, verb: &str, body: Vec<u8>) -> Result<(StatusCode, Bytes), BoxError> {
        let path = format!("{}/{verb}", self.uri.path().trim_end_matches('/'));
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(header::HOST, self.uri.authority().map_or(self.host.as_str(), |authority| authority.as_str()))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONNECTION, "close")
            .body(Full::from(body))?;
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        match &self.tls {
            None => exchange(stream, request).await,
            Some(tls) => exchange(tls.connect(stream).await?, request).await,
        }
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// One request and its answer. The connection lives no longer than that.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), BoxError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), EXTENDER_ANSWER_BYTES).collect().await?;
        Ok((status, body.to_bytes()))
    };
    match select(pin!(answer), pin!(connection)).await {
        Either::Left((answer, _)) => answer,
        // It ends first where the other side closes it behind the answer.
        Either::Right((_, answer)) => answer.await,
    }
}

#[async_trait]
impl Extender for HttpExtender {
    fn name(&self) -> &str {
        &self.options.url_prefix
    }

    fn duties(&self) -> Duties {
        let options = &self.options;
        Duties {
            filters: !options.filter_verb.is_empty(),
            prioritizes: (!options.prioritize_verb.is_empty()).then_some(options.weight),
            preempts: !options.preempt_verb.is_empty(),
            binds: !options.bind_verb.is_empty(),
        }
    }

    fn is_interested(&self, pod: &PodInfo) -> bool {
        self.options.managed_resources.is_empty() || self.manages(pod)
    }

    fn is_ignorable(&self) -> bool {
        self.options.ignorable
    }

    fn timeout(&self) -> Duration {
        self.options.timeout
    }

    async fn filter(&self, pod: &PodInfo, nodes: &[Arc<Node>]) -> Result<Filtered, ExtenderError> {
        let knows_nodes = self.options.node_cache_capable;
        let answer = self.send(&self.options.filter_verb, wire::nodes(pod, nodes, knows_nodes)).await?;
        wire::read_filtered(&answer, knows_nodes)
    }

    async fn prioritize(&self, pod: &PodInfo, nodes: &[Arc<Node>]) -> Result<BTreeMap<String, i64>, ExtenderError> {
        let args = wire::nodes(pod, nodes, self.options.node_cache_capable);
        let answer = self.send(&self.options.prioritize_verb, args).await?;
        wire::read_scores(&answer)
    }

    async fn preempt(&self, pod: &PodInfo, offers: &[Offer]) -> Result<Vec<Counter>, ExtenderError> {
        let args = wire::victims(pod, offers, self.options.node_cache_capable);
        let answer = self.send(&self.options.preempt_verb, args).await?;
        wire::read_counters(&answer)
    }

    async fn bind(&self, pod: &PodInfo, node: &str) -> Result<(), ExtenderError> {
        let answer = self.send(&self.options.bind_verb, wire::binding(pod, node)).await?;
        wire::read_error(&answer)
    }
}
