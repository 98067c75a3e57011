//! The records in sled, read and written one by one. Everything here blocks.

use std::{
    fs::{File, TryLockError},
    io,
    ops::Bound,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use orchestrator_core::store::{Entry, Key, KeyRange, Revision};

use crate::{
    error::SledError,
    limits::{PIECE_BYTES, RELEASE_PAUSE, RELEASE_TIME},
    record::{
        self, Commit, DEADLINES, Meta, Place, Pointer, commit_key, damaged, decode, parse_deadline_key,
        parse_pointer_key, piece_key, pieces, pointer_key, unseal, value_key,
    },
    writes::Writes,
};

/// Puts what was written to a file onto the disk. Tests have one that fails.
pub(crate) type Flush = Box<dyn Fn(&File) -> io::Result<()> + Send + Sync>;

/// An open directory.
pub(crate) struct Engine {
    db: sled::Db,
    /// sled's file, to flush it: sled itself waits until the data has left the page cache, which is not yet the disk.
    file: File,
    flush: Flush,
    /// sled's directory.
    directory: PathBuf,
    /// The newest of sled's blob files that is on the disk.
    blobs: Mutex<i64>,
    /// Keeps others out of the directory. Behind the database, so that it is let go of last.
    _lock: File,
}

impl Engine {
    /// Around a database that was opened in a directory.
    pub(crate) fn new(db: sled::Db, directory: &Path, lock: File, flush: Flush) -> Result<Self, SledError> {
        let file = File::open(directory.join("db")).map_err(|error| SledError::io("opening sled's file", error))?;
        let engine = Self { db, file, flush, directory: directory.to_owned(), blobs: Mutex::new(-1), _lock: lock };
        engine.sync_blobs()?;
        Ok(engine)
    }

    /// Closes the database, and returns when the directory is free.
    pub(crate) fn close(self) -> Result<(), SledError> {
        drop(self.db);
        wait_for_release(&self.directory)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, SledError> {
        self.db.get(key)?.map(|sealed| unseal(key, &sealed).map(<[u8]>::to_vec)).transpose()
    }

    /// A record, if it is there.
    pub(crate) fn record<T: serde::de::DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, SledError> {
        self.get(key)?.map(|payload| decode(key, &payload)).transpose()
    }

    pub(crate) fn meta(&self) -> Result<Meta, SledError> {
        self.record(record::META_KEY)?.ok_or_else(|| damaged(record::META_KEY))
    }

    pub(crate) fn pointer(&self, key: &Key) -> Result<Option<Pointer>, SledError> {
        self.record(&pointer_key(key.as_str()))
    }

    pub(crate) fn commit(&self, revision: u64) -> Result<Commit, SledError> {
        let prefix = commit_key(revision);
        let mut payload = Vec::new();
        // The last piece is the one that is not full; behind full ones there may be nothing.
        while let Some(piece) = self.get(&piece_key(&prefix, pieces(payload.len())))? {
            payload.extend_from_slice(&piece);
            if piece.len() != PIECE_BYTES {
                break;
            }
        }
        decode(&prefix, &payload)
    }

    pub(crate) fn entry(&self, key: &Key, place: &Place) -> Result<Entry, SledError> {
        let prefix = value_key(place);
        let mut value = Vec::with_capacity(place.bytes as usize);
        for piece in 0..pieces(place.bytes as usize) {
            let piece = self.get(&piece_key(&prefix, piece))?;
            value.extend_from_slice(&piece.ok_or_else(|| damaged(&prefix))?);
        }
        if value.len() != place.bytes as usize {
            return Err(damaged(&prefix));
        }
        let (created, modified) = (Revision(place.created), Revision(place.modified));
        Ok(Entry { key: key.clone(), value: Bytes::from(value), created, modified })
    }

    /// The present keys of a range behind one of them, in order.
    pub(crate) fn pointers(
        &self,
        range: &KeyRange,
        after: Option<&Key>,
    ) -> impl Iterator<Item = Result<(Key, Pointer), SledError>> + use<> {
        let prefix = pointer_key(range.as_prefix());
        let start = match after {
            Some(after) if after.as_str() >= range.as_prefix() => Bound::Excluded(pointer_key(after.as_str())),
            _ => Bound::Included(prefix.clone()),
        };
        let found = self.db.range((start, Bound::Unbounded));
        let inside = found.take_while(move |item| !matches!(item, Ok((key, _)) if !key.starts_with(&prefix)));
        inside.map(|item| {
            let (key, sealed) = item?;
            Ok((parse_pointer_key(&key)?, decode(&key, unseal(&key, &sealed)?)?))
        })
    }

    /// When keys expire, the next one first.
    pub(crate) fn deadlines(&self) -> impl Iterator<Item = Result<(u64, Key), SledError>> + use<> {
        self.db.scan_prefix(DEADLINES).map(|item| {
            let (key, sealed) = item?;
            unseal(&key, &sealed)?;
            parse_deadline_key(&key)
        })
    }

    /// All records whose keys begin with this, unread.
    pub(crate) fn scan(&self, prefix: &[u8]) -> sled::Iter {
        self.db.scan_prefix(prefix)
    }

    /// Changes records, all or none, without waiting for the disk.
    pub(crate) fn apply(&self, writes: Writes) -> Result<(), SledError> {
        Ok(self.db.apply_batch(writes.into_batch())?)
    }

    /// Waits until everything that was applied would survive the loss of power.
    pub(crate) fn flush(&self) -> Result<(), SledError> {
        // Blobs first: sled passes over the pointer to one that is missing.
        self.sync_blobs()?;
        self.db.flush()?;
        (self.flush)(&self.file).map_err(|error| SledError::io("flushing", error))
    }

    /// Flushes the files that sled keeps large pages in, which are rare here and which it does not flush.
    fn sync_blobs(&self) -> Result<(), SledError> {
        let told = |error| SledError::io("flushing sled's blobs", error);
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

    /// Space that the files take, in bytes.
    pub(crate) fn size_bytes(&self) -> Result<u64, SledError> {
        Ok(self.db.size_on_disk()?)
    }

    /// Space that the disk has left for this process, in bytes.
    pub(crate) fn free_bytes(&self) -> Result<u64, SledError> {
        let disk = rustix::fs::statvfs(&self.directory)
            .map_err(|error| SledError::io("asking for free space", error.into()))?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
}

/// Makes new names in a directory survive the loss of power.
pub(crate) fn sync_directory(path: &Path) -> Result<(), SledError> {
    let synced = File::open(path).and_then(|directory| directory.sync_all());
    synced.map_err(|error| SledError::io(format!("flushing {}", path.display()), error))
}

/// Waits until sled's threads have let go of a database in a directory that nobody else may have open: they finish their work
/// after it was closed.
#[expect(clippy::disallowed_methods, reason = "threads of another library work in real time, and this one may block")]
pub(crate) fn wait_for_release(directory: &Path) -> Result<(), SledError> {
    let told = |error| SledError::io("waiting for sled", error);
    let file = File::open(directory.join("db")).map_err(told)?;
    for _ in 0..RELEASE_TIME.as_millis() / RELEASE_PAUSE.as_millis() {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(RELEASE_PAUSE),
            Err(TryLockError::Error(error)) => return Err(told(error)),
            // Dropping the file lets go of it.
            Ok(()) => return Ok(()),
        }
    }
    Err(SledError::InUse { path: directory.to_owned() })
}
