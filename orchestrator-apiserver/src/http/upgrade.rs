//! Leaving HTTP: which of the ways for streams a client asks for.

use http::{Request, header};
use orchestrator_core::status::{ApiError, ApiResult};

use super::{body::RequestBody, spdy, websocket};

/// What both sides agreed on.
pub(super) enum Upgrade {
    /// A WebSocket, which `kubectl` uses since 1.31.
    WebSocket(websocket::Handshake),
    /// SPDY, which everyone used before.
    Spdy(spdy::Handshake),
}

impl Upgrade {
    /// The protocols are those that are spoken over each way.
    pub(super) fn negotiate(
        request: &Request<RequestBody>,
        over_web_socket: &[&'static str],
        over_spdy: &[&'static str],
    ) -> ApiResult<Self> {
        let wanted = text(request, header::UPGRADE.as_str());
        if wanted.eq_ignore_ascii_case("websocket") {
            return websocket::Handshake::negotiate(request, over_web_socket).map(Self::WebSocket);
        }
        if wanted.eq_ignore_ascii_case(spdy::VERSION) {
            return spdy::Handshake::negotiate(request, over_spdy).map(Self::Spdy);
        }
        Err(ApiError::bad_request("Upgrade request required"))
    }
}

/// A header's text, or none.
pub(super) fn text<'a>(request: &'a Request<RequestBody>, name: &str) -> &'a str {
    request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}
