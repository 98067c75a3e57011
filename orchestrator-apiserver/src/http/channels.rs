//! Messages of a WebSocket's channels: which channel one belongs to, and how its bytes are written.
//!
//! Upstream: `k8s.io/streaming/pkg/httpstream/wsstream`. Clients that can send text only, such as programs in browsers, ask for
//! base64.

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::{BufMut, Bytes, BytesMut};
use futures::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::mpsc,
};
use tokio_tungstenite::tungstenite::{
    Message, Utf8Bytes,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use super::websocket::Socket;
use crate::limits;

/// How a message is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// A byte that is the channel, then the data.
    Binary,
    /// A digit that is the channel, then the data in base64: text.
    Base64,
}

impl Coding {
    /// What a protocol's name says.
    pub(super) fn of(protocol: &str) -> Self {
        if protocol.contains("base64") { Self::Base64 } else { Self::Binary }
    }

    /// A message of a channel.
    pub(super) fn message(self, channel: u8, data: &[u8]) -> Message {
        match self {
            Self::Binary => {
                let mut message = BytesMut::with_capacity(data.len() + 1);
                message.put_u8(channel);
                message.put_slice(data);
                Message::Binary(message.freeze())
            }
            Self::Base64 => {
                let mut message = String::with_capacity(data.len().div_ceil(3) * 4 + 1);
                message.push(char::from(b'0'.wrapping_add(channel)));
                BASE64_STANDARD.encode_string(data, &mut message);
                Message::Text(message.into())
            }
        }
    }

    /// The channel and the data of a message, unless it cannot be read.
    fn read(self, message: &Bytes) -> Option<(u8, Bytes)> {
        let channel = *message.first()?;
        let data = message.slice(1..);
        match self {
            Self::Binary => Some((channel, data)),
            Self::Base64 => Some((channel.checked_sub(b'0')?, BASE64_STANDARD.decode(&data).ok()?.into())),
        }
    }
}

/// Where messages go that a client sends.
pub(super) trait Receiver: Send {
    /// Takes one message's data.
    fn receive(&mut self, channel: u8, data: &[u8]) -> impl Future<Output = ()> + Send;
}

/// Hands on what the client sends until it goes, or sends what cannot be read.
pub(super) async fn read(
    mut source: SplitStream<Socket>,
    coding: Coding,
    sender: mpsc::Sender<Message>,
    receiver: &mut impl Receiver,
) {
    while let Some(Ok(message)) = source.next().await {
        match message {
            Message::Close(_) => break,
            Message::Ping(data) => drop(sender.send(Message::Pong(data)).await),
            Message::Pong(_) => {}
            message => {
                let data = message.into_data();
                if data.is_empty() {
                    continue;
                }
                let Some((channel, data)) = coding.read(&data) else { break };
                receiver.receive(channel, &data).await;
            }
        }
    }
}

/// Sends what comes until it ends.
pub(super) async fn write(mut sink: SplitSink<Socket, Message>, mut outgoing: mpsc::Receiver<Message>) {
    while let Some(message) = outgoing.recv().await {
        let closing = matches!(message, Message::Close(_));
        if sink.send(message).await.is_err() || closing {
            break;
        }
    }
    let _ = sink.flush().await;
}

/// Carries what is read into a channel, until its end.
pub(super) async fn pump(
    mut reader: impl AsyncRead + Unpin,
    coding: Coding,
    channel: u8,
    sender: mpsc::Sender<Message>,
) {
    let mut buffer = vec![0; limits::STREAM_MESSAGE_BYTES];
    while let Ok(count @ 1..) = reader.read(&mut buffer).await {
        if sender.send(coding.message(channel, buffer.get(..count).unwrap_or_default())).await.is_err() {
            return;
        }
    }
}

/// The end of a connection. Without a code, clients take it for a failure.
pub(super) fn closing() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_carry_the_same() {
        for coding in [Coding::Binary, Coding::Base64] {
            let message = coding.message(2, b"\xff\0 text");
            assert_eq!(message.is_text(), coding == Coding::Base64);
            let (channel, data) = coding.read(&message.into_data()).expect("readable");
            assert_eq!((channel, &*data), (2, &b"\xff\0 text"[..]));
        }
    }

    #[test]
    fn no_base64_is_no_message() {
        assert_eq!(Coding::Base64.read(&Bytes::from_static(b"0?")), None);
        assert_eq!(Coding::Base64.read(&Bytes::from_static(b"!aGk=")), None);
        assert_eq!(Coding::of("v4.base64.channel.k8s.io"), Coding::Base64);
    }
}
