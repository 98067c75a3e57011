//! What a container says: from its pipes or terminal into its log, and to those who are attached.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use nix::{fcntl::OFlag, unistd::pipe2};
use orchestrator_core::runtime::LogStream;

use super::log_writer::{LogWriter, PendingLine};
use crate::limits::ATTACH_BACKLOG_BYTES;

/// How much is read from one source before others have their turn, in bytes.
const TURN_BYTES: usize = 256 * 1024;

/// The output of one container, and its input if it has one.
pub(super) struct Output {
    log: LogWriter,
    sources: Vec<Source>,
    listeners: Vec<Listener>,
    pub(super) input: Input,
}

/// Where a container's input comes from.
pub(super) enum Input {
    /// It has none.
    None,
    /// Through a pipe, whose writing end this is.
    Pipe(OwnedFd),
    /// Through its terminal.
    Terminal(OwnedFd),
}

struct Source {
    file: File,
    stream: LogStream,
    line: PendingLine,
}

/// Someone who is attached to one of the streams.
struct Listener {
    file: File,
    stream: LogStream,
    pending: VecDeque<u8>,
}

impl Output {
    pub(super) fn new(log: LogWriter) -> Self {
        Self { log, sources: Vec::new(), listeners: Vec::new(), input: Input::None }
    }

    /// Listens to a stream. The descriptor does not block.
    pub(super) fn add(&mut self, descriptor: OwnedFd, stream: LogStream) {
        self.sources.push(Source { file: File::from(descriptor), stream, line: PendingLine::new(stream) });
    }

    /// Descriptors to read from, by number.
    pub(super) fn sources(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        self.sources.iter().enumerate().map(|(number, source)| (number, source.file.as_fd()))
    }

    /// Descriptors that wait to be written to.
    pub(super) fn waiting_listeners(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.listeners.iter().filter(|listener| !listener.pending.is_empty()).map(|listener| listener.file.as_fd())
    }

    /// Whether all streams have ended.
    pub(super) fn is_over(&self) -> bool {
        self.sources.is_empty()
    }

    /// Copies what a source has to say; the source is gone once it has ended. The numbers of sources behind it change
    /// then, so sources are pumped from the last to the first.
    pub(super) fn pump(&mut self, number: usize) {
        let Some(source) = self.sources.get_mut(number) else { return };
        let mut chunk = [0; 16 * 1024];
        let mut turn = 0;
        let ended = loop {
            if turn >= TURN_BYTES {
                break false;
            }
            match source.file.read(&mut chunk) {
                Ok(0) => break true,
                Ok(count) => {
                    turn += count;
                    // A full disk must not stop the container; what cannot be written is lost.
                    let _ = self.log.write(&mut source.line, &chunk[..count]);
                    for listener in self.listeners.iter_mut().filter(|listener| listener.stream == source.stream) {
                        listener.pending.extend(&chunk[..count]);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A terminal ends with an error.
                Err(_) => break true,
            }
        };
        if ended {
            let mut source = self.sources.remove(number);
            let _ = self.log.end(&mut source.line);
        }
        self.feed();
    }

    /// Gives up on the streams that have not ended.
    pub(super) fn abandon(&mut self) {
        for mut source in self.sources.drain(..) {
            let _ = self.log.end(&mut source.line);
        }
    }

    /// Passes on what listeners can take. One that is too far behind, or gone, is let go. Once the streams have
    /// ended, a listener that has everything hears the end.
    pub(super) fn feed(&mut self) {
        let over = self.sources.is_empty();
        self.listeners.retain_mut(|listener| {
            loop {
                let (front, _) = listener.pending.as_slices();
                if front.is_empty() {
                    return !over;
                }
                match listener.file.write(front) {
                    Ok(count) => drop(listener.pending.drain(..count)),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        return listener.pending.len() <= ATTACH_BACKLOG_BYTES;
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => return false,
                }
            }
        });
    }

    /// A pipe from which a stream can be read from now on.
    pub(super) fn listen(&mut self, stream: LogStream) -> io::Result<OwnedFd> {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        self.listeners.push(Listener { file: File::from(writer), stream, pending: VecDeque::new() });
        Ok(reader)
    }
}
