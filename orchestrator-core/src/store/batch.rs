//! A commit: operations that happen together if what they take for granted holds.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;

use super::{Change, Entry, Key, Revision, StoreError};

/// Operations to be applied together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// What must hold.
    pub preconditions: Vec<Precondition>,
    /// What to do; each key at most once.
    pub operations: Vec<Operation>,
}

impl Batch {
    /// Puts a key that must not exist.
    pub fn create(key: Key, value: Bytes) -> Self {
        Self {
            preconditions: vec![Precondition::Absent { key: key.clone() }],
            operations: vec![Operation::Put { key, value, time_to_live: None }],
        }
    }

    /// Puts a key that must still be as it was at a revision.
    pub fn replace(key: Key, at: Revision, value: Bytes) -> Self {
        Self {
            preconditions: vec![Precondition::AtRevision { key: key.clone(), revision: at }],
            operations: vec![Operation::Put { key, value, time_to_live: None }],
        }
    }

    /// Deletes a key that must still be as it was at a revision.
    pub fn delete(key: Key, at: Revision) -> Self {
        Self {
            preconditions: vec![Precondition::AtRevision { key: key.clone(), revision: at }],
            operations: vec![Operation::Delete { key }],
        }
    }

    /// For stores: whether the batch may happen to the present state, of which the function gives the entries.
    ///
    /// # Errors
    /// A precondition does not hold, or a key is operated on twice.
    pub fn check<'a>(&self, present: impl Fn(&Key) -> Option<&'a Entry>) -> Result<(), StoreError> {
        let mut keys = BTreeSet::new();
        if let Some(twice) = self.operations.iter().map(Operation::key).find(|key| !keys.insert(*key)) {
            return Err(StoreError::Refused(format!("{twice} occurs twice")));
        }
        for precondition in &self.preconditions {
            let (key, expected) = match precondition {
                Precondition::Absent { key } => (key, None),
                Precondition::AtRevision { key, revision } => (key, Some(*revision)),
            };
            let current = present(key);
            if current.map(|entry| entry.modified) != expected {
                return Err(StoreError::Conflict { key: key.clone(), current: current.cloned() });
            }
        }
        Ok(())
    }

    /// For stores: what the operations do to the present state, if they happen at this revision. None when nothing changes.
    pub fn changes<'a>(self, revision: Revision, present: impl Fn(&Key) -> Option<&'a Entry>) -> Vec<Change> {
        let change = |operation| {
            let (key, value) = match operation {
                Operation::Put { key, value, .. } => (key, Some(value)),
                Operation::Delete { key } => (key, None),
            };
            let previous = present(&key).cloned();
            let created = previous.as_ref().map_or(revision, |previous| previous.created);
            let entry = value.map(|value| Entry { key: key.clone(), value, created, modified: revision });
            (entry.is_some() || previous.is_some()).then_some(Change { key, entry, previous })
        };
        self.operations.into_iter().filter_map(change).collect()
    }
}

/// What must hold for a commit to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// The key does not exist.
    Absent {
        /// Which key.
        key: Key,
    },
    /// The key was last written at exactly this revision.
    AtRevision {
        /// Which key.
        key: Key,
        /// The expected [`Entry::modified`].
        revision: Revision,
    },
}

/// One change of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Writes a value.
    Put {
        /// Which key.
        key: Key,
        /// What to write.
        value: Bytes,
        /// The key goes away by itself after this time, unless it is written again.
        time_to_live: Option<Duration>,
    },
    /// Removes a key; one that does not exist is passed over.
    Delete {
        /// Which key.
        key: Key,
    },
}

impl Operation {
    /// Which key it is about.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }

    /// What it writes, if it does.
    pub fn value(&self) -> Option<&Bytes> {
        match self {
            Self::Put { value, .. } => Some(value),
            Self::Delete { .. } => None,
        }
    }
}
