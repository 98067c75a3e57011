//! The handshake of a WebSocket.

use http::{HeaderValue, Request, Response, StatusCode, header};
use orchestrator_core::status::{ApiError, ApiResult};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};

use super::{
    body::{Body, RequestBody},
    executor::Tasks,
    upgrade::{self, text},
};
use crate::limits;

/// A connection that has left HTTP.
pub(super) type Socket = WebSocketStream<upgrade::Connection>;

/// What both sides agreed on.
pub(super) struct Handshake {
    protocol: &'static str,
    /// The answer to the client's key.
    accept_key: String,
}

impl Handshake {
    /// The first of the client's protocols that is one of these. A client that names none is taken to name the empty one.
    pub(super) fn negotiate(
        request: &Request<RequestBody>,
        protocols: &[&'static str],
    ) -> ApiResult<Result<Self, Response<Body>>> {
        let key = text(request, header::SEC_WEBSOCKET_KEY.as_str());
        if key.is_empty() {
            return Err(ApiError::bad_request("the WebSocket key is missing"));
        }
        let offered: Vec<&str> =
            text(request, header::SEC_WEBSOCKET_PROTOCOL.as_str()).split(',').map(str::trim).collect();
        let protocol = offered.iter().find_map(|offer| protocols.iter().copied().find(|protocol| protocol == offer));
        let accept_key = derive_accept_key(key.as_bytes());
        Ok(protocol.map(|protocol| Self { protocol, accept_key }).ok_or_else(refusal))
    }

    pub(super) fn protocol(&self) -> &'static str {
        self.protocol
    }

    /// Answers that the connection leaves HTTP, and serves it once it has.
    pub(super) fn switch<F>(
        self,
        tasks: &Tasks,
        name: &'static str,
        request: &mut Request<RequestBody>,
        serve: impl FnOnce(Socket) -> F + Send + 'static,
    ) -> Response<Body>
    where
        F: Future<Output = ()> + Send,
    {
        let mut response = upgrade::switch(tasks, name, request, "websocket", |connection| async move {
            let config = WebSocketConfig::default()
                .max_message_size(Some(limits::STREAM_MESSAGE_BYTES * 8))
                .max_frame_size(Some(limits::STREAM_MESSAGE_BYTES * 8));
            serve(WebSocketStream::from_raw_socket(connection, Role::Server, Some(config)).await).await;
        });
        let headers = response.headers_mut();
        if !self.protocol.is_empty() {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(self.protocol));
        }
        if let Ok(value) = HeaderValue::from_str(&self.accept_key) {
            headers.insert(header::SEC_WEBSOCKET_ACCEPT, value);
        }
        response
    }
}

/// The answer to a client that speaks no protocol of ours: nothing but its code, as upstream's library has it.
fn refusal() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::FORBIDDEN;
    response
}
