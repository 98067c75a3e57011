//! What is stored: the layout of keys, the records, and the checksum that each of them ends with.
//!
//! | first byte | then | holds |
//! |---|---|---|
//! | `f` | | the format's version |
//! | `m` | | [`Meta`]: where the store stands |
//! | `c` | revision, piece | [`Commit`]: what a commit changed. This is the log. |
//! | `v` | revision, number of the change, piece | the value that it wrote |
//! | `k` | key | [`Pointer`]: where the present value of a key is |
//! | `x` | deadline, key | nothing: the key expires then |
//!
//! `k` and `x` follow from the log. Numbers in keys are big-endian, so that the engine's order is theirs.

use std::sync::Arc;

use orchestrator_core::store::Key;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::error::DiskError;

pub(crate) const FORMAT_KEY: &[u8] = b"f";
pub(crate) const META_KEY: &[u8] = b"m";
pub(crate) const COMMITS: &[u8] = b"c";
pub(crate) const POINTERS: &[u8] = b"k";
pub(crate) const DEADLINES: &[u8] = b"x";

const CHECKSUM_BYTES: usize = 4;

/// Where a value is: the revision and the number of the change that wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// The revision at which the key came into being.
    pub(crate) created: u64,
    pub(crate) modified: u64,
    pub(crate) change: u32,
    pub(crate) bytes: u32,
}

/// The present version of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pointer {
    pub(crate) place: Place,
    /// When it expires, in the store's own time, in nanoseconds.
    pub(crate) deadline: Option<u64>,
}

impl Pointer {
    /// Size of the key and its value, in bytes.
    pub(crate) fn live_bytes(&self, key: &Key) -> u64 {
        key.as_str().len() as u64 + u64::from(self.place.bytes)
    }
}

/// What a commit changed, in the order of its operations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Commit {
    pub(crate) changes: Vec<Changed>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Changed {
    key: Arc<str>,
    /// The new value; `None` when the key was removed.
    pub(crate) place: Option<Place>,
    /// The value before. It is kept for as long as the commit is.
    pub(crate) previous: Option<Place>,
}

impl Changed {
    pub(crate) fn new(key: &Key, place: Option<Place>, previous: Option<Place>) -> Self {
        Self { key: key.as_str().into(), place, previous }
    }

    pub(crate) fn key(&self) -> Key {
        Key::new(self.key.clone())
    }
}

impl Commit {
    /// Size of the values that are only kept because the commit is, in bytes.
    pub(crate) fn history_bytes(&self) -> u64 {
        self.changes.iter().filter_map(|change| change.previous).map(|place| u64::from(place.bytes)).sum()
    }
}

/// Where the store stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    pub(crate) revision: u64,
    pub(crate) compacted: u64,
    pub(crate) keys: u64,
    /// Size of the values that are history, in bytes.
    pub(crate) history_bytes: u64,
    /// The sum of the checksums of all records that follow from the log. A record that is missing, stale or left over shows here.
    pub(crate) fingerprint: u64,
}

impl Meta {
    /// Revision 0 means "before everything" to clients, so the empty store stands at 1.
    pub(crate) const EMPTY: Self = Self { revision: 1, compacted: 1, keys: 0, history_bytes: 0, fingerprint: 0 };
}

pub(crate) fn pointer_key(key: &str) -> Vec<u8> {
    [POINTERS, key.as_bytes()].concat()
}

pub(crate) fn deadline_key(deadline: u64, key: &Key) -> Vec<u8> {
    [DEADLINES, &deadline.to_be_bytes(), key.as_str().as_bytes()].concat()
}

/// The deadline and the key that a key of the engine stands for.
pub(crate) fn parse_deadline_key(bytes: &[u8]) -> Result<(u64, Key), DiskError> {
    let parts = bytes.strip_prefix(DEADLINES).and_then(|rest| rest.split_first_chunk::<8>());
    let (deadline, key) = parts.ok_or_else(|| damaged(bytes))?;
    Ok((u64::from_be_bytes(*deadline), text(key)?))
}

pub(crate) fn parse_pointer_key(bytes: &[u8]) -> Result<Key, DiskError> {
    text(bytes.strip_prefix(POINTERS).ok_or_else(|| damaged(bytes))?)
}

fn text(bytes: &[u8]) -> Result<Key, DiskError> {
    std::str::from_utf8(bytes).map(Key::new).map_err(|_| damaged(bytes))
}

/// What the keys of the pieces of a commit begin with.
pub(crate) fn commit_key(revision: u64) -> Vec<u8> {
    [COMMITS, &revision.to_be_bytes()].concat()
}

