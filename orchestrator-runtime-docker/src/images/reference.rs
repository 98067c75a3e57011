//! Names of images, and the references by which this node holds them on the engine: pure.

use std::fmt;

use crate::limits::REPOSITORY_CHARACTERS;

/// The registry of names that give none.
const REGISTRY: &str = "docker.io";
/// How the tag of a held image begins whose name has a digest: a digest's colon cannot stand in a tag.
const DIGEST_TAG: &str = "sha256_";

/// The full name of an image: registry, repository, and tag or digest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Reference {
    registry: String,
    repository: String,
    version: Version,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Version {
    Tag(String),
    /// Of SHA-256, in hexadecimal.
    Digest(String),
}

/// The text is no name of an image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of an image")]
pub(crate) struct InvalidReference(String);

impl Reference {
    /// Reads a name as the engine's command line does: `nginx` is `docker.io/library/nginx:latest`.
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidReference> {
        let invalid = || InvalidReference(text.to_owned());
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.strip_prefix("sha256:").ok_or_else(invalid)?)),
            None => (text, None),
        };
        let (name, tag) = match name.rsplit_once(':') {
            // A colon before the last slash belongs to a port.
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (name, None),
        };
        let (registry, repository) = match name.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest.to_owned()),
            _ => (REGISTRY, name.to_owned()),
        };
        let registry = if registry == "index.docker.io" { REGISTRY } else { registry };
        let repository = match repository.contains('/') {
            false if registry == REGISTRY => format!("library/{repository}"),
            _ => repository,
        };
        let version = match (digest, tag) {
            // A digest says it all: the tag beside it is for people.
            (Some(digest), _) if is_digest(digest) => Version::Digest(digest.to_owned()),
            (Some(_), _) => return Err(invalid()),
            (None, tag) => Version::Tag(tag.unwrap_or("latest").to_owned()),
        };
        let is_tag = |tag: &str| {
            let plain = tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
            (1..=128).contains(&tag.len()) && plain && !tag.starts_with(['.', '-'])
        };
        let fits = match &version {
            Version::Tag(tag) => is_tag(tag) && tag.strip_prefix(DIGEST_TAG).is_none_or(|rest| !is_digest(rest)),
            Version::Digest(_) => true,
        };
        let whole = registry.len() + 1 + repository.len() <= REPOSITORY_CHARACTERS;
        if !fits || !whole || !is_host(registry) || !repository.split('/').all(is_component) {
            return Err(invalid());
        }
        Ok(Self { registry: registry.to_owned(), repository, version })
    }

    /// The repository with its registry, and the tag or the digest, as the engine's pull wants them.
    pub(crate) fn parts(&self) -> (String, String) {
        let name = format!("{}/{}", self.registry, self.repository);
        match &self.version {
            Version::Tag(tag) => (name, tag.clone()),
            Version::Digest(digest) => (name, format!("sha256:{digest}")),
        }
    }

    /// The registry, as in a Docker configuration file.
    pub(crate) fn registry(&self) -> &str {
        &self.registry
    }

    /// Repository and tag by which a node holds this image, below a repository of its own.
    pub(crate) fn held(&self, below: &str) -> (String, String) {
        let registry = self.registry.replace(':', "_");
        let tag = match &self.version {
            Version::Tag(tag) => tag.clone(),
            Version::Digest(digest) => format!("{DIGEST_TAG}{digest}"),
        };
        (format!("{below}/{registry}/{}", self.repository), tag)
    }

    /// The name again, from the reference by which it is held.
    pub(crate) fn of_held(below: &str, reference: &str) -> Option<Self> {
        let rest = reference.strip_prefix(below)?.strip_prefix('/')?;
        let (name, tag) = rest.rsplit_once(':')?;
        let (registry, repository) = name.split_once('/')?;
        let registry = registry.replacen('_', ":", 1);
        let text = match tag.strip_prefix(DIGEST_TAG).filter(|digest| is_digest(digest)) {
            Some(digest) => format!("{registry}/{repository}@sha256:{digest}"),
            None => format!("{registry}/{repository}:{tag}"),
        };
        Self::parse(&text).ok()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parts() {
            (name, version) if matches!(self.version, Version::Tag(_)) => write!(f, "{name}:{version}"),
            (name, version) => write!(f, "{name}@{version}"),
        }
    }
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn is_host(text: &str) -> bool {
    let (host, port) = text.split_once(':').unwrap_or((text, "0"));
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
    host.split('.').all(|label| !label.is_empty()) && host.bytes().all(plain) && port.parse::<u16>().is_ok()
}

fn is_component(text: &str) -> bool {
    let is_end = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.-".contains(&byte);
    text.bytes().all(plain) && is_end(text.bytes().next()) && is_end(text.bytes().last())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn names_are_whole() {
        let digest = format!("docker.io/team/app@sha256:{DIGEST}");
        for (name, whole) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.27-alpine", "docker.io/library/nginx:1.27-alpine"),
            ("docker.io/library/nginx", "docker.io/library/nginx:latest"),
            ("index.docker.io/team/app:v1", "docker.io/team/app:v1"),
            ("team/app", "docker.io/team/app:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("127.0.0.1:5000/a/b:2", "127.0.0.1:5000/a/b:2"),
            (&format!("team/app:v1@sha256:{DIGEST}"), digest.as_str()),
        ] {
            assert_eq!(Reference::parse(name).unwrap().to_string(), whole);
        }
        for wrong in ["", ":1", "Nginx", "a//b", "a:", "a@sha256:1", "../x", "a b", "a/../b", "a:.x", "/a"] {
            assert!(Reference::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_held_has_its_name() {
        let below = "orchestrator.invalid/lab/node-1";
        for name in ["nginx", "127.0.0.1:5000/a_b/c:2", &format!("team/app@sha256:{DIGEST}"), "localhost/a:sha256_x"] {
            let reference = Reference::parse(name).unwrap();
            let (repository, tag) = reference.held(below);
            assert!(!repository[below.len()..].contains(':'), "{repository}");
            assert_eq!(Reference::of_held(below, &format!("{repository}:{tag}")), Some(reference));
        }
        assert_eq!(Reference::of_held(below, "orchestrator.invalid/lab/node-10/docker.io/library/x:1"), None);
    }
}
