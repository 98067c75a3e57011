//! Connections that stop speaking HTTP: the engine's answer to an exec and an attach is a stream in both directions.
//!
//! The client library reads such streams line by line or frame by frame, whichever it takes them for; a terminal's bytes can
//! look like either. So the bytes are taken as they come here, and whoever asked knows what they are.

use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Bytes, client::conn::http1, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use orchestrator_core::env::{Env, TaskHandle};
use tokio::net::UnixStream;

use crate::{error::EngineError, limits::REFUSAL_BYTES};

/// The bytes of a connection, and the task that brought it about.
pub(crate) struct Upgrade {
    pub(crate) stream: TokioIo<Upgraded>,
    /// It ends when the connection was handed over.
    _connection: TaskHandle,
}

/// Makes a request whose answer is a stream.
pub(crate) async fn upgrade(env: &Env, socket: &str, path: &str, body: Vec<u8>) -> Result<Upgrade, EngineError> {
    let unreachable =
        |error: std::io::Error| EngineError::Unreachable { socket: socket.to_owned(), message: error.to_string() };
    let broken = |error: hyper::Error| EngineError::Broken(error.to_string());
    let stream = UnixStream::connect(socket).await.map_err(unreachable)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let connection = env.spawn("docker-upgrade", async move {
        // How it ended is told to whoever waits for the answer.
        let _ = connection.with_upgrades().await;
    });
    let request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(header::HOST, "docker")
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "tcp")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::<Bytes>::from(body))
        .map_err(|error| EngineError::Unreadable(error.to_string()))?;
    let answer = sender.send_request(request).await.map_err(broken)?;
    let status = answer.status();
    if status != StatusCode::SWITCHING_PROTOCOLS {
        let body = Limited::new(answer.into_body(), REFUSAL_BYTES).collect().await;
        let body = body.map_err(|error| EngineError::Broken(error.to_string()))?.to_bytes();
        return Err(EngineError::Refused { status: status.as_u16(), message: refusal(&body) });
    }
    let stream = hyper::upgrade::on(answer).await.map_err(broken)?;
    Ok(Upgrade { stream: TokioIo::new(stream), _connection: connection })
}

/// What the engine says when it refuses, without the JSON around it.
fn refusal(body: &[u8]) -> String {
    let said = serde_json::from_slice::<serde_json::Value>(body).ok();
    let message = said.as_ref().and_then(|said| said.get("message")?.as_str());
    message.map_or_else(|| String::from_utf8_lossy(body).trim().to_owned(), str::to_owned)
}
