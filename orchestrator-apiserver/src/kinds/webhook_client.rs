//! How the API server reaches a webhook: a URL, or a service of the cluster.
//!
//! Upstream: `k8s.io/apiserver/pkg/util/webhook/validation.go`.

use std::collections::BTreeSet;

use super::check;
use crate::{
    field::{Errors, Field},
    names,
};

const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const FORM: &str = "; desired format: https://host[/path]";

/// The rules of a client's configuration.
pub(super) fn validate(client: &Field<'_>, errors: &mut Errors) {
    let (url, service) = (client.get("url"), client.get("service"));
    match (url.exists(), service.exists()) {
        (true, false) => validate_url(&url, errors),
        (false, true) => validate_service(&service, errors),
        _ => client.required(errors, "exactly one of url or service is required"),
    }
}

/// The versions of reviews that a webhook knows: one of ours, at least. `when_missing` says what is wrong with none.
pub(super) fn review_versions(versions: &Field<'_>, when_missing: &str, errors: &mut Errors) {
    if versions.len() == 0 {
        return versions.required(errors, when_missing);
    }
    let mut seen = BTreeSet::new();
    for version in versions.items() {
        if seen.insert(version.text()) {
            check::problems(&version, &names::label_1035(version.text()), errors);
        } else {
            version.invalid(errors, "duplicate version");
        }
    }
    if !REVIEW_VERSIONS.iter().any(|known| seen.contains(known)) {
        versions.invalid(errors, &format!("must include at least one of {}", REVIEW_VERSIONS.join(", ")));
    }
}

/// The parts of a URL, as Go tells them apart.
struct Parts<'a> {
    scheme: &'a str,
    user: Option<&'a str>,
    host: &'a str,
    query: &'a str,
    fragment: &'a str,
}

impl<'a> Parts<'a> {
    fn of(url: &'a str) -> Self {
        let (url, fragment) = url.split_once('#').unwrap_or((url, ""));
        let (url, query) = url.split_once('?').unwrap_or((url, ""));
        let is_scheme = |text: &str| {
            text.starts_with(|first: char| first.is_ascii_alphabetic())
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        };
        let (scheme, rest) = url.split_once(':').filter(|(scheme, _)| is_scheme(scheme)).unwrap_or(("", url));
        let authority = rest.strip_prefix("//").map_or("", |rest| rest.split('/').next().unwrap_or_default());
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        Self { scheme, user, host, query, fragment }
    }
}

fn validate_url(url: &Field<'_>, errors: &mut Errors) {
    let parts = Parts::of(url.text());
    let mut refuse = |shown: &str, detail: &str| url.wrong(errors, format!("{shown:?}"), detail);
    let scheme = parts.scheme.to_ascii_lowercase();
    if scheme != "https" {
        refuse(&scheme, &format!("'https' is the only allowed URL scheme{FORM}"));
    }
    if parts.host.is_empty() {
        refuse("", &format!("host must be specified{FORM}"));
    }
    if let Some(user) = parts.user {
        refuse(user, "user information is not permitted in the URL");
    }
    if !parts.fragment.is_empty() {
        refuse(parts.fragment, "fragments are not permitted in the URL");
    }
    if !parts.query.is_empty() {
        refuse(parts.query, "query parameters are not permitted in the URL");
    }
}

fn validate_service(service: &Field<'_>, errors: &mut Errors) {
    for name in ["name", "namespace"] {
        if service.get(name).text().is_empty() {
            service.get(name).required(errors, &format!("service {name} is required"));
        }
    }
    let (port, path) = (service.get("port"), service.get("path"));
    let number = port.int().unwrap_or(0);
    if !(1..=65_535).contains(&number) {
        port.wrong(errors, number, "port is not valid: must be between 1 and 65535, inclusive");
    }
    match path.text() {
        "" | "/" => {}
        "//" => path.invalid(errors, "segment[0] may not be empty"),
        text => validate_path(&path, text, errors),
    }
}

fn validate_path(path: &Field<'_>, text: &str, errors: &mut Errors) {
    if !text.starts_with('/') {
        path.invalid(errors, "must start with a '/'");
    }
    // Upstream takes the first letter for the slash, whatever it is.
    let steps = text.get(1..).unwrap_or_default();
    for (index, step) in steps.strip_suffix('/').unwrap_or(steps).split('/').enumerate() {
        if step.is_empty() {
            path.invalid(errors, &format!("segment[{index}] may not be empty"));
            continue;
        }
        for problem in names::subdomain(step) {
            path.invalid(errors, &format!("segment[{index}]: {problem}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::told;

    fn broken(client: &Value) -> Vec<String> {
        let mut errors = Errors::default();
        validate(&Field::root(client), &mut errors);
        told(errors)
    }

    #[test]
    fn urls_say_where_and_nothing_else() {
        let url = |url: &str| broken(&json!({"url": url}));
        assert_eq!(url("https://example.com:8443/a/b"), [""; 0]);
        assert_eq!(
            url("http://user:word@example.com/a?b=c#d"),
            [
                "url: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
                "url: \"user:word\": user information is not permitted in the URL",
                "url: \"d\": fragments are not permitted in the URL",
                "url: \"b=c\": query parameters are not permitted in the URL",
            ]
        );
        assert_eq!(url("https:///a"), ["url: \"\": host must be specified; desired format: https://host[/path]"]);
        assert_eq!(url("example").len(), 2);
    }

    #[test]
    fn services_have_names_ports_and_paths() {
        let service =
            |path: &str| broken(&json!({"service": {"name": "s", "namespace": "n", "port": 443, "path": path}}));
        for path in ["", "/", "/a", "/a/b.c/"] {
            assert_eq!(service(path), [""; 0], "{path}");
        }
        assert_eq!(service("//"), ["service.path: \"//\": segment[0] may not be empty"]);
        assert_eq!(service("/a//b"), ["service.path: \"/a//b\": segment[1] may not be empty"]);
        assert_eq!(service("ab"), ["service.path: \"ab\": must start with a '/'"]);
        assert_eq!(service("/A").len(), 1);
        assert_eq!(
            broken(&json!({"service": {"port": 0}})),
            [
                "service.name: service name is required",
                "service.namespace: service namespace is required",
                "service.port: 0: port is not valid: must be between 1 and 65535, inclusive",
            ]
        );
    }
}
