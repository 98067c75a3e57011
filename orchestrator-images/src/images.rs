//! The images of a machine: pulled once, shared by all containers that are made of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
    sync::Arc,
};

use orchestrator_core::{
    env::Env,
    runtime::{Image, ImageReference, RegistryCredentials},
};
use tokio::sync::Mutex;

use crate::{
    HeldImage, ImageError, ImageSource, Registries,
    http::RegistryClient,
    limits::{ENTRIES, RESERVED_BYTES, UNPACKED_BYTES},
    store::{NameRecord, Shelf},
    unpack::Allowance,
};

/// How far a download is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullProgress {
    /// The image.
    pub reference: ImageReference,
    /// The layer's digest, as it is downloaded.
    pub digest: String,
    /// What is there of it, in bytes.
    pub downloaded_bytes: u64,
    /// All of it, in bytes.
    pub size_bytes: u64,
}

/// Who is told of downloads.
pub(crate) type Listener = Arc<dyn Fn(PullProgress) + Send + Sync>;

/// The images of a machine, in a directory. Several stores, of one process or of many, may share it.
///
/// Cheap to clone.
#[derive(Clone)]
pub struct ImageStore(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) env: Env,
    pub(crate) shelf: Shelf,
    pub(crate) sources: BTreeMap<ImageReference, ImageSource>,
    /// `None` asks no registry.
    pub(crate) client: Option<RegistryClient>,
    pub(crate) allowance: Allowance,
    pub(crate) listener: Option<Listener>,
    /// The configurations of the sources, as far as this instance has made sure of them.
    pub(crate) current: Mutex<BTreeMap<ImageReference, String>>,
    /// One pull at a time for each name: the second one finds what the first one pulled.
    turns: Mutex<BTreeMap<ImageReference, Arc<Mutex<()>>>>,
}

/// Describes an [`ImageStore`]; see [`ImageStore::builder`].
#[derive(Clone)]
pub struct ImageStoreBuilder {
    directory: PathBuf,
    sources: Vec<(String, ImageSource)>,
    registries: Option<Registries>,
    allowance: Allowance,
    listener: Option<Listener>,
}

impl fmt::Debug for ImageStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImageStore").field("directory", &self.0.shelf.directory()).finish_non_exhaustive()
    }
}

impl fmt::Debug for ImageStoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImageStoreBuilder").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl ImageStoreBuilder {
    /// Says where an image comes from, instead of a registry. `nginx` stands for `docker.io/library/nginx:latest`.
    #[must_use]
    pub fn source(mut self, name: impl Into<String>, source: impl Into<ImageSource>) -> Self {
        self.sources.push((name.into(), source.into()));
        self
    }

    /// How registries are reached; `None` for a store that asks none.
    #[must_use]
    pub fn registries(mut self, registries: impl Into<Option<Registries>>) -> Self {
        self.registries = registries.into();
        self
    }

    /// The most that an image may take on the disk, in bytes. 64 GiB unless given.
    #[must_use]
    pub fn unpacked_bytes(mut self, bytes: u64) -> Self {
        self.allowance.bytes = bytes;
        self
    }

    /// The most files and directories that an image may have. Half a million unless given.
    #[must_use]
    pub fn entries(mut self, count: u64) -> Self {
        self.allowance.entries = count;
        self
    }

    /// What stays free on the disk, in bytes. 256 MiB unless given.
    #[must_use]
    pub fn reserved_bytes(mut self, bytes: u64) -> Self {
        self.allowance.reserved_bytes = bytes;
        self
    }

    /// Is told of downloads as they go on. It is called often and must not block.
    #[must_use]
    pub fn on_progress(mut self, listener: impl Fn(PullProgress) + Send + Sync + 'static) -> Self {
        self.listener = Some(Arc::new(listener));
        self
    }

    /// Opens the store, and removes what a crash left.
    pub async fn open(self, env: Env) -> Result<ImageStore, ImageError> {
        let mut sources = BTreeMap::new();
        for (name, source) in self.sources {
            let reference =
                name.parse().map_err(|error| ImageError::Invalid(format!("the image {name:?}: {error}")))?;
            sources.insert(reference, source);
        }
        let (current, turns) = Default::default();
        let store = ImageStore(Arc::new(Inner {
            client: self.registries.map(|registries| RegistryClient::new(env.clone(), registries)).transpose()?,
            shelf: Shelf::new(self.directory),
            allowance: self.allowance,
            listener: self.listener,
            env,
            sources,
            current,
            turns,
        }));
        let now = store.0.env.now();
        store
            .blocking(move |shelf| {
                shelf.prepare()?;
                shelf.expire_downloads(now)?;
                shelf.remove_unneeded()
            })
            .await?;
        Ok(store)
    }
}

