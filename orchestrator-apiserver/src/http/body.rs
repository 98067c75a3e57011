//! Bodies of answers, and bodies of requests within bounds.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::{Stream, StreamExt, stream::BoxStream};
use http_body::Frame;
use http_body_util::{BodyExt, LengthLimitError, Limited, combinators::UnsyncBoxBody};
use orchestrator_core::{
    env::Env,
    status::{ApiError, ApiResult, Reason},
};
use tokio_util::sync::CancellationToken;

use crate::{limits, metrics::Recording};

/// Why a body broke off.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a request, wherever it comes from: so that what reads it is compiled once.
pub(super) type RequestBody = UnsyncBoxBody<Bytes, BrokenOff>;

/// Why the body of a request broke off.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) struct BrokenOff(BodyError);

/// The body of an answer: all at once, or as it comes.
pub enum Body {
    /// All at once.
    Full(Option<Bytes>),
    /// As it comes.
    Stream(BoxStream<'static, Result<Bytes, BodyError>>),
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Full(bytes) => f.debug_tuple("Full").field(&bytes.as_ref().map(Bytes::len)).finish(),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

impl Body {
    pub(super) fn empty() -> Self {
        Self::Full(None)
    }

    pub(super) fn full(bytes: impl Into<Bytes>) -> Self {
        Self::Full(Some(bytes.into()))
    }

    pub(super) fn stream(stream: impl Stream<Item = Result<Bytes, BodyError>> + Send + 'static) -> Self {
        Self::Stream(stream.boxed())
    }

    /// The same, and how much of it is sent is counted.
    pub(super) fn recorded(self, mut recording: Recording) -> Self {
        match self {
            Self::Full(bytes) => {
                recording.sent(bytes.as_ref().map_or(0, Bytes::len));
                Self::Full(bytes)
            }
            Self::Stream(stream) => Self::stream(stream.inspect(move |piece| {
                recording.sent(piece.as_ref().map_or(0, Bytes::len));
            })),
        }
    }

    /// The same, but what comes bit by bit ends when the token is cancelled.
    pub(super) fn until(self, end: CancellationToken) -> Self {
        match self {
            Self::Full(_) => self,
            Self::Stream(stream) => Self::stream(stream.take_until(end.cancelled_owned())),
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(stream) => {
                stream.as_mut().poll_next(context).map(|item| item.map(|bytes| bytes.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Full(None))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self {
            Self::Full(bytes) => http_body::SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Stream(_) => http_body::SizeHint::default(),
        }
    }
}

impl From<Infallible> for Body {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// Any body as the body of a request.
pub(super) fn boxed<B>(body: B) -> RequestBody
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    body.map_err(|error| BrokenOff(error.into())).boxed_unsync()
}

/// Reads a request's body, up to the limit, and not for ever.
pub(super) async fn read(env: &Env, mut body: RequestBody) -> ApiResult<Bytes> {
    let read = Limited::new(&mut body, limits::BODY_BYTES).collect();
    let Ok(read) = env.timeout(limits::BODY_TIME, read).await else {
        let message = "Timeout: request did not complete within the allotted timeout";
        return Err(ApiError::new(Reason::Timeout, message));
    };
    match read {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            drain(env, body).await;
            let message = format!("Request entity too large: limit is {}", limits::BODY_BYTES);
            Err(ApiError::new(Reason::RequestEntityTooLarge, message))
        }
        Err(error) => Err(ApiError::bad_request(format!("the body broke off: {error}"))),
    }
}

/// Reads on for a while and throws away what comes: a connection that is closed with something unread takes the answer
/// with it.
async fn drain(env: &Env, mut body: RequestBody) {
    let mut left = limits::DRAINED_BYTES;
    let drained = async {
        while let Some(Ok(frame)) = body.frame().await {
            let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else { return };
            left = rest;
        }
    };
    let _ = env.timeout(limits::DRAINED_TIME, drained).await;
}
