//! Images: names for the machine's own root file system, and what a store of images holds.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use orchestrator_core::{
    env::Env,
    runtime::{ContainerId, DiskSpace, Image, ImageReference, ImageUser, PullRequest, RuntimeError, SandboxId},
};
use orchestrator_images::{HeldImage, ImageError, ImageStore, ImageStoreBuilder};
use tokio::sync::OnceCell;

use crate::{
    config::{ImageConfig, YoukiBuilder},
    files::write_durably,
    layout::Layout,
    records::RootFileSystem,
};

/// The image that is always there: the machine's own root file system and no defaults.
const HOST: &str = "host";

/// The images of one runtime.
#[derive(Debug)]
pub(crate) struct Images {
    env: Env,
    layout: Layout,
    /// Names for the machine's own root.
    known: BTreeMap<String, ImageConfig>,
    /// Names that come from elsewhere than a registry.
    sources: BTreeSet<ImageReference>,
    asks_registries: bool,
    directory: PathBuf,
    builder: ImageStoreBuilder,
    /// Opened when it is first needed, with the word by which this runtime holds images there.
    store: OnceCell<(ImageStore, String)>,
}

/// An image that a container is made of.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) id: String,
    pub(crate) defaults: ImageConfig,
    pub(crate) root: RootFileSystem,
}

impl Images {
    pub(crate) fn new(
        builder: YoukiBuilder,
        directory: PathBuf,
        layout: Layout,
        env: Env,
    ) -> Result<Self, RuntimeError> {
        let mut known = builder.images;
        known.entry(HOST.to_owned()).or_default();
        let asks_registries = builder.registries.is_some();
        let mut store = ImageStore::builder(&directory).registries(builder.registries);
        let mut sources = BTreeSet::new();
        for (name, source) in builder.sources {
            let reference =
                name.parse().map_err(|error| RuntimeError::Invalid(format!("the image {name:?}: {error}")))?;
            sources.insert(reference);
            store = store.source(name, source);
        }
        Ok(Self { env, layout, known, sources, asks_registries, directory, builder: store, store: OnceCell::new() })
    }

    pub(crate) async fn status(&self, name: &str) -> Result<Option<Image>, RuntimeError> {
        let key = normalize(name);
        if let Some(image) = self.known.get(&key) {
            return Ok(Some(describe(name, &key, image)));
        }
        let Ok(reference) = name.parse() else { return Ok(None) };
        if self.is_empty() {
            return Ok(None);
        }
        let found =
            self.store().await?.0.find(&reference).await.map_err(|error| broken("looking at an image", error))?;
        Ok(found.map(|image| Image { name: name.to_owned(), ..image }))
    }

    pub(crate) async fn list(&self) -> Result<Vec<Image>, RuntimeError> {
        let stored = match self.is_empty() {
            true => Vec::new(),
            false => self.store().await?.0.list().await.map_err(|error| broken("listing images", error))?,
        };
        let known = self.known.iter().map(|(key, image)| describe(key, key, image));
        let mut images: Vec<Image> = known.chain(stored).collect();
        images.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(images)
    }

    pub(crate) async fn pull(&self, request: &PullRequest) -> Result<Image, RuntimeError> {
        let name = &request.image;
        let key = normalize(name);
        if let Some(image) = self.known.get(&key) {
            return Ok(describe(name, &key, image));
        }
        let reference = read(name)?;
        if !self.asks_registries && !self.sources.contains(&reference) {
            let known = self.known.keys().cloned().chain(self.sources.iter().map(ToString::to_string));
            let known = known.collect::<Vec<_>>().join(", ");
            let message = format!("image {name:?} not found: this runtime pulls from no registry; it has {known}");
            return Err(RuntimeError::ImagePull(message));
        }
        let image = self.store().await?.0.pull(&reference, &request.credentials).await?;
        Ok(Image { name: name.clone(), ..image })
    }

    pub(crate) async fn remove(&self, name: &str) -> Result<(), RuntimeError> {
        if self.known.contains_key(&normalize(name)) {
            return Err(RuntimeError::Unsupported(format!("removing the image {name}, which is the machine itself")));
        }
        let Ok(reference) = name.parse() else { return Ok(()) };
        if self.is_empty() {
            return Ok(());
        }
        self.store().await?.0.remove(&reference).await.map_err(|error| broken("removing an image", error))
    }

    /// The file system that the store is on, or will be.
    pub(crate) fn disk(&self) -> Result<Option<DiskSpace>, RuntimeError> {
        let failed = |error: rustix::io::Errno| RuntimeError::internal("looking at the disk of images", error);
        let Some(path) = self.directory.ancestors().find(|path| path.exists()) else { return Ok(None) };
        let disk = rustix::fs::statvfs(path).map_err(failed)?;
        Ok(Some(DiskSpace {
            capacity_bytes: disk.f_blocks.saturating_mul(disk.f_frsize),
            available_bytes: disk.f_bavail.saturating_mul(disk.f_frsize),
        }))
    }

