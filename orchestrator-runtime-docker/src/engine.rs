//! The engine's client: connected when it is first needed, and every call bounded in time.

use std::{path::PathBuf, time::Duration};

use bollard::{API_DEFAULT_VERSION, Docker, errors::Error as ClientError};
use futures::{Stream, StreamExt};
use orchestrator_core::env::Env;
use serde::de::DeserializeOwned;
use serde_json::Value;
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
        self.bounded(async {
            let client = self.client().await?;
            call(client).await.map_err(|error| self.error(error))
        })
        .await
    }

    /// Asks for something that the client library cannot read, because Podman has a word in it that Docker has not: a container
    /// is "stopped" when its process has ended and what it leaves behind is not put away yet.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, EngineError> {
        let mut answer = self
            .bounded(async {
                let path = format!("/v{}{path}", self.client().await?.client_version());
                http::get(&self.env, &self.socket, &path).await
            })
            .await?;
        states_of_docker(&mut answer);
        serde_json::from_value(answer).map_err(|error| EngineError::Unreadable(error.to_string()))
    }

    async fn bounded<T>(&self, whole: impl Future<Output = Result<T, EngineError>>) -> Result<T, EngineError> {
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
        self.bounded(async {
            let version = self.client().await?.client_version();
            let path = format!("/v{version}{path}");
            http::upgrade(&self.env, &self.socket, &path, body).await
        })
        .await
    }

    pub(crate) fn error(&self, error: ClientError) -> EngineError {
        EngineError::new(&self.socket, self.call_time, error)
    }
}

/// Podman's word for a container that has ended becomes Docker's, in what is told of one container or of several.
fn states_of_docker(answer: &mut Value) {
    let word = |state: &mut Value| {
        if state.as_str() == Some("stopped") {
            *state = Value::from("exited");
        }
    };
    match answer {
        Value::Array(all) => all.iter_mut().filter_map(|one| one.get_mut("State")).for_each(word),
        one => {
            if let Some(state) = one.pointer_mut("/State/Status") {
                word(state);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_stopped_container_has_exited() {
        let mut one = json!({ "State": { "Status": "stopped", "ExitCode": 3 } });
        states_of_docker(&mut one);
        assert_eq!(one, json!({ "State": { "Status": "exited", "ExitCode": 3 } }));
        let mut several = json!([{ "State": "stopped" }, { "State": "running" }, {}]);
        states_of_docker(&mut several);
        assert_eq!(several, json!([{ "State": "exited" }, { "State": "running" }, {}]));
    }
}
