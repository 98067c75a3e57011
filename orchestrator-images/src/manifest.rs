//! The documents of an image: index, manifest and configuration, each read from bytes of a stranger.
//!
//! Their form: <https://github.com/opencontainers/image-spec>; Docker's second schema is the same in other names.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    ImageError,
    limits::{DOCUMENT_BYTES, LAYERS},
    parts::digest,
};

/// The media types that a registry is asked for.
pub(crate) const MANIFESTS: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// Names content by its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: String,
    #[serde(default)]
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Platform {
    pub(crate) architecture: String,
    pub(crate) os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) variant: Option<String>,
}

/// What a name leads to.
#[derive(Clone, Debug)]
pub(crate) enum Document {
    Index(Vec<Descriptor>),
    Manifest(Manifest),
}

/// An image's configuration and layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

/// What an image says about containers made of it, and which layers it has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfiguration {
    /// The entry point: program and leading arguments. A container's command replaces it and drops `args`.
    pub entrypoint: Vec<String>,
    /// Further arguments; a container's replace them.
    pub args: Vec<String>,
    /// Environment; a container's is added.
    pub environment: Vec<(String, String)>,
    /// Working directory, unless it is `/`.
    pub working_directory: Option<String>,
    /// `user` or `user:group`, of names or numbers.
    pub user: Option<String>,
    /// The signal that asks a container to stop.
    pub stop_signal: Option<String>,
    /// The layers' digests as they are unpacked, the lowest first, in hexadecimal.
    pub(crate) diff_ids: Vec<String>,
    pub(crate) architecture: String,
    pub(crate) os: String,
}

impl Descriptor {
    /// The digest in hexadecimal; it may be the name of a file.
    pub(crate) fn hexadecimal(&self) -> Result<&str, ImageError> {
        hexadecimal_of(&self.digest)
    }

    /// Checks that this is the content that the descriptor names.
    pub(crate) fn verify(&self, bytes: &[u8]) -> Result<(), ImageError> {
        let (expected, actual) = (self.hexadecimal()?, digest(bytes));
        if actual != expected {
            return Err(ImageError::Invalid(format!(
                "the content of sha256:{expected} has the digest sha256:{actual}"
            )));
        }
        Ok(())
    }
}

/// The part of a digest of SHA-256 after its colon.
pub(crate) fn hexadecimal_of(digest: &str) -> Result<&str, ImageError> {
    let hexadecimal = digest.strip_prefix("sha256:").filter(|digest| {
        digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    });
    hexadecimal.ok_or_else(|| ImageError::Unsupported(format!("the digest {digest:?}")))
}

impl Document {
    /// Reads an index or a manifest.
    pub(crate) fn parse(bytes: &[u8], media_type: &str) -> Result<Self, ImageError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Any {
            #[serde(default)]
            media_type: String,
            schema_version: u32,
            manifests: Option<Vec<Descriptor>>,
            config: Option<Descriptor>,
            layers: Option<Vec<Descriptor>>,
        }
        let any: Any = parse(bytes, "manifest")?;
        if any.schema_version != 2 {
            return Err(ImageError::Unsupported(format!("an image's manifest of version {}", any.schema_version)));
        }
        let told = if any.media_type.is_empty() { media_type } else { &any.media_type };
        // A document that can be read as both would be another thing to another reader.
        match (any.manifests, any.config, any.layers) {
            (Some(manifests), None, None) if !told.contains("image.manifest") => Ok(Self::Index(manifests)),
            (None, Some(config), Some(layers)) if !told.contains("index") && !told.contains("manifest.list") => {
                if layers.len() > LAYERS {
                    let what = format!("the number of the image's layers ({})", layers.len());
                    return Err(ImageError::TooLarge { what, limit: LAYERS.to_string() });
                }
                Ok(Self::Manifest(Manifest { config, layers }))
            }
            _ => Err(ImageError::Invalid(format!("the manifest is neither an image's nor an index ({told})"))),
        }
    }
}

/// The first manifest of an index that is for this machine.
pub(crate) fn for_platform<'a>(
    candidates: &'a [Descriptor],
    architecture: &str,
    name: &str,
) -> Result<&'a Descriptor, ImageError> {
    let fits = |descriptor: &&Descriptor| {
        let platform = descriptor.platform.as_ref();
        platform.is_none_or(|platform| platform.os == "linux" && platform.architecture == architecture)
    };
    candidates.iter().find(fits).ok_or_else(|| {
        ImageError::Missing(format!("image {name}: no match for platform in manifest: linux/{architecture}"))
    })
}

