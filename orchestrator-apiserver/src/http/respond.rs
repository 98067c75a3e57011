//! Answers: objects, lists and errors in the form that the client accepts.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, Response, StatusCode, header};
use orchestrator_core::{
    client::{Reply, Resource},
    object::Object,
    status::{ApiError, ApiResult, Reason},
    yaml,
};
use serde_json::{Value, json};

use super::body::Body;
use crate::{
    pipeline::Server,
    registry::Kind,
    views::{
        partial,
        table::{self, TableOptions},
    },
};

/// How clients ask for OpenAPI 2 in protobuf, and how the answer is named.
const OPEN_API_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
const OPEN_API_PROTOBUF_ANSWER: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// What a client accepts.
#[derive(Clone, Debug)]
pub(super) struct Accept {
    pub(super) view: View,
    /// YAML instead of JSON.
    pub(super) yaml: bool,
    /// JSON is among what is accepted.
    pub(super) json: bool,
    /// OpenAPI 2 in protobuf is among what is accepted.
    pub(super) open_api_protobuf: bool,
    /// Discovery in one document.
    pub(super) aggregated: bool,
    /// How tables are made.
    pub(super) table: TableOptions,
    /// Nothing that this server has.
    nothing: bool,
}

/// How objects are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    /// As they are.
    Whole,
    /// As rows of a table.
    Table,
    /// Their metadata.
    Partial,
}

impl Accept {
    /// The first of the accepted types that this server has.
    pub(super) fn parse(header: &str, table: TableOptions) -> Self {
        let json = header.is_empty() || header.contains("json") || header.contains("*/*");
        let open_api_protobuf = header.contains(OPEN_API_PROTOBUF);
        let mut accept =
            Self { view: View::Whole, yaml: false, json, open_api_protobuf, aggregated: false, table, nothing: false };
        if header.is_empty() {
            return accept;
        }
        for choice in header.split(',') {
            let mut parts = choice.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let parameters: Vec<&str> = parts.collect();
            let has = |parameter: &str| parameters.contains(&parameter);
            match media {
                "application/json" | "*/*" | "application/*" => {}
                "application/yaml" | "application/x-yaml" => accept.yaml = true,
                _ => continue,
            }
            if has("as=APIGroupDiscoveryList") {
                if !has("v=v2") {
                    continue;
                }
                accept.aggregated = true;
            } else if has("as=Table") {
                accept.view = View::Table;
            } else if has("as=PartialObjectMetadata") || has("as=PartialObjectMetadataList") {
                accept.view = View::Partial;
            }
            return accept;
        }
        accept.nothing = true;
        accept
    }
}

/// Adds a warning to an answer.
pub(super) fn warn(response: &mut Response<Body>, warning: Option<&str>) {
    if let Some(value) =
        warning.and_then(|warning| HeaderValue::from_str(&format!("299 - {}", Value::from(warning))).ok())
    {
        response.headers_mut().append(header::WARNING, value);
    }
}

/// An error as a `Status`.
pub(super) fn error(error: &ApiError) -> Response<Body> {
    let body = serde_json::to_vec(error.status()).unwrap_or_default();
    let code = u16::try_from(error.code()).ok().and_then(|code| StatusCode::from_u16(code).ok());
    let mut response = json_bytes(code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), body.into());
    let retry = error.status().details.as_ref().and_then(|details| details.retry_after_seconds);
    if let Some(seconds) = retry {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(0)));
    }
    for warning in error.warnings() {
        warn(&mut response, Some(warning));
    }
    response
}

/// OpenAPI 2 in protobuf.
pub(super) fn open_api_protobuf(document: Vec<u8>) -> Response<Body> {
    with_type(StatusCode::OK, document.into(), OPEN_API_PROTOBUF_ANSWER)
}

/// The answer of the pipeline.
pub(super) fn reply(server: &Server, resource: &Resource, reply: Reply, accept: &Accept) -> ApiResult<Response<Body>> {
    if accept.nothing {
        let message = "only the following media types are accepted: application/json, application/yaml";
        return Err(ApiError::new(Reason::NotAcceptable, message));
    }
    let kind = server.registry.find(resource).ok_or_else(ApiError::no_such_path)?;
    match reply {
        Reply::Object { object, created, warnings } => {
            let code = if created { StatusCode::CREATED } else { StatusCode::OK };
            let mut response = match shown(server, &kind, &object, accept)? {
                Some(tree) => encode(code, &tree, accept),
                None => json_bytes(code, object.bytes()?),
            };
            for warning in &warnings {
                warn(&mut response, Some(warning));
            }
            Ok(response)
        }
        Reply::List { items, resource_version, continue_token, remaining } => {
            let mut metadata = json!({"resourceVersion": resource_version});
            if let Some(token) = continue_token {
                metadata["continue"] = token.into();
            }
            if let Some(remaining) = remaining {
                metadata["remainingItemCount"] = remaining.into();
            }
            list(server, &kind, &items, metadata, accept)
        }
    }
}

