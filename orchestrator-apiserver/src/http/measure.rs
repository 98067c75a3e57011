//! Which labels a request is counted under.

use http::Method;
use orchestrator_core::client::Resource;

use super::{path::Path, query::Query};
use crate::{metrics::Call, registry::Registry};

/// Subresources that kinds have; others are not counted by name.
const SUBRESOURCES: [&str; 14] = [
    "approval",
    "attach",
    "binding",
    "ephemeralcontainers",
    "eviction",
    "exec",
    "finalize",
    "log",
    "portforward",
    "proxy",
    "resize",
    "scale",
    "status",
    "token",
];

/// Subresources that a client is connected with.
const CONNECTED: [&str; 4] = ["attach", "exec", "portforward", "proxy"];

/// Subresources whose requests last as long as their clients want.
pub(super) const LONG_RUNNING: [&str; 5] = ["attach", "exec", "log", "portforward", "proxy"];

/// Paths that are no resources; others are counted together.
const PATHS: [&str; 9] =
    ["/api", "/apis", "/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"];

/// Methods that are counted by name.
const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

/// What a request asks for, and whether it lasts as long as its client wants.
pub(super) fn call(
    registry: &Registry,
    method: &Method,
    path: &Path,
    raw_path: &str,
    query: &Query,
    content_type: &str,
) -> (Call, bool) {
    let other = |subresource| {
        let verb = if method == Method::HEAD { "GET" } else { known(&METHODS, method.as_str()).unwrap_or("OTHER") };
        (Call { resource: Resource::new("", "", ""), subresource, verb, scope: "", dry_run: false }, false)
    };
    let Path::Resource(path) = path else {
        let is_under =
            |root: &&&str| raw_path.strip_prefix(**root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        return other(PATHS.iter().find(is_under).copied().unwrap_or_default());
    };
    let Some(kind) = registry.find(&path.resource) else { return other("") };
    let subresource = match path.subresource.as_deref() {
        None => "",
        Some(given) => match known(&SUBRESOURCES, given).filter(|name| kind.subresource(name).is_some()) {
            Some(name) => name,
            None => return other(""),
        },
    };
    let verb = match (method.as_str(), path.name.is_some()) {
        _ if CONNECTED.contains(&subresource) => "CONNECT",
        ("GET" | "HEAD", true) => "GET",
        ("GET" | "HEAD", false) if query.flag("watch") => "WATCH",
        ("GET" | "HEAD", false) => "LIST",
        ("PATCH", _) if content_type == "application/apply-patch+yaml" => "APPLY",
        ("DELETE", false) => "DELETECOLLECTION",
        (method, _) => known(&METHODS, method).unwrap_or("OTHER"),
    };
    let scope = match (&path.name, &path.namespace) {
        _ if verb == "POST" => "resource",
        (Some(_), _) => "resource",
        (None, Some(_)) => "namespace",
        (None, None) => "cluster",
    };
    let is_long = verb == "WATCH" || LONG_RUNNING.contains(&subresource);
    let dry_run = query.get("dryRun").is_some();
    (Call { resource: kind.resource.clone(), subresource, verb, scope, dry_run }, is_long)
}

/// A word as one of those that are known.
fn known(words: &[&'static str], given: &str) -> Option<&'static str> {
    words.iter().copied().find(|word| *word == given)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(method: &str, target: &str, content_type: &str) -> String {
        let (raw_path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = Path::parse(raw_path).unwrap();
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let (call, is_long) =
            call(&Registry::new(), &method, &path, raw_path, &Query::parse(Some(query)), content_type);
        let Call { resource, subresource, verb, scope, dry_run } = call;
        let marks = [(is_long, " long"), (dry_run, " dry")];
        let marks: String = marks.into_iter().filter(|(is, _)| *is).map(|(_, mark)| mark).collect();
        format!("{verb} {resource} {subresource} {scope}{marks}")
    }

    #[test]
    fn requests_are_named_as_upstream() {
        for (method, target, expected) in [
            ("GET", "/api/v1/pods", "LIST pods  cluster"),
            ("GET", "/api/v1/pods?watch=1", "WATCH pods  cluster long"),
            ("GET", "/api/v1/namespaces/a/pods", "LIST pods  namespace"),
            ("HEAD", "/api/v1/namespaces/a/pods/b", "GET pods  resource"),
            ("POST", "/api/v1/namespaces/a/pods?dryRun=All", "POST pods  resource dry"),
            ("PATCH", "/apis/apps/v1/namespaces/a/deployments/b/scale", "PATCH deployments.apps scale resource"),
            ("DELETE", "/api/v1/namespaces/a/pods", "DELETECOLLECTION pods  namespace"),
            ("GET", "/api/v1/namespaces/a/pods/b/log", "GET pods log resource long"),
            ("POST", "/api/v1/namespaces/a/pods/b/exec", "CONNECT pods exec resource long"),
            ("GET", "/livez/etcd", "GET  /livez "),
            ("GET", "/openapi/v3/api/v1", "GET  /openapi/v3 "),
            // What clients invent is all one.
            ("BREW", "/api/v1/pods/a", "OTHER pods  resource"),
            ("BREW", "/anything", "OTHER   "),
            ("GET", "/livezoo", "GET   "),
            ("GET", "/api/v1/namespaces/a/nosuch", "GET   "),
            ("GET", "/apis/nosuch/v1/pods", "GET   "),
            ("GET", "/api/v1/namespaces/a/pods/b/nosuch", "GET   "),
            ("GET", "/api/v1/namespaces/a/pods/b/scale", "GET   "),
        ] {
            assert_eq!(labels(method, target, "application/json"), expected, "{method} {target}");
        }
        let apply = labels("PATCH", "/api/v1/namespaces/a/pods/b", "application/apply-patch+yaml");
        assert_eq!(apply, "APPLY pods  resource");
    }
}
