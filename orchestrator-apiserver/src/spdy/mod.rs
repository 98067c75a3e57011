//! SPDY/3.1 as clients of Kubernetes speak it: frames, their compressed headers, and what a server makes of them.
//!
//! Everything here is pure; `http::spdy` carries the bytes. Kubernetes' SPDY has no flow control: neither `kubectl` nor upstream's
//! servers send or heed `WINDOW_UPDATE`, so it is read and ignored here, too.
//!
//! Specification: <https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/>.

mod connection;
mod dictionary;
mod frame;
mod headers;

pub use connection::{Connection, Event};
pub use frame::{Decoder, Encoder, Frame, FrameError, StreamId, status};
pub use headers::Headers;
