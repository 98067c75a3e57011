//! What lies between a connection and one of its streams, so that a stream that is not read does not stop the others at once.

use std::pin::pin;

use futures::future::{Either, select};
use orchestrator_core::env::Env;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::limits;

/// Puts data into a stream's pipe; `false` when nobody reads it.
///
/// While the pipe is full nothing is read from the client. Whether it is still there shows when something is sent to it.
pub(super) async fn feed(env: &Env, pipe: &mut (impl AsyncWrite + Unpin), data: &[u8], probe: impl Fn()) -> bool {
    let mut writing = pin!(pipe.write_all(data));
    loop {
        match select(writing.as_mut(), pin!(env.sleep(limits::PROBE_PERIOD))).await {
            Either::Left((written, _)) => return written.is_ok(),
            Either::Right(_) => probe(),
        }
    }
}

/// Carries all that is read from a pipe to where it belongs, and the end as well.
pub(super) async fn drain(mut pipe: impl AsyncRead + Unpin, to: Option<impl AsyncWrite + Unpin>) {
    let Some(mut to) = to else { return };
    if tokio::io::copy(&mut pipe, &mut to).await.is_ok() {
        let _ = to.shutdown().await;
    }
}
