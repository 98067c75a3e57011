//! Takes a container's streams apart, and puts its input on its way.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::{Either, select};
use orchestrator_core::env::{Env, TaskHandle};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex},
    sync::oneshot,
};

use crate::limits::SESSION_BUFFER_BYTES;

/// Length of what comes before each piece of output: which stream, and how many bytes.
const HEADER_BYTES: usize = 8;

/// Which streams somebody wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    /// One stream as it is, instead of two in pieces.
    pub(crate) tty: bool,
}

/// The streams, each on its own, and the end of the output.
pub(crate) struct Streams {
    pub(crate) stdin: Option<Stream>,
    pub(crate) stdout: Option<Stream>,
    pub(crate) stderr: Option<Stream>,
    /// Resolves when the engine has nothing more to say.
    pub(crate) over: oneshot::Receiver<()>,
    /// Keeps the streams going.
    pub(crate) task: Arc<TaskHandle>,
}

/// One of the streams; all of them together keep the pump at work.
pub(crate) struct Stream {
    pipe: DuplexStream,
    _task: Arc<TaskHandle>,
}

/// Starts the pump. What nobody reads any more is let go; what is read slowly waits.
pub(crate) fn pump<S>(env: &Env, connection: S, wanted: Wanted) -> Streams
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let pipe = |wanted: bool| {
        let (near, far) = duplex(SESSION_BUFFER_BYTES);
        if wanted { (Some(near), Some(far)) } else { (None, None) }
    };
    let (stdin, input) = pipe(wanted.stdin);
    let (stdout, output) = pipe(wanted.stdout);
    let (stderr, error_output) = pipe(wanted.stderr && !wanted.tty);
    let (said, over) = oneshot::channel();
    let task = env.spawn("docker-streams", async move {
        let (read, write) = tokio::io::split(connection);
        let sending = std::pin::pin!(async move {
            if let Err(error) = send(input, write).await {
                tracing::debug!(%error, "a container takes no more input");
            }
            // The output goes on for as long as there is some.
            std::future::pending::<()>().await;
        });
        let receiving = std::pin::pin!(receive(read, output, error_output, wanted.tty));
        if let Either::Left((Err(error), _)) = select(receiving, sending).await {
            tracing::debug!(%error, "a container's output broke off");
        }
        let _ = said.send(());
    });
    let task = Arc::new(task);
    let stream = |pipe: Option<DuplexStream>| pipe.map(|pipe| Stream { pipe, _task: Arc::clone(&task) });
    Streams { stdin: stream(stdin), stdout: stream(stdout), stderr: stream(stderr), over, task }
}

/// Passes input on; its end is told, and the other direction goes on.
async fn send(input: Option<DuplexStream>, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    let Some(mut input) = input else {
        // Held, because letting it go could end the connection.
        return std::future::pending().await;
    };
    tokio::io::copy(&mut input, &mut to).await?;
    to.shutdown().await?;
    std::future::pending().await
}

