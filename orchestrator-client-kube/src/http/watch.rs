//! Watches: lines of JSON out of a body that does not end.

use bytes::{Buf, Bytes, BytesMut};
use futures::{StreamExt, stream};
use http_body_util::BodyExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::client::Body;
use orchestrator_core::{
    client::{WatchEvent, WatchRequest, WatchStream},
    object::Object,
    status::{ApiError, ApiResult},
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{failure::chain, outgoing, reply::unreadable, send};
use crate::limits;

/// The annotation of the bookmark that ends the initial events (KEP-3157).
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// Follows a collection. A server that refuses at the start is an error; one that has had enough ends the stream.
pub(crate) async fn watch(client: &kube::Client, request: WatchRequest) -> ApiResult<WatchStream> {
    let response = send(client, outgoing::watch(&request)?).await?;
    Ok(events(response.into_body()))
}

/// The events of a body. Nothing comes after an error.
fn events(body: Body) -> WatchStream {
    let state = Some((body, Lines::default()));
    stream::unfold(state, |state| async move {
        let (mut body, mut lines) = state?;
        loop {
            match lines.next() {
                Err(error) => return Some((Err(error), None)),
                Ok(Some(line)) => {
                    let event = event(&line);
                    let rest = event.is_ok().then_some((body, lines));
                    return Some((event, rest));
                }
                Ok(None) => {}
            }
            // An event that breaks off with the stream is no event: whoever watches asks again after the last one.
            match body.frame().await? {
                Ok(frame) => lines.push(frame.into_data().unwrap_or_default()),
                Err(error) if is_end(&error) => return None,
                Err(error) => {
                    return Some((Err(ApiError::unavailable(format!("the watch broke off: {}", chain(&error)))), None));
                }
            }
        }
    })
    .boxed()
}

/// Whether a connection was closed without ceremony, which is how servers that restart end their watches.
fn is_end(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<std::io::Error>()
            && error.kind() == std::io::ErrorKind::UnexpectedEof
        {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Lines that come in pieces.
#[derive(Default)]
struct Lines {
    pending: BytesMut,
    /// How far there is no end of a line.
    searched: usize,
}

impl Lines {
    fn push(&mut self, piece: Bytes) {
        self.pending.extend_from_slice(&piece);
    }

    /// The next whole line that is not empty.
    fn next(&mut self) -> ApiResult<Option<Bytes>> {
        while let Some(found) = self.pending[self.searched..].iter().position(|byte| *byte == b'\n') {
            let line = self.pending.split_to(self.searched + found).freeze();
            self.pending.advance(1);
            self.searched = 0;
            if !line.trim_ascii().is_empty() {
                return Ok(Some(line));
            }
        }
        self.searched = self.pending.len();
        if self.pending.len() > limits::EVENT_BYTES {
            return Err(ApiError::internal(format!("an event is longer than {} bytes", limits::EVENT_BYTES)));
        }
        Ok(None)
    }
}

#[derive(Deserialize)]
struct Line<'a> {
    r#type: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

fn event(line: &[u8]) -> ApiResult<WatchEvent> {
    let Line { r#type, object } = serde_json::from_slice(line).map_err(unreadable)?;
    let whole = || Object::from_bytes(Bytes::copy_from_slice(object.get().as_bytes()));
    match r#type {
        "ADDED" => Ok(WatchEvent::Added(whole())),
        "MODIFIED" => Ok(WatchEvent::Modified(whole())),
        "DELETED" => Ok(WatchEvent::Deleted(whole())),
        "BOOKMARK" => {
            let bookmark = whole();
            let metadata = bookmark.metadata()?;
            let ends = metadata.annotations.as_ref().and_then(|annotations| annotations.get(INITIAL_EVENTS_END));
            Ok(WatchEvent::Bookmark {
                resource_version: metadata.resource_version.clone().unwrap_or_default(),
                initial_events_end: ends.is_some_and(|ends| ends == "true"),
            })
        }
        "ERROR" => {
            let status: Status = serde_json::from_str(object.get()).map_err(unreadable)?;
            Err(ApiError::from_status(status))
        }
        other => Err(ApiError::internal(format!("the server sent an event of the unknown type {other:?}"))),
    }
}
