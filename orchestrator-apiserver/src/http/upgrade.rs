//! Leaving HTTP: which of the ways for streams a client asks for.

use std::sync::Arc;

use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use orchestrator_core::status::{ApiError, ApiResult};

use super::{
    body::{Body, RequestBody},
    executor::Tasks,
    spdy, websocket,
};
use crate::metrics::Gauge;

/// A connection that has left HTTP.
pub(super) type Connection = TokioIo<hyper::upgrade::Upgraded>;

/// Counts a request among those that run for as long as it lives. Requests carry it, so that a session has it, too.
#[derive(Clone, Debug)]
pub(super) struct Running {
    _gauge: Arc<Gauge>,
}

impl Running {
    pub(super) fn new(gauge: Arc<Gauge>) -> Self {
        Self { _gauge: gauge }
    }
}

/// What both sides agreed on.
pub(super) enum Upgrade {
    /// A WebSocket, which `kubectl` uses since 1.31.
    WebSocket(websocket::Handshake),
    /// SPDY, which everyone used before.
    Spdy(spdy::Handshake),
}

impl Upgrade {
    /// The protocols are those that are spoken over each way. Where there is none that both speak, the answer says so.
    pub(super) fn negotiate(
        request: &Request<RequestBody>,
        over_web_socket: &[&'static str],
        over_spdy: &[&'static str],
    ) -> ApiResult<Result<Self, Response<Body>>> {
        let wanted = text(request, header::UPGRADE.as_str());
        if wanted.eq_ignore_ascii_case("websocket") {
            let handshake = websocket::Handshake::negotiate(request, over_web_socket)?;
            return Ok(handshake.map(Self::WebSocket));
        }
        if wanted.eq_ignore_ascii_case(spdy::VERSION) {
            let handshake = spdy::Handshake::negotiate(request, over_spdy)?;
            return Ok(handshake.map(Self::Spdy));
        }
        Err(ApiError::bad_request("Upgrade request required"))
    }
}

/// Answers that the connection goes on in another protocol, and serves it once it does.
pub(super) fn switch<F>(
    tasks: &Tasks,
    name: &'static str,
    request: &mut Request<RequestBody>,
    to: &'static str,
    serve: impl FnOnce(Connection) -> F + Send + 'static,
) -> Response<Body>
where
    F: Future<Output = ()> + Send,
{
    let running = request.extensions_mut().remove::<Running>();
    let upgrade = hyper::upgrade::on(request);
    tasks.spawn(name, async move {
        if let Ok(upgraded) = upgrade.await {
            serve(TokioIo::new(upgraded)).await;
        }
        drop(running);
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static(to));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    response
}

/// A header's text, or none.
pub(super) fn text<'a>(request: &'a Request<RequestBody>, name: &str) -> &'a str {
    request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}
