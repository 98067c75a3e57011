//! Images: held on the engine by references of this node's own, so that no cluster takes another's away.
//!
//! What a registry has is pulled by the engine; what the embedder named is packed or read here, and loaded. An image that
//! somebody else brought to the engine can be used, and is never removed.

mod held;
mod pause;
mod upload;

use std::{collections::BTreeMap, fs::File, path::PathBuf, sync::Arc};

use bollard::{
    auth::DockerCredentials,
    query_parameters::{CreateImageOptions, ListImagesOptions, RemoveImageOptions, TagImageOptions},
};
use orchestrator_core::runtime::{Image, ImageReference, ImageUser, PullRequest, RegistryCredentials, RuntimeError};
use orchestrator_images::{ImageError, ImageSource, Parts, fitting, nameless_file};
use tokio::sync::Mutex;

use crate::{
    engine::Engine,
    error::EngineError,
    limits::{IMAGE_LISTS, IMAGE_STALL_TIME},
    turns::Turns,
};
use held::{held, of_held};

/// The name of images that another has taken the place of; the tag says which.
const SUPERSEDED: &str = "superseded.invalid/image";
/// Times that a pull is made again when somebody removed its result meanwhile.
const PULL_ATTEMPTS: usize = 3;

/// An image as the engine has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeldImage {
    pub(crate) id: String,
    /// As `user` or `user:group`, of names or numbers.
    pub(crate) user: Option<String>,
    size_bytes: u64,
}

/// The images of one node.
#[derive(Debug)]
pub(crate) struct Images {
    engine: Arc<Engine>,
    /// Below which this node's references are.
    repository: String,
    sources: BTreeMap<ImageReference, ImageSource>,
    /// Where layers are written while they are packed.
    directory: PathBuf,
    /// What the engine has of the sources, as far as this instance has made sure.
    current: Mutex<BTreeMap<ImageReference, String>>,
    turns: Turns,
}

impl Images {
    pub(crate) fn new(
        engine: Arc<Engine>,
        repository: String,
        sources: BTreeMap<String, ImageSource>,
        directory: PathBuf,
    ) -> Result<Self, RuntimeError> {
        let mut known = BTreeMap::new();
        for (name, source) in sources {
            let reference = held::parse(&name).map_err(|error| RuntimeError::Invalid(error.to_string()))?;
            known.insert(reference, source);
        }
        let (current, turns) = Default::default();
        Ok(Self { engine, repository, sources: known, directory, current, turns })
    }

    /// The image to run under this name: this node's, or else the engine's own.
    pub(crate) async fn find(&self, name: &str) -> Result<Option<HeldImage>, RuntimeError> {
        let Ok(reference) = held::parse(name) else { return Ok(None) };
        if let Some(held) = self.inspect(&self.held(&reference)).await? {
            return Ok(Some(held));
        }
        if self.sources.contains_key(&reference) {
            return Ok(None);
        }
        self.inspect(&reference.to_string()).await
    }

    pub(crate) async fn status(&self, name: &str) -> Result<Option<Image>, RuntimeError> {
        let Ok(reference) = held::parse(name) else { return Ok(None) };
        let Some(found) = self.find(name).await? else { return Ok(None) };
        if self.sources.contains_key(&reference) && !self.is_current(&reference, &found.id).await? {
            return Ok(None);
        }
        Ok(Some(describe(name, &found)))
    }

    pub(crate) async fn pull(&self, request: &PullRequest) -> Result<Image, RuntimeError> {
        let name = &request.image;
        let reference = held::parse(name).map_err(|error| RuntimeError::ImagePull(error.to_string()))?;
        let _turn = self.turns.take(&reference.to_string()).await;
        let image = if let Some(source) = self.sources.get(&reference) {
            self.load(&reference, source).await?
        } else if let Some(held) = self.inspect(&self.held(&reference)).await? {
            held
        } else {
            self.adopt_or_pull(&reference, &request.credentials).await?
        };
        Ok(describe(name, &image))
    }

