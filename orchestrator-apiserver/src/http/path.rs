//! What a path names.

use orchestrator_core::client::Resource;

/// A path of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// `/api/…` or `/apis/…` down to a resource.
    Resource(ResourcePath),
    /// Everything else, as its parts.
    Other(Vec<String>),
}

/// A resource, a collection or a subresource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ResourcePath {
    pub(super) resource: Resource,
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    pub(super) subresource: Option<String>,
}

impl Path {
    /// `None` when an escape in the path makes no sense.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let parts = path.split('/').filter(|part| !part.is_empty()).map(unescape).collect::<Option<Vec<_>>>()?;
        let texts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let resource = match texts[..] {
            ["api", version, ref rest @ ..] if !rest.is_empty() => ResourcePath::parse("", version, rest),
            ["apis", group, version, ref rest @ ..] if !rest.is_empty() => ResourcePath::parse(group, version, rest),
            _ => None,
        };
        Some(match resource {
            Some(resource) => Self::Resource(resource),
            None => Self::Other(parts),
        })
    }
}

/// Subresources of namespaces, which stand where resources in a namespace stand.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

impl ResourcePath {
    fn parse(group: &str, version: &str, rest: &[&str]) -> Option<Self> {
        let resource = |plural: &str| Resource::new(group.to_owned(), version.to_owned(), plural.to_owned());
        let own = |text: &str| Some(text.to_owned());
        let path = |plural: &str, namespace, name, subresource| {
            Some(Self { resource: resource(plural), namespace, name, subresource })
        };
        match *rest {
            ["namespaces", name, subresource] if group.is_empty() && NAMESPACE_SUBRESOURCES.contains(&subresource) => {
                path("namespaces", None, own(name), own(subresource))
            }
            // Behind it stands a path of the other side.
            ["namespaces", namespace, plural, name, "proxy", ..] if group.is_empty() => {
                path(plural, own(namespace), own(name), own("proxy"))
            }
            [plural, name, "proxy", ..] if group.is_empty() && plural != "namespaces" => {
                path(plural, None, own(name), own("proxy"))
            }
            ["namespaces", namespace, plural] => path(plural, own(namespace), None, None),
            ["namespaces", namespace, plural, name] => path(plural, own(namespace), own(name), None),
            ["namespaces", namespace, plural, name, subresource] => {
                path(plural, own(namespace), own(name), own(subresource))
            }
            [plural] => path(plural, None, None, None),
            [plural, name] => path(plural, None, own(name), None),
            [plural, name, subresource] => path(plural, None, own(name), own(subresource)),
            _ => None,
        }
    }
}

/// Resolves percent escapes. A part never gains a slash's meaning by that.
pub(super) fn unescape(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
            let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
            out.push((high * 16 + low) as u8);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, expected: Option<(&str, &str, &str, &str, &str)>) {
        let found = match Path::parse(path).unwrap() {
            Path::Resource(path) => Some(path),
            Path::Other(_) => None,
        };
        let found = found.as_ref().map(|path| {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            (
                path.resource.api_version(),
                path.resource.plural.to_string(),
                text(&path.namespace),
                text(&path.name),
                text(&path.subresource),
            )
        });
        let expected = expected.map(|(a, b, c, d, e)| (a.into(), b.into(), c.into(), d.into(), e.into()));
        assert_eq!(found, expected, "{path}");
    }

    #[test]
    fn paths_name_resources() {
        check("/api/v1/pods", Some(("v1", "pods", "", "", "")));
        check("/api/v1/namespaces", Some(("v1", "namespaces", "", "", "")));
        check("/api/v1/namespaces/a", Some(("v1", "namespaces", "", "a", "")));
        check("/api/v1/namespaces/a/finalize", Some(("v1", "namespaces", "", "a", "finalize")));
        check("/api/v1/namespaces/a/pods/b/log", Some(("v1", "pods", "a", "b", "log")));
        check("/apis/apps/v1/namespaces/a/deployments/", Some(("apps/v1", "deployments", "a", "", "")));
        check("/apis/g/v1/namespaces/a/b%2Fc/d", Some(("g/v1", "b/c", "a", "d", "")));
        check("/api/v1/namespaces/a/pods/b:80/proxy", Some(("v1", "pods", "a", "b:80", "proxy")));
        check("/api/v1/namespaces/a/services/b/proxy/c/d", Some(("v1", "services", "a", "b", "proxy")));
        check("/api/v1/nodes/b/proxy/c/d", Some(("v1", "nodes", "", "b", "proxy")));
        check("/api/v1/namespaces/a/pods/proxy", Some(("v1", "pods", "a", "proxy", "")));
        check("/api/v1/namespaces/a/pods/b/log/c", None);
        check("/api/v1", None);
        check("/apis/apps", None);
        check("/healthz", None);
    }
}
