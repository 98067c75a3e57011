//! Answers: objects, lists and errors in the form that the client accepts.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use orchestrator_core::{
    client::Reply,
    metrics::Exposition,
    object::Object,
    status::{ApiError, ApiResult},
    yaml,
};
use serde_json::{Value, json};

use super::{
    body::Body,
    list,
    negotiate::{Discovery, Form, Style, View},
    warnings,
};
use crate::{
    pipeline::Server,
    protobuf::{self, ListWriter},
    registry::Kind,
    views::{
        partial,
        table::{self, Table, TableOptions},
    },
};

/// How OpenAPI 2 in protobuf is named.
const OPEN_API_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// An error as a `Status`.
pub(super) fn error(error: &ApiError, form: Form) -> Response<Body> {
    let code = u16::try_from(error.code()).ok().and_then(|code| StatusCode::from_u16(code).ok());
    let status = serde_json::to_value(error.status()).unwrap_or_default();
    let mut response = encode(code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), &status, form);
    let retry = error.status().details.as_ref().and_then(|details| details.retry_after_seconds);
    if let Some(seconds) = retry {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(0)));
    }
    warnings::add(&mut response, error.warnings().iter().map(String::as_str));
    response
}

/// OpenAPI 2 in protobuf.
pub(super) fn open_api_protobuf(document: Vec<u8>) -> Response<Body> {
    with_type(StatusCode::OK, document.into(), OPEN_API_PROTOBUF)
}

/// How answers about objects of a kind look.
#[derive(Clone, Copy)]
pub(super) struct Answer<'a> {
    pub(super) server: &'a Server,
    pub(super) kind: &'a Kind,
    pub(super) style: Style,
    pub(super) table: TableOptions,
}

