//! Logs, exec, attach and port-forward for the pods of one node, and the node itself, with the kubelet's words.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use futures::{StreamExt, future, stream};
use k8s_openapi::api::core::v1::{ContainerStatus as ApiStatus, PodStatus};
use orchestrator_core::{
    node_connector::{LogStream, NodeAnswer, NodeConnector, NodeRequest, PodLogOptions, Target},
    runtime::{
        AttachOptions, ContainerId, ContainerState, Duplex, ExecOptions, LogLine, LogOptions, RuntimeError, SandboxId,
        Session,
    },
    status::{ApiError, ApiResult, Reason, Subject},
};

use crate::{http, node::Node, pod, pod::mailbox::Shown, pod::observed::Observed, pods::Roster};

/// Reaches the containers of one node, for as long as its agent runs.
///
/// It holds the agent weakly: the API server holds it, and the agent a client of that server.
#[derive(Debug)]
pub(crate) struct Connector {
    node: Weak<Node>,
    roster: Weak<Roster>,
}

/// An agent that runs.
struct Reached {
    node: Arc<Node>,
    roster: Arc<Roster>,
}

impl Connector {
    pub(crate) fn new(node: &Arc<Node>, roster: &Arc<Roster>) -> Self {
        Self { node: Arc::downgrade(node), roster: Arc::downgrade(roster) }
    }

    fn reach(&self, node: &str) -> ApiResult<Reached> {
        match (self.node.upgrade(), self.roster.upgrade()) {
            (Some(node), Some(roster)) => Ok(Reached { node, roster }),
            _ => Err(ApiError::new(Reason::InternalError, format!("the agent of node {node:?} has ended"))),
        }
    }
}

impl Reached {
    fn look_up(&self, target: &Target) -> ApiResult<(Arc<Observed>, Shown)> {
        let mailbox = self
            .roster
            .mailbox(&target.pod_uid)
            .ok_or_else(|| ApiError::not_found(Subject { group: "", resource: "pods", name: &target.pod }))?;
        if pod::container(&mailbox.pod(), &target.container).is_none() && !target.container.is_empty() {
            let message = format!("container {} is not valid for pod {}", target.container, target.pod);
            return Err(ApiError::bad_request(message));
        }
        Ok(mailbox.seen())
    }

    fn running(&self, target: &Target) -> ApiResult<ContainerId> {
        let (observed, _) = self.look_up(target)?;
        let run = observed.newest_run(&target.container).filter(|run| run.state.is_running());
        run.map(|run| run.id.clone()).ok_or_else(|| {
            let message = format!("container not found (\"{}\")", target.container);
            ApiError::new(Reason::InternalError, format!("Internal error occurred: {message}"))
        })
    }
}

fn api_error(error: RuntimeError) -> ApiError {
    match error {
        RuntimeError::Unsupported(_) | RuntimeError::Invalid(_) | RuntimeError::WrongState(_) => {
            ApiError::bad_request(error.to_string())
        }
        error => ApiError::internal(error),
    }
}

#[async_trait]
impl NodeConnector for Connector {
    async fn logs(&self, target: &Target, options: PodLogOptions) -> ApiResult<LogStream> {
        let agent = self.reach(&target.node)?;
        let (observed, status) = agent.look_up(target)?;
        let id = log_source(target, &observed, &status, options.previous)?;
        let wanted = LogOptions { follow: options.follow, tail_lines: options.tail_lines, since: options.since };
        let lines = agent.node.runtime.logs(&id, wanted).await.map_err(api_error)?;
        let timestamps = options.timestamps;
        // A long line comes in parts; only its first part begins with the time.
        let text = lines.scan(false, move |within, line| {
            future::ready(Some(match line {
                Ok(line) => {
                    let bytes = format_line(&line, timestamps && !*within);
                    *within = line.partial;
                    Ok(bytes)
                }
                Err(error) => Err(api_error(error)),
            }))
        });
        Ok(limited(text.boxed(), options.limit_bytes))
    }

    async fn exec(&self, target: &Target, options: ExecOptions) -> ApiResult<Session> {
        let agent = self.reach(&target.node)?;
        let id = agent.running(target)?;
        match agent.node.runtime.exec(&id, options).await {
            // The session was granted; that its command cannot be started is how it ends.
            Err(error @ RuntimeError::StartFailed(_)) => Ok(Session::ended(Err(error))),
            session => session.map_err(api_error),
        }
    }

