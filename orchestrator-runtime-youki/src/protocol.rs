//! What agent and helper say to each other: frames of JSON, each after its length; descriptors travel beside them.

use std::io;

use orchestrator_core::runtime::{AttachOptions, ContainerId, ExecOptions, RuntimeError, SandboxId};

use crate::{limits::FRAME_BYTES, records::ContainerRecord};

/// What an agent asks of a helper; one per connection.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) enum Request {
    /// Writes the container down. Answer: [`Reply::Done`].
    Create(Box<ContainerRecord>),
    /// Starts a container. Answer: [`Reply::Done`] once its program runs.
    Start { id: ContainerId },
    /// Stops a container. Answer: [`Reply::Done`] once it has ended.
    Stop { id: ContainerId, grace_milliseconds: u64 },
    /// Removes a container. Answer: [`Reply::Done`] once nothing of it is left.
    Remove { id: ContainerId },
    /// Stops all containers and takes the network down. Answer: [`Reply::Done`].
    StopSandbox,
    /// Removes everything and ends the helper. Answer: [`Reply::Done`], then the end of the connection.
    RemoveSandbox,
    /// Runs a command. Answers: [`Reply::Streams`], then [`Reply::Ended`]. Hanging up kills the command.
    Exec { id: ContainerId, options: ExecOptions },
    /// Joins a container's streams. Answers: [`Reply::Streams`], then [`Reply::Ended`] with the container's code.
    Attach { id: ContainerId, options: AttachOptions },
    /// Connects to a port in the pod. Answer: [`Reply::Connected`].
    Connect { port: u16 },
    /// Wants to hear of changes. Answers: [`Reply::Done`], then [`Reply::Changed`] again and again.
    Subscribe,
}

/// What a helper answers.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) enum Reply {
    /// It is done.
    Done,
    /// It failed.
    Failed { kind: FailureKind, message: String },
    /// The streams of a command: with a terminal one descriptor, else those asked for, in order.
    Streams { stdin: bool, stdout: bool, stderr: bool, terminal: bool },
    /// The command has ended.
    Ended { exit_code: i32 },
    /// The descriptor that comes along is connected.
    Connected,
    /// This container, or without a name the sandbox, changed.
    Changed { container: Option<ContainerId> },
}

/// Which [`RuntimeError`] a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum FailureKind {
    NoContainer,
    WrongState,
    Unsupported,
    Invalid,
    StartFailed,
    Internal,
}

/// A failure on its way to the agent.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    pub(crate) fn internal(context: &str, error: impl std::fmt::Display) -> Self {
        Self::new(FailureKind::Internal, format!("{context}: {error}"))
    }

    pub(crate) fn no_container(id: &ContainerId) -> Self {
        Self::new(FailureKind::NoContainer, id.0.clone())
    }
}

impl From<Failure> for Reply {
    fn from(failure: Failure) -> Self {
        Self::Failed { kind: failure.kind, message: failure.message }
    }
}

impl From<Failure> for RuntimeError {
    fn from(failure: Failure) -> Self {
        let message = failure.message;
        match failure.kind {
            FailureKind::NoContainer => Self::NotFound { kind: "container", id: message },
            FailureKind::WrongState => Self::WrongState(message),
            FailureKind::Unsupported => Self::Unsupported(message),
            FailureKind::Invalid => Self::Invalid(message),
            FailureKind::StartFailed => Self::StartFailed(message),
            FailureKind::Internal => Self::internal("pod helper", message),
        }
    }
}

/// What a helper that starts or sweeps says when it is ready or done, on its standard output.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) enum Outcome {
    /// It worked.
    Done,
    /// It did not.
    Failed(String),
}

/// What a one-shot helper is to do, on its standard input.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) enum Errand {
    /// Makes a sandbox and stays as its helper.
    Sandbox(Box<crate::records::SandboxRecord>),
    /// Ends what an abandoned sandbox left running and writes down how its containers ended.
    Settle { root: std::path::PathBuf, id: SandboxId },
    /// The same, and removes the sandbox.
    Sweep { root: std::path::PathBuf, id: SandboxId },
    /// Removes the cluster's bridge, unless addresses are in use.
    RemoveNetwork { directory: std::path::PathBuf },
}

/// Makes a frame.
pub(crate) fn encode(message: &impl serde::Serialize) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let length = frame.len() - 4;
    if length > FRAME_BYTES {
        return Err(io::Error::other(format!("a message of {length} bytes is too long")));
    }
    frame[..4].copy_from_slice(&(length as u32).to_be_bytes());
    Ok(frame)
}

/// Takes the first whole frame off a buffer.
pub(crate) fn decode<T: serde::de::DeserializeOwned>(buffer: &mut Vec<u8>) -> io::Result<Option<T>> {
    let Some((head, _)) = buffer.split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*head) as usize;
    if length > FRAME_BYTES {
        return Err(io::Error::other(format!("a message of {length} bytes is too long")));
    }
    if buffer.len() < 4 + length {
        return Ok(None);
    }
    let message = serde_json::from_slice(&buffer[4..4 + length])?;
    buffer.drain(..4 + length);
    Ok(Some(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_whole_and_in_order() {
        let mut bytes = encode(&Reply::Ended { exit_code: 3 }).unwrap();
        bytes.extend(encode(&Reply::Done).unwrap());
        let mut buffer = Vec::new();
        let mut seen = Vec::new();
        for byte in bytes {
            buffer.push(byte);
            while let Some(reply) = decode::<Reply>(&mut buffer).unwrap() {
                seen.push(reply);
            }
        }
        assert!(matches!(seen[..], [Reply::Ended { exit_code: 3 }, Reply::Done]));
        assert!(decode::<Reply>(&mut vec![0xff; 8]).is_err());
    }
}
