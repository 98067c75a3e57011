//! Requests whose answers the client library cannot take.
//!
//! Connections that stop speaking HTTP: the engine's answer to an exec and an attach is a stream in both directions. The client
//! library reads such streams line by line or frame by frame, whichever it takes them for; a terminal's bytes can look like
//! either. So the bytes are taken as they come here, and whoever asked knows what they are.
//!
//! Documents with words that are not Docker's: they are read as they are, and put right before they become types.

use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    body::{Bytes, Incoming},
    client::conn::http1,
    upgrade::Upgraded,
};
use hyper_util::rt::TokioIo;
use orchestrator_core::env::{Env, TaskHandle};
use tokio::net::UnixStream;

use crate::{
    error::EngineError,
    limits::{ANSWER_BYTES, REFUSAL_BYTES},
};

/// The bytes of a connection, and the task that brought it about.
pub(crate) struct Upgrade {
    pub(crate) stream: TokioIo<Upgraded>,
    /// It ends when the connection was handed over.
    _connection: TaskHandle,
}

/// Makes a request whose answer is a stream.
pub(crate) async fn upgrade(env: &Env, socket: &str, path: &str, body: Vec<u8>) -> Result<Upgrade, EngineError> {
    let request = Request::post(path)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "tcp")
        .header(header::CONTENT_TYPE, "application/json");
    let (answer, connection) = send(env, socket, request, body).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = answer.status().as_u16();
        return Err(EngineError::refused(status, &refusal(&read(answer, REFUSAL_BYTES).await?)));
    }
    let stream = hyper::upgrade::on(answer).await.map_err(broken)?;
    Ok(Upgrade { stream: TokioIo::new(stream), _connection: connection })
}

/// Asks for a document.
pub(crate) async fn get(env: &Env, socket: &str, path: &str) -> Result<serde_json::Value, EngineError> {
    let (answer, _connection) = send(env, socket, Request::get(path), Vec::new()).await?;
    if answer.status() != StatusCode::OK {
        let status = answer.status().as_u16();
        return Err(EngineError::refused(status, &refusal(&read(answer, REFUSAL_BYTES).await?)));
    }
    let body = read(answer, ANSWER_BYTES).await?;
    serde_json::from_slice(&body).map_err(|error| EngineError::Unreadable(error.to_string()))
}

/// Text as part of a request's query.
pub(crate) fn query(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    text.bytes()
        .map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// Makes a request on a connection of its own.
async fn send(
    env: &Env,
    socket: &str,
    request: http::request::Builder,
    body: Vec<u8>,
) -> Result<(Response<Incoming>, TaskHandle), EngineError> {
    let unreachable =
        |error: std::io::Error| EngineError::Unreachable { socket: socket.to_owned(), message: error.to_string() };
    let stream = UnixStream::connect(socket).await.map_err(unreachable)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let connection = env.spawn("docker-request", async move {
        // How it ended is told to whoever waits for the answer.
        let _ = connection.with_upgrades().await;
    });
    let request = request
        .header(header::HOST, "docker")
        .body(Full::<Bytes>::from(body))
        .map_err(|error| EngineError::Unreadable(error.to_string()))?;
    Ok((sender.send_request(request).await.map_err(broken)?, connection))
}

async fn read(answer: Response<Incoming>, most_bytes: usize) -> Result<Bytes, EngineError> {
    let body = Limited::new(answer.into_body(), most_bytes).collect().await;
    Ok(body.map_err(|error| EngineError::Broken(error.to_string()))?.to_bytes())
}

fn broken(error: hyper::Error) -> EngineError {
    EngineError::Broken(error.to_string())
}

/// What the engine says when it refuses, without the JSON around it.
fn refusal(body: &[u8]) -> String {
    let said = serde_json::from_slice::<serde_json::Value>(body).ok();
    let message = said.as_ref().and_then(|said| said.get("message")?.as_str());
    message.map_or_else(|| String::from_utf8_lossy(body).trim().to_owned(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_have_nothing_but_plain_characters() {
        assert_eq!(query("{\"a.b\":[\"c=d\"]}"), "%7B%22a.b%22%3A%5B%22c%3Dd%22%5D%7D");
        assert_eq!(query("é"), "%C3%A9");
    }
}