    async fn attach(&self, target: &Target, options: AttachOptions) -> ApiResult<Session> {
        let agent = self.reach(&target.node)?;
        let id = agent.running(target)?;
        let session = agent.node.runtime.attach(&id, options).await.map_err(api_error)?;
        // Clients are told that an attach is over, not how the container ended: that stands in the pod's status.
        let exit = session.exit;
        Ok(Session { exit: Box::pin(async move { exit.await.map(|_| 0) }), ..session })
    }

    async fn port_forward(&self, target: &Target, port: u16) -> ApiResult<Box<dyn Duplex>> {
        let agent = self.reach(&target.node)?;
        let (observed, _) = agent.look_up(target)?;
        let sandbox: Option<SandboxId> = observed.ready_sandbox().map(|sandbox| sandbox.id.clone());
        let sandbox = sandbox.ok_or_else(|| {
            ApiError::new(
                Reason::InternalError,
                format!("sandbox of pod {}/{} is not running", target.namespace, target.pod),
            )
        })?;
        agent.node.runtime.port_forward(&sandbox, port).await.map_err(api_error)
    }

    async fn ask(&self, node: &str, request: NodeRequest) -> ApiResult<NodeAnswer> {
        let agent = self.reach(node)?;
        Ok(http::answer(&agent.node, &agent.roster, self, &request).await)
    }
}

fn format_line(line: &LogLine, timestamp: bool) -> Bytes {
    let mut bytes = BytesMut::with_capacity(line.content.len() + 40);
    if timestamp {
        bytes.put_slice(format!("{:.9} ", line.timestamp).as_bytes());
    }
    bytes.put_slice(&line.content);
    if !line.partial {
        bytes.put_u8(b'\n');
    }
    bytes.freeze()
}

/// Ends a log after so many bytes.
fn limited(log: LogStream, limit: Option<usize>) -> LogStream {
    let Some(limit) = limit else { return log };
    stream::unfold((log, limit), |(mut log, left)| async move {
        if left == 0 {
            return None;
        }
        let piece = log.next().await?;
        let piece = piece.map(|piece| piece.slice(..piece.len().min(left)));
        let left = left - piece.as_ref().map_or(left, Bytes::len).min(left);
        Some((piece, (log, left)))
    })
    .boxed()
}

/// Which run's log is meant; upstream's `validateContainerLogStatus`.
fn log_source(target: &Target, observed: &Observed, status: &PodStatus, previous: bool) -> ApiResult<ContainerId> {
    let (container, pod) = (&target.container, &target.pod);
    let ran = |state: &ContainerState| matches!(state, ContainerState::Running { .. } | ContainerState::Exited { .. });
    let mut runs = observed.runs(container).filter(|run| ran(&run.state));
    if previous {
        let mut ended = observed.runs(container).filter(|run| run.state.exit_code().is_some());
        let newest_runs = observed.newest_run(container).is_some_and(|run| run.state.is_running());
        // While a container waits to run again, its last run is the previous one.
        let waiting =
            api_status(status, container).and_then(|it| it.state.as_ref()).is_some_and(|it| it.waiting.is_some());
        let found = if newest_runs || waiting { ended.next() } else { ended.nth(1) };
        return found.map(|run| run.id.clone()).ok_or_else(|| {
            ApiError::bad_request(format!("previous terminated container \"{container}\" in pod \"{pod}\" not found"))
        });
    }
    if let Some(run) = runs.next() {
        return Ok(run.id.clone());
    }
    let Some(status) = api_status(status, container) else {
        return Err(ApiError::bad_request(format!("container \"{container}\" in pod \"{pod}\" is not available")));
    };
    let waiting = status.state.as_ref().and_then(|state| state.waiting.as_ref());
    let reason = waiting.and_then(|waiting| waiting.reason.as_deref());
    let prefix = format!("container \"{container}\" in pod \"{pod}\" is waiting to start");
    Err(ApiError::bad_request(match reason {
        Some("ErrImagePull") => format!("{prefix}: image can't be pulled"),
        Some("ImagePullBackOff") => format!("{prefix}: trying and failing to pull image"),
        Some(reason) => format!("{prefix}: {reason}"),
        None => format!("{prefix} - no logs yet"),
    }))
}

fn api_status<'a>(status: &'a PodStatus, container: &str) -> Option<&'a ApiStatus> {
    let lists = [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
    lists.into_iter().flatten().flatten().find(|status| status.name == container)
}
