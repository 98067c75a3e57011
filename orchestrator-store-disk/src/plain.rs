//! The plainest engine, for tests: a map in memory, written anew as a whole by each flush.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    ops::{Bound, ControlFlow},
    path::PathBuf,
};

use crate::{Bounds, Changes, DiskError, Engine, Flush, Place, Reader, Visit, sync_directory};

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

pub(crate) struct Plain {
    records: Records,
    directory: PathBuf,
    flush: Flush,
}

impl Engine for Plain {
    fn open(place: Place<'_>) -> Result<Self, DiskError> {
        let records = match place.is_new {
            true => Records::new(),
            false => {
                let read = fs::read(place.directory.join("records"));
                let bytes = read.map_err(|error| DiskError::io("reading records", error))?;
                postcard::from_bytes(&bytes).map_err(|error| DiskError::Damaged(error.to_string()))?
            }
        };
        Ok(Self { records, directory: place.directory.to_owned(), flush: place.flush })
    }

    fn bounds(&self) -> Bounds {
        Bounds { piece_bytes: 1000, delete_reserve_bytes: 1 << 20 }
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>, DiskError> {
        Ok(Box::new(&self.records))
    }

    fn apply(&mut self, changes: Changes) -> Result<(), DiskError> {
        for (key, value) in changes {
            match value {
                Some(value) => self.records.insert(key, value),
                None => self.records.remove(&key),
            };
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), DiskError> {
        let told = |error| DiskError::io("writing records", error);
        let new = self.directory.join("new");
        let bytes = postcard::to_allocvec(&self.records).map_err(|error| DiskError::Engine(error.to_string()))?;
        fs::write(&new, bytes).map_err(told)?;
        File::open(&new).and_then(|file| (self.flush)(&file)).map_err(told)?;
        fs::rename(new, self.directory.join("records")).map_err(told)?;
        sync_directory(&self.directory)
    }

    fn size_bytes(&self) -> Result<u64, DiskError> {
        Ok(fs::metadata(self.directory.join("records")).map_or(0, |file| file.len()))
    }

    fn close(self: Box<Self>) -> Result<(), DiskError> {
        Ok(())
    }
}

impl Reader for &Records {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, DiskError> {
        Ok(BTreeMap::get(self, key).cloned())
    }

    fn scan(&self, from: Bound<&[u8]>, visit: &mut Visit<'_>) -> Result<(), DiskError> {
        for (key, value) in self.range::<[u8], _>((from, Bound::Unbounded)) {
            if let ControlFlow::Break(()) = visit(key, value)? {
                break;
            }
        }
        Ok(())
    }
}
