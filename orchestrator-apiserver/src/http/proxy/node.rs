//! What a node answers about itself, as an answer of HTTP.

use futures::StreamExt;
use http::{HeaderValue, Method, Response, StatusCode, Uri, header};
use orchestrator_core::{node_connector::NodeRequest, status::ApiResult};

use super::unreachable;
use crate::{
    http::{
        body::{Body, BodyError},
        query::Query,
    },
    server::ApiServer,
};

/// Asks the agent of a node.
pub(super) async fn ask(server: &ApiServer, node: &str, method: &Method, target: &Uri) -> ApiResult<Response<Body>> {
    let query = Query::parse(target.query()).into_pairs();
    let request = NodeRequest { method: method.to_string(), path: target.path().to_owned(), query };
    let answer = server.server().nodes.ask(node, request).await.map_err(|error| unreachable(error.message()))?;
    let body = if *method == Method::HEAD {
        Body::empty()
    } else {
        Body::stream(answer.body.map(|piece| piece.map_err(BodyError::from)))
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(answer.code).unwrap_or(StatusCode::BAD_GATEWAY);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(answer.media));
    Ok(response)
}
