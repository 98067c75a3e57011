//! Requests that become streams: logs, and sessions over WebSockets.
//!
//! Upstream: <https://kubernetes.io/docs/reference/using-api/api-concepts/> and KEP-4006 (the `v5.channel.k8s.io`
//! protocol: the first byte of each message names its channel).

use std::sync::Arc;

use futures::{SinkExt, StreamExt};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use orchestrator_core::{
    client::{Resource, UserInfo},
    node_connector::{PodLogOptions, Target as NodeTarget},
    object::Object,
    runtime::{AttachOptions, ExecOptions, RuntimeError, Session, TerminalSize},
    status::{ApiError, ApiResult, FieldError, FieldErrorKind, Subject},
};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::Message;

use super::{
    body::{Body, BodyError, RequestBody},
    executor::Tasks,
    path::ResourcePath,
    port_forward::port_forward,
    query::Query,
    websocket::{Handshake, Socket, closing, framed, pump},
};
use crate::{field::Field, pipeline::Scope, server::ApiServer};

/// Protocols that are spoken, the best one first.
const PROTOCOLS: [&str; 3] = ["v5.channel.k8s.io", "v4.channel.k8s.io", "channel.k8s.io"];

/// Channels of a session.
mod channel {
    pub(super) const STDIN: u8 = 0;
    pub(super) const STDOUT: u8 = 1;
    pub(super) const STDERR: u8 = 2;
    pub(super) const ERROR: u8 = 3;
    pub(super) const RESIZE: u8 = 4;
    /// Version 5: the channel that the next byte names is at its end.
    pub(super) const CLOSE: u8 = 255;
}

/// What a request wants to be connected with.
pub(super) struct Target<'a> {
    pub(super) path: &'a ResourcePath,
    pub(super) subresource: &'a str,
    pub(super) query: &'a Query,
}

/// Whether a subresource is a stream.
pub(super) fn is_connect(path: &ResourcePath, subresource: &str) -> bool {
    path.resource == Resource::new("", "v1", "pods")
        && matches!(subresource, "log" | "exec" | "attach" | "portforward" | "proxy")
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
    // A session can do what a write can, whatever the method: upstream asks for `create` as well.
    let verb = if target.subresource == "log" { "get" } else { "create" };
    server.server().authorize(&scope, verb)?;
    match target.subresource {
        "log" if request.method() == Method::GET => logs(server, &scope, target.query).await,
        "exec" | "attach" => session(server, tasks, &scope, &target, request).await,
        "portforward" => port_forward(server, tasks, &scope, target.query, request).await,
        "log" => Err(ApiError::method_not_allowed()),
        other => Err(ApiError::new(
            orchestrator_core::status::Reason::MethodNotAllowed,
            format!("the subresource {other:?} is not supported by this server"),
        )),
    }
}

/// The container that a request means, and the node that it runs on.
async fn find_target(server: &ApiServer, scope: &Scope, container: Option<&str>) -> ApiResult<(Object, NodeTarget)> {
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
    let target = NodeTarget {
        node: root.at("spec.nodeName").text().to_owned(),
        namespace: scope.namespace.clone(),
        pod: name.to_owned(),
        pod_uid: root.at("metadata.uid").text().to_owned(),
        container,
    };
    Ok((pod.clone(), target))
}

/// Whether a pod's status says that a container runs.
fn is_running(pod: &Object, container: &str) -> ApiResult<bool> {
    let status = Field::root(pod.tree()?).get("status");
    let lists = ["initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"];
    let mut statuses = lists.iter().flat_map(|list| status.get(list).items());
    Ok(statuses.any(|status| status.get("name").text() == container && status.at("state.running").value().is_some()))
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
    let subject = Subject { group: "", resource: "PodLogOptions", name: pod };
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid(subject, &errors)) }
}

