//! What a node tells about itself, at the paths of a kubelet.
//!
//! Upstream: `pkg/kubelet/server/server.go`. What changes anything goes through the API server; so nothing but reading is here.

use bytes::Bytes;
use futures::{FutureExt, StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use orchestrator_core::{
    metrics::Exposition,
    node_connector::{NodeAnswer, NodeConnector, NodeRequest, PodLogOptions, Target},
    status::{ApiError, ApiResult},
};
use serde_json::Value;

use super::pages::{self, Held, Usage};
use crate::{
    node::Node,
    pod::{self, mailbox::Mailbox},
    pods::Roster,
};

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// A page, or why there is none.
enum Page {
    Text(String),
    Json(Value),
    Metrics(Exposition),
    Whole(NodeAnswer),
    Unknown,
}

/// Answers one request.
pub(crate) async fn answer(
    node: &Node,
    roster: &Roster,
    connector: &dyn NodeConnector,
    request: &NodeRequest,
) -> NodeAnswer {
    let segments: Vec<&str> = request.path.split('/').skip(1).collect();
    let page = match segments[..] {
        ["healthz"] | ["healthz", "ping" | "log" | "syncloop"] => Page::Text("ok".to_owned()),
        ["pods"] | ["pods", ""] => Page::Json(pages::pods(&held(roster))),
        ["runningpods"] | ["runningpods", ""] => Page::Json(pages::running_pods(&held(roster))),
        ["configz"] => Page::Json(pages::configuration(&node.config)),
        ["metrics"] => Page::Metrics(pages::metrics(&node.name, &held(roster))),
        ["metrics", "resource"] => Page::Metrics(pages::resource_metrics(&usages(node, roster).await)),
        ["stats", "summary"] => Page::Json(pages::summary(&node.name, &usages(node, roster).await)),
        ["containerLogs", namespace, name, container] => {
            let place = (namespace, name, container);
            Page::Whole(match logs(node, roster, connector, place, request).await {
                Ok(answer) => answer,
                Err(error) => text(u16::try_from(error.code()).unwrap_or(500), error.message().to_owned()),
            })
        }
        _ => Page::Unknown,
    };
    if !matches!(page, Page::Unknown) && !matches!(request.method.as_str(), "GET" | "HEAD") {
        return text(405, "405: Method Not Allowed".to_owned());
    }
    match page {
        Page::Text(words) => text(200, words),
        Page::Json(tree) => whole(200, JSON, tree.to_string()),
        Page::Metrics(metrics) => whole(200, Exposition::MEDIA_TYPE, metrics.into_text()),
        Page::Whole(answer) => answer,
        Page::Unknown => text(404, "404 page not found\n".to_owned()),
    }
}

fn text(code: u16, words: String) -> NodeAnswer {
    whole(code, TEXT, words)
}

fn whole(code: u16, media: &'static str, body: String) -> NodeAnswer {
    NodeAnswer { code, media, body: stream::once(async { Ok(Bytes::from(body)) }).boxed() }
}

/// All pods that the node looks after, and what runs of them.
fn held(roster: &Roster) -> Vec<Held> {
    let of = |mailbox: &std::sync::Arc<Mailbox>| {
        let (observed, status) = mailbox.seen();
        Held { pod: mailbox.pod(), status, observed }
    };
    roster.mailboxes().values().map(of).collect()
}

/// What containers that run use.
async fn usages(node: &Node, roster: &Roster) -> Vec<(Held, Vec<Usage>)> {
    let mut all = Vec::new();
    for held in held(roster) {
        let mut used = Vec::new();
        for (container, started_at) in held.running() {
            if let Ok(Some(stats)) = node.runtime.stats(&container.id).await {
                used.push(Usage { container: container.key.name.clone(), started_at, stats });
            }
        }
        all.push((held, used));
    }
    all
}

async fn logs(
    node: &Node,
    roster: &Roster,
    connector: &dyn NodeConnector,
    (namespace, name, container): (&str, &str, &str),
    request: &NodeRequest,
) -> ApiResult<NodeAnswer> {
    let options = log_options(request, node.env.now())?;
    let mailboxes = roster.mailboxes();
    let is_meant = |mailbox: &&std::sync::Arc<Mailbox>| {
        let pod = mailbox.pod();
        (pod::namespace(&pod), pod::name(&pod)) == (namespace, name)
    };
    let Some(mailbox) = mailboxes.values().find(is_meant) else {
        return Ok(text(404, format!("pod {name:?} does not exist")));
    };
    let pod = mailbox.pod();
    if pod::container(&pod, container).is_none() {
        return Ok(text(404, format!("container {container:?} not found in pod {name:?}")));
    }
    let target = Target {
        node: node.name.clone(),
        namespace: namespace.to_owned(),
        pod: name.to_owned(),
        pod_uid: pod::uid(&pod).to_owned(),
        container: container.to_owned(),
    };
    // Boxed, because it is rarely asked for.
    let body = connector.logs(&target, options).boxed().await?;
    Ok(NodeAnswer { code: 200, media: "text/plain", body })
}

/// Which part of a log is asked for.
fn log_options(request: &NodeRequest, now: Timestamp) -> ApiResult<PodLogOptions> {
    let invalid = |name: &str| ApiError::bad_request(format!("the parameter {name} makes no sense"));
    let flag = |name: &str| request.parameter(name).is_some_and(|value| !matches!(value, "0" | "false"));
    let number = |name: &'static str| {
        let value = request.parameter(name).filter(|value| !value.is_empty());
        value.map(|value| value.parse::<u32>().map_err(|_| invalid(name))).transpose()
    };
    let size = |name| number(name).map(|found| found.map(|found| found as usize));
    let since = match (number("sinceSeconds")?, request.parameter("sinceTime")) {
        (Some(seconds), None) => {
            let past = now.checked_sub(SignedDuration::from_secs(seconds.into()));
            Some(past.map_err(|_| invalid("sinceSeconds"))?)
        }
        (None, Some(time)) => Some(time.parse().map_err(|_| invalid("sinceTime"))?),
        (None, None) => None,
        (Some(_), Some(_)) => return Err(invalid("sinceTime")),
    };
    Ok(PodLogOptions {
        follow: flag("follow"),
        previous: flag("previous"),
        since,
        tail_lines: size("tailLines")?,
        limit_bytes: size("limitBytes")?,
        timestamps: flag("timestamps"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(query: &[(&str, &str)]) -> ApiResult<PodLogOptions> {
        let query = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let now = Timestamp::from_second(1_000).unwrap();
        log_options(&NodeRequest { query, ..NodeRequest::default() }, now)
    }

    #[test]
    fn parts_of_logs() {
        let found = options(&[("follow", "true"), ("tailLines", "3"), ("sinceSeconds", "10")]).unwrap();
        let since = Some(Timestamp::from_second(990).unwrap());
        assert_eq!(found, PodLogOptions { follow: true, tail_lines: Some(3), since, ..PodLogOptions::default() });
        let found =
            options(&[("previous", "false"), ("timestamps", "1"), ("sinceTime", "1970-01-01T00:00:01Z")]).unwrap();
        let since = Some(Timestamp::from_second(1).unwrap());
        assert_eq!(found, PodLogOptions { timestamps: true, since, ..PodLogOptions::default() });
        for wrong in [[("tailLines", "-1"), ("x", "")], [("sinceSeconds", "1"), ("sinceTime", "1970-01-01T00:00:01Z")]]
        {
            assert!(options(&wrong).is_err(), "{wrong:?}");
        }
    }
}
