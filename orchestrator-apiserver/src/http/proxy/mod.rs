//! The `proxy` subresource: HTTP to pods, to services by way of one of their pods, and to nodes.
//!
//! A pod is reached over the same seam as port-forward, so that it need not be reachable from here, and a node over that of logs.
//! Endpoints that are no pods are passed over, as upstream: nobody shall reach through the server what he could not reach himself.
//!
//! Upstream: <https://kubernetes.io/docs/tasks/access-application-cluster/access-cluster-services/>,
//! `k8s.io/apimachinery/pkg/util/proxy`.

mod headers;
mod html;
mod node;
mod page;
mod place;
mod target;
mod tls;

use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use http_body_util::BodyStream;
use hyper::{body::Incoming, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use orchestrator_core::{
    runtime::Duplex,
    status::{ApiError, ApiResult},
};

pub(super) use self::headers::Peer;
use self::{
    headers::Link,
    place::Place,
    target::{Backend, Socket},
};
use super::{
    body::{Body, BodyError, RequestBody},
    executor::Tasks,
    upgrade::Running,
};
use crate::{limits, pipeline::Scope, server::ApiServer};

/// The verb that authorizers see; none for methods that are not carried.
pub(super) fn verb(method: &Method) -> ApiResult<&'static str> {
    Ok(match method.as_str() {
        "GET" | "HEAD" => "get",
        "OPTIONS" => "options",
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => return Err(ApiError::method_not_allowed()),
    })
}

/// Carries a request to what its path names, and the answer back.
pub(super) async fn proxy(
    server: &ApiServer,
    tasks: &Tasks,
    scope: &Scope,
    mut request: Request<RequestBody>,
) -> ApiResult<Response<Body>> {
    let plural = scope.kind.resource.plural.as_ref();
    if scope.kind.namespaced && scope.namespace.is_empty() {
        return Err(ApiError::no_such_path());
    }
    let place = Place::parse(plural, scope.name()?)?;
    let (prefix, rest) = split(request.uri().path(), scope.kind.namespaced);
    let is_root = rest.is_empty();
    let (prefix, target) = (prefix.to_owned(), target_of(rest, request.uri().query())?);
    let backend = match plural {
        "pods" => target::pod(server, &scope.namespace, &place).await?,
        "services" => target::service(server, &scope.namespace, &place).await?,
        _ => target::node(server, &place).await?,
    };
    if is_root && matches!(*request.method(), Method::GET | Method::HEAD) {
        return redirect(request.uri());
    }
    let backend = match backend {
        Backend::Socket(backend) => backend,
        Backend::Agent(node) => return node::ask(server, &node, request.method(), &target).await,
    };
    // HTTP/2 says in its own way for whom a request is.
    let host = request.uri().authority().map_or(backend.host.as_str(), |authority| authority.as_str());
    let host = HeaderValue::from_str(host).ok();
    headers::prepare(&mut request, &prefix, target.path(), host);
    let asked_host = headers::text(request.headers(), header::HOST).to_owned();
    let has_body = *request.method() != Method::HEAD;
    *request.uri_mut() = target;
    *request.version_mut() = Version::HTTP_11;
    let mut response = exchange(tasks, &backend, request).await?;
    let link = Link { prefix, host: backend.host, asked_host };
    headers::clean_answer(response.headers_mut(), &link);
    Ok(if has_body { page::rewritten(response, &link) } else { response })
}

/// A path up to and with `proxy`, and the rest of it.
fn split(path: &str, is_namespaced: bool) -> (&str, &str) {
    // `/api/v1/namespaces/NAMESPACE/pods/NAME/proxy`, or `/api/v1/nodes/NAME/proxy`.
    let mut left = if is_namespaced { 7 } else { 5 };
    let mut before = b'/';
    for (at, byte) in path.bytes().enumerate() {
        if byte == b'/' && before != b'/' {
            if left == 1 {
                return path.split_at(at);
            }
            left -= 1;
        }
        before = byte;
    }
    (path, "")
}

/// The path and query that the other side is asked for.
fn target_of(rest: &str, query: Option<&str>) -> ApiResult<Uri> {
    let path = if rest.is_empty() { "/" } else { rest };
    let target = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    target.parse().map_err(|_| ApiError::bad_request("the path is not valid"))
}

/// The root of what is behind a proxy ends in a slash, or relative links lead astray.
fn redirect(uri: &Uri) -> ApiResult<Response<Body>> {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let location = format!("{}/{query}", uri.path());
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    let location = HeaderValue::from_str(&location).map_err(|_| ApiError::bad_request("the path is not valid"))?;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// What upstream says when the other side does not answer.
fn unreachable(why: impl std::fmt::Display) -> ApiError {
    ApiError::unavailable(format!("error trying to reach service: {why}"))
}

/// Sends a request over a connection of its own.
async fn exchange(tasks: &Tasks, backend: &Socket, mut request: Request<RequestBody>) -> ApiResult<Response<Body>> {
    let connected = tasks.env().timeout(limits::PROXY_CONNECT_TIME, backend.connect()).await;
    let stream = connected.map_err(|_| unreachable("i/o timeout"))?.map_err(unreachable)?;
    let mut sender = handshake(tasks, stream).await.map_err(unreachable)?;
    let (running, near) = (request.extensions_mut().remove::<Running>(), hyper::upgrade::on(&mut request));
    let mut response = sender.send_request(request).await.map_err(unreachable)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(response.map(|body| streamed(body, sender)));
    }
    let far = hyper::upgrade::on(&mut response);
    tasks.spawn("proxy-upgraded", async move {
        if let (Ok(near), Ok(far)) = futures::future::join(near, far).await {
            let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(near), &mut TokioIo::new(far)).await;
        }
        drop(running);
    });
    Ok(response.map(|_| Body::empty()))
}

async fn handshake(tasks: &Tasks, stream: Box<dyn Duplex>) -> hyper::Result<SendRequest<RequestBody>> {
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tasks.spawn("proxy-connection", async move {
        let _ = connection.with_upgrades().await;
    });
    Ok(sender)
}

/// A body as it comes. The sender keeps the connection open until all of it was read.
fn streamed(body: Incoming, sender: SendRequest<RequestBody>) -> Body {
    let frames = BodyStream::new(body);
    Body::stream(futures::StreamExt::filter_map(frames, move |frame| {
        let _keep = &sender;
        // Trailers end here, as other headers of a connection do.
        let data = frame.map(|frame| frame.into_data().ok()).map_err(BodyError::from).transpose();
        async move { data }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_split_behind_the_subresource() {
        for (path, is_namespaced, rest) in [
            ("/api/v1/namespaces/a/pods/b/proxy", true, ""),
            ("/api/v1/namespaces/a/pods/b/proxy/", true, "/"),
            ("/api/v1/namespaces/a/pods/b/proxy/x//y%2Fz/", true, "/x//y%2Fz/"),
            ("//api/v1/namespaces//a/pods/b/proxy/proxy", true, "/proxy"),
            ("/api/v1/nodes/b/proxy/metrics", false, "/metrics"),
        ] {
            let (prefix, found) = split(path, is_namespaced);
            assert_eq!(found, rest, "{path}");
            assert!(prefix.ends_with("proxy"), "{path}");
        }
    }
}
