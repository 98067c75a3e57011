//! sled as an engine: how it is opened and flushed, and its errors.

use std::{
    fmt,
    fs::{self, File, TryLockError},
    io,
    ops::{Bound, ControlFlow},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use orchestrator_store_disk::{
    Bounds, Changes, DiskError, Engine, Flush, Limits, Place, Reader, Visit, sync_directory,
};

use crate::limits::{DELETE_RESERVE_BYTES, PIECE_BYTES, RECLAIM_INTERVAL_MILLISECONDS, RELEASE_PAUSE, RELEASE_TIME};

/// sled, in a directory.
pub struct SledEngine {
    db: sled::Db,
    /// sled's file, to flush it: sled itself waits until the data has left the page cache, which is not yet the disk.
    file: File,
    flush: Flush,
    directory: PathBuf,
    /// The newest of sled's blob files that is on the disk.
    blobs: Mutex<i64>,
}

impl fmt::Debug for SledEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SledEngine").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl Engine for SledEngine {
    fn open(place: Place<'_>) -> Result<Self, DiskError> {
        let Place { directory, is_new, limits, flush } = place;
        if !is_new {
            remove_unfinished_snapshots(directory)?;
            wait_for_release(directory)?;
        }
        let db = open_sled(directory, limits).map_err(told)?;
        let file = File::open(directory.join("db")).map_err(|error| DiskError::io("opening sled's file", error))?;
        let engine = Self { db, file, flush, directory: directory.to_owned(), blobs: Mutex::new(-1) };
        engine.sync_blobs()?;
        Ok(engine)
    }

    fn bounds(&self) -> Bounds {
        Bounds { piece_bytes: PIECE_BYTES, delete_reserve_bytes: DELETE_RESERVE_BYTES }
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>, DiskError> {
        Ok(Box::new(Tree(&self.db)))
    }

    fn apply(&mut self, changes: Changes) -> Result<(), DiskError> {
        let mut batch = sled::Batch::default();
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        self.db.apply_batch(batch).map_err(told)
    }

    fn flush(&self) -> Result<(), DiskError> {
        // Blobs first: sled passes over the pointer to one that is missing.
        self.sync_blobs()?;
        self.db.flush().map_err(told)?;
        (self.flush)(&self.file).map_err(|error| DiskError::io("flushing", error))
    }

    fn size_bytes(&self) -> Result<u64, DiskError> {
        self.db.size_on_disk().map_err(told)
    }

    fn close(self: Box<Self>) -> Result<(), DiskError> {
        drop(self.db);
        wait_for_release(&self.directory)
    }
}

/// sled's records.
struct Tree<'a>(&'a sled::Db);

impl Reader for Tree<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, DiskError> {
        Ok(self.0.get(key).map_err(told)?.map(|value| value.to_vec()))
    }

    fn scan(&self, from: Bound<&[u8]>, visit: &mut Visit<'_>) -> Result<(), DiskError> {
        for item in self.0.range::<&[u8], _>((from, Bound::Unbounded)) {
            let (key, value) = item.map_err(told)?;
            if let ControlFlow::Break(()) = visit(&key, &value)? {
                break;
            }
        }
        Ok(())
    }
}

impl SledEngine {
    /// Flushes the files that sled keeps large pages in, which are rare here and which it does not flush.
    fn sync_blobs(&self) -> Result<(), DiskError> {
        let told = |error| DiskError::io("flushing sled's blobs", error);
        let directory = self.directory.join("blobs");
        let mut newest = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        let known = *newest;
        for blob in directory.read_dir().map_err(told)? {
            let blob = blob.map_err(told)?;
            let Some(number) = blob.file_name().to_str().and_then(|name| name.parse::<i64>().ok()) else { continue };
            if number > known {
                match File::open(blob.path()).and_then(|file| file.sync_all()) {
                    // sled's own thread has removed it meanwhile.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    result => result.map_err(told)?,
                }
                *newest = number.max(*newest);
            }
        }
        if *newest == known { Ok(()) } else { sync_directory(&directory) }
    }
}

fn open_sled(directory: &Path, limits: &Limits) -> sled::Result<sled::Db> {
    sled::Config::new()
        .path(directory)
        .cache_capacity(limits.cache_bytes)
        .mode(sled::Mode::LowSpace)
        .flush_every_ms(Some(RECLAIM_INTERVAL_MILLISECONDS))
        .open()
}

/// sled takes a snapshot that it did not finish for the newest one, and then for damage.
fn remove_unfinished_snapshots(directory: &Path) -> Result<(), DiskError> {
    let told = |error| DiskError::io(format!("looking through {}", directory.display()), error);
    for file in fs::read_dir(directory).map_err(told)? {
        let file = file.map_err(told)?;
        if file.file_name().to_string_lossy().ends_with(".generating") {
            fs::remove_file(file.path()).map_err(told)?;
        }
    }
    Ok(())
}

/// Waits until sled's threads have let go of a database in a directory that nobody else may have open: they finish their work
/// after it was closed.
#[expect(clippy::disallowed_methods, reason = "threads of another library work in real time, and this one may block")]
fn wait_for_release(directory: &Path) -> Result<(), DiskError> {
    let told = |error| DiskError::io("waiting for sled", error);
    let file = File::open(directory.join("db")).map_err(told)?;
    for _ in 0..RELEASE_TIME.as_millis() / RELEASE_PAUSE.as_millis() {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(RELEASE_PAUSE),
            Err(TryLockError::Error(error)) => return Err(told(error)),
            // Dropping the file lets go of it.
            Ok(()) => return Ok(()),
        }
    }
    Err(DiskError::InUse { path: directory.to_owned() })
}

fn told(error: sled::Error) -> DiskError {
    match error {
        sled::Error::Io(source) => DiskError::io("sled", source),
        sled::Error::Corruption { .. } => DiskError::Damaged("sled found a page that is not what it wrote".to_owned()),
        other => DiskError::Engine(format!("sled: {other}")),
    }
}