async fn logs(server: &ApiServer, scope: &Scope, query: &Query) -> ApiResult<Response<Body>> {
    check_log_options(scope.name()?, query)?;
    let (_, target) = find_target(server, scope, query.get("container")).await?;
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

/// Exec and attach.
async fn session(
    server: &ApiServer,
    tasks: &Tasks,
    scope: &Scope,
    target: &Target<'_>,
    mut request: Request<RequestBody>,
) -> ApiResult<Response<Body>> {
    let (pod, node) = find_target(server, scope, target.query.get("container")).await?;
    if node.node.is_empty() {
        return Err(ApiError::bad_request(format!("pod {} does not have a host assigned", node.pod)));
    }
    // `kubectl` shows the answer to its last try, in a protocol that is not spoken here: say what hindered the first.
    let handshake =
        Handshake::negotiate(&request, &PROTOCOLS).or_else(|error| match is_running(&pod, &node.container)? {
            true => Err(error),
            false => Err(ApiError::bad_request(format!("container not found (\"{}\")", node.container))),
        })?;
    let flag = |name: &str| target.query.flag(name);
    let nodes = &server.server().nodes;
    let session = if target.subresource == "exec" {
        let command: Vec<String> = target.query.all("command").map(str::to_owned).collect();
        if command.is_empty() {
            return Err(ApiError::bad_request("you must specify at least one command for the container"));
        }
        let (stdin, stdout, stderr, tty) = (flag("stdin"), flag("stdout"), flag("stderr"), flag("tty"));
        nodes.exec(&node, ExecOptions { command, stdin, stdout, stderr: stderr && !tty, tty }).await?
    } else {
        let (stdin, stdout, stderr, tty) = (flag("stdin"), flag("stdout"), flag("stderr"), flag("tty"));
        nodes.attach(&node, AttachOptions { stdin, stdout, stderr: stderr && !tty, tty }).await?
    };
    Ok(handshake.switch(tasks, "container-session", &mut request, move |socket| run(socket, session)))
}

/// Carries a session until its command ends or the client goes.
async fn run(socket: Socket, session: Session) {
    let Session { stdin, stdout, stderr, resize, exit } = session;
    let (mut sink, mut source) = socket.split();
    let (sender, mut outgoing) = tokio::sync::mpsc::channel::<Message>(16);

    let output = {
        let sender = sender.clone();
        async move {
            let outputs = [(stdout, channel::STDOUT), (stderr, channel::STDERR)].into_iter();
            let outputs = outputs.filter_map(|(reader, channel)| Some(pump(reader?, channel, sender.clone())));
            futures::future::join_all(outputs).await;
            let status = exit_status(exit.await);
            let _ = sender.send(framed(channel::ERROR, status.to_string().as_bytes())).await;
            let _ = sender.send(closing()).await;
        }
    };
    let write = async move {
        while let Some(message) = outgoing.recv().await {
            let closing = matches!(message, Message::Close(_));
            if sink.send(message).await.is_err() || closing {
                break;
            }
        }
        let _ = sink.flush().await;
    };
    let input = async move {
        let mut stdin = stdin;
        while let Some(Ok(message)) = source.next().await {
            match message {
                Message::Close(_) => break,
                Message::Ping(data) => drop(sender.send(Message::Pong(data)).await),
                message => incoming(&message.into_data(), &mut stdin, resize.as_ref()).await,
            }
        }
    };
    // The session is over when the command is, or when the client has gone: then the command goes, too.
    let work = std::pin::pin!(futures::future::join(output, write));
    let input = std::pin::pin!(input);
    futures::future::select(work, input).await;
}

/// One message of the client.
async fn incoming(
    data: &[u8],
    stdin: &mut Option<Box<dyn tokio::io::AsyncWrite + Send + Unpin>>,
    resize: Option<&tokio::sync::mpsc::Sender<TerminalSize>>,
) {
    match data {
        [channel::STDIN, data @ ..] => {
            if let Some(writer) = stdin
                && writer.write_all(data).await.is_err()
            {
                *stdin = None;
            }
        }
        [channel::CLOSE, channel::STDIN] => {
            if let Some(mut writer) = stdin.take() {
                let _ = writer.shutdown().await;
            }
        }
        [channel::RESIZE, data @ ..] => {
            let size: Value = serde_json::from_slice(data).unwrap_or_default();
            let side = |name: &str| size[name].as_u64().and_then(|side| u16::try_from(side).ok());
            if let (Some(width), Some(height), Some(resize)) = (side("Width"), side("Height"), resize) {
                let _ = resize.try_send(TerminalSize { width, height });
            }
        }
        _ => {}
    }
}

/// How a command ended, as the error channel says it.
fn exit_status(exit: Result<i32, RuntimeError>) -> Value {
    match exit {
        Ok(0) => json!({"metadata": {}, "status": "Success"}),
        Ok(code) => json!({
            "metadata": {},
            "status": "Failure",
            "message": format!("command terminated with non-zero exit code: command terminated with exit code {code}"),
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        Err(error) => json!({
            "metadata": {},
            "status": "Failure",
            "message": format!("Internal error occurred: error executing command in container: {error}"),
            "reason": "InternalError",
            "code": 500,
        }),
    }
}
