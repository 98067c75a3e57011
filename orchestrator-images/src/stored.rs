//! Reads images that are stored on the machine: `docker save` archives, OCI layouts, and those in an archive.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::{Component, Path, PathBuf},
};

use flate2::read::GzDecoder;
use orchestrator_core::runtime::{ImageReference, ImageVersion};
use serde::Deserialize;

use crate::{
    ImageError,
    limits::{DOCUMENT_BYTES, INDEX_DEPTH, UNPACKED_BYTES},
    manifest::{Descriptor, Document, for_platform},
    parts::{Layer, Parts},
};

/// How an OCI index says which name a manifest has.
const NAME_ANNOTATION: &str = "org.opencontainers.image.ref.name";

/// Where the files of a stored image are.
#[derive(Debug)]
enum Store {
    Directory(PathBuf),
    Archive { file: File, entries: BTreeMap<PathBuf, Entry> },
}

#[derive(Clone, Debug)]
enum Entry {
    File { offset: u64, size_bytes: u64 },
    Link(PathBuf),
}

/// One image of a `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SavedImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Reads an archive. `scratch` makes a file for what has to be unpacked first.
pub(crate) fn archive(
    path: &Path,
    name: &ImageReference,
    architecture: &str,
    scratch: impl FnOnce() -> Result<File, ImageError>,
) -> Result<Parts, ImageError> {
    let failed = |error| ImageError::io(path, error);
    let mut file = File::open(path).map_err(failed)?;
    let mut magic = [0; 2];
    let is_compressed = file.read_exact(&mut magic).is_ok() && magic == [0x1f, 0x8b];
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    if is_compressed {
        let mut plain = scratch()?;
        let mut content = GzDecoder::new(BufReader::new(file)).take(UNPACKED_BYTES);
        if io::copy(&mut content, &mut plain).map_err(failed)? == UNPACKED_BYTES {
            return Err(ImageError::too_long(path.display().to_string(), UNPACKED_BYTES));
        }
        file = plain;
    }
    Store::archive(file).map_err(failed)?.image(path, name, architecture)
}

/// Reads a directory in the OCI image layout.
pub(crate) fn layout(path: &Path, name: &ImageReference, architecture: &str) -> Result<Parts, ImageError> {
    Store::Directory(path.to_owned()).image(path, name, architecture)
}

impl Store {
    fn archive(mut file: File) -> io::Result<Self> {
        file.seek(SeekFrom::Start(0))?;
        let mut entries = BTreeMap::new();
        let mut archive = tar::Archive::new(&file);
        for entry in archive.entries_with_seek()? {
            let entry = entry?;
            let path = plain(&entry.path()?);
            let kind = entry.header().entry_type();
            if kind.is_file() {
                entries.insert(path, Entry::File { offset: entry.raw_file_position(), size_bytes: entry.size() });
            } else if let Some(target) = entry.link_name()? {
                // A hard link names its target from the root, a symbolic one from where it is.
                let from = if kind.is_symlink() { path.parent().map(Path::to_owned) } else { None };
                let target = plain(&from.unwrap_or_default().join(target));
                entries.insert(path, Entry::Link(target));
            }
        }
        Ok(Self::Archive { file, entries })
    }

    /// A file of the store, open; the part of it that counts begins at an offset.
    fn open(&self, path: &str) -> io::Result<Layer> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("there is no {path} in it"));
        match self {
            Self::Directory(root) => {
                let file = File::open(root.join(plain(Path::new(path))))?;
                let size_bytes = file.metadata()?.len();
                Ok(Layer { file, offset: 0, size_bytes })
            }
            Self::Archive { file, entries } => {
                let mut entry = entries.get(&plain(Path::new(path))).ok_or_else(missing)?;
                // A link to a link is not what anyone writes.
                if let Entry::Link(target) = entry {
                    entry = entries.get(target).ok_or_else(missing)?;
                }
                let Entry::File { offset, size_bytes } = *entry else { return Err(missing()) };
                Ok(Layer { file: file.try_clone()?, offset, size_bytes })
            }
        }
    }

    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        let mut part = self.open(path)?;
        if part.size_bytes > DOCUMENT_BYTES {
            return Err(io::Error::other(format!("{path} is longer than {DOCUMENT_BYTES} bytes")));
        }
        part.file.seek(SeekFrom::Start(part.offset))?;
        let mut bytes = Vec::new();
        part.file.take(part.size_bytes).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// A file that is named by its digest, and has it.
    fn blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, ImageError> {
        let path = blob_path(descriptor)?;
        let bytes = self.read(&path).map_err(|error| ImageError::io(Path::new(&path), error))?;
        descriptor.verify(&bytes)?;
        Ok(bytes)
    }

    fn image(&self, path: &Path, name: &ImageReference, architecture: &str) -> Result<Parts, ImageError> {
        match self.read("manifest.json") {
            Ok(manifest) => self.saved(path, &manifest, name),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.oci(path, name, architecture),
            Err(error) => Err(ImageError::io(path, error)),
        }
    }

    fn saved(&self, path: &Path, manifest: &[u8], name: &ImageReference) -> Result<Parts, ImageError> {
        let failed = |error| ImageError::io(path, error);
        let images: Vec<SavedImage> =
            serde_json::from_slice(manifest).map_err(|error| ImageError::Invalid(format!("manifest.json: {error}")))?;
        let has_name = |image: &&SavedImage| {
            let tags = image.repo_tags.iter().flatten();
            tags.flat_map(|tag| tag.parse::<ImageReference>()).any(|tag| tag == *name)
        };
        let image = match &images[..] {
            [image] => Some(image),
            images => images.iter().find(has_name),
        };
        let image =
            image.ok_or_else(|| ImageError::Missing(format!("{}: none of its images is {name}", path.display())))?;
        let configuration = self.read(&image.config).map_err(failed)?;
        let layers = image.layers.iter().map(|layer| self.open(layer)).collect::<io::Result<_>>();
        Ok(Parts { configuration, layers: layers.map_err(failed)? })
    }

    fn oci(&self, path: &Path, name: &ImageReference, architecture: &str) -> Result<Parts, ImageError> {
        let failed = |error| ImageError::io(path, error);
        let mut document = Document::parse(&self.read("index.json").map_err(failed)?, "")?;
        let mut is_top = true;
        for _ in 0..INDEX_DEPTH {
            let manifest = match document {
                Document::Manifest(manifest) => manifest,
                Document::Index(mut candidates) => {
                    if std::mem::take(&mut is_top) {
                        keep_named(&mut candidates, name);
                    }
                    let descriptor = for_platform(&candidates, architecture, &name.to_string())?;
                    document = Document::parse(&self.blob(descriptor)?, &descriptor.media_type)?;
                    continue;
                }
            };
            let configuration = self.blob(&manifest.config)?;
            let open = |layer: &Descriptor| self.open(&blob_path(layer)?).map_err(failed);
            // Layers are held against the configuration when they are unpacked.
            let layers = manifest.layers.iter().map(open).collect::<Result<_, _>>()?;
            return Ok(Parts { configuration, layers });
        }
        Err(ImageError::TooLarge {
            what: "the depth of the image's indices".to_owned(),
            limit: INDEX_DEPTH.to_string(),
        })
    }
}

