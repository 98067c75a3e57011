//! Requests that become streams: which pod and container they mean, and logs.

use std::sync::Arc;

use futures::StreamExt;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use orchestrator_core::{
    client::UserInfo,
    node_connector::{PodLogOptions, Target as NodeTarget},
    status::{ApiError, ApiResult, FieldError, FieldErrorKind, Subject},
};

use super::{
    body::{Body, BodyError, RequestBody},
    executor::Tasks,
    path::ResourcePath,
    port_forward::port_forward,
    proxy,
    query::Query,
    session::session,
};
use crate::{field::Field, pipeline::Scope, server::ApiServer};

/// What a request wants to be connected with.
pub(super) struct Target<'a> {
    pub(super) path: &'a ResourcePath,
    pub(super) subresource: &'a str,
    pub(super) query: &'a Query,
}

/// Whether a subresource is a stream.
pub(super) fn is_connect(path: &ResourcePath, subresource: &str) -> bool {
    let is_core = path.resource.group.is_empty() && path.resource.version == "v1";
    let is_stream = match &*path.resource.plural {
        "pods" => matches!(subresource, "log" | "exec" | "attach" | "portforward" | "proxy"),
        "services" | "nodes" => subresource == "proxy",
        _ => false,
    };
    is_core && is_stream
}

pub(super) async fn connect(
    server: &ApiServer,
    tasks: &Tasks,
    user: &Arc<UserInfo>,
    target: Target<'_>,
    request: Request<RequestBody>,
) -> ApiResult<Response<Body>> {
    let scope = server.server().resolve(
        Some(user.clone()),
        &target.path.resource,
        target.path.namespace.clone(),
        target.path.name.clone(),
        target.path.subresource.clone(),
    )?;
    let verb = match target.subresource {
        "log" => "get",
        "proxy" => proxy::verb(request.method())?,
        // A session can do what a write can, whatever the method: upstream asks for `create` as well.
        _ => "create",
    };
    server.server().authorize(&scope, verb)?;
    match target.subresource {
        "log" if request.method() == Method::GET => logs(server, &scope, target.query).await,
        "exec" | "attach" => session(server, tasks, &scope, &target, request).await,
        "portforward" => port_forward(server, tasks, &scope, target.query, request).await,
        "proxy" => proxy::proxy(server, tasks, &scope, request).await,
        _ => Err(ApiError::method_not_allowed()),
    }
}

/// The container that a request means, and the node that it runs on.
pub(super) async fn find_target(server: &ApiServer, scope: &Scope, container: Option<&str>) -> ApiResult<NodeTarget> {
    let name = scope.name()?;
    let pod = server.server().find_pod(&scope.namespace, name).await?;
    let tree = pod.tree()?;
    let root = Field::root(tree);
    let lists = ["initContainers", "containers", "ephemeralContainers"];
    let names: Vec<&str> =
        lists.iter().flat_map(|list| root.get("spec").get(list).items()).map(|item| item.get("name").text()).collect();
    let container = match container {
        Some(container) if names.contains(&container) => container.to_owned(),
        Some(container) => {
            return Err(ApiError::bad_request(format!("container {container} is not valid for pod {name}")));
        }
        None => default_container(&root, name)?,
    };
    Ok(NodeTarget {
        node: root.at("spec.nodeName").text().to_owned(),
        namespace: scope.namespace.clone(),
        pod: name.to_owned(),
        pod_uid: root.at("metadata.uid").text().to_owned(),
        container,
    })
}

/// The only container, or the one that the pod's annotation names.
fn default_container(pod: &Field<'_>, name: &str) -> ApiResult<String> {
    let containers = pod.at("spec.containers").items();
    let names: Vec<&str> = containers.iter().map(|container| container.get("name").text()).collect();
    match names[..] {
        [only] => Ok(only.to_owned()),
        _ => {
            let init: Vec<&str> =
                pod.at("spec.initContainers").items().iter().map(|container| container.get("name").text()).collect();
            let mut message =
                format!("a container name must be specified for pod {name}, choose one of: [{}]", names.join(" "));
            if !init.is_empty() {
                message.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            Err(ApiError::bad_request(message))
        }
    }
}

/// How much of a log is asked for must make sense.
fn check_log_options(pod: &str, query: &Query) -> ApiResult<()> {
    let mut errors = Vec::new();
    let bounds = [
        ("tailLines", 0, "must be greater than or equal to 0"),
        ("limitBytes", 1, "must be greater than 0"),
        ("sinceSeconds", 1, "must be greater than 0"),
    ];
    let both = query.get("sinceSeconds").is_some() && query.get("sinceTime").is_some();
    for (name, least, why) in bounds {
        let Some(number) = query.int(name)?.filter(|number| *number < least) else { continue };
        if name != "sinceSeconds" || !both {
            let detail = format!("{number}: {why}");
            errors.push(FieldError { field: name.to_owned(), kind: FieldErrorKind::Invalid, detail });
        }
    }
    if both {
        let detail = "at most one of `sinceTime` or `sinceSeconds` may be specified".to_owned();
        errors.push(FieldError { field: "[]".to_owned(), kind: FieldErrorKind::Forbidden, detail });
    }
    if query.has("stream") {
        // Upstream has it behind `PodLogsQuerySplitStreams`, an alpha feature that is off.
        let detail = "may not be specified".to_owned();
        errors.push(FieldError { field: "stream".to_owned(), kind: FieldErrorKind::Forbidden, detail });
    }
    let subject = Subject { group: "", resource: "PodLogOptions", name: pod };
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid(subject, &errors)) }
}

async fn logs(server: &ApiServer, scope: &Scope, query: &Query) -> ApiResult<Response<Body>> {
    check_log_options(scope.name()?, query)?;
    let target = find_target(server, scope, query.get("container")).await?;
    if target.node.is_empty() {
        // Nothing runs yet, so nothing was written.
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        return Ok(response);
    }
    let number = |name: &str| -> ApiResult<Option<usize>> {
        Ok(query.int(name)?.map(|number| usize::try_from(number).unwrap_or(0)))
    };
    let since_time = query.get("sinceTime").map(str::parse::<jiff::Timestamp>).transpose();
    let since_seconds = query
        .int("sinceSeconds")?
        .map(|seconds| server.server().env.now().saturating_sub(jiff::SignedDuration::from_secs(seconds)));
    let since_seconds = since_seconds.transpose().map_err(|error| ApiError::bad_request(error.to_string()))?;
    let options = PodLogOptions {
        follow: query.flag("follow"),
        previous: query.flag("previous"),
        since: since_time.map_err(|error| ApiError::bad_request(error.to_string()))?.or(since_seconds),
        tail_lines: number("tailLines")?,
        limit_bytes: number("limitBytes")?,
        timestamps: query.flag("timestamps"),
    };
    let stream = server.server().nodes.logs(&target, options).await?;
    let mut response = Response::new(Body::stream(stream.map(|piece| piece.map_err(BodyError::from))));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}
