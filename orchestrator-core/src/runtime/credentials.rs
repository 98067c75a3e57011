//! Who may pull: credentials of registries, as Docker's configuration files and Secrets have them.

use std::{collections::BTreeMap, fmt};

use base64::Engine as _;
use serde::Deserialize;

/// A way to authenticate to a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistryCredentials {
    /// Which registry, as in a Docker configuration file.
    pub registry: String,
    /// Who.
    pub username: String,
    /// The secret.
    pub password: String,
}

impl fmt::Debug for RegistryCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryCredentials").field("registry", &self.registry).finish_non_exhaustive()
    }
}

/// What is said of a registry.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    username: String,
    password: String,
    /// User and secret with a colon between them, in base64.
    auth: String,
}

impl RegistryCredentials {
    /// Reads a `config.json` of Docker, which is what a Secret of the type `kubernetes.io/dockerconfigjson` holds.
    pub fn read_config(text: &[u8]) -> Result<Vec<Self>, serde_json::Error> {
        #[derive(Deserialize)]
        struct Whole {
            #[serde(default)]
            auths: BTreeMap<String, Entry>,
        }
        let whole: Whole = serde_json::from_slice(text)?;
        Ok(whole.auths.into_iter().map(Self::from_entry).collect())
    }

    /// Reads the older `.dockercfg`, which is what a Secret of the type `kubernetes.io/dockercfg` holds.
    pub fn read_old_config(text: &[u8]) -> Result<Vec<Self>, serde_json::Error> {
        let whole: BTreeMap<String, Entry> = serde_json::from_slice(text)?;
        Ok(whole.into_iter().map(Self::from_entry).collect())
    }

    /// How special these credentials are for a repository of a host: how much of its path they name, in bytes. `None` when they
    /// are for another one.
    ///
    /// They name a host, a URL, or a host with a path; a host may have stars within its labels:
    /// <https://kubernetes.io/docs/concepts/containers/images/#config-json>.
    pub fn fit(&self, host: &str, repository: &str) -> Option<usize> {
        covers(&self.registry, host, repository)
    }

    fn from_entry((registry, entry): (String, Entry)) -> Self {
        let decoded = base64::engine::general_purpose::STANDARD.decode(&entry.auth).ok();
        let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
        let (username, password) = match decoded.as_deref().and_then(|text| text.split_once(':')) {
            Some((username, password)) => (username.to_owned(), password.to_owned()),
            None => (entry.username, entry.password),
        };
        Self { registry, username, password }
    }
}

fn covers(key: &str, host: &str, repository: &str) -> Option<usize> {
    let key = key.split_once("://").map_or(key, |(_, rest)| rest).trim_end_matches('/');
    let (of_host, path) = key.split_once('/').unwrap_or((key, ""));
    let is_hub = |host: &str| matches!(host, "docker.io" | "index.docker.io" | "registry-1.docker.io");
    if is_hub(of_host) && is_hub(host) {
        return Some(0);
    }
    // What old configuration files name is the registry's interface, not a repository.
    let path = if matches!(path, "v1" | "v2") { "" } else { path };
    let mut labels = of_host.split('.').zip(host.split('.'));
    let is_host =
        of_host.split('.').count() == host.split('.').count() && labels.all(|(one, other)| is_label(one, other));
    let is_path = repository == path
        || path.is_empty()
        || repository.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
    (is_host && is_path).then_some(path.len())
}

fn is_label(pattern: &str, label: &str) -> bool {
    match pattern.split_once('*') {
        Some((before, after)) => {
            label.len() >= before.len() + after.len() && label.starts_with(before) && label.ends_with(after)
        }
        None => pattern == label,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_for_some() {
        for (key, host, repository, covered) in [
            ("https://index.docker.io/v1/", "registry-1.docker.io", "library/a", Some(0)),
            ("docker.io", "registry-1.docker.io", "library/a", Some(0)),
            ("127.0.0.1:5000", "127.0.0.1:5000", "a", Some(0)),
            ("https://example.com/v2/", "example.com", "a", Some(0)),
            ("example.com/team", "example.com", "team/app", Some(4)),
            ("example.com/team", "example.com", "teams/app", None),
            ("*.example.com", "eu.example.com", "a", Some(0)),
            ("*.example.com", "a.eu.example.com", "a", None),
            ("reg*.example.com", "registry.example.com", "a", Some(0)),
            ("example.com", "registry-1.docker.io", "a", None),
            ("", "example.com", "a", None),
        ] {
            assert_eq!(covers(key, host, repository), covered, "{key} for {host}/{repository}");
        }
    }

    #[test]
    fn configuration_files() {
        let text = br#"{"auths": {"h.io": {"auth": "dTpwOnE="}, "i.io": {"username": "v", "password": "w"}}, "credsStore": "x"}"#;
        let found = RegistryCredentials::read_config(text).unwrap();
        assert_eq!((found[0].username.as_str(), found[0].password.as_str()), ("u", "p:q"));
        assert_eq!((found[1].username.as_str(), found[1].password.as_str()), ("v", "w"));
        let old = RegistryCredentials::read_old_config(br#"{"h.io": {"auth": "dTpw", "email": "e"}}"#).unwrap();
        assert_eq!(old[0].password, "p");
        assert!(RegistryCredentials::read_config(b"nothing").is_err());
    }
}
