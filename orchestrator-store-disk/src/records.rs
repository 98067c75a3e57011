//! The records in an engine, read one by one. Everything here blocks.

use std::ops::{Bound, ControlFlow};

use bytes::Bytes;
use orchestrator_core::store::{Entry, Key, KeyRange, Revision};

use crate::{
    engine::Reader,
    error::DiskError,
    record::{
        Commit, DEADLINES, META_KEY, Meta, Place, Pointer, commit_key, damaged, decode, opened, parse_deadline_key,
        parse_pointer_key, piece_key, pieces, pointer_key, unseal, value_key,
    },
};

/// What one call reads with.
pub(crate) struct Records<'a> {
    reader: Box<dyn Reader + 'a>,
    piece_bytes: usize,
}

impl<'a> Records<'a> {
    pub(crate) fn new(reader: Box<dyn Reader + 'a>, piece_bytes: usize) -> Self {
        Self { reader, piece_bytes }
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, DiskError> {
        self.reader.get(key)?.map(|sealed| opened(key, sealed)).transpose()
    }

    /// A record, if it is there.
    fn record<T: serde::de::DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, DiskError> {
        self.get(key)?.map(|payload| decode(key, &payload)).transpose()
    }

    pub(crate) fn meta(&self) -> Result<Meta, DiskError> {
        self.record(META_KEY)?.ok_or_else(|| damaged(META_KEY))
    }

    pub(crate) fn pointer(&self, key: &Key) -> Result<Option<Pointer>, DiskError> {
        self.record(&pointer_key(key.as_str()))
    }

    pub(crate) fn commit(&self, revision: u64) -> Result<Commit, DiskError> {
        let prefix = commit_key(revision);
        let mut payload = Vec::new();
        // The last piece is the one that is not full; behind full ones there may be nothing.
        while let Some(piece) = self.get(&piece_key(&prefix, pieces(payload.len(), self.piece_bytes)))? {
            payload.extend_from_slice(&piece);
            if piece.len() != self.piece_bytes {
                break;
            }
        }
        decode(&prefix, &payload)
    }

    pub(crate) fn entry(&self, key: &Key, place: &Place) -> Result<Entry, DiskError> {
        let prefix = value_key(place);
        let mut value = Vec::new();
        for piece in 0..pieces(place.bytes as usize, self.piece_bytes) {
            let mut read = self.get(&piece_key(&prefix, piece))?.ok_or_else(|| damaged(&prefix))?;
            if piece == 0 {
                value = read;
            } else {
                value.append(&mut read);
            }
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
        mut visit: impl FnMut(Key, Pointer) -> Result<(), DiskError>,
    ) -> Result<(), DiskError> {
        let prefix = pointer_key(range.as_prefix());
        let after = after.filter(|after| after.as_str() >= range.as_prefix()).map(|after| pointer_key(after.as_str()));
        let from = after.as_ref().map_or(Bound::Included(prefix.as_slice()), |after| Bound::Excluded(after.as_slice()));
        self.scan(&prefix, from, |key, sealed| {
            visit(parse_pointer_key(key)?, decode(key, unseal(key, sealed)?)?)?;
            Ok(ControlFlow::Continue(()))
        })
    }

    /// When keys expire, the next ones first, a bounded number of them.
    pub(crate) fn deadlines(&self, count: usize) -> Result<Vec<(u64, Key)>, DiskError> {
        let mut found = Vec::new();
        self.scan(DEADLINES, Bound::Included(DEADLINES), |key, sealed| {
            unseal(key, sealed)?;
            found.push(parse_deadline_key(key)?);
            Ok(if found.len() < count { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        Ok(found)
    }

    /// Shows all records whose keys begin with this, as they are, in the order in which they come.
    pub(crate) fn each(
        &self,
        prefix: &[u8],
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), DiskError>,
    ) -> Result<(), DiskError> {
        self.scan(prefix, Bound::Included(prefix), |key, sealed| {
            visit(key, sealed)?;
            Ok(ControlFlow::Continue(()))
        })
    }

    fn scan(
        &self,
        prefix: &[u8],
        from: Bound<&[u8]>,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, DiskError>,
    ) -> Result<(), DiskError> {
        self.reader.scan(from, &mut |key, sealed| {
            if key.starts_with(prefix) { visit(key, sealed) } else { Ok(ControlFlow::Break(())) }
        })
    }
}
