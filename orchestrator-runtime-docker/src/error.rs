//! Why a word with the engine failed.

use std::time::Duration;

use bollard::errors::Error as ClientError;
use orchestrator_core::runtime::RuntimeError;

/// Podman's words for what it refuses, and the status with which Docker does.
const PODMAN_REFUSALS: [(&str, u16); 12] = [
    ("invalid argument", 400),
    ("invalid signal", 400),
    ("no command or entrypoint provided", 400),
    ("unknown capability", 400),
    ("is already used on the host", 403),
    ("image not known", 404),
    ("no such container", 404),
    ("container already exists", 409),
    ("container state improper", 409),
    ("network already exists", 409),
    ("network is being used", 409),
    ("that name is already in use", 409),
];

/// Why a call to the Docker Engine failed. It is the source of [`RuntimeError::Internal`].
///
/// Whatever it is, the same call can be made again: nothing of what was asked for is lost, and nothing is done twice.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// Nobody listens at the engine's socket.
    #[error("the Docker Engine at {socket} cannot be reached: {message}")]
    Unreachable {
        /// Path of the socket.
        socket: String,
        /// What the attempt said.
        message: String,
    },
    /// The engine took longer than it may.
    #[error("the Docker Engine did not answer within {0:?}")]
    Slow(Duration),
    /// The engine went away in the middle.
    #[error("the connection to the Docker Engine broke: {0}")]
    Broken(String),
    /// The engine said no.
    #[error("{message}")]
    Refused {
        /// The status of its answer, as in HTTP.
        status: u16,
        /// What it said.
        message: String,
    },
    /// The engine's answer is not one.
    #[error("the Docker Engine's answer cannot be read: {0}")]
    Unreadable(String),
}

impl EngineError {
    pub(crate) fn new(socket: &str, timeout: Duration, error: ClientError) -> Self {
        let unreachable = |message| Self::Unreachable { socket: socket.to_owned(), message };
        match error {
            ClientError::DockerResponseServerError { status_code, message } => Self::refused(status_code, &message),
            ClientError::DockerStreamError { error } => Self::refused(500, &error),
            ClientError::SocketNotFoundError(_) => unreachable("there is no such socket".to_owned()),
            ClientError::HyperLegacyError { err } if err.is_connect() => unreachable(chain(&err)),
            ClientError::RequestTimeoutError => Self::Slow(timeout),
            error @ (ClientError::JsonDataError { .. } | ClientError::JsonSerdeError { .. }) => {
                Self::Unreadable(chain(&error))
            }
            error => Self::Broken(chain(&error)),
        }
    }

    /// What the engine refused with. Podman calls nearly every refusal a failure of its own, and says in words what it is.
    pub(crate) fn refused(status: u16, message: &str) -> Self {
        let message = message.trim();
        let meant = PODMAN_REFUSALS.iter().find(|(words, _)| status == 500 && message.contains(words));
        Self::Refused { status: meant.map_or(status, |(_, meant)| *meant), message: message.to_owned() }
    }

    /// What the engine refused with, if it did.
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// There is no such thing on the engine.
    pub(crate) fn is_not_found(&self) -> bool {
        self.status() == Some(404)
    }

    /// The thing is in no state for the call, or its name is taken.
    pub(crate) fn is_conflict(&self) -> bool {
        self.status() == Some(409)
    }

    /// As an error of the runtime, with what was being done.
    pub(crate) fn during(self, context: impl Into<String>) -> RuntimeError {
        RuntimeError::internal(context, self)
    }
}

/// An error with all that it comes from.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
