//! A connection to a scripted HTTP server: it answers once it was asked.

use std::{
    io::{self, Cursor},
    pin::Pin,
    task::{Context, Poll, Waker},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// One answer, whatever the question is.
#[derive(Debug)]
pub(crate) struct HttpAnswer {
    answer: Cursor<Vec<u8>>,
    was_asked: bool,
    reader: Option<Waker>,
}

impl HttpAnswer {
    pub(crate) fn new(status: u16, body: &str) -> Self {
        let length = body.len();
        let head = format!("HTTP/1.1 {status} Simulated\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
        Self { answer: Cursor::new((head + body).into_bytes()), was_asked: false, reader: None }
    }

    fn asked(&mut self) {
        self.was_asked = true;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

impl AsyncRead for HttpAnswer {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.was_asked {
            self.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        Pin::new(&mut self.answer).poll_read(context, into)
    }
}

impl AsyncWrite for HttpAnswer {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, question: &[u8]) -> Poll<io::Result<usize>> {
        self.asked();
        Poll::Ready(Ok(question.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.asked();
        Poll::Ready(Ok(()))
    }
}
