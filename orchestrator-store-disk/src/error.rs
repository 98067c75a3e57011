//! What can go wrong on disk, and panics turned into it.

use std::{any::Any, io, panic::AssertUnwindSafe, path::PathBuf, sync::Arc};

use orchestrator_core::{env::panic_message, store::StoreError};

/// Why a store could not be opened, or failed. It is the source of [`StoreError::Unavailable`], where it can be downcast to.
/// An engine makes [`Io`](Self::Io), [`Damaged`](Self::Damaged) and [`Engine`](Self::Engine) of its own errors.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
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
    /// The engine failed, or panicked, in a way that has no better name.
    #[error("the engine: {0}")]
    Engine(String),
    /// A write failed before. Nothing is written any more; what was acknowledged can be read.
    #[error("writing has ended: {0}")]
    Ended(#[source] Arc<DiskError>),
}

impl DiskError {
    /// The operating system failed while something was being done.
    pub fn io(context: impl Into<String>, source: io::Error) -> Self {
        Self::Io { context: context.into(), source: Arc::new(source) }
    }

    /// An error of an engine while a directory is opened: there, whatever is not the operating system's is damage.
    pub(crate) fn while_opening(self) -> Self {
        match self {
            Self::Engine(what) => Self::Damaged(what),
            other => other,
        }
    }
}

impl From<DiskError> for StoreError {
    fn from(error: DiskError) -> Self {
        Self::Unavailable { context: "the store on disk".to_owned(), source: Box::new(error) }
    }
}

/// Runs what calls an engine, which may answer damage with a panic.
pub(crate) fn contained<T, E: From<DiskError>>(function: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let told = |panic: Box<dyn Any + Send>| Err(DiskError::Engine(panic_message(&*panic)).into());
    std::panic::catch_unwind(AssertUnwindSafe(function)).unwrap_or_else(told)
}