    pub(crate) async fn list(&self) -> Result<Vec<Image>, RuntimeError> {
        let mut images = Vec::new();
        for reference in self.held_references().await? {
            let Some(name) = of_held(&self.repository, &reference) else { continue };
            if let Some(held) = self.inspect(&reference).await? {
                images.push(describe(&name.to_string(), &held));
            }
        }
        images.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(images)
    }

    pub(crate) async fn remove(&self, name: &str) -> Result<(), RuntimeError> {
        let Ok(reference) = held::parse(name) else { return Ok(()) };
        let _turn = self.turns.take(&reference.to_string()).await;
        self.current.lock().await.remove(&reference);
        self.remove_reference(self.held(&reference)).await
    }

    /// The image of sandboxes, made and loaded if it is not there.
    pub(crate) async fn pause(&self, architecture: &str) -> Result<String, RuntimeError> {
        let name = self.pause_reference();
        let _turn = self.turns.take(&name).await;
        if self.inspect(&name).await?.is_some() {
            return Ok(name);
        }
        let source = pause::image(architecture, &self.repository)?;
        let (file, architecture) = (self.nameless_file(), architecture.to_owned());
        let reference = self.pause_image()?;
        let parts = self.blocking(move || source.read(&reference, &architecture, || file)).await?;
        let failed = |error: ImageError| RuntimeError::internal("making the image of sandboxes", error);
        upload::load(&self.engine, parts.map_err(failed)?, &name)
            .await
            .map_err(|error| error.during("loading the image of sandboxes"))?;
        Ok(name)
    }

    /// Lets go of all images of this node.
    pub(crate) async fn clear(&self) -> Result<(), RuntimeError> {
        self.current.lock().await.clear();
        for reference in self.held_references().await? {
            self.remove_reference(reference).await?;
        }
        self.remove_reference(self.pause_reference()).await
    }

    fn pause_image(&self) -> Result<ImageReference, RuntimeError> {
        self.pause_reference().parse().map_err(|error| RuntimeError::internal("naming the image of sandboxes", error))
    }

    fn pause_reference(&self) -> String {
        format!("{}:pause", self.repository)
    }

    fn held(&self, reference: &ImageReference) -> String {
        let (repository, tag) = held(reference, &self.repository);
        format!("{repository}:{tag}")
    }

    async fn held_references(&self) -> Result<Vec<String>, RuntimeError> {
        let mut lists = 0;
        let list = loop {
            lists += 1;
            let list = self.engine.call(|client| async move { client.list_images(None::<ListImagesOptions>).await });
            match list.await {
                Ok(list) => break list,
                // Podman cannot list images while one of them goes.
                Err(error) if error.is_not_found() && lists < IMAGE_LISTS => {}
                Err(error) => return Err(error.during("listing images")),
            }
        };
        let below = format!("{}/", self.repository);
        let tags = list.into_iter().flat_map(|image| image.repo_tags);
        Ok(tags.filter(|tag| tag.starts_with(&below)).collect())
    }

