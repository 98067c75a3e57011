//! An open directory: the engine in it, and the lock that keeps others out.

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
};

use crate::{
    engine::{Bounds, Changes, Engine},
    error::DiskError,
    records::Records,
};

pub(crate) struct Database {
    engine: Box<dyn Engine>,
    bounds: Bounds,
    /// The engine's directory.
    directory: PathBuf,
    /// Keeps others out of the directory. Behind the engine, so that it is let go of last.
    _lock: File,
}

impl Database {
    pub(crate) fn new(engine: Box<dyn Engine>, directory: &Path, lock: File) -> Self {
        Self { bounds: engine.bounds(), engine, directory: directory.to_owned(), _lock: lock }
    }

    pub(crate) fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Something to read with, for one call.
    pub(crate) fn records(&self) -> Result<Records<'_>, DiskError> {
        Ok(Records::new(self.engine.reader()?, self.bounds.piece_bytes))
    }

    /// Changes records, all or none, without waiting for the disk.
    pub(crate) fn apply(&mut self, changes: Changes) -> Result<(), DiskError> {
        self.engine.apply(changes)
    }

    /// Waits until everything that was applied would survive the loss of power.
    pub(crate) fn flush(&self) -> Result<(), DiskError> {
        self.engine.flush()
    }

    pub(crate) fn is_wasteful(&self, stored_bytes: u64) -> Result<bool, DiskError> {
        self.engine.is_wasteful(stored_bytes)
    }

    pub(crate) fn reclaim(&mut self) -> Result<(), DiskError> {
        self.engine.reclaim()
    }

    /// Space that the files take, in bytes.
    pub(crate) fn size_bytes(&self) -> Result<u64, DiskError> {
        self.engine.size_bytes()
    }

    /// Space that the disk has left for this process, in bytes.
    pub(crate) fn free_bytes(&self) -> Result<u64, DiskError> {
        let disk = rustix::fs::statvfs(&self.directory)
            .map_err(|error| DiskError::io("asking for free space", error.into()))?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// Closes the engine, and returns when the directory is free.
    pub(crate) fn close(self) -> Result<(), DiskError> {
        self.engine.close()
    }
}

/// The lock of a directory, which one store at a time can have.
pub(crate) fn lock(path: &Path) -> Result<File, DiskError> {
    let told = |error| DiskError::io(format!("locking {}", path.display()), error);
    let mut options = File::options();
    let file = options.read(true).write(true).create(true).truncate(false).open(path.join("lock")).map_err(told)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(DiskError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(told(error)),
    }
}

/// Makes new names in a directory survive the loss of power.
///
/// # Errors
/// The operating system failed.
pub fn sync_directory(path: &Path) -> Result<(), DiskError> {
    let synced = File::open(path).and_then(|directory| directory.sync_all());
    synced.map_err(|error| DiskError::io(format!("flushing {}", path.display()), error))
}
