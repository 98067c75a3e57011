//! Port-forward over the channels of a WebSocket: two for each port, one for its data and one for what goes wrong.
//!
//! Upstream: `k8s.io/kubelet/pkg/cri/streaming/portforward/websocket.go`. The first message of each channel is the port, two
//! bytes in little endian.

use std::{future::pending, pin::pin};

use bytes::Bytes;
use futures::{
    StreamExt,
    future::{Either, join_all, select},
};
use orchestrator_core::env::Env;
use tokio::{io::DuplexStream, sync::mpsc};
use tokio_tungstenite::tungstenite::Message;

use super::{
    channels::{Coding, Receiver, closing, pump, read, write},
    pipe::{drain, feed},
    port_forward::ForwardedPod,
    websocket::Socket,
};
use crate::limits;

/// Carries data until all ports are at their end or the client goes.
pub(super) async fn run(env: Env, socket: Socket, coding: Coding, pod: ForwardedPod, ports: Vec<u16>) {
    let (sink, source) = socket.split();
    let (sender, outgoing) = mpsc::channel(16);
    let work = async move {
        let pipes = ports.iter().map(|_| tokio::io::duplex(limits::STREAM_BUFFER_BYTES));
        let (near, far): (Vec<_>, Vec<_>) = pipes.map(|(near, far)| (Some(near), far)).unzip();
        let output = async {
            let channels = (0_u8..=u8::MAX).step_by(2);
            let connections = ports.iter().zip(channels).zip(far);
            join_all(connections.map(|((port, channel), far)| forward(&pod, *port, coding, channel, far, &sender)))
                .await;
            let _ = sender.send(closing()).await;
        };
        let mut incoming = Incoming { env, pipes: near, sender: sender.clone() };
        let input = read(source, coding, sender.clone(), &mut incoming);
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
    coding: Coding,
    channel: u8,
    from_client: DuplexStream,
    sender: &mpsc::Sender<Message>,
) {
    for channel in [channel, channel + 1] {
        let _ = sender.send(coding.message(channel, &port.to_le_bytes())).await;
    }
    match pod.connect(port).await {
        Ok(connection) => {
            let (reader, writer) = tokio::io::split(connection);
            let input = async {
                drain(from_client, Some(writer)).await;
                pending::<()>().await;
            };
            select(pin!(pump(reader, coding, channel, sender.clone())), pin!(input)).await;
        }
        Err(text) => drop(sender.send(coding.message(channel + 1, text.as_bytes())).await),
    }
}

/// What comes from the client, and where it goes.
struct Incoming {
    env: Env,
    pipes: Vec<Option<DuplexStream>>,
    sender: mpsc::Sender<Message>,
}

impl Receiver for Incoming {
    /// A port that takes nothing more is closed.
    async fn receive(&mut self, channel: u8, data: &[u8]) {
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
