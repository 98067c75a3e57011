//! One agent's connection to a helper: a request comes in, replies go out, nothing blocks.

use std::{
    collections::VecDeque,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use crate::{
    descriptors,
    limits::CONNECTION_BACKLOG_BYTES,
    protocol::{Reply, Request, decode, encode},
};

/// A connection.
pub(super) struct Connection {
    stream: UnixStream,
    input: Vec<u8>,
    output: VecDeque<Outgoing>,
    output_bytes: usize,
    asked: bool,
    /// Hang up once everything is out.
    last_reply_given: bool,
    pub(super) subscribed: bool,
}

struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    descriptors: Vec<OwnedFd>,
}

impl Connection {
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            input: Vec::new(),
            output: VecDeque::new(),
            output_bytes: 0,
            asked: false,
            last_reply_given: false,
            subscribed: false,
        })
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    pub(super) fn wants_to_write(&self) -> bool {
        !self.output.is_empty()
    }

    /// Whether all has been said.
    pub(super) fn is_over(&self) -> bool {
        self.last_reply_given && self.output.is_empty()
    }

    /// Reads what has arrived: the request, once it is whole. The end of the connection is an error.
    pub(super) fn read(&mut self) -> io::Result<Option<Request>> {
        let mut chunk = [0; 16 * 1024];
        loop {
            match descriptors::receive(&self.stream, &mut chunk, &mut Vec::new()) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) if self.asked => return Err(io::Error::other("a second request on one connection")),
                Ok(count) => self.input.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.asked {
            return Ok(None);
        }
        let request = decode(&mut self.input)?;
        self.asked = request.is_some();
        Ok(request)
    }

    /// Queues a reply and sends what can be sent.
    pub(super) fn reply(&mut self, reply: &Reply, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        let bytes = encode(reply)?;
        if self.output_bytes + bytes.len() > CONNECTION_BACKLOG_BYTES {
            return Err(io::Error::other("the other side does not read"));
        }
        self.output_bytes += bytes.len();
        self.output.push_back(Outgoing { bytes, sent: 0, descriptors });
        self.flush()
    }

    /// Queues the last reply.
    pub(super) fn finish(&mut self, reply: &Reply, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        self.last_reply_given = true;
        self.reply(reply, descriptors)
    }

    /// Sends what can be sent.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while let Some(outgoing) = self.output.front_mut() {
            let borrowed: Vec<BorrowedFd<'_>> = outgoing.descriptors.iter().map(AsFd::as_fd).collect();
            match descriptors::send(&self.stream, &outgoing.bytes[outgoing.sent..], &borrowed) {
                Ok(count) => {
                    drop(borrowed);
                    // The descriptors went with the first byte; the other side has its own now.
                    outgoing.descriptors.clear();
                    outgoing.sent += count;
                    if outgoing.sent == outgoing.bytes.len() {
                        self.output_bytes -= outgoing.bytes.len();
                        self.output.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
