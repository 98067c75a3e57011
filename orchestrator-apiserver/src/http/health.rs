//! Health: whether the server lives and whether it is ready, check by check.
//!
//! Upstream: <https://kubernetes.io/docs/reference/using-api/health-checks/>, `k8s.io/apiserver/pkg/server/healthz`.

use std::{collections::BTreeSet, sync::atomic::Ordering};

use http::{HeaderValue, Response, StatusCode, header};

use super::{body::Body, query::Query, respond};
use crate::{limits, pipeline::Server};

/// Something that can be in order or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    /// There is an answer.
    Ping,
    /// The store answers.
    Store,
    /// The store answers, for those who want to know whether to send requests.
    StoreReadiness,
    /// It is known who is served first.
    Flows,
    /// The server is not about to end.
    Shutdown,
}

impl Check {
    /// Upstream's name.
    fn name(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Store => "etcd",
            Self::StoreReadiness => "etcd-readiness",
            Self::Flows => "poststarthook/priority-and-fairness-config-consumer",
            Self::Shutdown => "shutdown",
        }
    }

    async fn check(self, server: &Server) -> Result<(), String> {
        match self {
            Self::Ping => Ok(()),
            Self::Store | Self::StoreReadiness => {
                match server.env.timeout(limits::HEALTH_TIME, server.store.status()).await {
                    Ok(Ok(_)) => Ok(()),
                    Ok(Err(error)) => Err(format!("the store failed: {error}")),
                    Err(_) => Err("the store does not answer".to_owned()),
                }
            }
            Self::Flows if server.flows.is_ready() => Ok(()),
            Self::Flows => Err("flow schemas and priority levels are not known yet".to_owned()),
            Self::Shutdown if server.draining.load(Ordering::Relaxed) || server.closed.is_cancelled() => {
                Err("process is shutting down".to_owned())
            }
            Self::Shutdown => Ok(()),
        }
    }
}

/// The checks of a path; `None` where it is no path of health.
fn checks(root: &str) -> Option<&'static [Check]> {
    match root {
        "healthz" | "livez" => Some(&[Check::Ping, Check::Store, Check::Flows]),
        "readyz" => Some(&[Check::Ping, Check::Store, Check::StoreReadiness, Check::Flows, Check::Shutdown]),
        _ => None,
    }
}

/// The answer about all checks, or about the one that the rest of the path names. `None` where nothing has that name.
pub(super) async fn answer(server: &Server, root: &str, rest: &[&str], query: &Query) -> Option<Response<Body>> {
    let checks = checks(root)?;
    if rest.is_empty() {
        return Some(all(server, root, checks, query).await);
    }
    let name = rest.join("/");
    let check = checks.iter().find(|check| check.name() == name)?;
    Some(match check.check(server).await {
        Ok(()) => well("ok".to_owned()),
        Err(error) => unwell(format!("internal server error: {error}\n")),
    })
}

async fn all(server: &Server, root: &str, checks: &[Check], query: &Query) -> Response<Body> {
    let mut excluded: BTreeSet<&str> = query.all("exclude").collect();
    let (mut lines, mut failed) = (String::new(), false);
    for check in checks {
        let name = check.name();
        if excluded.remove(name) {
            lines.push_str(&format!("[+]{name} excluded: ok\n"));
            continue;
        }
        match check.check(server).await {
            Ok(()) => lines.push_str(&format!("[+]{name} ok\n")),
            Err(error) => {
                // Everyone may ask here, but not what is wrong.
                tracing::warn!(check = name, error, "a health check failed");
                lines.push_str(&format!("[-]{name} failed: reason withheld\n"));
                failed = true;
            }
        }
    }
    if !excluded.is_empty() {
        let names: Vec<String> = excluded.iter().map(|name| format!("{name:?}")).collect();
        let names = names.join(", ");
        lines.push_str(&format!("warn: some health checks cannot be excluded: no matches for {names}\n"));
    }
    match (failed, query.has("verbose")) {
        (true, _) => unwell(format!("{lines}{root} check failed\n")),
        (false, true) => well(format!("{lines}{root} check passed\n")),
        (false, false) => well("ok".to_owned()),
    }
}

fn well(text: String) -> Response<Body> {
    plain(StatusCode::OK, text)
}

fn unwell(text: String) -> Response<Body> {
    plain(StatusCode::INTERNAL_SERVER_ERROR, text)
}

fn plain(code: StatusCode, text: String) -> Response<Body> {
    let mut response = respond::text(code, text);
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
