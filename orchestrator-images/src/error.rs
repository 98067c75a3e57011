//! Why an image cannot be had.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why an image could not be made, read, pulled or unpacked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// A file, an image or a part of it is not there.
    #[error("{0}")]
    Missing(String),
    /// It is there, and this crate does not do that.
    #[error("{0}")]
    Unsupported(String),
    /// What was sent or stored is no image, or not the one that its digest names.
    #[error("{0}")]
    Invalid(String),
    /// It passes a bound; nothing of it was kept.
    #[error("{what} is more than {limit}")]
    TooLarge {
        /// What is too large.
        what: String,
        /// The bound, with its unit.
        limit: String,
    },
    /// The disk would be full.
    #[error("no space left for the image: {available_bytes} bytes are free, {reserved_bytes} are kept free")]
    NoSpace {
        /// Free on the disk, in bytes.
        available_bytes: u64,
        /// What has to stay free, in bytes.
        reserved_bytes: u64,
    },
    /// The registry wants other credentials, or some.
    #[error("{0}")]
    Unauthorized(String),
    /// The registry could not be asked, or failed.
    #[error("{0}")]
    Registry(String),
    /// A file of this machine could not be used.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}

impl ImageError {
    /// Wraps an error of a file.
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::NotFound => Self::Missing(format!("{}: {source}", path.display())),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::NoSpace { available_bytes: 0, reserved_bytes: 0 }
            }
            _ => Self::File { path: path.to_owned(), source },
        }
    }

    /// A bound in bytes that was passed.
    pub(crate) fn too_long(what: impl Into<String>, limit_bytes: u64) -> Self {
        Self::TooLarge { what: what.into(), limit: format!("{limit_bytes} bytes") }
    }

    /// Whether asking again may help; what is wrong with the image itself stays wrong.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Registry(_) | Self::NoSpace { .. } | Self::File { .. })
    }
}

impl From<ImageError> for orchestrator_core::runtime::RuntimeError {
    fn from(error: ImageError) -> Self {
        Self::ImagePull(error.to_string())
    }
}
