//! A session over a WebSocket: its streams are channels.
//!
//! Upstream: KEP-4006. In `v5.channel.k8s.io` a client can end a channel of its own.

use std::{future::pending, pin::pin};

use bytes::Bytes;
use futures::{
    StreamExt,
    future::{Either, join, join_all, select},
};
use orchestrator_core::{env::Env, runtime::Session};
use tokio::{io::DuplexStream, sync::mpsc};
use tokio_tungstenite::tungstenite::Message;

use super::{
    channels::{Coding, Receiver, closing, pump, read, write},
    pipe::{drain, feed},
    session::{change_sizes, exit_status},
    websocket::Socket,
};
use crate::limits;

/// Channels of a session.
mod channel {
    pub(super) const STDIN: u8 = 0;
    pub(super) const STDOUT: u8 = 1;
    pub(super) const STDERR: u8 = 2;
    pub(super) const ERROR: u8 = 3;
    pub(super) const RESIZE: u8 = 4;
    /// Version 5: the channel that the next byte names is at its end.
    pub(super) const CLOSE: u8 = 255;
}

/// Carries a session until its command ends or the client goes.
pub(super) async fn run(env: Env, socket: Socket, coding: Coding, session: Session) {
    let Session { stdin, stdout, stderr, resize, exit } = session;
    let (sink, source) = socket.split();
    let (sender, outgoing) = mpsc::channel::<Message>(16);
    let output = {
        let sender = sender.clone();
        async move {
            let outputs = [(stdout, channel::STDOUT), (stderr, channel::STDERR)].into_iter();
            let outputs = outputs.filter_map(|(reader, channel)| Some(pump(reader?, coding, channel, sender.clone())));
            // Waiting for the end is what passes on sizes of the terminal: it does not come after the output.
            let (_, exit) = join(join_all(outputs), exit).await;
            let status = exit_status(exit);
            let _ = sender.send(coding.message(channel::ERROR, status.to_string().as_bytes())).await;
            let _ = sender.send(closing()).await;
        }
    };
    let input = async move {
        // A command that does not read hinders nothing else that comes from the client.
        let (to_stdin, from_stdin) = tokio::io::duplex(limits::STREAM_BUFFER_BYTES);
        let (to_resize, from_resize) = tokio::io::duplex(limits::STREAM_BUFFER_BYTES);
        let carry = async {
            join(drain(from_stdin, stdin), change_sizes(from_resize, resize)).await;
            pending::<()>().await;
        };
        let mut incoming = Incoming { env, stdin: Some(to_stdin), resize: Some(to_resize), sender: sender.clone() };
        select(pin!(read(source, coding, sender, &mut incoming)), pin!(carry)).await;
    };
    // The session is over when the command is, or when the client has gone: then the command goes, too.
    let work = async {
        select(pin!(output), pin!(input)).await;
    };
    if let Either::Left(((), write)) = select(Box::pin(work), Box::pin(write(sink, outgoing))).await {
        write.await;
    }
}

/// What comes from the client, and where it goes.
struct Incoming {
    env: Env,
    stdin: Option<DuplexStream>,
    resize: Option<DuplexStream>,
    sender: mpsc::Sender<Message>,
}

impl Receiver for Incoming {
    async fn receive(&mut self, channel: u8, data: &[u8]) {
        let place = match (channel, data) {
            (channel::STDIN, _) => &mut self.stdin,
            (channel::RESIZE, _) => &mut self.resize,
            (channel::CLOSE, [channel::STDIN]) => {
                self.stdin = None;
                return;
            }
            _ => return,
        };
        let probe = || drop(self.sender.try_send(Message::Ping(Bytes::new())));
        if let Some(pipe) = place
            && !feed(&self.env, pipe, data, probe).await
        {
            *place = None;
        }
    }
}