impl ImageConfiguration {
    /// Reads an image's configuration.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        #[derive(Deserialize)]
        struct Whole {
            #[serde(default)]
            architecture: String,
            #[serde(default)]
            os: String,
            #[serde(default)]
            config: Option<Defaults>,
            rootfs: RootFs,
        }
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        struct Defaults {
            entrypoint: Option<Vec<String>>,
            cmd: Option<Vec<String>>,
            env: Option<Vec<String>>,
            working_dir: String,
            user: String,
            stop_signal: String,
        }
        #[derive(Deserialize)]
        struct RootFs {
            diff_ids: Vec<String>,
        }
        let whole: Whole = parse(bytes, "configuration")?;
        let defaults = whole.config.unwrap_or_default();
        let said = |text: String| Some(text).filter(|text| !text.is_empty());
        let variable = |text: &String| text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        let diff_ids = whole.rootfs.diff_ids.iter().map(|id| hexadecimal_of(id).map(ToOwned::to_owned));
        Ok(Self {
            entrypoint: defaults.entrypoint.unwrap_or_default(),
            args: defaults.cmd.unwrap_or_default(),
            environment: defaults.env.iter().flatten().filter_map(variable).collect(),
            working_directory: said(defaults.working_dir),
            user: said(defaults.user),
            stop_signal: said(defaults.stop_signal),
            diff_ids: diff_ids.collect::<Result<_, _>>()?,
            architecture: whole.architecture,
            os: whole.os,
        })
    }
}

fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8], what: &str) -> Result<T, ImageError> {
    if bytes.len() as u64 > DOCUMENT_BYTES {
        return Err(ImageError::too_long(format!("the image's {what}"), DOCUMENT_BYTES));
    }
    serde_json::from_slice(bytes).map_err(|error| ImageError::Invalid(format!("the image's {what}: {error}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn a_document_is_one_thing_only() {
        let descriptor = json!({ "digest": DIGEST, "size": 1 });
        let index = json!({ "schemaVersion": 2, "manifests": [descriptor] });
        assert!(matches!(Document::parse(index.to_string().as_bytes(), ""), Ok(Document::Index(_))));
        let manifest = json!({ "schemaVersion": 2, "config": descriptor, "layers": [descriptor] });
        assert!(matches!(Document::parse(manifest.to_string().as_bytes(), ""), Ok(Document::Manifest(_))));
        let mut both = manifest.clone();
        both["manifests"] = json!([descriptor]);
        let mut old = manifest.clone();
        old["schemaVersion"] = 1.into();
        for wrong in [both, old, json!({ "schemaVersion": 2 }), json!([]), json!({})] {
            assert!(Document::parse(wrong.to_string().as_bytes(), "").is_err(), "{wrong}");
        }
        assert!(Document::parse(manifest.to_string().as_bytes(), MANIFESTS[0]).is_err());
        let mut many = manifest;
        many["layers"] = json!(vec![descriptor; LAYERS + 1]);
        assert!(matches!(Document::parse(many.to_string().as_bytes(), ""), Err(ImageError::TooLarge { .. })));
    }

    #[test]
    fn digests_are_no_paths() {
        for wrong in ["", "sha256:", "sha256:../../etc/passwd", "sha512:00", &DIGEST.to_uppercase()] {
            assert!(hexadecimal_of(wrong).is_err(), "{wrong}");
        }
        assert_eq!(hexadecimal_of(DIGEST).unwrap().len(), 64);
    }

    #[test]
    fn defaults_of_containers() {
        let text = json!({
            "architecture": "amd64", "os": "linux",
            "config": { "Env": ["A=b=c", "broken"], "Cmd": ["sh"], "Entrypoint": null, "User": "web:www", "WorkingDir": "/srv" },
            "rootfs": { "type": "layers", "diff_ids": [DIGEST] },
        });
        let configuration = ImageConfiguration::parse(text.to_string().as_bytes()).unwrap();
        assert_eq!(configuration.environment, [("A".to_owned(), "b=c".to_owned())]);
        assert_eq!(configuration.args, ["sh"]);
        assert_eq!(configuration.user.as_deref(), Some("web:www"));
        assert_eq!(configuration.stop_signal, None);
    }
}
