//! The streams of a command in a container, as the agent hands them out.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures::{FutureExt, future::Either};
use orchestrator_core::runtime::{RuntimeError, Session, TerminalSize};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf, unix::AsyncFd},
    net::unix::pipe,
    sync::mpsc,
};

use crate::{
    client::{CallError, HelperConnection},
    protocol::Reply,
    sys,
};

/// Whether one descriptor is the whole terminal, or the streams come one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Exec,
    Attach,
}

/// Makes a session of the streams that came with a reply. The connection stays open in its `exit`; dropping that
/// ends an exec's command. Changes of size take effect while `exit` is awaited.
pub(crate) fn session(
    kind: Kind,
    reply: &Reply,
    descriptors: Vec<OwnedFd>,
    connection: HelperConnection,
) -> Result<Session, RuntimeError> {
    let internal = |error: io::Error| RuntimeError::internal("taking over streams", error);
    let Reply::Streams { stdin, stdout, stderr, terminal } = *reply else {
        return Err(RuntimeError::internal("taking over streams", "the helper sent none"));
    };
    let mut descriptors = descriptors.into_iter();
    let mut next =
        || descriptors.next().ok_or_else(|| RuntimeError::internal("taking over streams", "the helper sent too few"));
    let mut session =
        Session { stdin: None, stdout: None, stderr: None, resize: None, exit: futures::future::ready(Ok(0)).boxed() };
    let mut window = None;
    if terminal && kind == Kind::Exec {
        let descriptor = Arc::new(Terminal::new(next()?).map_err(internal)?);
        if stdin {
            session.stdin = Some(Box::new(TerminalWriter(Arc::clone(&descriptor))));
        }
        if stdout {
            session.stdout = Some(Box::new(TerminalReader(Arc::clone(&descriptor))));
        }
        window = Some(descriptor);
    } else {
        if stdin && terminal {
            let descriptor = Arc::new(Terminal::new(next()?).map_err(internal)?);
            session.stdin = Some(Box::new(TerminalWriter(Arc::clone(&descriptor))));
            window = Some(descriptor);
        } else if stdin {
            session.stdin = Some(Box::new(pipe::Sender::from_owned_fd(next()?).map_err(internal)?));
        }
        if stdout {
            session.stdout = Some(Box::new(pipe::Receiver::from_owned_fd(next()?).map_err(internal)?));
        }
        if stderr {
            session.stderr = Some(Box::new(pipe::Receiver::from_owned_fd(next()?).map_err(internal)?));
        }
    }
    let sizes = window.map(|window| {
        let (sender, receiver) = mpsc::channel(1);
        session.resize = Some(sender);
        (window, receiver)
    });
    session.exit = exit(connection, sizes).boxed();
    Ok(session)
}

async fn exit(
    mut connection: HelperConnection,
    mut sizes: Option<(Arc<Terminal>, mpsc::Receiver<TerminalSize>)>,
) -> Result<i32, RuntimeError> {
    let ended = connection.next().fuse();
    let mut ended = std::pin::pin!(ended);
    loop {
        let reply = match sizes.take() {
            None => ended.as_mut().await,
            Some((terminal, mut receiver)) => {
                let size = {
                    let size = std::pin::pin!(receiver.recv());
                    match futures::future::select(ended.as_mut(), size).await {
                        Either::Left((reply, _)) => Err(reply),
                        Either::Right((size, _)) => Ok(size),
                    }
                };
                match size {
                    Err(reply) => reply,
                    Ok(Some(size)) => {
                        let window = Winsize { ws_row: size.height, ws_col: size.width, ws_xpixel: 0, ws_ypixel: 0 };
                        // A terminal that is gone needs no size.
                        let _ = tcsetwinsize(terminal.0.get_ref(), window);
                        sizes = Some((terminal, receiver));
                        continue;
                    }
                    Ok(None) => continue,
                }
            }
        };
        return match reply {
            Ok((Reply::Ended { exit_code }, _)) => Ok(exit_code),
            Ok(_) => Err(RuntimeError::internal("waiting for a command", "the helper spoke out of turn")),
            Err(CallError::Failed(error)) => Err(error),
            Err(CallError::Gone) => Err(RuntimeError::internal("waiting for a command", "the pod's helper is gone")),
        };
    }
}

/// The controlling side of a terminal.
struct Terminal(AsyncFd<OwnedFd>);

impl Terminal {
    fn new(descriptor: OwnedFd) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&descriptor)?;
        rustix::fs::fcntl_setfl(&descriptor, flags | rustix::fs::OFlags::NONBLOCK)?;
        Ok(Self(sys::watch(descriptor, Interest::READABLE | Interest::WRITABLE)?))
    }
}

struct TerminalReader(Arc<Terminal>);
struct TerminalWriter(Arc<Terminal>);

impl AsyncRead for TerminalReader {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.0.poll_read_ready(context))?;
            match guard.try_io(|descriptor| Ok(rustix::io::read(descriptor.as_fd(), buffer.initialize_unfilled())?)) {
                Ok(Ok(count)) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                // The last process has closed the other side: that is the end.
                Ok(Err(error)) if error.raw_os_error() == Some(nix::libc::EIO) => return Poll::Ready(Ok(())),
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for TerminalWriter {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.0.poll_write_ready(context))?;
            match guard.try_io(|descriptor| Ok(rustix::io::write(descriptor.as_fd(), bytes)?)) {
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// A terminal has no end of file of its own; programs end when they are told to.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
