//! How an image gets into a store: from its source, or from a registry.

use std::fs::File;

use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use orchestrator_core::runtime::{ImageReference, RegistryCredentials};

use crate::{
    ImageConfiguration, ImageError, ImageSource, ImageStore, PullProgress,
    http::Repository,
    limits::{DOWNLOADS, INDEX_DEPTH},
    manifest::{Descriptor, Document, Manifest, for_platform},
    parts::{Layer, Parts, nameless_file},
    store::{LayerRecord, NameRecord, Shelf},
    unpack::Allowance,
};

/// This machine's architecture, in the words of images.
const ARCHITECTURE: &str = match std::env::consts::ARCH.as_bytes() {
    b"aarch64" => "arm64",
    b"x86_64" => "amd64",
    _ => std::env::consts::ARCH,
};

impl ImageStore {
    /// Makes or reads an image. What is the same as before is not unpacked again.
    pub(crate) async fn pull_source(
        &self,
        reference: &ImageReference,
        source: &ImageSource,
    ) -> Result<NameRecord, ImageError> {
        let (name, source, unique) = (reference.clone(), source.clone(), self.0.env.random());
        let allowance = self.0.allowance;
        let now = self.0.env.now();
        let record = self
            .blocking(move |shelf| {
                let scratch = || nameless_file(&shelf.directory().join("downloads"), unique);
                let Parts { configuration, layers } = source.read(&name, ARCHITECTURE, scratch)?;
                let parsed = checked(&configuration, layers.len(), &name)?;
                let _use = shelf.begin_pull(&parsed.diff_ids, unique)?;
                let mut total = Total::new(allowance);
                for (diff_id, mut layer) in parsed.diff_ids.iter().zip(layers) {
                    total.add(shelf.add_layer(diff_id, &mut layer, total.left, unique)?)?;
                }
                let configuration_digest = shelf.add_configuration(&configuration)?;
                let id = format!("sha256:{configuration_digest}");
                let record = record(&name, id, configuration_digest, &parsed, total.content_bytes, now);
                shelf.set_name(&record)?;
                Ok(record)
            })
            .await?;
        self.0.current.lock().await.insert(reference.clone(), record.configuration.clone());
        Ok(record)
    }

    /// Pulls an image from its registry, or a mirror of it.
    pub(crate) async fn pull_registry(
        &self,
        reference: &ImageReference,
        credentials: &[RegistryCredentials],
    ) -> Result<NameRecord, ImageError> {
        let Some(client) = &self.0.client else {
            return Err(ImageError::Missing(format!(
                "{reference}: not found: images are pulled from no registry here"
            )));
        };
        let (repository, found) = client.resolve(reference, credentials).await?;
        let digest = found.digest.clone();
        let manifest = follow(&repository, found.bytes, &found.media_type, reference).await?;
        let configuration = repository.document(&manifest.config).await?;
        let parsed = checked(&configuration, manifest.layers.len(), reference)?;
        let id = format!("{}@sha256:{digest}", reference.name());
        self.check_size(&manifest)?;
        let unique = self.0.env.random();
        let diff_ids = parsed.diff_ids.clone();
        let _use = self.blocking(move |shelf| shelf.begin_pull(&diff_ids, unique)).await?;
        self.pull_layers(&repository, &manifest, &parsed, reference, unique).await?;
        let (name, allowance, now) = (reference.clone(), self.0.allowance, self.0.env.now());
        self.blocking(move |shelf| {
            let mut total = Total::new(allowance);
            for diff_id in &parsed.diff_ids {
                let layer = shelf.layer(diff_id)?;
                total.add(layer.ok_or_else(|| ImageError::Missing(format!("the layer sha256:{diff_id} is gone")))?)?;
            }
            let configuration_digest = shelf.add_configuration(&configuration)?;
            let record = record(&name, id, configuration_digest, &parsed, total.content_bytes, now);
            shelf.set_name(&record)?;
            Ok(record)
        })
        .await
    }

    /// Downloads some layers at a time, and unpacks each as it is there.
    async fn pull_layers(
        &self,
        repository: &Repository,
        manifest: &Manifest,
        configuration: &ImageConfiguration,
        reference: &ImageReference,
        unique: u64,
    ) -> Result<(), ImageError> {
        let mut missing = Vec::new();
        for (descriptor, diff_id) in manifest.layers.iter().zip(&configuration.diff_ids) {
            let of_shelf = diff_id.clone();
            let is_there = self.blocking(move |shelf| shelf.layer(&of_shelf)).await?.is_some();
            // An image may have the same layer twice.
            if !is_there && !missing.iter().any(|(_, known)| *known == diff_id) {
                missing.push((descriptor, diff_id));
            }
        }
        // Boxed: the compiler does not see that closures over these references are general enough.
        let mut pulls = Vec::new();
        for (descriptor, diff_id) in missing {
            pulls.push(self.pull_layer(repository, descriptor, diff_id, reference, unique).boxed());
        }
        stream::iter(pulls).buffer_unordered(DOWNLOADS).try_collect().await
    }