async fn receive(
    mut from: impl AsyncRead + Unpin,
    mut output: Option<DuplexStream>,
    mut error_output: Option<DuplexStream>,
    tty: bool,
) -> io::Result<()> {
    let mut buffer = vec![0; SESSION_BUFFER_BYTES];
    loop {
        let (mut left, is_error) = if tty {
            (u64::MAX, false)
        } else {
            match header(&mut from).await? {
                Some(header) => header,
                None => return Ok(()),
            }
        };
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let count = from.read(&mut buffer[..most]).await?;
            if count == 0 {
                return if tty { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
            left -= count as u64;
            let to = if is_error { &mut error_output } else { &mut output };
            if let Some(pipe) = to
                && pipe.write_all(&buffer[..count]).await.is_err()
            {
                *to = None;
            }
        }
    }
}

/// How long the next piece is, and whether it is of standard error; `None` at the end.
async fn header(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<(u64, bool)>> {
    let mut header = [0; HEADER_BYTES];
    let mut filled = 0;
    while filled < HEADER_BYTES {
        match from.read(&mut header[filled..]).await? {
            0 if filled == 0 => return Ok(None),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => filled += count,
        }
    }
    let [kind, _, _, _, length @ ..] = header;
    Ok(Some((u64::from(u32::from_be_bytes(length)), kind == 2)))
}

/// All output of a short stream as text, up to so many bytes.
pub(crate) async fn text(from: impl AsyncRead + Unpin, tty: bool, most_bytes: usize) -> String {
    let (output, mut reader) = duplex(most_bytes);
    let mut bytes = Vec::new();
    let limited = async {
        // More than fits is not read.
        let _ = (&mut reader).take(most_bytes as u64).read_to_end(&mut bytes).await;
        drop(reader);
    };
    let _ = futures::join!(receive(from, Some(output), None, tty), limited);
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use orchestrator_core::env::Simulation;

    use super::*;

    const BOTH: Wanted = Wanted { stdin: true, stdout: true, stderr: true, tty: false };

    fn piece(kind: u8, text: &str) -> Vec<u8> {
        let mut bytes = vec![kind, 0, 0, 0];
        bytes.extend((text.len() as u32).to_be_bytes());
        bytes.extend(text.as_bytes());
        bytes
    }

    #[test]
    fn pieces_go_their_ways() {
        let simulation = Simulation::new(1);
        let env = simulation.env();
        let done = simulation.run(async {
            let (near, mut far) = duplex(5);
            let mut streams = pump(&env, near, BOTH);
            let mut stdin = streams.stdin.take().unwrap();
            let (mut out, mut error, mut got) = (String::new(), String::new(), String::new());
            let engine = async {
                far.read_to_string(&mut got).await.unwrap();
                let pieces = [piece(1, "out "), piece(2, "error"), piece(1, ""), piece(1, "and more")].concat();
                far.write_all(&pieces).await.unwrap();
                far.shutdown().await.unwrap();
            };
            let user = async {
                stdin.write_all(b"input").await.unwrap();
                drop(stdin);
            };
            let (mut stdout, mut stderr) = (streams.stdout.take().unwrap(), streams.stderr.take().unwrap());
            let _ = futures::join!(engine, user, stdout.read_to_string(&mut out), stderr.read_to_string(&mut error));
            streams.over.await.unwrap();
            assert_eq!((out.as_str(), error.as_str(), got.as_str()), ("out and more", "error", "input"));
        });
        done.unwrap();
    }

    #[test]
    fn a_terminal_is_taken_as_it_is() {
        let simulation = Simulation::new(1);
        let env = simulation.env();
        let done = simulation.run(async {
            let (near, mut far) = duplex(64);
            let mut streams = pump(&env, near, Wanted { tty: true, ..BOTH });
            assert!(streams.stderr.is_none());
            let bytes = [1, 0, 0, 0, 0, 0, 0, 9, b'x', 2];
            far.write_all(&bytes).await.unwrap();
            drop(far);
            let mut out = Vec::new();
            streams.stdout.take().unwrap().read_to_end(&mut out).await.unwrap();
            assert_eq!(out, bytes);
        });
        done.unwrap();
    }

    #[test]
    fn what_nobody_reads_holds_nothing_up() {
        let simulation = Simulation::new(1);
        let env = simulation.env();
        let done = simulation.run(async {
            let (near, mut far) = duplex(1024);
            let mut streams = pump(&env, near, BOTH);
            drop(streams.stderr.take());
            let much = "x".repeat(3 * SESSION_BUFFER_BYTES);
            let engine = async {
                far.write_all(&[piece(2, &much), piece(1, "out")].concat()).await.unwrap();
                drop(far);
            };
            let mut out = String::new();
            let mut stdout = streams.stdout.take().unwrap();
            let _ = futures::join!(engine, stdout.read_to_string(&mut out));
            assert_eq!(out, "out");
        });
        done.unwrap();
    }
}
