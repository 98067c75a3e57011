//! Forked copies of the helper that do what blocks or changes the process: calling libcontainer, removing things.

use std::{
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    panic::{AssertUnwindSafe, catch_unwind},
};

use nix::{
    sys::{
        prctl,
        signal::{SigSet, Signal},
    },
    unistd::{ForkResult, Pid},
};

use crate::{
    descriptors,
    protocol::{Failure, decode, encode},
    sys,
};

/// What a worker tells the helper.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(super) enum WorkerMessage {
    /// This process exists now. A container's waits until it is told to go on. With a terminal, its descriptor comes
    /// along.
    Running { pid: i32 },
    /// The container's own program runs.
    Started,
    /// The command has ended.
    Ended { exit_code: i32 },
    /// It did not work.
    Failed { kind: crate::protocol::FailureKind, message: String },
    /// It worked.
    Done,
}

/// The helper's side of a worker.
pub(super) struct Worker {
    pub(super) pid: Pid,
    channel: UnixStream,
    buffer: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

/// The worker's side.
pub(super) struct WorkerChannel {
    stream: UnixStream,
}

impl Worker {
    /// Starts a worker. Of the helper's descriptors, it has only those to keep.
    pub(super) fn spawn(
        keep: &[RawFd],
        work: impl FnOnce(&mut WorkerChannel) -> Result<WorkerMessage, Failure>,
    ) -> io::Result<Self> {
        let (here, there) = UnixStream::pair()?;
        match sys::fork()? {
            ForkResult::Parent { child } => {
                here.set_nonblocking(true)?;
                Ok(Self { pid: child, channel: here, buffer: Vec::new(), descriptors: Vec::new() })
            }
            ForkResult::Child => {
                let mut channel = WorkerChannel { stream: there };
                let result = catch_unwind(AssertUnwindSafe(|| {
                    prepare(keep, &channel).map_err(|error| Failure::internal("preparing a worker", error))?;
                    work(&mut channel)
                }));
                let last = match result {
                    Ok(Ok(message)) => message,
                    Ok(Err(failure)) => WorkerMessage::Failed { kind: failure.kind, message: failure.message },
                    Err(_) => {
                        let failure = Failure::internal("a worker", "panicked; see helper.log");
                        WorkerMessage::Failed { kind: failure.kind, message: failure.message }
                    }
                };
                let _ = channel.send(&last, &[]);
                sys::exit_now(0)
            }
        }
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }

    /// Takes what has arrived. The second value is `false` once the worker has hung up.
    pub(super) fn receive(&mut self) -> io::Result<(Vec<WorkerMessage>, bool)> {
        let mut open = true;
        let mut chunk = [0; 4096];
        loop {
            match descriptors::receive(&self.channel, &mut chunk, &mut self.descriptors) {
                Ok(0) => {
                    open = false;
                    break;
                }
                Ok(count) => self.buffer.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let mut messages = Vec::new();
        while let Some(message) = decode(&mut self.buffer)? {
            messages.push(message);
        }
        Ok((messages, open))
    }

    /// The descriptor that came with a message.
    pub(super) fn take_descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptors.pop()
    }

    /// Lets the worker go on after [`WorkerMessage::Running`].
    pub(super) fn go(&mut self) -> io::Result<()> {
        self.channel.write_all(b"g")
    }
}

impl WorkerChannel {
    /// Tells the helper something.
    pub(super) fn send(&mut self, message: &WorkerMessage, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let frame = encode(message)?;
        let sent = descriptors::send(&self.stream, &frame, descriptors)?;
        self.stream.write_all(&frame[sent..])
    }

    /// Waits until the helper says to go on.
    pub(super) fn wait(&mut self) -> io::Result<()> {
        self.stream.read_exact(&mut [0])
    }
}

/// Undoes what a copy of the helper should not pass on to the programs that it executes.
fn prepare(keep: &[RawFd], channel: &WorkerChannel) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    SigSet::empty().thread_set_mask()?;
    sys::restore_signal_actions();
    let mut keep = keep.to_vec();
    keep.push(channel.stream.as_raw_fd());
    sys::close_others(&keep)
}
