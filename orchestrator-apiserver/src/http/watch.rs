//! Watches as streams of JSON lines.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use futures::StreamExt;
use http::{HeaderValue, Response, header};
use orchestrator_core::{
    client::{WatchEvent, WatchStream},
    status::{ApiError, ApiResult},
};
use serde_json::{Value, json};

use super::{
    body::Body,
    respond::{Accept, View},
};
use crate::{
    limits,
    pipeline::Server,
    registry::Kind,
    views::{
        partial,
        table::{self, TableOptions},
    },
};

/// The annotation of the bookmark that ends the initial events (KEP-3157).
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// Room for one event of a usual size.
const USUAL_LINE_BYTES: usize = 2 << 10;

/// The stream of a watch.
pub(super) fn respond(server: Arc<Server>, kind: Arc<Kind>, events: WatchStream, accept: &Accept) -> Response<Body> {
    let view = accept.view;
    let mut table = accept.table;
    // What is ready together is sent together.
    let lines = events.ready_chunks(limits::WATCH_EVENTS_AT_ONCE).map(move |events| {
        let mut lines = BytesMut::with_capacity(events.len() * USUAL_LINE_BYTES);
        for event in events {
            let line = event.and_then(|event| line(&server, &kind, event, view, table, &mut lines));
            // Only the first table of a stream names the columns.
            table.headers = false;
            if let Err(error) = line {
                error_line(&error, &mut lines);
            }
        }
        Ok(lines.freeze())
    });
    let mut response = Response::new(Body::stream(lines));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn line(
    server: &Server,
    kind: &Kind,
    event: WatchEvent,
    view: View,
    table: TableOptions,
    out: &mut BytesMut,
) -> ApiResult<()> {
    let (name, object) = match event {
        WatchEvent::Added(object) => ("ADDED", object),
        WatchEvent::Modified(object) => ("MODIFIED", object),
        WatchEvent::Deleted(object) => ("DELETED", object),
        WatchEvent::Bookmark { resource_version, initial_events_end } => {
            let bookmark = bookmark(kind, view, &resource_version, initial_events_end);
            encode("BOOKMARK", bookmark.to_string().as_bytes(), out);
            return Ok(());
        }
    };
    match view {
        View::Whole => encode(name, &object.bytes()?, out),
        View::Partial => encode(name, partial::object(&object.to_tree()?).to_string().as_bytes(), out),
        View::Table => {
            let table = table::single(kind, &object.to_tree()?, server.env.now(), table);
            encode(name, table.to_string().as_bytes(), out);
        }
    }
    Ok(())
}

fn bookmark(kind: &Kind, view: View, resource_version: &str, initial_events_end: bool) -> Value {
    let mut metadata = json!({"resourceVersion": resource_version, "creationTimestamp": null});
    if initial_events_end {
        metadata["annotations"] = json!({INITIAL_EVENTS_END: "true"});
    }
    match view {
        View::Table => json!({
            "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": resource_version},
            "columnDefinitions": null, "rows": [],
        }),
        View::Partial => {
            json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
        }
        View::Whole => json!({"kind": kind.kind, "apiVersion": kind.api_version(), "metadata": metadata}),
    }
}

fn error_line(error: &ApiError, out: &mut BytesMut) {
    encode("ERROR", &serde_json::to_vec(error.status()).unwrap_or_default(), out);
}

fn encode(name: &str, object: &[u8], out: &mut BytesMut) {
    out.put_slice(b"{\"type\":\"");
    out.put_slice(name.as_bytes());
    out.put_slice(b"\",\"object\":");
    out.put_slice(object);
    out.put_slice(b"}\n");
}
