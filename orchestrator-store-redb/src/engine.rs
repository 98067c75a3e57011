//! redb as an engine: one table, one transaction for each group of commits, and redb's errors.

use std::{
    fmt,
    fs::{File, TryLockError},
    ops::{Bound, ControlFlow},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use orchestrator_store_disk::{Bounds, Changes, DiskError, Engine, Place, Reader, Visit};
use redb::{Database, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use crate::{
    file::{DataFile, Shared},
    limits::{DELETE_RESERVE_BYTES, PIECE_BYTES},
    waste::Left,
};

const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");

/// redb, in a directory.
pub struct RedbEngine {
    db: Database,
    file: Arc<DataFile>,
    /// What was applied and not yet flushed.
    applied: Mutex<Option<WriteTransaction>>,
    /// Size of what is stored, in bytes, as it was told last.
    stored_bytes: AtomicU64,
    left: Left,
}

impl fmt::Debug for RedbEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbEngine").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Engine for RedbEngine {
    fn open(place: Place<'_>) -> Result<Self, DiskError> {
        let Place { directory, is_new, limits, flush } = place;
        let file = Arc::new(DataFile::new(open_file(&directory.join("redb"), is_new)?, flush));
        let cache_bytes = usize::try_from(limits.cache_bytes).unwrap_or(usize::MAX);
        let opened = redb::Builder::new().set_cache_size(cache_bytes).create_with_backend(Shared(file.clone()));
        // What redb says of a disk that failed is not why.
        file.check()?;
        let db = opened.map_err(told)?;
        let engine =
            Self { db, file, applied: Mutex::new(None), stored_bytes: AtomicU64::new(0), left: Left::default() };
        if is_new {
            // Readers find a table.
            engine.begin()?.commit().map_err(told)?;
            engine.file.check()?;
        }
        Ok(engine)
    }

    fn bounds(&self) -> Bounds {
        Bounds { piece_bytes: PIECE_BYTES, delete_reserve_bytes: DELETE_RESERVE_BYTES }
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>, DiskError> {
        // It ends with the call that reads, so that the pages which it sees are free again soon.
        let transaction = self.db.begin_read().map_err(told)?;
        Ok(Box::new(Snapshot(transaction.open_table(RECORDS).map_err(told)?)))
    }

    fn apply(&mut self, changes: Changes) -> Result<(), DiskError> {
        let transaction = self.begin()?;
        {
            let mut table = transaction.open_table(RECORDS).map_err(told)?;
            for (key, value) in &changes {
                let key = key.as_slice();
                match value {
                    Some(value) => table.insert(key, value.as_slice()).map_err(told)?,
                    None => table.remove(key).map_err(told)?,
                };
            }
        }
        *self.applied.lock().unwrap_or_else(PoisonError::into_inner) = Some(transaction);
        Ok(())
    }

    fn flush(&self) -> Result<(), DiskError> {
        let applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner).take();
        let committed = applied.map_or(Ok(()), WriteTransaction::commit);
        self.file.check()?;
        committed.map_err(told)
    }

    fn size_bytes(&self) -> Result<u64, DiskError> {
        self.file.size_bytes()
    }

    fn is_wasteful(&self, stored_bytes: u64) -> Result<bool, DiskError> {
        self.stored_bytes.store(stored_bytes, Ordering::Relaxed);
        Ok(self.left.is_wasteful(self.size_bytes()?, stored_bytes))
    }

    fn reclaim(&mut self) -> Result<(), DiskError> {
        let compacted = self.db.compact();
        self.file.check()?;
        compacted.map_err(told)?;
        self.left = Left { stored_bytes: self.stored_bytes.load(Ordering::Relaxed), size_bytes: self.size_bytes()? };
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<(), DiskError> {
        drop(self.applied);
        let closed = self.db.close();
        self.file.check()?;
        closed.map_err(told)
    }
}

impl RedbEngine {
    fn begin(&self) -> Result<WriteTransaction, DiskError> {
        let mut transaction = self.db.begin_write().map_err(told)?;
        transaction.set_quick_repair(true);
        transaction.open_table(RECORDS).map_err(told)?;
        Ok(transaction)
    }
}

/// The records as they were flushed last when it was made.
struct Snapshot(ReadOnlyTable<&'static [u8], &'static [u8]>);

impl Reader for Snapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, DiskError> {
        Ok(ReadableTable::get(&self.0, key).map_err(told)?.map(|value| value.value().to_vec()))
    }

    fn scan(&self, from: Bound<&[u8]>, visit: &mut Visit<'_>) -> Result<(), DiskError> {
        for item in ReadableTable::range::<&[u8]>(&self.0, (from, Bound::Unbounded)).map_err(told)? {
            let (key, value) = item.map_err(told)?;
            if let ControlFlow::Break(()) = visit(key.value(), value.value())? {
                break;
            }
        }
        Ok(())
    }
}

/// redb's file, which nobody else may have open. redb takes an empty one for a new one, which it is only once.
fn open_file(path: &Path, is_new: bool) -> Result<File, DiskError> {
    let failed = |error| DiskError::io(format!("opening {}", path.display()), error);
    let file = File::options().read(true).write(true).create_new(is_new).open(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(DiskError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    if !is_new && file.metadata().map_err(failed)?.len() == 0 {
        return Err(DiskError::Damaged("redb's file is empty".to_owned()));
    }
    Ok(file)
}

/// All errors of redb are one, if asked.
fn told(error: impl Into<redb::Error>) -> DiskError {
    match error.into() {
        redb::Error::Io(source) if source.kind() == std::io::ErrorKind::InvalidData => {
            DiskError::Damaged(format!("redb: {source}"))
        }
        redb::Error::Io(source) => DiskError::io("redb", source),
        redb::Error::Corrupted(what) => DiskError::Damaged(format!("redb: {what}")),
        other => DiskError::Engine(format!("redb: {other}")),
    }
}
