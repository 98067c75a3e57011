//! Changes of records that happen together.

use std::collections::BTreeMap;

use crate::{
    limits::PIECE_BYTES,
    record::{piece_key, pieces, seal},
};

/// New records by their keys; `None` removes. The last word on a key counts.
#[derive(Debug, Default)]
pub(crate) struct Writes(BTreeMap<Vec<u8>, Option<Vec<u8>>>);

impl Writes {
    pub(crate) fn put(&mut self, key: Vec<u8>, payload: &[u8]) {
        let sealed = seal(&key, payload);
        self.0.insert(key, Some(sealed));
    }

    pub(crate) fn remove(&mut self, key: Vec<u8>) {
        self.0.insert(key, None);
    }

    /// Writes what may be large, piece by piece.
    pub(crate) fn put_pieces(&mut self, prefix: &[u8], payload: &[u8]) {
        for (piece, part) in payload.chunks(PIECE_BYTES).enumerate() {
            self.put(piece_key(prefix, piece), part);
        }
    }

    /// Removes what was written piece by piece, by its size in bytes.
    pub(crate) fn remove_pieces(&mut self, prefix: &[u8], bytes: usize) {
        for piece in 0..pieces(bytes) {
            self.remove(piece_key(prefix, piece));
        }
    }

    pub(crate) fn into_batch(self) -> sled::Batch {
        let mut batch = sled::Batch::default();
        for (key, value) in self.0 {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        batch
    }
}
