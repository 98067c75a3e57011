//! Sessions with a container: exec and attach.
//!
//! Upstream: `k8s.io/kubelet/pkg/cri/streaming/remotecommand`. Over SPDY each of a session's streams is one of the connection;
//! over a WebSocket it is a channel, which the first byte of each message names.

use http::{Request, Response};
use orchestrator_core::{
    runtime::{AttachOptions, ExecOptions, RuntimeError, TerminalSize},
    status::{ApiError, ApiResult},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::mpsc,
};

use super::{
    body::{Body, RequestBody},
    channels::Coding,
    connect::{Target, find_target},
    executor::Tasks,
    session_channels, session_streams,
    upgrade::Upgrade,
};
use crate::{limits, pipeline::Scope, server::ApiServer};

/// Protocols over WebSockets, of which the client prefers one. The last one is spoken with clients that name none.
const OVER_WEB_SOCKET: [&str; 6] = [
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
    "",
];

/// Protocols over SPDY, the best one first.
const OVER_SPDY: [&str; 5] =
    ["v5.channel.k8s.io", "v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];

/// Which streams a client asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    pub(super) tty: bool,
}

/// Exec and attach.
pub(super) async fn session(
    server: &ApiServer,
    tasks: &Tasks,
    scope: &Scope,
    target: &Target<'_>,
    mut request: Request<RequestBody>,
) -> ApiResult<Response<Body>> {
    let node = find_target(server, scope, target.query.get("container")).await?;
    if node.node.is_empty() {
        return Err(ApiError::bad_request(format!("pod {} does not have a host assigned", node.pod)));
    }
    let upgrade = match Upgrade::negotiate(&request, &OVER_WEB_SOCKET, &OVER_SPDY)? {
        Ok(upgrade) => upgrade,
        // Nothing is started for who could not be served.
        Err(refusal) => return Ok(refusal),
    };
    let flag = |name: &str| target.query.flag(name);
    let tty = flag("tty");
    // A terminal has one output.
    let wanted = Wanted { stdin: flag("stdin"), stdout: flag("stdout"), stderr: flag("stderr") && !tty, tty };
    let Wanted { stdin, stdout, stderr, tty } = wanted;
    let nodes = &server.server().nodes;
    let session = if target.subresource == "exec" {
        let command: Vec<String> = target.query.all("command").map(str::to_owned).collect();
        if command.is_empty() {
            return Err(ApiError::bad_request("you must specify at least one command for the container"));
        }
        nodes.exec(&node, ExecOptions { command, stdin, stdout, stderr, tty }).await?
    } else {
        nodes.attach(&node, AttachOptions { stdin, stdout, stderr, tty }).await?
    };
    let (name, env) = ("container-session", tasks.env().clone());
    Ok(match upgrade {
        Upgrade::WebSocket(handshake) => {
            let coding = Coding::of(handshake.protocol());
            let serve = move |socket| session_channels::run(env, socket, coding, session);
            handshake.switch(tasks, name, &mut request, serve)
        }
        Upgrade::Spdy(handshake) => {
            let protocol = handshake.protocol();
            let serve = move |transport| session_streams::run(env, transport, session, protocol, wanted);
            handshake.switch(tasks, name, &mut request, serve)
        }
    })
}

/// Reads sizes of the terminal, one JSON object after the other.
pub(super) async fn change_sizes(mut pipe: impl AsyncRead + Unpin, resize: Option<mpsc::Sender<TerminalSize>>) {
    let Some(resize) = resize else { return };
    let mut text = Vec::new();
    let mut piece = [0; limits::TERMINAL_SIZE_BYTES];
    while let Ok(count @ 1..) = pipe.read(&mut piece).await {
        text.extend_from_slice(piece.get(..count).unwrap_or_default());
        let mut sizes = serde_json::Deserializer::from_slice(&text).into_iter::<Value>();
        while let Some(Ok(size)) = sizes.next() {
            let side = |name: &str| size[name].as_u64().and_then(|side| u16::try_from(side).ok());
            if let (Some(width), Some(height)) = (side("Width"), side("Height")) {
                let _ = resize.send(TerminalSize { width, height }).await;
            }
        }
        let read = sizes.byte_offset();
        text.drain(..read);
        if text.len() > limits::TERMINAL_SIZE_BYTES {
            return;
        }
    }
}

/// How a command ended, as the error channel says it.
pub(super) fn exit_status(exit: Result<i32, RuntimeError>) -> Value {
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
