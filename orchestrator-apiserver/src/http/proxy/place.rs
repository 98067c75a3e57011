//! What the name before `proxy` says: `[scheme:]name[:port]`.

use orchestrator_core::status::{ApiError, ApiResult};

/// A name with a scheme and a port, where they are given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) is_encrypted: bool,
    pub(super) name: String,
    /// A number, or the name of a service's port; may be empty.
    pub(super) port: String,
    /// All of it.
    pub(super) id: String,
}

impl Place {
    pub(super) fn parse(plural: &str, id: &str) -> ApiResult<Self> {
        let parts: Vec<&str> = id.split(':').collect();
        let (scheme, name, port) = match parts[..] {
            [name] => ("", name, ""),
            [name, port] => ("", name, port),
            [scheme, name, port] => (scheme, name, port),
            _ => ("", "", ""),
        };
        if name.is_empty() || !matches!(scheme, "" | "http" | "https") {
            let singular = plural.strip_suffix('s').unwrap_or(plural);
            return Err(ApiError::bad_request(format!("invalid {singular} request {id:?}")));
        }
        let (name, port, id) = (name.to_owned(), port.to_owned(), id.to_owned());
        Ok(Self { is_encrypted: scheme == "https", name, port, id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_schemes_and_ports() {
        for (id, expected) in [
            ("a", Some((false, "a", ""))),
            ("a:80", Some((false, "a", "80"))),
            ("http:a:web", Some((false, "a", "web"))),
            ("https:a:", Some((true, "a", ""))),
            // Without a third part the first one is a name.
            ("https:a", Some((false, "https", "a"))),
            (":80", None),
            ("ftp:a:21", None),
            ("a:b:c:d", None),
            ("", None),
        ] {
            let found = Place::parse("pods", id);
            let found = found.as_ref().map(|place| (place.is_encrypted, place.name.as_str(), place.port.as_str()));
            match expected {
                Some(expected) => assert_eq!(found.ok(), Some(expected), "{id}"),
                None => assert_eq!(found.unwrap_err().message(), format!("invalid pod request {id:?}")),
            }
        }
    }
}
