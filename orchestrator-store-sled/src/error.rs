//! What can go wrong on disk, and panics turned into it.

use std::{any::Any, io, panic::AssertUnwindSafe, path::PathBuf, sync::Arc};

use orchestrator_core::{env::panic_message, store::StoreError};

/// Why a store could not be opened, or failed. It is the source of [`StoreError::Unavailable`], where it can be downcast to.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SledError {
    /// Another process, or another store of this one, has the directory open.
    #[error("{} is open elsewhere", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The directory was written by another version of this crate.
    #[error("{} has format {found}, known are formats up to {known}", path.display())]
    UnknownFormat {
        /// The directory.
        path: PathBuf,
        /// The format that it has.
        found: u32,
        /// The newest format that this version knows.
        known: u32,
    },
    /// What is on disk is not what was written there.
    #[error("damaged: {0}")]
    Damaged(String),
    /// The disk has less free space than a write has to leave; nothing was written.
    #[error("{free_bytes} bytes are free on the disk, {reserve_bytes} are needed")]
    DiskFull {
        /// Free space, in bytes.
        free_bytes: u64,
        /// What has to be free, in bytes.
        reserve_bytes: u64,
    },
    /// The operating system failed.
    #[error("{context}: {source}")]
    Io {
        /// What was being done.
        context: String,
        /// What went wrong.
        source: Arc<io::Error>,
    },
    /// sled failed, or panicked, in a way that has no better name.
    #[error("sled: {0}")]
    Engine(String),
    /// A write failed before. Nothing is written any more; what was acknowledged can be read.
    #[error("writing has ended: {0}")]
    Ended(#[source] Arc<SledError>),
}

impl SledError {
    pub(crate) fn io(context: impl Into<String>, source: io::Error) -> Self {
        Self::Io { context: context.into(), source: Arc::new(source) }
    }

    /// An error of sled while a directory is opened: there, whatever is not the operating system's is damage.
    pub(crate) fn while_opening(self) -> Self {
        match self {
            Self::Engine(what) => Self::Damaged(what),
            other => other,
        }
    }
}

impl From<sled::Error> for SledError {
    fn from(error: sled::Error) -> Self {
        match error {
            sled::Error::Io(source) => Self::io("sled", source),
            sled::Error::Corruption { .. } => Self::Damaged("sled found a page that is not what it wrote".to_owned()),
            other => Self::Engine(other.to_string()),
        }
    }
}

impl From<SledError> for StoreError {
    fn from(error: SledError) -> Self {
        Self::Unavailable { context: "the store on disk".to_owned(), source: Box::new(error) }
    }
}

/// Runs what calls sled. sled answers some damage with a panic.
pub(crate) fn contained<T, E: From<SledError>>(function: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let told = |panic: Box<dyn Any + Send>| Err(SledError::Engine(panic_message(&*panic)).into());
    std::panic::catch_unwind(AssertUnwindSafe(function)).unwrap_or_else(told)
}