    /// Downloads a layer and unpacks it, unless somebody else does so at the same time: then that is waited for.
    async fn pull_layer(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        diff_id: &str,
        reference: &ImageReference,
        unique: u64,
    ) -> Result<(), ImageError> {
        let (hexadecimal, size_bytes) = (descriptor.hexadecimal()?.to_owned(), descriptor.size);
        let (allowance, diff_id) = (self.0.allowance, diff_id.to_owned());
        let begin = move |shelf: &Shelf| shelf.begin_download(&hexadecimal, size_bytes, allowance.reserved_bytes);
        let (path, lock) = self.blocking(begin).await?;
        let (of_shelf, downloaded) = (diff_id.clone(), path.clone());
        let is_there = self.blocking(move |shelf| {
            let is_there = shelf.layer(&of_shelf)?.is_some();
            if is_there {
                crate::files::remove_file(&downloaded).map_err(|error| ImageError::io(&downloaded, error))?;
            }
            Ok(is_there)
        });
        if is_there.await? {
            return Ok(());
        }
        let progress = |downloaded_bytes| self.tell(reference, descriptor, downloaded_bytes);
        repository.download(descriptor, &path, &progress).await?;
        self.blocking(move |shelf| {
            let _lock = lock;
            add_downloaded(shelf, &path, &diff_id, allowance, unique)
        })
        .await
    }

    fn tell(&self, reference: &ImageReference, descriptor: &Descriptor, downloaded_bytes: u64) {
        if let Some(listener) = &self.0.listener {
            listener(PullProgress {
                reference: reference.clone(),
                digest: descriptor.digest.clone(),
                downloaded_bytes,
                size_bytes: descriptor.size,
            });
        }
    }

    /// What is too long compressed is too long unpacked.
    fn check_size(&self, manifest: &Manifest) -> Result<(), ImageError> {
        let limit_bytes = self.0.allowance.bytes;
        let sizes = manifest.layers.iter().map(|layer| layer.size);
        let size_bytes = sizes.fold(0_u64, u64::saturating_add);
        if size_bytes > limit_bytes {
            return Err(ImageError::too_long(format!("the image's layers ({size_bytes} bytes)"), limit_bytes));
        }
        Ok(())
    }
}

/// Unpacks a downloaded layer; what was downloaded is not needed any more then, and not kept when it is no layer.
fn add_downloaded(
    shelf: &Shelf,
    path: &std::path::Path,
    diff_id: &str,
    allowance: Allowance,
    unique: u64,
) -> Result<(), ImageError> {
    let failed = |error| ImageError::io(path, error);
    let file = File::open(path).map_err(failed)?;
    let size_bytes = file.metadata().map_err(failed)?.len();
    let mut layer = Layer { file, offset: 0, size_bytes };
    let added = shelf.add_layer(diff_id, &mut layer, allowance, unique);
    if !matches!(added, Err(ImageError::NoSpace { .. })) {
        crate::files::remove_file(path).map_err(failed)?;
    }
    added.map(drop)
}

/// Follows indices to the manifest that is for this machine.
async fn follow(
    repository: &Repository,
    bytes: Vec<u8>,
    media_type: &str,
    reference: &ImageReference,
) -> Result<Manifest, ImageError> {
    let mut document = Document::parse(&bytes, media_type)?;
    for _ in 0..INDEX_DEPTH {
        match document {
            Document::Manifest(manifest) => return Ok(manifest),
            Document::Index(candidates) => {
                let chosen = for_platform(&candidates, ARCHITECTURE, &reference.to_string())?;
                let found = repository.manifest(&format!("sha256:{}", chosen.hexadecimal()?)).await?;
                document = Document::parse(&found.bytes, &found.media_type)?;
            }
        }
    }
    Err(ImageError::TooLarge { what: "the depth of the image's indices".to_owned(), limit: INDEX_DEPTH.to_string() })
}

/// Reads a configuration that fits to so many layers, and to this machine.
fn checked(bytes: &[u8], layers: usize, reference: &ImageReference) -> Result<ImageConfiguration, ImageError> {
    let configuration = ImageConfiguration::parse(bytes)?;
    if configuration.diff_ids.len() != layers {
        let told = configuration.diff_ids.len();
        return Err(ImageError::Invalid(format!(
            "image {reference}: {layers} layers, and {told} in its configuration"
        )));
    }
    if layers == 0 {
        return Err(ImageError::Invalid(format!("image {reference} has no layers")));
    }
    let (os, architecture) = (&configuration.os, &configuration.architecture);
    if !matches!(os.as_str(), "" | "linux") || !(architecture.is_empty() || architecture == ARCHITECTURE) {
        return Err(ImageError::Unsupported(format!(
            "image {reference} is for {os}/{architecture}, not linux/{ARCHITECTURE}"
        )));
    }
    Ok(configuration)
}

fn record(
    reference: &ImageReference,
    id: String,
    configuration: String,
    parsed: &ImageConfiguration,
    size_bytes: u64,
    pulled_at: jiff::Timestamp,
) -> NameRecord {
    NameRecord { name: reference.to_string(), id, configuration, size_bytes, user: parsed.user.clone(), pulled_at }
}

/// What an image takes, layer by layer.
struct Total {
    left: Allowance,
    content_bytes: u64,
}

impl Total {
    fn new(allowance: Allowance) -> Self {
        Self { left: allowance, content_bytes: 0 }
    }

    fn add(&mut self, layer: LayerRecord) -> Result<(), ImageError> {
        let left = &mut self.left;
        let Some(bytes) = left.bytes.checked_sub(layer.archive_bytes) else {
            return Err(ImageError::too_long("the image's last layers unpacked", left.bytes));
        };
        let Some(entries) = left.entries.checked_sub(layer.entries) else {
            let limit = left.entries.to_string();
            return Err(ImageError::TooLarge {
                what: "the number of files in the image's last layers".to_owned(),
                limit,
            });
        };
        (left.bytes, left.entries) = (bytes, entries);
        self.content_bytes += layer.content_bytes;
        Ok(())
    }
}
