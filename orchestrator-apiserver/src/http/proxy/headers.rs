//! Headers of proxied requests: what belongs to one connection is dropped, and links lead through the proxy.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, header};

use crate::http::body::RequestBody;

/// What belongs to one connection, beside what `Connection` names (RFC 9110, section 7.6.1).
const OF_CONNECTION: [&str; 9] = [
    "connection",
    "proxy-connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What other sites may do is for this server to say, not for what is behind it.
const OF_ORIGINS: [HeaderName; 4] = [
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
];

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// The address that a request comes from. Requests carry it.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct Peer(pub(in crate::http) IpAddr);

/// A header's text, or none.
pub(super) fn text(headers: &HeaderMap, name: HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Makes a request what the other side is to see. Who asks is not its business.
pub(super) fn prepare(request: &mut Request<RequestBody>, prefix: &str, rest: &str, host: Option<HeaderValue>) {
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0.to_string());
    let headers = request.headers_mut();
    let upgrade = drop_connection(headers);
    headers.remove(header::AUTHORIZATION);
    let own: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
    for name in own {
        headers.remove(name);
    }
    if let Some(host) = host {
        headers.entry(header::HOST).or_insert(host);
    }
    if let Some(upgrade) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, upgrade);
    }
    if let Some(peer) = peer {
        let before = text(headers, FORWARDED_FOR);
        let forwarded = if before.is_empty() { peer } else { format!("{before}, {peer}") };
        if let Ok(forwarded) = HeaderValue::from_str(&forwarded) {
            headers.insert(FORWARDED_FOR, forwarded);
        }
    }
    if let Ok(uri) = HeaderValue::from_str(&format!("{prefix}{rest}")) {
        headers.insert(FORWARDED_URI, uri);
    }
}

/// Drops what belongs to the connection; gives what it is to be upgraded to.
fn drop_connection(headers: &mut HeaderMap) -> Option<HeaderValue> {
    let named: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    let upgrade = headers.get(header::UPGRADE).cloned().filter(|_| named.iter().any(|name| name == "upgrade"));
    for name in named.iter().map(String::as_str).chain(OF_CONNECTION) {
        headers.remove(name);
    }
    upgrade
}

/// Where links of an answer lead.
#[derive(Clone, Debug)]
pub(super) struct Link {
    /// The path of the proxy itself.
    pub(super) prefix: String,
    /// The address of the other side.
    pub(super) host: String,
    /// What the client takes for the address.
    pub(super) asked_host: String,
}

/// Makes an answer what the client is to see.
pub(super) fn clean_answer(headers: &mut HeaderMap, link: &Link) {
    if let Some(upgrade) = drop_connection(headers) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, upgrade);
    }
    for name in OF_ORIGINS {
        headers.remove(name);
    }
    let location = text(headers, header::LOCATION);
    if let Some(location) = link.through(location).and_then(|location| HeaderValue::from_str(&location).ok()) {
        headers.insert(header::LOCATION, location);
    }
}

impl Link {
    /// A link through the proxy; `None` where it stays as it is: relative ones, those to other hosts, and those that lead
    /// through the proxy already.
    pub(super) fn through(&self, location: &str) -> Option<String> {
        let uri: Uri = location.parse().ok()?;
        let host = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        let is_asked = host == self.asked_host && !host.is_empty();
        let is_own = host.is_empty() || host == self.host || is_asked;
        // The parser forgets what follows a `#`.
        let (before, fragment) = location.find('#').map_or((location, ""), |at| location.split_at(at));
        if !is_own || !uri.path().starts_with('/') || (host.is_empty() && !before.starts_with('/')) {
            return None;
        }
        let rest = uri.path_and_query().map(http::uri::PathAndQuery::as_str).unwrap_or_default();
        // Who asked by this name finds the server by it again.
        let origin = match uri.scheme_str().filter(|_| is_asked) {
            Some(scheme) => format!("{scheme}://{host}"),
            None => String::new(),
        };
        let prefix = if uri.path().starts_with(&self.prefix) { "" } else { self.prefix.as_str() };
        let through = format!("{origin}{prefix}{rest}{fragment}");
        (through != location).then_some(through)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_through_the_proxy() {
        let prefix = "/api/v1/namespaces/a/pods/b/proxy".to_owned();
        let link = Link { prefix, host: "10.0.0.1:80".to_owned(), asked_host: "server:6443".to_owned() };
        for (location, expected) in [
            ("/x/y?z=1", Some("/api/v1/namespaces/a/pods/b/proxy/x/y?z=1")),
            ("/", Some("/api/v1/namespaces/a/pods/b/proxy/")),
            ("http://10.0.0.1:80/x", Some("/api/v1/namespaces/a/pods/b/proxy/x")),
            ("https://server:6443/x", Some("https://server:6443/api/v1/namespaces/a/pods/b/proxy/x")),
            ("https://server:6443/api/v1/namespaces/a/pods/b/proxy/x", None),
            ("http://10.0.0.1:80/api/v1/namespaces/a/pods/b/proxy/x", Some("/api/v1/namespaces/a/pods/b/proxy/x")),
            ("/x?y=1#z", Some("/api/v1/namespaces/a/pods/b/proxy/x?y=1#z")),
            ("http://elsewhere/x", None),
            ("x/y", None),
            ("", None),
            ("/api/v1/namespaces/a/pods/b/proxy/x", None),
        ] {
            assert_eq!(link.through(location).as_deref(), expected, "{location}");
        }
    }

    #[test]
    fn what_belongs_to_a_connection_is_dropped() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Private"),
            ("x-private", "1"),
            ("keep-alive", "5"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("x-public", "1"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        assert_eq!(drop_connection(&mut headers), None);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-public"]);
        headers.insert("connection", HeaderValue::from_static("keep-alive, Upgrade"));
        headers.insert("upgrade", HeaderValue::from_static("websocket"));
        assert_eq!(drop_connection(&mut headers), Some(HeaderValue::from_static("websocket")));
        assert_eq!(headers.len(), 1);
    }
}