/// The tree to show in place of an object; `None` when its own bytes will do.
fn shown(server: &Server, kind: &Kind, object: &Object, accept: &Accept) -> ApiResult<Option<Value>> {
    if accept.view == View::Whole && !accept.yaml {
        return Ok(None);
    }
    let is_status = object.tree()?.get("kind").is_some_and(|kind| kind == "Status");
    Ok(match accept.view {
        View::Table if !is_status => {
            let metadata = json!({"resourceVersion": object.metadata()?.resource_version});
            Some(table::table(kind, &[object.tree()?], server.env.now(), accept.table, &metadata))
        }
        View::Partial if !is_status => Some(partial::object(object.tree()?)),
        _ => accept.yaml.then(|| object.to_tree()).transpose()?,
    })
}

fn list(server: &Server, kind: &Kind, items: &[Object], metadata: Value, accept: &Accept) -> ApiResult<Response<Body>> {
    let trees = || items.iter().map(Object::to_tree).collect::<Result<Vec<Value>, _>>();
    match accept.view {
        View::Whole if !accept.yaml => Ok(json_bytes(StatusCode::OK, splice_list(kind, items, &metadata)?)),
        View::Whole => {
            let list = serde_json::from_slice(&splice_list(kind, items, &metadata)?).map_err(ApiError::internal)?;
            Ok(encode(StatusCode::OK, &list, accept))
        }
        View::Table => {
            let trees = trees()?;
            let rows: Vec<&Value> = trees.iter().collect();
            let table = table::table(kind, &rows, server.env.now(), accept.table, &metadata);
            Ok(encode(StatusCode::OK, &table, accept))
        }
        View::Partial => {
            let trees = trees()?;
            let rows: Vec<&Value> = trees.iter().collect();
            Ok(encode(StatusCode::OK, &partial::list(&rows, &metadata), accept))
        }
    }
}

/// A list made of the encodings at hand. Items of built-in kinds do not repeat their kind, as upstream.
fn splice_list(kind: &Kind, items: &[Object], metadata: &Value) -> ApiResult<Bytes> {
    let head = format!(
        "{{\"kind\":\"{}List\",\"apiVersion\":\"{}\",\"metadata\":{metadata},\"items\":[",
        kind.kind,
        kind.api_version()
    );
    let type_prefix = format!("{{\"kind\":\"{}\",\"apiVersion\":\"{}\",", kind.kind, kind.api_version());
    let size = items.iter().map(|item| item.bytes().map_or(0, |bytes| bytes.len())).sum::<usize>()
        + head.len()
        + items.len()
        + 2;
    let mut out = BytesMut::with_capacity(size);
    out.put_slice(head.as_bytes());
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.put_u8(b',');
        }
        let bytes = item.bytes()?;
        match bytes.strip_prefix(type_prefix.as_bytes()).filter(|_| !kind.is_custom()) {
            Some(rest) => {
                out.put_u8(b'{');
                out.put_slice(rest);
            }
            None => out.put_slice(&bytes),
        }
    }
    out.put_slice(b"]}");
    Ok(out.freeze())
}

/// A document that is no object, such as discovery.
pub(super) fn document(tree: &Value, accept: &Accept) -> Response<Body> {
    let mut response = encode(StatusCode::OK, tree, accept);
    if accept.aggregated {
        let media = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    }
    response
}

fn encode(code: StatusCode, tree: &Value, accept: &Accept) -> Response<Body> {
    if accept.yaml
        && let Ok(text) = yaml::to_string(tree)
    {
        return with_type(code, text.into_bytes().into(), "application/yaml");
    }
    json_bytes(code, tree.to_string().into())
}

fn json_bytes(code: StatusCode, bytes: Bytes) -> Response<Body> {
    with_type(code, bytes, "application/json")
}

pub(super) fn text(code: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    with_type(code, text.into(), "text/plain; charset=utf-8")
}

fn with_type(code: StatusCode, bytes: Bytes, media: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::full(bytes));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    response
}
