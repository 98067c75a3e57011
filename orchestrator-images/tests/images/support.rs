//! What the tests share: a directory of their own, and images made entry by entry.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use orchestrator_core::{env::Env, runtime::ImageReference};
use orchestrator_images::{ImageError, ImageSource, ImageStore, ImageStoreBuilder};
use serde_json::json;
use sha2::{Digest, Sha256};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A directory that is removed at the end.
pub(crate) struct Place(PathBuf);

impl Place {
    pub(crate) fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "these tests need root");
        let name = format!("images-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn builder(&self) -> ImageStoreBuilder {
        // Other tests, and other programs, may fill the disk.
        ImageStore::builder(self.path("store")).registries(None).reserved_bytes(0)
    }

    pub(crate) async fn open(&self, builder: ImageStoreBuilder) -> ImageStore {
        builder.open(Env::real()).await.unwrap()
    }

    /// A layout on the disk with one image of these layers.
    pub(crate) fn layout(&self, name: &str, layers: &[Vec<u8>]) -> ImageSource {
        let root = self.path(name);
        fs::create_dir_all(root.join("blobs/sha256")).unwrap();
        let image = TestImage::new(layers);
        for blob in image.blobs() {
            fs::write(root.join("blobs/sha256").join(digest(&blob)), blob).unwrap();
        }
        let index = json!({ "schemaVersion": 2, "manifests": [image.manifest_descriptor()] });
        fs::write(root.join("index.json"), index.to_string()).unwrap();
        ImageSource::Layout(root)
    }

    /// Pulls an image of these layers.
    pub(crate) async fn pull(&self, layers: &[Vec<u8>]) -> Result<ImageStore, ImageError> {
        let store = self.open(self.builder().source("test", self.layout("layout", layers))).await;
        store.pull(&reference("test"), &[]).await?;
        Ok(store)
    }

    /// Paths of all files of the store below a directory of it, without the content of layers.
    pub(crate) fn files(&self, kind: &str) -> Vec<String> {
        let directory = self.path("store").join(kind);
        let mut names: Vec<String> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An image's documents and layers.
pub(crate) struct TestImage {
    pub(crate) layers: Vec<Vec<u8>>,
    pub(crate) configuration: Vec<u8>,
    pub(crate) manifest: Vec<u8>,
}

impl TestImage {
    pub(crate) fn new(layers: &[Vec<u8>]) -> Self {
        let diff_ids: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", digest(layer))).collect();
        Self::packed(layers.to_vec(), &diff_ids)
    }

    /// Of layers that are compressed, or are not what the configuration says.
    pub(crate) fn packed(layers: Vec<Vec<u8>>, diff_ids: &[String]) -> Self {
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let configuration = json!({
            "architecture": architecture, "os": "linux",
            "config": { "Entrypoint": ["/bin/app"], "Cmd": ["serve"], "Env": ["A=b"], "User": "web:www", "WorkingDir": "/srv" },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        })
        .to_string()
        .into_bytes();
        let kind = "application/vnd.oci.image.layer.v1.tar";
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &configuration),
            "layers": layers.iter().map(|layer| descriptor(kind, layer)).collect::<Vec<_>>(),
        })
        .to_string()
        .into_bytes();
        Self { layers, configuration, manifest }
    }

    pub(crate) fn blobs(&self) -> Vec<Vec<u8>> {
        self.layers.iter().chain([&self.configuration, &self.manifest]).cloned().collect()
    }

    pub(crate) fn manifest_descriptor(&self) -> serde_json::Value {
        descriptor("application/vnd.oci.image.manifest.v1+json", &self.manifest)
    }
}

pub(crate) fn descriptor(media_type: &str, bytes: &[u8]) -> serde_json::Value {
    json!({ "mediaType": media_type, "digest": format!("sha256:{}", digest(bytes)), "size": bytes.len() })
}

/// A layer, written entry by entry.
pub(crate) struct LayerWriter(tar::Builder<Vec<u8>>);

impl LayerWriter {
    pub(crate) fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    pub(crate) fn file(self, path: &str, content: &[u8]) -> Self {
        self.entry(path, tar::EntryType::Regular, content, |_| {})
    }

    pub(crate) fn directory(self, path: &str) -> Self {
        self.entry(path, tar::EntryType::Directory, &[], |header| header.set_mode(0o755))
    }

    pub(crate) fn link(self, path: &str, kind: tar::EntryType, target: &str) -> Self {
        self.entry(path, kind, &[], |header| header.set_link_name_literal(target).unwrap())
    }

    pub(crate) fn attribute(mut self, name: &str, value: &[u8]) -> Self {
        let key = format!("SCHILY.xattr.{name}");
        self.0.append_pax_extensions([(key.as_str(), value)]).unwrap();
        self
    }

    /// An entry as it is told, however harmful.
    pub(crate) fn entry(
        mut self,
        path: &str,
        kind: tar::EntryType,
        content: &[u8],
        change: impl FnOnce(&mut tar::Header),
    ) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(1_000_000);
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        change(&mut header);
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn reference(name: &str) -> ImageReference {
    name.parse().unwrap()
}

/// The layers' directories of an image that was pulled.
pub(crate) async fn layers(store: &ImageStore, name: &str) -> Vec<PathBuf> {
    store.hold(&reference(name), "test").await.unwrap().layers
}

pub(crate) fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}
