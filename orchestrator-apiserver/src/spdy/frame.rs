//! Frames, to bytes and back. What is read comes in pieces of any size, and is bounded.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::headers::{HeaderDecoder, HeaderEncoder, Headers};
use crate::limits;

/// Names a stream of a connection; those of clients are odd.
pub type StreamId = u32;

/// Why a stream is reset.
pub mod status {
    /// The frame makes no sense.
    pub const PROTOCOL_ERROR: u32 = 1;
    /// There is no such stream.
    pub const INVALID_STREAM: u32 = 2;
    /// Nothing was done for the stream.
    pub const REFUSED_STREAM: u32 = 3;
    /// Nobody wants the stream any more.
    pub const CANCEL: u32 = 5;
    /// Data came after the end.
    pub const STREAM_ALREADY_CLOSED: u32 = 9;
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A new stream; `None` for headers that make no sense.
    SynStream {
        /// The new stream.
        stream: StreamId,
        /// What it is for.
        headers: Option<Headers>,
        /// The sender sends nothing on it.
        finished: bool,
        /// The receiver may send nothing on it.
        unidirectional: bool,
    },
    /// A stream is accepted.
    SynReply {
        /// Which stream.
        stream: StreamId,
        /// What is said about it; `None` for headers that make no sense.
        headers: Option<Headers>,
        /// The sender sends nothing on it.
        finished: bool,
    },
    /// A stream is at its end in both directions.
    RstStream {
        /// Which stream.
        stream: StreamId,
        /// One of [`status`].
        status: u32,
    },
    /// What the sender would like; it is of no interest here.
    Settings,
    /// To be sent back as it is by the other side.
    Ping(u32),
    /// The sender takes no new streams.
    GoAway {
        /// The newest stream that was taken.
        last: StreamId,
        /// 0: all is well.
        status: u32,
    },
    /// More headers of a stream; `None` when they make no sense.
    Headers {
        /// Which stream.
        stream: StreamId,
        /// The headers.
        headers: Option<Headers>,
        /// The sender sends nothing more on it.
        finished: bool,
    },
    /// The sender is ready for so much more.
    WindowUpdate {
        /// Which stream; 0 is the connection.
        stream: StreamId,
        /// How many bytes.
        bytes: u32,
    },
    /// Data of a stream. A decoder hands long data out piece by piece.
    Data {
        /// Which stream.
        stream: StreamId,
        /// The data.
        data: Bytes,
        /// The sender sends nothing more on it.
        finished: bool,
    },
}

/// Bytes that are no frames. There is no way to go on after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Another version of SPDY, or no SPDY.
    #[error("SPDY of version {0} is not spoken here")]
    Version(u16),
    /// The length does not fit the kind of frame.
    #[error("a frame of kind {0} has a wrong length or wrong flags")]
    Malformed(u16),
    /// More than a frame may hold.
    #[error("a frame or its headers are too large")]
    TooLarge,
    /// Headers that cannot be read.
    #[error("headers cannot be read")]
    Headers,
    /// The other side does what its role does not allow.
    #[error("stream {0} is not one to open now")]
    StreamId(StreamId),
}

const VERSION: u16 = 3;
const CONTROL: u16 = 0x8000;
const ID_MASK: u32 = 0x7fff_ffff;
const FIN: u8 = 1;
const UNIDIRECTIONAL: u8 = 2;
/// Bytes before the payload of each frame.
const PREFIX_BYTES: usize = 8;

mod kind {
    pub(super) const SYN_STREAM: u16 = 1;
    pub(super) const SYN_REPLY: u16 = 2;
    pub(super) const RST_STREAM: u16 = 3;
    pub(super) const SETTINGS: u16 = 4;
    pub(super) const PING: u16 = 6;
    pub(super) const GOAWAY: u16 = 7;
    pub(super) const HEADERS: u16 = 8;
    pub(super) const WINDOW_UPDATE: u16 = 9;
}

/// Makes frames of bytes.
#[derive(Debug)]
pub struct Decoder {
    buffer: BytesMut,
    headers: HeaderDecoder,
    /// The data frame that is being handed out: what is left of it.
    data: Option<(StreamId, usize, bool)>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { buffer: BytesMut::new(), headers: HeaderDecoder::new(), data: None }
    }
}

impl Decoder {
    /// Takes bytes that have come. All frames in them must be taken out before more is given.
    pub fn give(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes that wait for the rest of their frame.
    pub fn waiting(&self) -> usize {
        self.buffer.len()
    }

    /// The next frame, once all of it has come.
    pub fn take(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            if let Some(rest) = self.data {
                return Ok(self.take_data(rest));
            }
            let Some(prefix) = self.buffer.first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
            let [first @ .., _, _, _, _] = *prefix;
            let [.., flags, high, middle, low] = *prefix;
            let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
            let id = u32::from_be_bytes(first);
            if id & !ID_MASK == 0 {
                self.buffer.advance(PREFIX_BYTES);
                self.data = Some((id, length, flags & FIN != 0));
                continue;
            }
            let [version_high, version_low, kind @ ..] = first;
            let version = u16::from_be_bytes([version_high, version_low]) & !CONTROL;
            if version != VERSION {
                return Err(FrameError::Version(version));
            }
            if length > limits::SPDY_CONTROL_BYTES {
                return Err(FrameError::TooLarge);
            }
            if self.buffer.len() < PREFIX_BYTES + length {
                return Ok(None);
            }
            self.buffer.advance(PREFIX_BYTES);
            let payload = self.buffer.split_to(length);
            // A kind that is not known is skipped, as the specification wants it.
            if let Some(frame) = self.control(u16::from_be_bytes(kind), flags, &payload)? {
                return Ok(Some(frame));
            }
        }
    }

