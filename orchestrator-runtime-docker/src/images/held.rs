//! The references by which this node holds images on the engine: pure.

use orchestrator_core::runtime::{ImageReference, ImageVersion, InvalidImageReference};

/// How the tag of a held image begins whose name has a digest: a digest's colon cannot stand in a tag.
const DIGEST_TAG: &str = "sha256_";

/// Reads the name of an image.
pub(crate) fn parse(name: &str) -> Result<ImageReference, InvalidImageReference> {
    let reference: ImageReference = name.parse()?;
    match reference.version() {
        // It would be taken for a digest.
        ImageVersion::Tag(tag) if digest_of(tag).is_some() => Err(InvalidImageReference::Format),
        _ => Ok(reference),
    }
}

/// Repository and tag by which a node holds an image, below a repository of its own.
pub(crate) fn held(reference: &ImageReference, below: &str) -> (String, String) {
    let registry = reference.registry().replace(':', "_");
    let tag = match reference.version() {
        ImageVersion::Tag(tag) => tag.clone(),
        ImageVersion::Digest(digest) => format!("{DIGEST_TAG}{digest}"),
    };
    (format!("{below}/{registry}/{}", reference.repository()), tag)
}

/// The name again, from the reference by which it is held.
pub(crate) fn of_held(below: &str, held: &str) -> Option<ImageReference> {
    let rest = held.strip_prefix(below)?.strip_prefix('/')?;
    let (name, tag) = rest.rsplit_once(':')?;
    let (registry, repository) = name.split_once('/')?;
    let registry = registry.replacen('_', ":", 1);
    let text = match digest_of(tag) {
        Some(digest) => format!("{registry}/{repository}@sha256:{digest}"),
        None => format!("{registry}/{repository}:{tag}"),
    };
    text.parse().ok()
}

/// The version of an image as the engine's pull wants it: a tag, or a digest with its kind.
pub(crate) fn version(reference: &ImageReference) -> String {
    match reference.version() {
        ImageVersion::Tag(tag) => tag.clone(),
        ImageVersion::Digest(digest) => format!("sha256:{digest}"),
    }
}

fn digest_of(tag: &str) -> Option<&str> {
    let is_hexadecimal = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    tag.strip_prefix(DIGEST_TAG).filter(|digest| digest.len() == 64 && digest.bytes().all(is_hexadecimal))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn what_is_held_has_its_name() {
        let below = "orchestrator.invalid/lab/node-1";
        for name in ["nginx", "127.0.0.1:5000/a_b/c:2", &format!("team/app@sha256:{DIGEST}"), "localhost/a:sha256_x"] {
            let reference = parse(name).unwrap();
            let (repository, tag) = held(&reference, below);
            assert!(!repository[below.len()..].contains(':'), "{repository}");
            assert_eq!(of_held(below, &format!("{repository}:{tag}")), Some(reference));
        }
        assert_eq!(of_held(below, "orchestrator.invalid/lab/node-10/docker.io/library/x:1"), None);
        assert!(parse(&format!("a:sha256_{DIGEST}")).is_err());
    }
}
