//! The agent's side of the socket to a helper.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream as BlockingUnixStream,
    },
};

use orchestrator_core::runtime::RuntimeError;
use tokio::{
    io::{AsyncWriteExt, Interest},
    net::UnixStream,
};

use crate::{
    descriptors,
    layout::SandboxDirectory,
    protocol::{Failure, Reply, Request, decode, encode},
};

/// A connection to a helper, with one request on its way.
#[derive(Debug)]
pub(crate) struct HelperConnection {
    stream: UnixStream,
    buffer: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

/// Why a helper did not answer.
#[derive(Debug)]
pub(crate) enum CallError {
    /// There is no helper, or it ended before it answered.
    Gone,
    /// It answered that it failed, or the machine failed.
    Failed(RuntimeError),
}

impl HelperConnection {
    /// Connects to a sandbox's helper and asks it for something.
    pub(crate) async fn open(directory: &SandboxDirectory, request: &Request) -> Result<Self, CallError> {
        let frame = encode(request).map_err(internal)?;
        let stream = connect(directory).map_err(internal)?.ok_or(CallError::Gone)?;
        let mut connection = Self { stream, buffer: Vec::new(), descriptors: Vec::new() };
        match connection.stream.write_all(&frame).await {
            Err(error) if is_gone(&error) => Err(CallError::Gone),
            other => other.map(|()| connection).map_err(internal),
        }
    }

    /// The next reply, with the descriptors that came along. A failure is an error.
    pub(crate) async fn next(&mut self) -> Result<(Reply, Vec<OwnedFd>), CallError> {
        let mut chunk = [0; 16 * 1024];
        loop {
            if let Some(reply) = decode::<Reply>(&mut self.buffer).map_err(internal)? {
                if let Reply::Failed { kind, message } = reply {
                    return Err(CallError::Failed(Failure { kind, message }.into()));
                }
                return Ok((reply, std::mem::take(&mut self.descriptors)));
            }
            self.stream.readable().await.map_err(internal)?;
            let (stream, descriptors) = (&self.stream, &mut self.descriptors);
            let received = stream.try_io(Interest::READABLE, || descriptors::receive(stream, &mut chunk, descriptors));
            match received {
                Ok(0) => return Err(CallError::Gone),
                Ok(count) => self.buffer.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_gone(&error) => return Err(CallError::Gone),
                Err(error) => return Err(internal(error)),
            }
        }
    }

    /// Waits until the helper has hung up.
    pub(crate) async fn closed(mut self) {
        while self.next().await.is_ok() {}
    }
}

/// Asks a helper for something and waits for its one reply.
pub(crate) async fn call(directory: &SandboxDirectory, request: &Request) -> Result<(Reply, Vec<OwnedFd>), CallError> {
    HelperConnection::open(directory, request).await?.next().await
}

/// Paths of sockets are short, so the directory is named by its descriptor.
fn connect(directory: &SandboxDirectory) -> io::Result<Option<UnixStream>> {
    let handle = match File::open(directory.path()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let path = format!("/proc/self/fd/{}/{}", handle.as_raw_fd(), SandboxDirectory::socket_name());
    match BlockingUnixStream::connect(path) {
        Ok(stream) => {
            stream.set_nonblocking(true)?;
            Ok(Some(UnixStream::from_std(stream)?))
        }
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound};
    matches!(error.kind(), BrokenPipe | ConnectionRefused | ConnectionReset | NotFound)
}

fn internal(error: io::Error) -> CallError {
    CallError::Failed(RuntimeError::internal("talking to the pod helper", error))
}
