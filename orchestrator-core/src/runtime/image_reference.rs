//! Names of images: registry, repository, and tag or digest.
//!
//! The grammar: <https://github.com/distribution/reference>.

use std::fmt;

/// The registry of names that give none.
const DEFAULT_REGISTRY: &str = "docker.io";
/// The tag of names that give none.
const DEFAULT_TAG: &str = "latest";
/// Longest registry and repository together, in characters.
const NAME_CHARACTERS: usize = 255;
/// Longest tag, in characters.
const TAG_CHARACTERS: usize = 128;

/// The full name of an image: registry, repository, and tag or digest.
///
/// ```
/// use orchestrator_core::runtime::ImageReference;
///
/// let reference: ImageReference = "nginx".parse()?;
/// assert_eq!(reference.to_string(), "docker.io/library/nginx:latest");
/// assert_eq!(reference.registry(), "docker.io");
/// # Ok::<(), orchestrator_core::runtime::InvalidImageReference>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageReference {
    registry: String,
    repository: String,
    version: ImageVersion,
}

/// Which image of a repository.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ImageVersion {
    /// The one that has this tag now.
    Tag(String),
    /// The one with this digest of SHA-256, in hexadecimal.
    Digest(String),
}

/// The text is no name of an image; upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidImageReference {
    /// It does not follow the grammar.
    #[error("invalid reference format")]
    Format,
    /// Names of repositories have no capital letters.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// The name is too long.
    #[error("repository name must not be more than {NAME_CHARACTERS} characters")]
    TooLong,
    /// The digest is of another kind than SHA-256.
    #[error("unsupported digest algorithm")]
    Algorithm,
}

impl ImageReference {
    /// The host of the registry, with its port if it has one.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository within the registry, such as `library/nginx`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Tag or digest.
    pub fn version(&self) -> &ImageVersion {
        &self.version
    }

    /// Registry and repository, without the version.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }
}

impl std::str::FromStr for ImageReference {
    type Err = InvalidImageReference;

    /// Reads a name as command lines do: `nginx` is `docker.io/library/nginx:latest`. Of a tag and a digest, the digest counts.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(read_digest(digest)?)),
            None => (text, None),
        };
        let (name, tag) = match name.rsplit_once(':') {
            // A colon before the last slash belongs to a port.
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (name, None),
        };
        let (registry, repository) = match name.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest.to_owned()),
            _ => (DEFAULT_REGISTRY, name.to_owned()),
        };
        let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
        let repository = match repository.contains('/') {
            false if registry == DEFAULT_REGISTRY && !repository.is_empty() => format!("library/{repository}"),
            _ => repository,
        };
        if !is_host(registry) || !repository.split('/').all(is_component) {
            let lower = repository.to_ascii_lowercase();
            let is_case = lower != repository && is_host(registry) && lower.split('/').all(is_component);
            return Err(if is_case {
                InvalidImageReference::Uppercase(repository)
            } else {
                InvalidImageReference::Format
            });
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(InvalidImageReference::Format);
        }
        if registry.len() + 1 + repository.len() > NAME_CHARACTERS {
            return Err(InvalidImageReference::TooLong);
        }
        let version = match digest {
            Some(digest) => ImageVersion::Digest(digest),
            None => ImageVersion::Tag(tag.unwrap_or(DEFAULT_TAG).to_owned()),
        };
        Ok(Self { registry: registry.to_owned(), repository, version })
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.registry, self.repository, self.version)
    }
}

impl fmt::Display for ImageVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => write!(f, ":{tag}"),
            Self::Digest(digest) => write!(f, "@sha256:{digest}"),
        }
    }
}

fn read_digest(text: &str) -> Result<String, InvalidImageReference> {
    match text.split_once(':') {
        Some(("sha256", digest)) if is_digest(digest) => Ok(digest.to_owned()),
        Some(("sha384" | "sha512", _)) => Err(InvalidImageReference::Algorithm),
        _ => Err(InvalidImageReference::Format),
    }
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn is_tag(text: &str) -> bool {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    (1..=TAG_CHARACTERS).contains(&text.len()) && plain && !text.starts_with(['.', '-'])
}

fn is_host(text: &str) -> bool {
    let (host, port) = text.split_once(':').unwrap_or((text, "0"));
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
    host.split('.').all(|label| !label.is_empty()) && host.bytes().all(plain) && port.parse::<u16>().is_ok()
}

fn is_component(text: &str) -> bool {
    let is_end = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.-".contains(&byte);
    text.bytes().all(plain) && is_end(text.bytes().next()) && is_end(text.bytes().last()) && !has_bad_separator(text)
}

/// Between letters and digits stands one period, one or two underscores, or any number of hyphens.
fn has_bad_separator(text: &str) -> bool {
    let mut separators = text.split(|character: char| character.is_ascii_alphanumeric());
    separators
        .any(|separator| !matches!(separator, "" | "." | "_" | "__") && !separator.bytes().all(|byte| byte == b'-'))
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
            ("a/b__c/d---e.f", "docker.io/a/b__c/d---e.f:latest"),
            (&format!("team/app:v1@sha256:{DIGEST}"), digest.as_str()),
        ] {
            assert_eq!(name.parse::<ImageReference>().unwrap().to_string(), whole);
        }
        for wrong in
            ["", ":1", "a//b", "a:", "a@sha256:1", "../x", "a b", "a/../b", "a:.x", "/a", "a..b", "a___b", "a._b"]
        {
            assert_eq!(wrong.parse::<ImageReference>(), Err(InvalidImageReference::Format), "{wrong}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let error = |name: &str| name.parse::<ImageReference>().unwrap_err().to_string();
        assert_eq!(error("Nginx"), "invalid reference format: repository name (library/Nginx) must be lowercase");
        assert_eq!(error(&"a".repeat(256)), "repository name must not be more than 255 characters");
        assert_eq!(error("a@sha512:00"), "unsupported digest algorithm");
    }
}