impl ImageStore {
    /// Begins to describe a store that keeps its images in this directory. Whoever can write there can change every container.
    pub fn builder(directory: impl Into<PathBuf>) -> ImageStoreBuilder {
        ImageStoreBuilder {
            directory: directory.into(),
            sources: Vec::new(),
            registries: Some(Registries::default()),
            allowance: Allowance { bytes: UNPACKED_BYTES, entries: ENTRIES, reserved_bytes: RESERVED_BYTES },
            listener: None,
        }
    }

    /// Makes an image present, and returns it. The name is asked for again each time, as a tag may lead elsewhere by now; layers
    /// that are there are not downloaded again.
    ///
    /// Dropping the future leaves what was downloaded; the next pull goes on with it.
    pub async fn pull(
        &self,
        reference: &ImageReference,
        credentials: &[RegistryCredentials],
    ) -> Result<Image, ImageError> {
        let turn = self.turn(reference).await;
        let _turn = turn.lock().await;
        let record = match self.0.sources.get(reference) {
            Some(source) => self.pull_source(reference, source).await?,
            None => self.pull_registry(reference, credentials).await?,
        };
        Ok(record.describe(&reference.to_string()))
    }

    /// The image of this name, if it is here.
    pub async fn find(&self, reference: &ImageReference) -> Result<Option<Image>, ImageError> {
        Ok(self.record(reference).await?.map(|record| record.describe(&reference.to_string())))
    }

    /// All images, by their names.
    pub async fn list(&self) -> Result<Vec<Image>, ImageError> {
        let records = self.blocking(Shelf::names).await?;
        Ok(records.iter().map(|record| record.describe(&record.name)).collect())
    }

    /// Forgets a name. What nobody holds and no other name needs is removed. A name that is not here is a success.
    pub async fn remove(&self, reference: &ImageReference) -> Result<(), ImageError> {
        let turn = self.turn(reference).await;
        let _turn = turn.lock().await;
        self.0.current.lock().await.remove(reference);
        let reference = reference.clone();
        self.blocking(move |shelf| shelf.remove_name(&reference)).await
    }

    /// Holds an image for somebody, a plain word: until it is released, its layers stay where they are.
    pub async fn hold(&self, reference: &ImageReference, holder: &str) -> Result<HeldImage, ImageError> {
        let missing = || ImageError::Missing(format!("image {reference} is not here"));
        let record = self.record(reference).await?.ok_or_else(missing)?;
        let holder = plain(holder)?;
        self.blocking(move |shelf| shelf.hold(&record, &holder)).await
    }

    /// Ends what [`Self::hold`] began. Somebody who holds nothing is a success.
    pub async fn release(&self, holder: &str) -> Result<(), ImageError> {
        let holder = plain(holder)?;
        self.blocking(move |shelf| shelf.release(&holder)).await
    }

    /// Releases all whose names begin so, but for those that are told; for those who come back after a crash.
    pub async fn release_others(&self, prefix: &str, kept: BTreeSet<String>) -> Result<(), ImageError> {
        let prefix = plain(prefix)?;
        self.blocking(move |shelf| shelf.release_others(&prefix, &kept)).await
    }

    /// What is here under this name. An image with a source counts once this instance knows that it is what the source makes now.
    async fn record(&self, reference: &ImageReference) -> Result<Option<NameRecord>, ImageError> {
        let of_shelf = reference.clone();
        let Some(record) = self.blocking(move |shelf| shelf.name(&of_shelf)).await? else { return Ok(None) };
        let is_current = !self.0.sources.contains_key(reference)
            || self.0.current.lock().await.get(reference) == Some(&record.configuration);
        Ok(is_current.then_some(record))
    }

    /// Works on the disk where that keeps nobody waiting.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shelf) -> Result<T, ImageError> + Send + 'static,
    ) -> Result<T, ImageError> {
        let shelf = self.0.shelf.clone();
        let done = self.0.env.blocking(move || work(&shelf)).await;
        done.unwrap_or_else(|| Err(ImageError::Registry("the work on the images was given up".to_owned())))
    }

    async fn turn(&self, reference: &ImageReference) -> Arc<Mutex<()>> {
        let mut turns = self.0.turns.lock().await;
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(turns.entry(reference.clone()).or_default())
    }
}

/// The name of a holder is that of a file.
fn plain(holder: &str) -> Result<String, ImageError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if holder.is_empty() || holder.len() > 255 || holder.starts_with('.') || !holder.bytes().all(is_plain) {
        return Err(ImageError::Invalid(format!("{holder:?} is no plain word")));
    }
    Ok(holder.to_owned())
}
