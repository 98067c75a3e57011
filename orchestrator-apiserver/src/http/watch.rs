//! Watches as streams of events: lines of JSON, or messages in protobuf behind their lengths.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use futures::StreamExt;
use http::{HeaderValue, Response, header};
use orchestrator_core::{
    client::{WatchEvent, WatchStream},
    object::Object,
    status::{ApiError, ApiResult},
};
use serde_json::{Value, json};

use super::{
    body::Body,
    negotiate::{Form, Style, View},
};
use crate::{
    limits,
    metrics::WatchCounts,
    pipeline::Server,
    protobuf,
    registry::Kind,
    views::{
        partial,
        table::{self, TableOptions},
    },
};

/// The annotation of the bookmark that ends the initial events (KEP-3157).
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// Room for one event of a usual size.
const USUAL_EVENT_BYTES: usize = 2 << 10;

/// What an event is written from.
struct Writer {
    server: Arc<Server>,
    kind: Arc<Kind>,
    style: Style,
    table: TableOptions,
    counts: Arc<WatchCounts>,
}

/// The stream of a watch.
pub(super) fn respond(
    server: Arc<Server>,
    kind: Arc<Kind>,
    events: WatchStream,
    style: Style,
    table: TableOptions,
) -> Response<Body> {
    let counts = server.metrics.watches.of(&kind.resource);
    let table = TableOptions { meta_version: style.meta_version, ..table };
    let mut writer = Writer { server, kind, style, table, counts };
    // What is ready together is sent together.
    let pieces = events.ready_chunks(limits::WATCH_EVENTS_AT_ONCE).map(move |events| {
        let mut out = BytesMut::with_capacity(events.len() * USUAL_EVENT_BYTES);
        for event in events {
            let start = out.len();
            let written = event.and_then(|event| writer.write(event, &mut out));
            // Only the first table of a stream names the columns.
            writer.table.headers = false;
            if let Err(error) = written {
                write_error(&error, writer.style.form, &mut out);
            }
            writer.counts.sent(out.len() - start);
        }
        Ok(out.freeze())
    });
    let mut response = Response::new(Body::stream(pieces));
    let media = match style.form {
        Form::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        form => form.media(),
    };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

impl Writer {
    fn write(&self, event: WatchEvent, out: &mut BytesMut) -> ApiResult<()> {
        let (name, object) = match event {
            WatchEvent::Added(object) => ("ADDED", object),
            WatchEvent::Modified(object) => ("MODIFIED", object),
            WatchEvent::Deleted(object) => ("DELETED", object),
            WatchEvent::Bookmark { resource_version, initial_events_end } => {
                let bookmark = bookmark(&self.kind, self.style, &resource_version, initial_events_end);
                return write_tree("BOOKMARK", bookmark, self.style.form, out);
            }
        };
        match self.style {
            Style { form: Form::Protobuf, view: View::Partial, meta_version } => {
                let partial = protobuf::partial(&object.bytes()?, meta_version).map_err(ApiError::internal)?;
                protobuf::event(name, &partial, out);
                Ok(())
            }
            Style { form: Form::Protobuf, .. } => {
                protobuf::event(name, &self.in_protobuf(&object)?, out);
                Ok(())
            }
            Style { view: View::Whole, .. } => line(name, &object, out),
            Style { view: View::Partial, meta_version, .. } => {
                line(name, &Object::from_bytes(partial::json(&object, meta_version)?), out)
            }
            Style { view: View::Table, form, .. } => {
                let table = table::single(&self.kind, &object.to_tree()?, self.server.env.now(), self.table);
                write_tree(name, table, form, out)
            }
        }
    }

    /// The whole object in protobuf. It is made once for all who watch, unless they lag far behind.
    fn in_protobuf(&self, object: &Object) -> ApiResult<Arc<Bytes>> {
        let mut is_new = false;
        let encoded = object.recoded(|json| {
            is_new = true;
            protobuf::object(json).map_err(ApiError::internal)
        })?;
        if is_new {
            self.server.recent.keep(&encoded);
        }
        Ok(encoded)
    }
}

fn bookmark(kind: &Kind, style: Style, resource_version: &str, initial_events_end: bool) -> Value {
    let mut metadata = json!({"resourceVersion": resource_version, "creationTimestamp": null});
    if initial_events_end {
        metadata["annotations"] = json!({INITIAL_EVENTS_END: "true"});
    }
    match style.view {
        View::Table => json!({
            "kind": "Table", "apiVersion": style.meta_version, "metadata": {"resourceVersion": resource_version},
            "columnDefinitions": null, "rows": [],
        }),
        View::Partial => {
            json!({"kind": "PartialObjectMetadata", "apiVersion": style.meta_version, "metadata": metadata})
        }
        View::Whole => json!({"kind": kind.kind, "apiVersion": kind.api_version(), "metadata": metadata}),
    }
}

fn write_error(error: &ApiError, form: Form, out: &mut BytesMut) {
    let status = serde_json::to_value(error.status()).unwrap_or_default();
    // A `Status` has every form.
    let _ = write_tree("ERROR", status, form, out);
}

fn write_tree(name: &str, tree: Value, form: Form, out: &mut BytesMut) -> ApiResult<()> {
    match form {
        Form::Protobuf => {
            let json = tree.to_string();
            protobuf::event(name, &protobuf::object(json.as_bytes()).map_err(ApiError::internal)?, out);
            Ok(())
        }
        _ => line(name, &Object::from_tree(tree), out),
    }
}

/// A line with an object; nothing if it has no JSON.
fn line(name: &str, object: &Object, out: &mut BytesMut) -> ApiResult<()> {
    let start = out.len();
    out.put_slice(b"{\"type\":\"");
    out.put_slice(name.as_bytes());
    out.put_slice(b"\",\"object\":");
    if let Err(error) = object.write_json(out) {
        out.truncate(start);
        return Err(error.into());
    }
    out.put_slice(b"}\n");
    Ok(())
}
