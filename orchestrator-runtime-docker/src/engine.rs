//! The engine's client: connected when it is first needed, and every call bounded in time.

use std::{path::PathBuf, time::Duration};

use bollard::{API_DEFAULT_VERSION, Docker, errors::Error as ClientError};
use futures::{Stream, StreamExt};
use orchestrator_core::env::Env;
use tokio::sync::Mutex;

use crate::{error::EngineError, http, http::Upgrade};

/// A Docker Engine behind a socket.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) env: Env,
    socket: String,
    call_time: Duration,
    /// With the version of the API that both sides speak, once somebody has asked.
    client: Mutex<Option<Docker>>,
}

impl Engine {
    pub(crate) fn new(env: Env, socket: PathBuf, call_time: Duration) -> Self {
        Self { env, socket: socket.to_string_lossy().into_owned(), call_time, client: Mutex::default() }
    }

    /// Makes a call. The whole of it, connecting and reading the answer included, takes no longer than it may.
    pub(crate) async fn call<T, F>(&self, call: impl FnOnce(Docker) -> F) -> Result<T, EngineError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let whole = async {
            let client = self.client().await?;
            call(client).await.map_err(|error| self.error(error))
        };
        let result = self.env.timeout(self.call_time, whole).await;
        let result = result.unwrap_or_else(|elapsed| Err(EngineError::Slow(elapsed.0)));
        // Another engine may have come in the place of the one that was asked for its version.
        if matches!(&result, Err(EngineError::Refused { status: 400, message }) if message.contains("client version")) {
            *self.client.lock().await = None;
        }
        result
    }

    /// The client itself, for what goes on for longer than a call.
    pub(crate) async fn client(&self) -> Result<Docker, EngineError> {
        let mut known = self.client.lock().await;
        if let Some(client) = &*known {
            return Ok(client.clone());
        }
        // The bound is that of `call`; the client's own is in whole seconds, and comes later.
        let seconds = self.call_time.as_secs().saturating_add(2);
        let client = Docker::connect_with_unix(&self.socket, seconds, API_DEFAULT_VERSION);
        let client = client.map_err(|error| self.error(error))?;
        let negotiated = self.env.timeout(self.call_time, client.negotiate_version()).await;
        let client = match negotiated {
            Ok(client) => client.map_err(|error| self.error(error))?,
            Err(elapsed) => return Err(EngineError::Slow(elapsed.0)),
        };
        Ok(known.insert(client).clone())
    }

    /// Reads a stream of progress to its end; `stall` is the longest that it may be silent.
    pub(crate) async fn drain<T>(
        &self,
        stall: Duration,
        stream: impl Stream<Item = Result<T, ClientError>>,
    ) -> Result<Vec<T>, EngineError> {
        let mut stream = std::pin::pin!(stream);
        let mut items = Vec::new();
        loop {
            match self.env.timeout(stall, stream.next()).await {
                Ok(Some(item)) => items.push(item.map_err(|error| self.error(error))?),
                Ok(None) => return Ok(items),
                Err(elapsed) => return Err(EngineError::Slow(elapsed.0)),
            }
        }
    }

    /// Makes a request whose answer is a stream in both directions.
    pub(crate) async fn upgrade(&self, path: &str, body: Vec<u8>) -> Result<Upgrade, EngineError> {
        let whole = async {
            let version = self.client().await?.client_version();
            let path = format!("/v{version}{path}");
            http::upgrade(&self.env, &self.socket, &path, body).await
        };
        let result = self.env.timeout(self.call_time, whole).await;
        result.unwrap_or_else(|elapsed| Err(EngineError::Slow(elapsed.0)))
    }

    pub(crate) fn error(&self, error: ClientError) -> EngineError {
        EngineError::new(&self.socket, self.call_time, error)
    }
}
