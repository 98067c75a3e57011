//! The history of a world: every change of its store, in order, and a hash over all of it.

use std::fmt;

use bytes::Bytes;
use jiff::Timestamp;
use orchestrator_core::store::{Key, Revision};
use sha2::{Digest, Sha256};

/// One change of one key.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// The commit's revision.
    pub revision: Revision,
    /// When, in simulated time.
    pub at: Timestamp,
    /// Which key.
    pub key: Key,
    /// What was written; `None` when the key was deleted or expired.
    pub value: Option<Bytes>,
    /// What was there before.
    pub previous: Option<Bytes>,
}

/// Every change of a store since a world began.
#[derive(Clone, Default)]
pub struct History {
    records: Vec<Record>,
    digest: Sha256,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `12 2026-01-01T00:00:03Z put /registry/pods/default/web {…}`
impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ", self.revision, self.at)?;
        match &self.value {
            Some(value) => write!(f, "put {} {}", self.key, String::from_utf8_lossy(value)),
            None => write!(f, "delete {}", self.key),
        }
    }
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History").field("records", &self.records.len()).field("hash", &self.hash()).finish()
    }
}

/// One change a line.
impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.records.iter().try_for_each(|record| writeln!(f, "{record}"))
    }
}

impl History {
    pub(crate) fn push(&mut self, record: Record) {
        let mut part = |bytes: &[u8]| {
            self.digest.update((bytes.len() as u64).to_le_bytes());
            self.digest.update(bytes);
        };
        part(&record.revision.0.to_le_bytes());
        part(record.key.as_str().as_bytes());
        match &record.value {
            Some(value) => part(value),
            None => self.digest.update(u64::MAX.to_le_bytes()),
        }
        self.records.push(record);
    }

    /// All changes, in order.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// A hash over every change: revision, key and value, in order. Two runs with the same hash were the same run.
    pub fn hash(&self) -> String {
        self.digest.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The first place where two histories differ, with what each has there.
    pub fn difference<'a>(&'a self, other: &'a Self) -> Option<Difference<'a>> {
        let length = self.records.len().max(other.records.len());
        let pair = |index| (self.records.get(index), other.records.get(index));
        let index = (0..length).find(|index| {
            let (ours, theirs) = pair(*index);
            ours != theirs
        })?;
        let (left, right) = pair(index);
        Some(Difference { index, left, right })
    }
}

/// Where two histories part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference<'a> {
    /// How many changes they have in common.
    pub index: usize,
    /// The next change of the one.
    pub left: Option<&'a Record>,
    /// The next change of the other.
    pub right: Option<&'a Record>,
}

impl fmt::Display for Difference<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "after {} changes in common", self.index)?;
        for (side, record) in [("one", self.left), ("other", self.right)] {
            match record {
                Some(record) => writeln!(f, "{side}: {record}")?,
                None => writeln!(f, "{side}: nothing more")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(revision: u64, key: &str, value: Option<&str>) -> Record {
        Record {
            revision: Revision(revision),
            at: Timestamp::UNIX_EPOCH,
            key: Key::new(key),
            value: value.map(|value| Bytes::copy_from_slice(value.as_bytes())),
            previous: None,
        }
    }

    fn history(records: &[Record]) -> History {
        let mut history = History::default();
        records.iter().cloned().for_each(|record| history.push(record));
        history
    }

    #[test]
    fn the_hash_tells_any_difference() {
        let base = [record(1, "a", Some("x")), record(2, "b", None)];
        let hash = history(&base).hash();
        assert_eq!(hash, history(&base).hash());
        let others = [
            vec![record(1, "a", Some("x"))],
            vec![record(1, "a", Some("y")), record(2, "b", None)],
            vec![record(1, "a", Some("x")), record(2, "c", None)],
            vec![record(1, "a", Some("x")), record(3, "b", None)],
            vec![record(1, "a", Some("x")), record(2, "b", Some(""))],
            vec![record(2, "b", None), record(1, "a", Some("x"))],
        ];
        for other in others {
            assert_ne!(hash, history(&other).hash(), "{other:?}");
        }
    }

    #[test]
    fn the_difference_is_the_first_one() {
        let (one, other) = (history(&[record(1, "a", None), record(2, "b", None)]), history(&[record(1, "a", None)]));
        let difference = one.difference(&other).unwrap();
        assert_eq!((difference.index, difference.left, difference.right), (1, Some(&record(2, "b", None)), None));
        assert!(difference.to_string().contains("delete b"), "{difference}");
        assert_eq!(one.difference(&one), None);
    }
}