    async fn inspect(&self, name: &str) -> Result<Option<HeldImage>, RuntimeError> {
        match self.engine.call(|client| async move { client.inspect_image(name).await }).await {
            Ok(image) => Ok(Some(HeldImage {
                id: image.id.unwrap_or_default(),
                user: image.config.and_then(|config| config.user).filter(|user| !user.is_empty()),
                size_bytes: image.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
            })),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.during(format!("looking at the image {name}"))),
        }
    }

    /// Whether the engine has what the source makes now.
    async fn is_current(&self, reference: &ImageReference, id: &str) -> Result<bool, RuntimeError> {
        if self.current.lock().await.get(reference).is_some_and(|current| current == id) {
            return Ok(true);
        }
        let Some(source) = self.sources.get(reference) else { return Ok(true) };
        let is_current = self.parts(reference, source).await?.is_ok_and(|parts| parts.id() == id);
        if is_current {
            self.current.lock().await.insert(reference.clone(), id.to_owned());
        }
        Ok(is_current)
    }

    /// Loads what a source makes, unless the engine has it.
    async fn load(&self, reference: &ImageReference, source: &ImageSource) -> Result<HeldImage, RuntimeError> {
        let held = self.held(reference);
        let present = self.inspect(&held).await?;
        if let Some(image) = &present
            && self.current.lock().await.get(reference) == Some(&image.id)
        {
            return Ok(image.clone());
        }
        let failed = |why: String| RuntimeError::ImagePull(format!("image {reference}: {why}"));
        let parts = self.parts(reference, source).await?.map_err(|error| failed(error.to_string()))?;
        let image = match present {
            Some(image) if image.id == parts.id() => image,
            older => self.replace(reference, parts, older).await?,
        };
        self.current.lock().await.insert(reference.clone(), image.id.clone());
        Ok(image)
    }

    /// Loads an image in the place of an older one. Containers may need that for a while: it is removed then by the name that it
    /// has from now on.
    async fn replace(
        &self,
        reference: &ImageReference,
        parts: Parts,
        older: Option<HeldImage>,
    ) -> Result<HeldImage, RuntimeError> {
        let older = match older {
            Some(older) => Some(self.set_aside(&older).await?),
            None => None,
        };
        let held = self.held(reference);
        upload::load(&self.engine, parts, &held).await.map_err(|error| pull_error(reference, error))?;
        if let Some(older) = older {
            match self.remove_reference(older).await {
                Ok(()) | Err(RuntimeError::WrongState(_)) => {}
                Err(error) => return Err(error),
            }
        }
        self.inspect(&held).await?.ok_or_else(|| {
            RuntimeError::ImagePull(format!("image {reference}: the engine has loaded it, and does not have it"))
        })
    }

    /// Gives an image that another takes the place of a name of its own, so that it is not left on the engine without one.
    async fn set_aside(&self, image: &HeldImage) -> Result<String, RuntimeError> {
        let digest = image.id.strip_prefix("sha256:").unwrap_or(&image.id);
        let reference = held::parse(&format!("{SUPERSEDED}:{digest}"));
        let reference = reference.map_err(|error| RuntimeError::internal("keeping an image", error))?;
        let tagged = self.tag(&image.id, &reference).await;
        tagged.map_err(|error| error.during(format!("keeping the image {}", image.id)))?;
        Ok(self.held(&reference))
    }

    /// Holds an image of the engine by this name.
    async fn tag(&self, image: &str, reference: &ImageReference) -> Result<(), EngineError> {
        let (repository, tag) = held(reference, &self.repository);
        let options = TagImageOptions { repo: Some(repository), tag: Some(tag) };
        self.engine.call(|client| async move { client.tag_image(image, Some(options)).await }).await
    }

    async fn parts(
        &self,
        reference: &ImageReference,
        source: &ImageSource,
    ) -> Result<Result<Parts, ImageError>, RuntimeError> {
        let architecture = self.architecture().await?;
        let (reference, source, file) = (reference.clone(), source.clone(), self.nameless_file());
        self.blocking(move || source.read(&reference, &architecture, || file)).await
    }

    /// The architecture that the engine runs, as images name it.
    async fn architecture(&self) -> Result<String, RuntimeError> {
        let version = self.engine.call(|client| async move { client.version().await }).await;
        Ok(version.map_err(|error| error.during("asking the engine what it is"))?.arch.unwrap_or_default())
    }

    fn nameless_file(&self) -> Result<File, ImageError> {
        nameless_file(&self.directory, self.engine.env.random())
    }

    async fn blocking<T: Send + 'static>(&self, make: impl FnOnce() -> T + Send + 'static) -> Result<T, RuntimeError> {
        let made = self.engine.env.blocking(make).await;
        made.ok_or_else(|| RuntimeError::internal("making an image", "the work was given up"))
    }

    /// Takes an image that the engine has, or lets it pull one.
    async fn adopt_or_pull(
        &self,
        reference: &ImageReference,
        credentials: &[RegistryCredentials],
    ) -> Result<HeldImage, RuntimeError> {
        let name = reference.to_string();
        let is_foreign = self.inspect(&name).await?.is_some();
        for _ in 0..PULL_ATTEMPTS {
            if !is_foreign {
                self.pull_from_registry(reference, credentials).await?;
            }
            match self.tag(&name, reference).await {
                Ok(()) => {}
                // Another node has pulled it, too, and removed the name after that.
                Err(error) if error.is_not_found() => continue,
                Err(error) => return Err(error.during(format!("keeping the image {name}"))),
            }
            if !is_foreign {
                // The name was not there before. Where it cannot go, it stays: that is no harm.
                let _ = self.remove_reference(name.clone()).await;
            }
            if let Some(held) = self.inspect(&self.held(reference)).await? {
                return Ok(held);
            }
        }
        Err(RuntimeError::ImagePull(format!("image {reference}: somebody removes it as soon as it is there")))
    }

    /// Pulls with each of the credentials that fit, and without any if none does.
    async fn pull_from_registry(
        &self,
        reference: &ImageReference,
        credentials: &[RegistryCredentials],
    ) -> Result<(), RuntimeError> {
        let fitting = fitting(credentials, reference.registry(), reference.repository()).into_iter();
        let mut attempts: Vec<Option<DockerCredentials>> =
            fitting.map(|credentials| Some(as_engine(credentials))).collect();
        if attempts.is_empty() {
            attempts.push(None);
        }
        let mut last = None;
        for credentials in attempts {
            let client = self.engine.client().await.map_err(|error| pull_error(reference, error))?;
            let options = CreateImageOptions {
                from_image: Some(reference.name()),
                tag: Some(held::version(reference)),
                ..CreateImageOptions::default()
            };
            let progress = client.create_image(Some(options), None, credentials);
            match self.engine.drain(IMAGE_STALL_TIME, progress).await {
                Ok(_) => return Ok(()),
                Err(error) => last = Some(error),
            }
        }
        match last {
            Some(error) => Err(pull_error(reference, error)),
            None => Ok(()),
        }
    }

    async fn remove_reference(&self, name: String) -> Result<(), RuntimeError> {
        let of_image = name.clone();
        let removal = self
            .engine
            .call(|client| async move { client.remove_image(&of_image, None::<RemoveImageOptions>, None).await });
        match removal.await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) if error.is_conflict() => Err(RuntimeError::WrongState(error.to_string())),
            // An engine that is told twice at once to remove the last name of an image may fail with both.
            Err(EngineError::Refused { .. }) if self.inspect(&name).await?.is_none() => Ok(()),
            Err(error) => Err(error.during(format!("removing the image {name}"))),
        }
    }
}

/// What the engine says of an image is why it cannot be had; that the engine is not there is another matter.
fn pull_error(reference: &ImageReference, error: EngineError) -> RuntimeError {
    match error {
        EngineError::Refused { message, .. } => RuntimeError::ImagePull(format!("image {reference}: {message}")),
        error => error.during(format!("getting the image {reference}")),
    }
}

fn as_engine(credentials: &RegistryCredentials) -> DockerCredentials {
    DockerCredentials {
        username: Some(credentials.username.clone()),
        password: Some(credentials.password.clone()),
        serveraddress: Some(credentials.registry.clone()),
        ..DockerCredentials::default()
    }
}

fn describe(name: &str, image: &HeldImage) -> Image {
    let user = image.user.as_deref().and_then(ImageUser::parse);
    Image { name: name.to_owned(), id: image.id.clone(), size_bytes: image.size_bytes, user, pinned: false }
}
