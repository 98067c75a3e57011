//! The `Store` seam: a multi-version map over encoded objects, with etcd's guarantees.
//!
//! - Only a store assigns revisions: one counter for all keys, strictly increasing, never reused.
//! - A commit is atomic: all of its operations happen at one revision, or none does.
//! - A listing is a snapshot at its revision; a watch from there misses and repeats nothing, in order.
//! - What was compacted is answered with [`StoreError::Compacted`], never with silence.
//!
//! Upstream: <https://etcd.io/docs/v3.6/learning/api_guarantees/>.

mod batch;
pub mod snapshot;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

pub use batch::{Batch, Operation, Precondition};

/// A multi-version map from keys to encoded objects.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug {
    /// The entry under a key, now.
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError>;

    /// A range of keys, in their order, as a snapshot at one revision.
    async fn list(&self, range: &KeyRange, options: ListOptions) -> Result<Listing, StoreError>;

    /// Applies all operations at one new revision if every precondition holds, and nothing otherwise.
    /// Acknowledged means as durable as [`Capabilities::durable`] says.
    async fn commit(&self, batch: Batch) -> Result<Revision, StoreError>;

    /// All changes of a range after a revision, in order, then those to come.
    /// Without a start it begins now.
    async fn watch(&self, range: KeyRange, options: WatchOptions) -> Result<WatchStream, StoreError>;

    /// Forgets the history before a revision. The present state stays.
    async fn compact(&self, revision: Revision) -> Result<(), StoreError>;

    /// Where the store stands.
    async fn status(&self) -> Result<StoreStatus, StoreError>;

    /// What this store can do; a missing capability is declared, never faked.
    fn capabilities(&self) -> Capabilities;
}

/// A position in the store's one history. 0 is before everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A key: any text, ordered by its bytes. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// A key of this text.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::borrow::Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// The keys that begin with a prefix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyRange {
    prefix: Arc<str>,
}

impl KeyRange {
    /// All keys that begin with this text; all keys when it is empty.
    pub fn prefix(text: impl Into<Arc<str>>) -> Self {
        Self { prefix: text.into() }
    }

    /// The text that every key of the range begins with.
    pub fn as_prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether a key lies in the range.
    pub fn contains(&self, key: &Key) -> bool {
        key.as_str().starts_with(&*self.prefix)
    }
}

/// A key with its value at a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// The encoded object.
    pub value: Bytes,
    /// When the key came into being.
    pub created: Revision,
    /// When the value was written.
    pub modified: Revision,
}

/// How to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// The snapshot to read; now, when `None`.
    pub revision: Option<Revision>,
    /// At most this many entries.
    pub limit: Option<usize>,
    /// Only keys behind this one.
    pub after: Option<Key>,
}

/// A snapshot of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The entries, in order of their keys.
    pub entries: Vec<Entry>,
    /// The revision of the snapshot.
    pub revision: Revision,
    /// How many entries of the range stand behind the last one given.
    pub remaining: u64,
}

/// How to watch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchOptions {
    /// Changes after this revision; from now on, when `None`.
    pub after: Option<Revision>,
    /// Wants [`WatchItem::Bookmark`]s: that all changes up to a revision were given.
    pub bookmarks: bool,
}

/// Changes in order. It ends with an error, or when the store closes.
pub type WatchStream = BoxStream<'static, Result<WatchItem, StoreError>>;

/// What a watch gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchItem {
    /// The changes of one commit that lie in the range.
    Changes {
        /// The commit's revision.
        revision: Revision,
        /// In the order of the commit's operations.
        changes: Arc<[Change]>,
    },
    /// Everything up to this revision has been given.
    Bookmark(Revision),
}

/// One change of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which key.
    pub key: Key,
    /// The new entry; `None` when the key was deleted or expired.
    pub entry: Option<Entry>,
    /// The entry before; `None` when the key is new.
    pub previous: Option<Entry>,
}

/// Where a store stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreStatus {
    /// The newest revision.
    pub revision: Revision,
    /// The oldest revision that can still be listed and watched from.
    pub compacted: Revision,
    /// How many keys exist.
    pub keys: u64,
    /// Space used, in bytes, history included.
    pub size_bytes: u64,
}

/// What a store can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Acknowledged commits survive the end of the process and the loss of power.
    pub durable: bool,
    /// Keys with a time to live go away.
    pub expiry: bool,
    /// Listing at an older revision.
    pub snapshots: bool,
    /// Watches of a silent range are told how far they are, and never ahead of a change.
    pub bookmarks: bool,
}

/// Why a call to a store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A precondition did not hold; nothing was written.
    #[error("{key} is not as expected")]
    Conflict {
        /// The first key that differs.
        key: Key,
        /// The entry that is there instead.
        current: Option<Entry>,
    },
    /// The history asked for is gone.
    #[error("revision {asked} has been compacted, the oldest is {oldest}")]
    Compacted {
        /// What was asked for.
        asked: Revision,
        /// The oldest revision that is left.
        oldest: Revision,
    },
    /// The revision asked for lies ahead.
    #[error("revision {asked} lies ahead of {current}")]
    Future {
        /// What was asked for.
        asked: Revision,
        /// The newest revision.
        current: Revision,
    },
    /// The watcher did not keep up and has to list again.
    #[error("the watcher fell behind")]
    Lagged,
    /// The batch breaks a bound of the store or names a key twice.
    #[error("the commit is refused: {0}")]
    Refused(String),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// The capability is declared as missing.
    #[error("this store does not support {0}")]
    Unsupported(&'static str),
    /// The store failed; whether a commit happened is unknown.
    #[error("{context}: {source}")]
    Unavailable {
        /// What was being done.
        context: String,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
