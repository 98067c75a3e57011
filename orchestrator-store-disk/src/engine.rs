//! The seam to what keeps the records: an ordered map of bytes whose changes are atomic and durable.

use std::{
    fs::File,
    io,
    ops::{Bound, ControlFlow},
    path::Path,
    sync::Arc,
};

use crate::{error::DiskError, limits::Limits};

/// Puts what was written to a file onto the disk: `File::sync_data`, or in its place what a platform needs, or a test that has
/// it fail.
pub type Flush = Arc<dyn Fn(&File) -> io::Result<()> + Send + Sync>;

/// Changes that happen together: new records by their keys, in order; `None` removes, whether or not the key is there.
pub type Changes = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// What a scan shows each record to: its key and what stands there. It says whether to go on.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, DiskError> + 'a;

/// Where an engine is to be opened.
#[derive(Clone)]
pub struct Place<'a> {
    /// A directory for the engine alone. Nobody else has it open.
    pub directory: &'a Path,
    /// Whether the directory is empty, and the engine is to be made there. Otherwise nothing may be made that is not there.
    pub is_new: bool,
    /// [`Limits::cache_bytes`] is the engine's affair.
    pub limits: &'a Limits,
    /// How files get onto the disk.
    pub flush: Flush,
}

impl std::fmt::Debug for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { directory, is_new, limits, flush: _ } = self;
        f.debug_struct("Place").field("directory", directory).field("is_new", is_new).field("limits", limits).finish()
    }
}

/// What suits an engine.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Size of the largest record, in bytes. What is larger is stored in pieces. It is part of the format of what was written.
    pub piece_bytes: usize,
    /// Free space on the disk that changes need which only remove, in bytes.
    pub delete_reserve_bytes: u64,
}

/// Ordered records on disk, below a store: [`DiskStore`](crate::DiskStore) does the rest. All calls may block.
///
/// The store has one writer. It calls [`apply`](Self::apply) while nobody reads and [`flush`](Self::flush) while others do, and
/// one always follows the other. In between a reader may find what was applied or what was there before; the store knows
/// the difference and shows only what is on the disk.
///
/// An error of a call that writes ends writing for good: the engine is then asked to read, as far as it can, and to close.
/// A panic becomes [`DiskError::Engine`]. What was damaged on disk need not be noticed: all records have checksums of the store's.
pub trait Engine: Send + Sync + 'static {
    /// Opens the engine, or makes an empty one.
    ///
    /// # Errors
    /// The operating system's as [`DiskError::Io`]. All others but [`DiskError::InUse`] count as damage.
    fn open(place: Place<'_>) -> Result<Self, DiskError>
    where
        Self: Sized;

    /// What suits the engine. It never changes.
    fn bounds(&self) -> Bounds;

    /// Something to read with, for one call. What is applied before it was made and flushed is there.
    ///
    /// # Errors
    /// The engine failed.
    fn reader(&self) -> Result<Box<dyn Reader + '_>, DiskError>;

    /// Makes changes, all or none. They need not be on the disk, nor be shown, before the next [`flush`](Self::flush).
    ///
    /// # Errors
    /// The engine failed.
    fn apply(&mut self, changes: Changes) -> Result<(), DiskError>;

    /// Returns when what was applied would survive the loss of power.
    ///
    /// # Errors
    /// The engine failed, or the disk did. To try again would tell nothing: it is not called again.
    fn flush(&self) -> Result<(), DiskError>;

    /// Space that the engine's files take, in bytes.
    ///
    /// # Errors
    /// The engine failed.
    fn size_bytes(&self) -> Result<u64, DiskError>;

    /// Whether [`reclaim`](Self::reclaim) would be worth its while. It is asked after each flush, with the size of what is stored.
    ///
    /// # Errors
    /// The engine failed.
    fn is_wasteful(&self, stored_bytes: u64) -> Result<bool, DiskError> {
        let _ = stored_bytes;
        Ok(false)
    }

    /// Gives space back to the disk, for engines that do not do so on their own. Nobody reads or writes meanwhile.
    ///
    /// # Errors
    /// The engine failed.
    fn reclaim(&mut self) -> Result<(), DiskError> {
        Ok(())
    }

    /// Closes the engine, and returns when its directory is free.
    ///
    /// # Errors
    /// The engine failed.
    fn close(self: Box<Self>) -> Result<(), DiskError>;
}

/// Reads records. It need not be a snapshot.
pub trait Reader {
    /// What stands at a key.
    ///
    /// # Errors
    /// The engine failed.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, DiskError>;

    /// Shows records in the order of their keys, from one on, until it is told to stop or there are no more.
    ///
    /// # Errors
    /// The engine failed, or whoever looks did.
    fn scan(&self, from: Bound<&[u8]>, visit: &mut Visit<'_>) -> Result<(), DiskError>;
}