/// The revision of a piece of a commit.
pub(crate) fn parse_commit_key(bytes: &[u8]) -> Result<u64, DiskError> {
    let revision = bytes.strip_prefix(COMMITS).and_then(|rest| rest.first_chunk::<8>());
    revision.map(|revision| u64::from_be_bytes(*revision)).ok_or_else(|| damaged(bytes))
}

/// What the keys of the pieces of a value begin with.
pub(crate) fn value_key(place: &Place) -> Vec<u8> {
    [b"v".as_slice(), &place.modified.to_be_bytes(), &place.change.to_be_bytes()].concat()
}

pub(crate) fn piece_key(prefix: &[u8], piece: usize) -> Vec<u8> {
    [prefix, &(piece as u32).to_be_bytes()].concat()
}

/// How many pieces something is stored in.
pub(crate) fn pieces(bytes: usize, piece_bytes: usize) -> usize {
    bytes.div_ceil(piece_bytes)
}

/// The checksum of a record under its key: one that stands under another key is not the same.
pub(crate) fn checksum(key: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&(key.len() as u32).to_be_bytes());
    hasher.update(key);
    hasher.update(payload);
    hasher.finalize()
}

/// A record with its checksum.
pub(crate) fn seal(key: &[u8], payload: &[u8]) -> Vec<u8> {
    [payload, &checksum(key, payload).to_be_bytes()].concat()
}

/// What a sealed record holds, in the same place.
pub(crate) fn opened(key: &[u8], mut sealed: Vec<u8>) -> Result<Vec<u8>, DiskError> {
    let bytes = unseal(key, &sealed)?.len();
    sealed.truncate(bytes);
    Ok(sealed)
}

/// What a sealed record holds.
pub(crate) fn unseal<'a>(key: &[u8], sealed: &'a [u8]) -> Result<&'a [u8], DiskError> {
    let (payload, written) = sealed.split_last_chunk::<CHECKSUM_BYTES>().ok_or_else(|| damaged(key))?;
    if checksum(key, payload) == u32::from_be_bytes(*written) { Ok(payload) } else { Err(damaged(key)) }
}

pub(crate) fn encode(record: &impl Serialize) -> Result<Vec<u8>, DiskError> {
    postcard::to_allocvec(record).map_err(|error| DiskError::Engine(format!("a record cannot be written: {error}")))
}

pub(crate) fn decode<T: DeserializeOwned>(key: &[u8], payload: &[u8]) -> Result<T, DiskError> {
    match postcard::take_from_bytes(payload) {
        Ok((record, [])) => Ok(record),
        _ => Err(damaged(key)),
    }
}

pub(crate) fn damaged(key: &[u8]) -> DiskError {
    DiskError::Damaged(format!("the record {:?}", String::from_utf8_lossy(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_bound_to_its_key() {
        let sealed = seal(b"ka", b"payload");
        assert_eq!(unseal(b"ka", &sealed).unwrap(), b"payload");
        assert!(matches!(unseal(b"kb", &sealed), Err(DiskError::Damaged(_))));
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal(b"ka", &flipped).is_err(), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert!(unseal(b"ka", &sealed[..length]).is_err(), "cut to {length}");
        }
    }

    #[test]
    fn keys_sort_as_their_numbers_do() {
        let numbers = [0, 1, 255, 256, u64::from(u32::MAX), u64::MAX];
        assert!(numbers.windows(2).all(|pair| commit_key(pair[0]) < commit_key(pair[1])));
        let key = Key::new("/a");
        assert!(numbers.windows(2).all(|pair| deadline_key(pair[0], &key) < deadline_key(pair[1], &key)));
        assert_eq!(parse_deadline_key(&deadline_key(7, &key)).unwrap(), (7, key.clone()));
        assert_eq!(parse_pointer_key(&pointer_key("/ü")).unwrap(), Key::new("/ü"));
        assert_eq!(parse_commit_key(&piece_key(&commit_key(9), 1)).unwrap(), 9);
        for bad in [b"x123".as_slice(), b"k\xff", b"c1", b""] {
            assert!(
                parse_deadline_key(bad).is_err() && parse_pointer_key(bad).is_err() && parse_commit_key(bad).is_err()
            );
        }
    }

    #[test]
    fn what_is_left_over_behind_a_record_is_damage() {
        let mut bytes = encode(&Meta::EMPTY).unwrap();
        assert_eq!(decode::<Meta>(META_KEY, &bytes).unwrap(), Meta::EMPTY);
        bytes.push(0);
        assert!(decode::<Meta>(META_KEY, &bytes).is_err());
    }
}
