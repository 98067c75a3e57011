//! Where an image comes from when it comes from no registry.

use std::{fs::File, path::PathBuf};

use orchestrator_core::runtime::ImageReference;

use crate::{ImageError, Parts, pack, stored};

/// Where an image comes from, instead of a registry.
///
/// [`Self::read`] makes its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImageSource {
    /// Executables of this machine with the shared libraries that they need.
    Packed(Box<PackedImage>),
    /// A file as `docker save` writes it, or an OCI layout in such a file; gzip may be around it.
    Archive(PathBuf),
    /// A directory in the OCI image layout.
    Layout(PathBuf),
}

impl ImageSource {
    /// Reads or makes the image: for this name where there are several, and for this architecture, in the words of images.
    /// `scratch` makes a file for what has to be written first; see [`nameless_file`](crate::nameless_file).
    pub fn read(
        &self,
        name: &ImageReference,
        architecture: &str,
        scratch: impl FnOnce() -> Result<File, ImageError>,
    ) -> Result<Parts, ImageError> {
        match self {
            Self::Packed(image) => pack::pack(image, architecture, scratch()?),
            Self::Archive(path) => stored::archive(path, name, architecture, scratch),
            Self::Layout(path) => stored::layout(path, name, architecture),
        }
    }
}

impl From<PackedImage> for ImageSource {
    fn from(image: PackedImage) -> Self {
        Self::Packed(Box::new(image))
    }
}

/// An image made of executables of this machine. What they need to be loaded comes with them; what they open later (data,
/// plug-ins, time zones) is to be named.
///
/// The same files make the same image, byte by byte.
///
/// ```
/// use orchestrator_images::PackedImage;
///
/// let image = PackedImage::new().executable("/bin/sh").executable("/bin/sleep").args(["/bin/sh"]);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackedImage {
    pub(crate) executables: Vec<PackedFile>,
    pub(crate) files: Vec<PackedFile>,
    pub(crate) contents: Vec<PackedContent>,
    pub(crate) architecture: Option<String>,
    pub(crate) entrypoint: Vec<String>,
    pub(crate) args: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) working_directory: Option<String>,
    pub(crate) stop_signal: Option<String>,
    pub(crate) user: Option<String>,
}

/// A file of the machine, and where it is in the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PackedFile {
    pub(crate) host_path: PathBuf,
    pub(crate) image_path: PathBuf,
}

/// A file that only the image has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PackedContent {
    pub(crate) image_path: PathBuf,
    pub(crate) content: Vec<u8>,
    pub(crate) mode: u32,
}

impl PackedImage {
    /// An image of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an executable under the path that it has on the machine.
    #[must_use]
    pub fn executable(self, path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        self.executable_at(path.clone(), path)
    }

    /// Adds an executable of the machine under another path; both absolute.
    #[must_use]
    pub fn executable_at(mut self, host_path: impl Into<PathBuf>, image_path: impl Into<PathBuf>) -> Self {
        self.executables.push(PackedFile { host_path: host_path.into(), image_path: image_path.into() });
        self
    }

    /// Adds any file of the machine, as it is; both paths absolute.
    #[must_use]
    pub fn file(mut self, host_path: impl Into<PathBuf>, image_path: impl Into<PathBuf>) -> Self {
        self.files.push(PackedFile { host_path: host_path.into(), image_path: image_path.into() });
        self
    }

    /// Adds a file with this content and mode, such as `0o755` for a program; the path is absolute.
    #[must_use]
    pub fn content(mut self, image_path: impl Into<PathBuf>, content: impl Into<Vec<u8>>, mode: u32) -> Self {
        self.contents.push(PackedContent { image_path: image_path.into(), content: content.into(), mode });
        self
    }

    /// The architecture, in the words of images (`amd64`), of an image whose executables do not tell it.
    #[must_use]
    pub fn architecture(mut self, name: impl Into<String>) -> Self {
        self.architecture = Some(name.into());
        self
    }

    /// The entry point: program and leading arguments.
    #[must_use]
    pub fn entrypoint(mut self, words: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.entrypoint = words.into_iter().map(Into::into).collect();
        self
    }

    /// Arguments, or the whole command where there is no entry point.
    #[must_use]
    pub fn args(mut self, words: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.args = words.into_iter().map(Into::into).collect();
        self
    }

    /// Adds a variable of the environment.
    #[must_use]
    pub fn variable(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// The working directory, instead of `/`.
    #[must_use]
    pub fn working_directory(mut self, path: impl Into<String>) -> Self {
        self.working_directory = Some(path.into());
        self
    }

    /// The signal that asks a container to stop, instead of `SIGTERM`.
    #[must_use]
    pub fn stop_signal(mut self, name: impl Into<String>) -> Self {
        self.stop_signal = Some(name.into());
        self
    }

    /// The user, as `user` or `user:group`, instead of 0.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }
}