/// Keeps the manifests of this name where names are given.
fn keep_named(candidates: &mut Vec<Descriptor>, name: &ImageReference) {
    let version = match name.version() {
        ImageVersion::Tag(tag) => tag.clone(),
        ImageVersion::Digest(digest) => format!("sha256:{digest}"),
    };
    let is_it = |text: &String| *text == version || text.parse::<ImageReference>().is_ok_and(|other| other == *name);
    if candidates.len() > 1 && candidates.iter().any(|one| one.annotations.contains_key(NAME_ANNOTATION)) {
        candidates.retain(|one| one.annotations.get(NAME_ANNOTATION).is_some_and(is_it));
    }
}

fn blob_path(descriptor: &Descriptor) -> Result<String, ImageError> {
    Ok(format!("blobs/sha256/{}", descriptor.hexadecimal()?))
}

/// The path without what leads out of it.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => plain.push(part),
            Component::ParentDir => drop(plain.pop()),
            _ => {}
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::parts::digest;

    fn descriptor(kind: &str, content: &[u8], architecture: Option<&str>) -> serde_json::Value {
        let mut value = json!({
            "mediaType": format!("application/vnd.oci.image.{kind}+json"),
            "digest": format!("sha256:{}", digest(content)),
            "size": content.len(),
        });
        if let Some(architecture) = architecture {
            value["platform"] = json!({ "os": "linux", "architecture": architecture });
        }
        value
    }

    fn write_blob(root: &Path, content: &[u8]) {
        std::fs::write(root.join("blobs/sha256").join(digest(content)), content).unwrap();
    }

    #[test]
    fn a_layout_is_read_for_its_platform() {
        let root = std::env::temp_dir().join(format!("orchestrator-layout-{}", std::process::id()));
        std::fs::create_dir_all(root.join("blobs/sha256")).unwrap();
        let mut manifests = Vec::new();
        for architecture in ["arm64", "amd64"] {
            let configuration = json!({ "architecture": architecture }).to_string();
            let layer = format!("layer of {architecture}");
            let manifest = json!({
                "schemaVersion": 2,
                "config": descriptor("config.v1", configuration.as_bytes(), None),
                "layers": [descriptor("layer.v1.tar", layer.as_bytes(), None)],
            })
            .to_string();
            for content in [&configuration, &layer, &manifest] {
                write_blob(&root, content.as_bytes());
            }
            manifests.push(descriptor("manifest.v1", manifest.as_bytes(), Some(architecture)));
        }
        let nested = json!({ "schemaVersion": 2, "manifests": manifests }).to_string();
        write_blob(&root, nested.as_bytes());
        let index = json!({ "schemaVersion": 2, "manifests": [descriptor("index.v1", nested.as_bytes(), None)] });
        std::fs::write(root.join("index.json"), index.to_string()).unwrap();
        let name = "app:1".parse().unwrap();
        let parts = layout(&root, &name, "amd64").unwrap();
        assert_eq!(parts.configuration, br#"{"architecture":"amd64"}"#);
        assert_eq!(parts.layers[0].size_bytes, "layer of amd64".len() as u64);
        let error = layout(&root, &name, "riscv64").unwrap_err().to_string();
        assert!(error.contains("riscv64"), "{error}");
        // What was changed is found out.
        std::fs::write(root.join("blobs/sha256").join(digest(nested.as_bytes())), b"{}").unwrap();
        let error = layout(&root, &name, "amd64").unwrap_err().to_string();
        std::fs::remove_dir_all(&root).unwrap();
        assert!(error.contains("has the digest"), "{error}");
    }

    #[test]
    fn paths_lead_nowhere_else() {
        assert_eq!(plain(Path::new("/a/../../b/./c")), Path::new("b/c"));
    }
}
