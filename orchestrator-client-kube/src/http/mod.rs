//! The edge: requests as HTTP, answers from HTTP. Nothing outside of this module names HTTP.

mod discovery;
mod failure;
mod outgoing;
mod reply;
mod watch;

use http::{Response, StatusCode};
use kube::client::Body;
use orchestrator_core::{
    client::{Call, Reply, Request},
    status::ApiResult,
};

pub(crate) use discovery::resources;
pub(crate) use watch::watch;

/// Sends a request and reads its answer.
pub(crate) async fn request(client: &kube::Client, request: Request) -> ApiResult<Reply> {
    let wants_list = matches!(request.call, Call::List(_));
    let response = send(client, outgoing::request(&request)?).await?;
    let created = response.status() == StatusCode::CREATED;
    let warnings = reply::warnings(response.headers());
    let bytes = reply::body(response.into_body()).await?;
    reply::parse(bytes, wants_list, created, warnings)
}

/// Sends a request; a refusal is an error.
async fn send(client: &kube::Client, request: http::Request<Body>) -> ApiResult<Response<Body>> {
    let response = client.send(request).await.map_err(failure::transport)?;
    if response.status().is_success() {
        return Ok(response);
    }
    Err(failure::refusal(response).await)
}