impl Answer<'_> {
    /// What the pipeline said.
    pub(super) fn reply(self, reply: Reply) -> ApiResult<Response<Body>> {
        match reply {
            Reply::Object { object, created, warnings } => {
                let mut response = self.object(if created { StatusCode::CREATED } else { StatusCode::OK }, &object)?;
                warnings::add(&mut response, warnings.iter().map(String::as_str));
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
                self.list(items, &metadata)
            }
        }
    }

    /// One object; its own bytes, where they will do. A `Status` is shown whole in any view.
    fn object(self, code: StatusCode, object: &Object) -> ApiResult<Response<Body>> {
        let form = self.style.form;
        let is_status = || Ok::<_, ApiError>(object.tree()?.get("kind").is_some_and(|kind| kind == "Status"));
        let view = if self.style.view != View::Whole && is_status()? { View::Whole } else { self.style.view };
        let bytes = match (view, form) {
            (View::Whole, Form::Json) => object.bytes()?,
            (View::Whole, Form::Protobuf) => protobuf::object(&object.bytes()?).map_err(ApiError::internal)?,
            (View::Partial, Form::Protobuf) => {
                protobuf::partial(&object.bytes()?, self.style.meta_version).map_err(ApiError::internal)?
            }
            (View::Whole, Form::Yaml) => return Ok(encode(code, object.tree()?, form)),
            (View::Partial, _) => {
                return Ok(encode(code, &partial::object(object.tree()?, self.style.meta_version), form));
            }
            (View::Table, _) => {
                let metadata = json!({"resourceVersion": object.metadata()?.resource_version});
                return Ok(encode(code, &self.rows(&[object.tree()?], &metadata), form));
            }
        };
        Ok(with_type(code, bytes, form.media()))
    }

    fn list(self, mut items: Vec<Object>, metadata: &Value) -> ApiResult<Response<Body>> {
        let Style { form, view, meta_version } = self.style;
        if view == View::Table {
            table::sort(self.kind, &mut items);
        }
        let body = match (view, form) {
            (View::Whole, Form::Json) => list::json(self.kind, items, metadata)?,
            (View::Partial, Form::Json) => list::partial(items, metadata, meta_version)?,
            (View::Table, Form::Json) => {
                let table = Table::new(self.kind, self.server.env.now(), self.table_options());
                list::table(table, items, metadata)?
            }
            (View::Partial, Form::Protobuf) => {
                let writer = ListWriter::partial(meta_version, metadata, &items).map_err(ApiError::internal)?;
                list::protobuf(writer, items)?
            }
            (_, Form::Protobuf) => {
                let kind = (self.kind.api_version(), &self.kind.kind);
                let writer = ListWriter::new((&kind.0, kind.1), metadata, &items).map_err(ApiError::internal)?;
                list::protobuf(writer, items)?
            }
            (_, Form::Yaml) => self.yaml(items, metadata)?,
        };
        Ok(with_body(StatusCode::OK, body, form.media()))
    }

    fn yaml(self, items: Vec<Object>, metadata: &Value) -> ApiResult<Body> {
        let Style { view, meta_version, .. } = self.style;
        match view {
            View::Whole => {
                let (kind, is_custom) = (format!("{}List", self.kind.kind), self.kind.is_custom());
                let head = json!({"kind": kind, "apiVersion": self.kind.api_version(), "metadata": metadata});
                list::yaml(&head, "items", items, move |item| {
                    let mut tree = item.to_tree()?;
                    if let Some(members) = tree.as_object_mut().filter(|_| !is_custom) {
                        // Items of built-in kinds do not say what they are.
                        members.retain(|name, _| !matches!(name.as_str(), "kind" | "apiVersion"));
                    }
                    Ok(tree)
                })
            }
            View::Table => {
                let table = Table::new(self.kind, self.server.env.now(), self.table_options());
                let head = table.without_rows(metadata);
                list::yaml(&head, "rows", items, move |item| Ok(table.row(&item.to_tree()?)))
            }
            View::Partial => {
                let head =
                    json!({"kind": "PartialObjectMetadataList", "apiVersion": meta_version, "metadata": metadata});
                list::yaml(&head, "items", items, move |item| Ok(partial::object(&item.to_tree()?, meta_version)))
            }
        }
    }

    fn table_options(self) -> TableOptions {
        TableOptions { meta_version: self.style.meta_version, ..self.table }
    }

    fn rows(self, objects: &[&Value], metadata: &Value) -> Value {
        table::table(self.kind, objects, self.server.env.now(), self.table_options(), metadata)
    }
}

/// A list of groups or resources.
pub(super) fn discovery(tree: &Value, style: Discovery) -> Response<Body> {
    let Discovery::Single(form) = style else {
        let media = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        return with_type(StatusCode::OK, tree.to_string().into(), media);
    };
    encode(StatusCode::OK, tree, form)
}

/// A document that comes in JSON only.
pub(super) fn document(tree: &Value) -> Response<Body> {
    encode(StatusCode::OK, tree, Form::Json)
}

/// A tree in a form; in JSON where it has no other.
fn encode(code: StatusCode, tree: &Value, form: Form) -> Response<Body> {
    let json = tree.to_string();
    let encoded = match form {
        Form::Json => None,
        Form::Yaml => yaml::to_string(tree).ok().map(Bytes::from),
        Form::Protobuf => protobuf::object(json.as_bytes()).ok(),
    };
    match encoded {
        Some(bytes) => with_type(code, bytes, form.media()),
        None => with_type(code, json.into(), Form::Json.media()),
    }
}

/// Metrics as Prometheus reads them.
pub(super) fn metrics(text: String) -> Response<Body> {
    with_type(StatusCode::OK, text.into(), Exposition::MEDIA_TYPE)
}

pub(super) fn text(code: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    with_type(code, text.into(), "text/plain; charset=utf-8")
}

fn with_type(code: StatusCode, bytes: Bytes, media: &'static str) -> Response<Body> {
    with_body(code, Body::full(bytes), media)
}

fn with_body(code: StatusCode, body: Body, media: &'static str) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    response
}