    fn take_data(&mut self, (stream, left, finished): (StreamId, usize, bool)) -> Option<Frame> {
        if self.buffer.is_empty() && left > 0 {
            return None;
        }
        let data = self.buffer.split_to(left.min(self.buffer.len())).freeze();
        let left = left - data.len();
        self.data = (left > 0).then_some((stream, left, finished));
        Some(Frame::Data { stream, data, finished: finished && left == 0 })
    }

    fn control(&mut self, kind: u16, flags: u8, payload: &[u8]) -> Result<Option<Frame>, FrameError> {
        let malformed = FrameError::Malformed(kind);
        let number = |at: usize| -> Result<u32, FrameError> {
            let bytes = payload.get(at..).and_then(|rest| rest.first_chunk()).ok_or(malformed)?;
            Ok(u32::from_be_bytes(*bytes))
        };
        let stream = || number(0).map(|id| id & ID_MASK);
        let exactly = |length: usize| if payload.len() == length && flags == 0 { Ok(()) } else { Err(malformed) };
        let finished = flags & FIN != 0;
        let frame = match kind {
            kind::SYN_STREAM => {
                let block = payload.get(10..).ok_or(malformed)?;
                let (stream, headers) = (stream()?, self.headers.read(block)?);
                Frame::SynStream { stream, headers, finished, unidirectional: flags & UNIDIRECTIONAL != 0 }
            }
            kind::SYN_REPLY | kind::HEADERS => {
                let block = payload.get(4..).ok_or(malformed)?;
                let (stream, headers) = (stream()?, self.headers.read(block)?);
                match kind {
                    kind::SYN_REPLY => Frame::SynReply { stream, headers, finished },
                    _ => Frame::Headers { stream, headers, finished },
                }
            }
            kind::RST_STREAM => {
                exactly(8)?;
                Frame::RstStream { stream: stream()?, status: number(4)? }
            }
            kind::SETTINGS => Frame::Settings,
            kind::PING => {
                exactly(4)?;
                Frame::Ping(number(0)?)
            }
            kind::GOAWAY => {
                exactly(8)?;
                Frame::GoAway { last: stream()?, status: number(4)? }
            }
            kind::WINDOW_UPDATE => {
                exactly(8)?;
                Frame::WindowUpdate { stream: stream()?, bytes: number(4)? & ID_MASK }
            }
            _ => return Ok(None),
        };
        Ok(Some(frame))
    }
}

/// Makes bytes of frames.
#[derive(Debug)]
pub struct Encoder(HeaderEncoder);

impl Default for Encoder {
    fn default() -> Self {
        Self(HeaderEncoder::new())
    }
}

impl Encoder {
    /// Writes one frame. Data has to fit: 16 MiB less a byte.
    pub fn put(&mut self, frame: &Frame, to: &mut BytesMut) {
        let flag = |on: bool, flag: u8| if on { flag } else { 0 };
        match frame {
            Frame::SynStream { stream, headers, finished, unidirectional } => {
                let mut payload = [*stream, 0].map(u32::to_be_bytes).concat();
                payload.extend_from_slice(&[0, 0]);
                payload.extend(self.0.write(headers.as_ref().unwrap_or(&Headers::default())));
                let flags = flag(*finished, FIN) | flag(*unidirectional, UNIDIRECTIONAL);
                put_control(to, kind::SYN_STREAM, flags, &payload);
            }
            Frame::SynReply { stream, headers, finished } | Frame::Headers { stream, headers, finished } => {
                let reply = matches!(frame, Frame::SynReply { .. });
                let kind = if reply { kind::SYN_REPLY } else { kind::HEADERS };
                let mut payload = stream.to_be_bytes().to_vec();
                payload.extend(self.0.write(headers.as_ref().unwrap_or(&Headers::default())));
                put_control(to, kind, flag(*finished, FIN), &payload);
            }
            Frame::Settings => put_control(to, kind::SETTINGS, 0, &[0; 4]),
            Frame::Ping(id) => put_control(to, kind::PING, 0, &id.to_be_bytes()),
            Frame::RstStream { stream: id, status: number } => put_pair(to, kind::RST_STREAM, *id, *number),
            Frame::GoAway { last: id, status: number } => put_pair(to, kind::GOAWAY, *id, *number),
            Frame::WindowUpdate { stream: id, bytes: number } => put_pair(to, kind::WINDOW_UPDATE, *id, *number),
            Frame::Data { stream, data, finished } => {
                to.put_u32(stream & ID_MASK);
                put_length(to, flag(*finished, FIN), data.len());
                to.put_slice(data);
            }
        }
    }
}

fn put_pair(to: &mut BytesMut, kind: u16, id: u32, number: u32) {
    put_control(to, kind, 0, &[id, number].map(u32::to_be_bytes).concat());
}

fn put_control(to: &mut BytesMut, kind: u16, flags: u8, payload: &[u8]) {
    to.put_u16(CONTROL | VERSION);
    to.put_u16(kind);
    put_length(to, flags, payload.len());
    to.put_slice(payload);
}

fn put_length(to: &mut BytesMut, flags: u8, length: usize) {
    to.put_u8(flags);
    to.put_uint(u64::try_from(length).unwrap_or_default(), 3);
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
