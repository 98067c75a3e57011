//! Changes of records that happen together.

use std::collections::BTreeMap;

use crate::{
    engine::Changes,
    record::{piece_key, pieces, seal},
};

/// New records by their keys; `None` removes. The last word on a key counts.
#[derive(Debug)]
pub(crate) struct Writes {
    changes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    piece_bytes: usize,
}

impl Writes {
    pub(crate) fn new(piece_bytes: usize) -> Self {
        Self { changes: BTreeMap::new(), piece_bytes }
    }

    pub(crate) fn put(&mut self, key: Vec<u8>, payload: &[u8]) {
        let sealed = seal(&key, payload);
        self.changes.insert(key, Some(sealed));
    }

    pub(crate) fn remove(&mut self, key: Vec<u8>) {
        self.changes.insert(key, None);
    }

    /// Writes what may be large, piece by piece.
    pub(crate) fn put_pieces(&mut self, prefix: &[u8], payload: &[u8]) {
        for (piece, part) in payload.chunks(self.piece_bytes).enumerate() {
            self.put(piece_key(prefix, piece), part);
        }
    }

    /// Removes what was written piece by piece, by its size in bytes.
    pub(crate) fn remove_pieces(&mut self, prefix: &[u8], bytes: usize) {
        for piece in 0..pieces(bytes, self.piece_bytes) {
            self.remove(piece_key(prefix, piece));
        }
    }

    pub(crate) fn into_changes(self) -> Changes {
        self.changes.into_iter().collect()
    }
}
