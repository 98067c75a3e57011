//! The server's side of a connection: which streams there are, and what each frame means for them.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::frame::{Frame, FrameError, StreamId, status};
use super::headers::Headers;
use crate::limits;

/// What the other side has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It has opened a stream, which waits for [`Connection::accept`] or [`Connection::reset`].
    Opened(StreamId, Headers),
    /// It has sent data on an open stream.
    Data(StreamId, Bytes),
    /// It sends nothing more on a stream.
    Finished(StreamId),
    /// It has ended a stream in both directions.
    Reset(StreamId),
    /// This is to be sent back.
    Answer(Frame),
}

/// Which directions of a stream are open.
#[derive(Clone, Copy, Debug)]
struct Stream {
    incoming: bool,
    outgoing: bool,
}

/// The streams of one connection.
#[derive(Debug, Default)]
pub struct Connection {
    streams: BTreeMap<StreamId, Stream>,
    newest: StreamId,
}

impl Connection {
    /// What a frame means. After an error the connection is of no use.
    pub fn receive(&mut self, frame: Frame) -> Result<Vec<Event>, FrameError> {
        Ok(match frame {
            Frame::SynStream { stream, headers, finished, unidirectional } => {
                self.open(stream, headers, Stream { incoming: !finished, outgoing: !unidirectional })?
            }
            Frame::Data { stream, data, finished } => self.data(stream, data, finished),
            Frame::Headers { stream, finished: true, .. } | Frame::SynReply { stream, finished: true, .. } => {
                self.data(stream, Bytes::new(), true)
            }
            Frame::RstStream { stream, .. } => {
                self.streams.remove(&stream).map(|_| Event::Reset(stream)).into_iter().collect()
            }
            // The ids of clients are odd; an even one answers a ping of ours.
            Frame::Ping(id) if id % 2 == 1 => vec![Event::Answer(Frame::Ping(id))],
            Frame::Ping(_)
            | Frame::Headers { .. }
            | Frame::SynReply { .. }
            | Frame::Settings
            | Frame::GoAway { .. }
            | Frame::WindowUpdate { .. } => Vec::new(),
        })
    }

    fn open(&mut self, id: StreamId, headers: Option<Headers>, stream: Stream) -> Result<Vec<Event>, FrameError> {
        if id.is_multiple_of(2) || id <= self.newest {
            return Err(FrameError::StreamId(id));
        }
        self.newest = id;
        let Some(headers) = headers else { return Ok(refusal(id, status::PROTOCOL_ERROR)) };
        if self.streams.len() >= limits::SPDY_STREAMS {
            return Ok(refusal(id, status::REFUSED_STREAM));
        }
        self.streams.insert(id, stream);
        let finished = (!stream.incoming).then_some(Event::Finished(id));
        Ok([Event::Opened(id, headers)].into_iter().chain(finished).collect())
    }

    fn data(&mut self, id: StreamId, data: Bytes, finished: bool) -> Vec<Event> {
        match self.streams.get_mut(&id) {
            Some(stream) if stream.incoming => stream.incoming = !finished,
            Some(_) => {
                self.streams.remove(&id);
                let answer = refusal(id, status::STREAM_ALREADY_CLOSED);
                return [vec![Event::Reset(id)], answer].concat();
            }
            // Of a stream that has ended here some may still be on its way.
            None if id <= self.newest && id % 2 == 1 => return Vec::new(),
            None => return refusal(id, status::INVALID_STREAM),
        }
        self.forget_ended(id);
        let data = (!data.is_empty()).then_some(Event::Data(id, data));
        data.into_iter().chain(finished.then_some(Event::Finished(id))).collect()
    }

    fn forget_ended(&mut self, id: StreamId) {
        if self.streams.get(&id).is_some_and(|stream| !stream.incoming && !stream.outgoing) {
            self.streams.remove(&id);
        }
    }

    /// Whether a stream is open in any direction.
    pub fn is_open(&self, id: StreamId) -> bool {
        self.streams.contains_key(&id)
    }

    /// Whether anything can be sent on a stream.
    fn is_writable(&self, id: StreamId) -> bool {
        self.streams.get(&id).is_some_and(|stream| stream.outgoing)
    }

    /// Takes a stream that was opened.
    pub fn accept(&mut self, id: StreamId) -> Option<Frame> {
        let reply = Frame::SynReply { stream: id, headers: Some(Headers::default()), finished: false };
        self.is_writable(id).then_some(reply)
    }

    /// Sends data on a stream; `None` when it takes none any more.
    pub fn send(&mut self, id: StreamId, data: Bytes) -> Option<Frame> {
        self.is_writable(id).then_some(Frame::Data { stream: id, data, finished: false })
    }

    /// Says that nothing more will be sent on a stream.
    pub fn finish(&mut self, id: StreamId) -> Option<Frame> {
        let stream = self.streams.get_mut(&id).filter(|stream| stream.outgoing)?;
        stream.outgoing = false;
        self.forget_ended(id);
        Some(Frame::Data { stream: id, data: Bytes::new(), finished: true })
    }

    /// Ends a stream in both directions.
    pub fn reset(&mut self, id: StreamId, status: u32) -> Option<Frame> {
        self.streams.remove(&id).map(|_| Frame::RstStream { stream: id, status })
    }

    /// Says that the connection is about to end.
    pub fn go_away(&self) -> Frame {
        Frame::GoAway { last: self.newest, status: 0 }
    }
}

fn refusal(stream: StreamId, status: u32) -> Vec<Event> {
    vec![Event::Answer(Frame::RstStream { stream, status })]
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
