//! The file below redb: once the disk has failed, what redb writes stays in memory.

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io,
    os::unix::fs::{FileExt, MetadataExt},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use orchestrator_store_disk::{DiskError, Flush};
use redb::StorageBackend;

use crate::limits::PART_BYTES;

/// The file, and what would stand in it if the disk had not failed.
pub(crate) struct DataFile {
    file: File,
    flush: Flush,
    has_failed: AtomicBool,
    failure: Mutex<Option<Failure>>,
}

/// What has happened since the disk failed. Nothing more is written to the file, so that it is as after a crash, and no later
/// flush can make it look whole.
struct Failure {
    error: Arc<io::Error>,
    context: &'static str,
    /// How long redb believes the file to be.
    bytes: u64,
    /// The parts that redb has written since, by their number. A group and the end of redb's work are all there will be.
    parts: BTreeMap<u64, Vec<u8>>,
}

impl fmt::Debug for DataFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataFile")
            .field("file", &self.file)
            .field("has_failed", &self.has_failed)
            .finish_non_exhaustive()
    }
}

impl DataFile {
    pub(crate) fn new(file: File, flush: Flush) -> Self {
        Self { file, flush, has_failed: AtomicBool::new(false), failure: Mutex::new(None) }
    }

    /// How the disk failed, if it did.
    pub(crate) fn check(&self) -> Result<(), DiskError> {
        self.failed().as_ref().map_or(Ok(()), |failure| {
            Err(DiskError::Io { context: failure.context.to_owned(), source: failure.error.clone() })
        })
    }

    /// Space that the file takes, in bytes: what was never written to takes none.
    pub(crate) fn size_bytes(&self) -> Result<u64, DiskError> {
        let metadata =
            self.file.metadata().map_err(|error| DiskError::io("asking for the size of redb's file", error))?;
        Ok(metadata.blocks() * 512)
    }

    fn failed(&self) -> MutexGuard<'_, Option<Failure>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to the file, or to what is kept in its place.
    fn change(
        &self,
        context: &'static str,
        to_file: impl FnOnce() -> io::Result<()>,
        to_memory: impl FnOnce(&File, &mut Failure) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut failed = self.failed();
        if failed.is_none()
            && let Err(error) = to_file()
        {
            let bytes = self.file.metadata()?.len();
            *failed = Some(Failure { error: Arc::new(error), context, bytes, parts: BTreeMap::new() });
            self.has_failed.store(true, Ordering::Release);
        }
        failed.as_mut().map_or(Ok(()), |failure| to_memory(&self.file, failure))
    }
}

impl Failure {
    /// A part as redb believes it to be.
    fn part(&mut self, file: &File, number: u64) -> io::Result<&mut Vec<u8>> {
        match self.parts.entry(number) {
            std::collections::btree_map::Entry::Occupied(part) => Ok(part.into_mut()),
            std::collections::btree_map::Entry::Vacant(none) => Ok(none.insert(read_part(file, number)?)),
        }
    }

    fn write(&mut self, file: &File, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut rest = data;
        for number in offset / PART_BYTES.. {
            let start = offset.max(number * PART_BYTES) - number * PART_BYTES;
            let (now, later) = rest.split_at(rest.len().min((PART_BYTES - start) as usize));
            if now.is_empty() {
                break;
            }
            self.part(file, number)?[start as usize..][..now.len()].copy_from_slice(now);
            rest = later;
        }
        Ok(())
    }

    fn read(&self, file: &File, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset.saturating_add(out.len() as u64) > self.bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut rest = out;
        for number in offset / PART_BYTES.. {
            let start = (offset.max(number * PART_BYTES) - number * PART_BYTES) as usize;
            let (now, later) = rest.split_at_mut(rest.len().min(PART_BYTES as usize - start));
            if now.is_empty() {
                break;
            }
            match self.parts.get(&number) {
                Some(part) => now.copy_from_slice(&part[start..][..now.len()]),
                None => now.copy_from_slice(&read_part(file, number)?[start..][..now.len()]),
            }
            rest = later;
        }
        Ok(())
    }
}

/// What the file holds of a part. Behind its end there are zeros.
fn read_part(file: &File, number: u64) -> io::Result<Vec<u8>> {
    let mut part = vec![0; PART_BYTES as usize];
    let mut read = 0;
    while read < part.len() {
        match file.read_at(&mut part[read..], number * PART_BYTES + read as u64)? {
            0 => break,
            more => read += more,
        }
    }
    Ok(part)
}

/// redb's view of the file. Locks are those of the directory and of whoever opened the file.
#[derive(Debug)]
pub(crate) struct Shared(pub(crate) Arc<DataFile>);

impl StorageBackend for Shared {
    fn len(&self) -> io::Result<u64> {
        match &*self.0.failed() {
            Some(failure) => Ok(failure.bytes),
            None => Ok(self.0.file.metadata()?.len()),
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.0.has_failed.load(Ordering::Acquire)
            && let Some(failure) = &*self.0.failed()
        {
            return failure.read(&self.0.file, offset, out);
        }
        self.0.file.read_exact_at(out, offset)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let shorter = |_: &File, failure: &mut Failure| {
            let kept = bytes.div_ceil(PART_BYTES);
            failure.parts.split_off(&kept);
            failure.bytes = bytes;
            Ok(())
        };
        self.0.change("resizing redb's file", || self.0.file.set_len(bytes), shorter)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.change("flushing", || (self.0.flush)(&self.0.file), |_, _| Ok(()))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let to_file = || self.0.file.write_all_at(data, offset);
        self.0.change("writing to redb's file", to_file, |file, failure| failure.write(file, offset, data))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn after_a_failure_writes_stay_in_memory() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("file");
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        let fails = Arc::new(AtomicBool::new(false));
        let failing = fails.clone();
        let flush: Flush = Arc::new(move |_| match failing.load(Ordering::SeqCst) {
            true => Err(io::Error::other("on purpose")),
            false => Ok(()),
        });
        let data = Arc::new(DataFile::new(file, flush));
        let backend = Shared(data.clone());
        backend.set_len(9000).unwrap();
        backend.write(4000, &[1; 200]).unwrap();
        backend.sync_data().unwrap();
        assert!(data.check().is_ok());
        fails.store(true, Ordering::SeqCst);
        backend.sync_data().unwrap();
        assert!(matches!(data.check(), Err(DiskError::Io { .. })));
        let before = fs::read(&path).unwrap();

        fails.store(false, Ordering::SeqCst);
        backend.write(4090, &[2; 5000]).unwrap();
        backend.set_len(20_000).unwrap();
        backend.sync_data().unwrap();
        let mut expected = before.clone();
        expected.resize(20_000, 0);
        expected[4090..9090].fill(2);
        let mut read = vec![9; 20_000];
        backend.read(0, &mut read).unwrap();
        assert!(read == expected && backend.len().unwrap() == 20_000);
        let mut middle = vec![9; 4500];
        backend.read(4089, &mut middle).unwrap();
        assert!(middle == expected[4089..][..4500]);
        assert!(backend.read(19_999, &mut [0; 2]).is_err());
        assert!(fs::read(&path).unwrap() == before && data.check().is_err(), "the file is left alone");
    }
}
