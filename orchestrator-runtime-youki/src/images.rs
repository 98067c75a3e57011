//! Images in this version: names for the machine's own root file system, each with its defaults.

use std::collections::BTreeMap;

use orchestrator_core::runtime::{Image, RuntimeError};

use crate::config::ImageConfig;

/// The image that is always there: the machine's own root file system and no defaults.
const HOST: &str = "host";

/// The images of one runtime.
#[derive(Clone, Debug)]
pub(crate) struct Images {
    known: BTreeMap<String, ImageConfig>,
}

impl Images {
    pub(crate) fn new(mut known: BTreeMap<String, ImageConfig>) -> Self {
        known.entry(HOST.to_owned()).or_default();
        Self { known }
    }

    /// What a name means, if anything.
    pub(crate) fn find(&self, name: &str) -> Option<(String, &ImageConfig)> {
        let key = normalize(name);
        self.known.get(&key).map(|image| (identity(&key), image))
    }

    pub(crate) fn status(&self, name: &str) -> Option<Image> {
        let key = normalize(name);
        self.known.get(&key).map(|image| describe(name, &key, image))
    }

    pub(crate) fn list(&self) -> Vec<Image> {
        self.known.iter().map(|(key, image)| describe(key, key, image)).collect()
    }

    pub(crate) fn pull(&self, name: &str) -> Result<Image, RuntimeError> {
        self.status(name).ok_or_else(|| {
            let known: Vec<&str> = self.known.keys().map(String::as_str).collect();
            RuntimeError::ImagePull(format!(
                "image {name:?} not found: this runtime pulls from no registry; it has {}",
                known.join(", ")
            ))
        })
    }
}

fn describe(name: &str, key: &str, image: &ImageConfig) -> Image {
    Image { name: name.to_owned(), id: identity(key), size_bytes: 0, user: image.user }
}

fn identity(key: &str) -> String {
    format!("host:{key}")
}

/// The repository without tag, digest and the default registry: `docker.io/library/nginx:1.27` is `nginx`.
pub(crate) fn normalize(name: &str) -> String {
    let name = name.split('@').next().unwrap_or_default();
    let name = match name.rsplit_once(':') {
        // A colon before the last slash belongs to a port.
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    };
    let name = name.strip_prefix("index.docker.io/").or_else(|| name.strip_prefix("docker.io/")).unwrap_or(name);
    name.strip_prefix("library/").unwrap_or(name).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_tags() {
        for (name, key) in [
            ("nginx", "nginx"),
            ("nginx:1.27-alpine", "nginx"),
            ("docker.io/library/nginx:latest", "nginx"),
            ("docker.io/team/app@sha256:0123", "team/app"),
            ("registry.local:5000/app", "registry.local:5000/app"),
            ("registry.local:5000/app:2", "registry.local:5000/app"),
        ] {
            assert_eq!(normalize(name), key);
        }
    }

    #[test]
    fn what_is_missing_is_not_found() {
        let images = Images::new(BTreeMap::new());
        assert!(images.pull("host").is_ok());
        assert!(images.pull("nginx").unwrap_err().to_string().contains("not found"));
    }
}
