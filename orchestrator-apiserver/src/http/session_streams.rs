//! A session over SPDY: the header `streamType` says what each stream is.
//!
//! Upstream: `k8s.io/kubelet/pkg/cri/streaming/remotecommand/httpstream.go`.

use std::{future::pending, pin::pin};

use futures::future::{join, join3, select};
use orchestrator_core::{env::Env, runtime::Session};
use serde_json::Value;
use tokio::{io::AsyncRead, sync::mpsc};

use super::{
    pipe::drain,
    session::{Wanted, change_sizes, exit_status},
    spdy::{Stream, Transport, serve},
};
use crate::{limits, spdy::status};

/// The streams of a session.
#[derive(Default)]
struct Streams {
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    error: Option<Stream>,
    resize: Option<Stream>,
}

/// Carries a session until its command ends or the client goes.
pub(super) async fn run(env: Env, transport: Transport, session: Session, protocol: &str, wanted: Wanted) {
    // The third version brought sizes of the terminal, the fourth a whole status on the error stream.
    let version = match protocol.strip_suffix(".channel.k8s.io") {
        Some("v5" | "v4") => 4,
        Some("v3") => 3,
        _ => 2,
    };
    let sizes = wanted.tty && version >= 3;
    serve(env.clone(), transport, async move |opened| {
        let expected = 1 + [wanted.stdin, wanted.stdout, wanted.stderr, sizes].iter().filter(|is| **is).count();
        match env.timeout(limits::STREAM_CREATION_TIME, collect(opened, expected)).await {
            Ok(streams) => carry(session, streams, version >= 4).await,
            Err(_) => tracing::debug!("timed out waiting for client to create streams"),
        }
    })
    .await;
}

/// Waits for all streams that belong to a session.
async fn collect(mut opened: mpsc::Receiver<Stream>, expected: usize) -> Streams {
    let mut streams = Streams::default();
    let mut count = 0;
    while count < expected
        && let Some(stream) = opened.recv().await
    {
        let place = match stream.headers.get("streamtype") {
            "stdin" => &mut streams.stdin,
            "stdout" => &mut streams.stdout,
            "stderr" => &mut streams.stderr,
            "error" => &mut streams.error,
            "resize" => &mut streams.resize,
            _ => {
                stream.writer.reset(status::REFUSED_STREAM).await;
                continue;
            }
        };
        if place.is_some() {
            stream.writer.reset(status::REFUSED_STREAM).await;
            continue;
        }
        stream.writer.accept().await;
        *place = Some(stream);
        count += 1;
    }
    streams
}

async fn carry(session: Session, streams: Streams, whole_status: bool) {
    let Session { stdin, stdout, stderr, resize, exit } = session;
    let parts = |stream: Option<Stream>| stream.map(|stream| (stream.reader, stream.writer)).unzip();
    let (from_stdin, stdin_writer) = parts(streams.stdin);
    let (from_resize, resize_writer) = parts(streams.resize);
    let output = async {
        // Waiting for the end is what passes on sizes of the terminal: it does not come after the output.
        let (.., exit) = join3(pump(stdout, streams.stdout), pump(stderr, streams.stderr), exit).await;
        let status = exit_status(exit);
        if let Some(Stream { writer, .. }) = streams.error {
            if let Some(text) = report(&status, whole_status) {
                writer.send(text.into()).await;
            }
            writer.finish().await;
        }
        for writer in [stdin_writer, resize_writer].into_iter().flatten() {
            writer.finish().await;
        }
    };
    let input = async {
        let carry = async {
            if let Some(pipe) = from_stdin {
                drain(pipe, stdin).await;
            }
        };
        let sizes = async {
            if let Some(pipe) = from_resize {
                change_sizes(pipe, resize).await;
            }
        };
        join(carry, sizes).await;
        // The session goes on until its command is over.
        pending::<()>().await;
    };
    select(pin!(output), pin!(input)).await;
}

/// Sends all of an output, and its end.
async fn pump(output: Option<impl AsyncRead + Unpin>, stream: Option<Stream>) {
    let Some(Stream { writer, .. }) = stream else { return };
    if let Some(output) = output {
        writer.pump(output).await;
    }
    writer.finish().await;
}

/// What the error stream says: before the fourth version nothing of a success, and only the words of a failure.
fn report(status: &Value, whole: bool) -> Option<String> {
    if whole {
        return Some(status.to_string());
    }
    status["message"].as_str().map(str::to_owned)
}
