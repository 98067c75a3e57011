//! Port-forward over the channels of a WebSocket: two for each port, one for its data and one for what goes wrong.
//!
//! Upstream: `k8s.io/kubelet/pkg/cri/streaming/portforward/websocket.go`. The first message of each channel is the port, two
//! bytes in little endian.

use std::{future::pending, pin::pin};

use bytes::Bytes;
use futures::{
    SinkExt, StreamExt,
    future::{Either, join_all, select},
    stream::SplitSink,
};
use orchestrator_core::env::Env;
use tokio::{io::DuplexStream, sync::mpsc};
use tokio_tungstenite::tungstenite::Message;

use super::{
    pipe::{drain, feed},
    port_forward::ForwardedPod,
    websocket::{Socket, closing, framed, pump},
};
use crate::limits;

/// Carries data until all ports are at their end or the client goes.
pub(super) async fn run(env: Env, socket: Socket, pod: ForwardedPod, ports: Vec<u16>) {
    let (sink, mut source) = socket.split();
    let (sender, outgoing) = mpsc::channel(16);
    let work = async move {
        let pipes = ports.iter().map(|_| tokio::io::duplex(limits::STREAM_BUFFER_BYTES));
        let (near, far): (Vec<_>, Vec<_>) = pipes.map(|(near, far)| (Some(near), far)).unzip();
        let output = async {
            let channels = (0_u8..=u8::MAX).step_by(2);
            let connections = ports.iter().zip(channels).zip(far);
            join_all(connections.map(|((port, channel), far)| forward(&pod, *port, channel, far, &sender))).await;
            let _ = sender.send(closing()).await;
        };
        let mut incoming = Incoming { env, pipes: near, sender: sender.clone() };
        let input = async {
            while let Some(Ok(message)) = source.next().await {
                match message {
                    Message::Close(_) => break,
                    Message::Ping(data) => drop(incoming.sender.send(Message::Pong(data)).await),
                    message => incoming.message(&message.into_data()).await,
                }
            }
        };
        // The client has gone, or nothing will come any more.
        select(pin!(output), pin!(input)).await;
    };
    // What is on its way goes out before the end.
    if let Either::Left(((), write)) = select(Box::pin(work), Box::pin(write(sink, outgoing))).await {
        write.await;
    }
}

/// Connects one port, and says on its channels which one it is, or why it is none.
async fn forward(
    pod: &ForwardedPod,
    port: u16,
    channel: u8,
    from_client: DuplexStream,
    sender: &mpsc::Sender<Message>,
) {
    for channel in [channel, channel + 1] {
        let _ = sender.send(framed(channel, &port.to_le_bytes())).await;
    }
    match pod.connect(port).await {
        Ok(connection) => {
            let (reader, writer) = tokio::io::split(connection);
            let input = async {
                drain(from_client, Some(writer)).await;
                pending::<()>().await;
            };
            select(pin!(pump(reader, channel, sender.clone())), pin!(input)).await;
        }
        Err(text) => drop(sender.send(framed(channel + 1, text.as_bytes())).await),
    }
}

async fn write(mut sink: SplitSink<Socket, Message>, mut outgoing: mpsc::Receiver<Message>) {
    while let Some(message) = outgoing.recv().await {
        if sink.send(message).await.is_err() {
            return;
        }
    }
    let _ = sink.flush().await;
}

/// What comes from the client, and where it goes.
struct Incoming {
    env: Env,
    pipes: Vec<Option<DuplexStream>>,
    sender: mpsc::Sender<Message>,
}

impl Incoming {
    /// One message. A port that takes nothing more is closed.
    async fn message(&mut self, data: &[u8]) {
        let [channel, data @ ..] = data else { return };
        let place = self.pipes.get_mut(usize::from(channel / 2)).filter(|_| channel.is_multiple_of(2));
        let probe = || drop(self.sender.try_send(Message::Ping(Bytes::new())));
        if let Some(place) = place
            && let Some(pipe) = place
            && !feed(&self.env, pipe, data, probe).await
        {
            *place = None;
        }
    }
}