    /// Holds an image for a container, until [`Self::release`].
    pub(crate) async fn hold(&self, name: &str, container: &ContainerId) -> Result<Found, RuntimeError> {
        let key = normalize(name);
        if let Some(image) = self.known.get(&key) {
            return Ok(Found { id: identity(&key), defaults: image.clone(), root: RootFileSystem::Machine });
        }
        let reference = read(name)?;
        if self.is_empty() {
            return Err(RuntimeError::NotFound { kind: "image", id: name.to_owned() });
        }
        let (store, owner) = self.store().await?;
        match store.hold(&reference, &format!("{owner}{container}")).await {
            Ok(held) => Ok(found(held)),
            Err(ImageError::Missing(_)) => Err(RuntimeError::NotFound { kind: "image", id: name.to_owned() }),
            Err(error) => Err(broken("holding an image", error)),
        }
    }

    /// A container needs its image no more.
    pub(crate) async fn release(&self, container: &ContainerId) -> Result<(), RuntimeError> {
        if self.is_empty() {
            return Ok(());
        }
        let (store, owner) = self.store().await?;
        let released = store.release(&format!("{owner}{container}")).await;
        released.map_err(|error| broken("letting go of an image", error))
    }

    /// No container of a sandbox needs its image.
    pub(crate) async fn release_all(&self, sandbox: &SandboxId) -> Result<(), RuntimeError> {
        if self.is_empty() {
            return Ok(());
        }
        let (store, owner) = self.store().await?;
        let released = store.release_others(&format!("{owner}{sandbox}."), BTreeSet::new()).await;
        released.map_err(|error| broken("letting go of images", error))
    }

    /// Whether no image was ever kept here: then there is nothing to look at, and nothing to make.
    fn is_empty(&self) -> bool {
        self.store.get().is_none() && !self.directory.exists()
    }

    async fn store(&self) -> Result<&(ImageStore, String), RuntimeError> {
        self.store.get_or_try_init(|| self.open()).await
    }

    /// Opens the store. What containers held that went while no agent was there is let go.
    async fn open(&self) -> Result<(ImageStore, String), RuntimeError> {
        let failed = |error| broken("opening the images", error);
        let store = self.builder.clone().open(self.env.clone()).await.map_err(failed)?;
        let owner = owner(self.layout.root(), &self.env)
            .map_err(|error| RuntimeError::internal("reading the runtime's files", error))?;
        let mut kept = BTreeSet::new();
        for sandbox in self.layout.list().map_err(unreadable)? {
            let containers = self.layout.sandbox(&sandbox)?.containers().map_err(unreadable)?;
            kept.extend(containers.iter().map(|container| format!("{owner}{container}")));
        }
        store.release_others(&owner, kept).await.map_err(failed)?;
        Ok((store, owner))
    }
}

/// How the names of this runtime's holders begin, in a store that it may share with others.
fn owner(root: &Path, env: &Env) -> std::io::Result<String> {
    let path: PathBuf = root.join("owner");
    if let Ok(text) = std::fs::read_to_string(&path)
        && text.len() == 16
        && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    {
        return Ok(format!("{text}."));
    }
    crate::files::make_private_directory(root)?;
    let text = format!("{:016x}", env.random());
    write_durably(&path, text.as_bytes())?;
    Ok(format!("{text}."))
}

fn found(held: HeldImage) -> Found {
    let configuration = held.configuration;
    Found {
        id: held.id,
        defaults: ImageConfig {
            entrypoint: configuration.entrypoint,
            args: configuration.args,
            environment: configuration.environment,
            working_directory: configuration.working_directory,
            stop_signal: configuration.stop_signal,
            user: None,
            mounts: Vec::new(),
        },
        root: RootFileSystem::Layers { directories: held.layers, user: configuration.user },
    }
}

fn read(name: &str) -> Result<ImageReference, RuntimeError> {
    name.parse().map_err(|error| RuntimeError::ImagePull(format!("couldn't parse image name {name:?}: {error}")))
}

fn describe(name: &str, key: &str, image: &ImageConfig) -> Image {
    Image { name: name.to_owned(), id: identity(key), size_bytes: 0, user: image.user.map(ImageUser::Id), pinned: true }
}

fn identity(key: &str) -> String {
    format!("host:{key}")
}

/// The store's own failure, which is no property of an image.
fn broken(context: &str, error: ImageError) -> RuntimeError {
    RuntimeError::internal(context, error)
}

fn unreadable(error: std::io::Error) -> RuntimeError {
    RuntimeError::internal("reading the runtime's files", error)
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
}
