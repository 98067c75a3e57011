//! What a store holds, as a stream of bytes and back, and from one store into another.
//!
//! Only a store assigns revisions: what is restored has those of the store that it is restored into, and whoever watched the
//! old one lists again. No store tells how long a key is still to live: keys that were to expire stay until they are written again.
//! The bytes go through any [`AsyncWrite`] and [`AsyncRead`], so that this crate needs no disk: a file, a socket, an upload.
//! Memory is bounded by one page of a list, or by one entry and one batch.

mod format;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Batch, Entry, Key, KeyRange, ListOptions, Operation, Precondition, Revision, Store, StoreError};
use format::{Reader, Writer};

pub use format::FORMAT_VERSION;

/// Entries that are read from a store at once.
const PAGE_ENTRIES: usize = 100;
/// Entries that are written to a store at once, as each is an operation and a precondition, of which etcd takes 128.
const BATCH_ENTRIES: usize = 50;
/// Size of the values that are written to a store at once, in bytes; a larger one goes alone.
const BATCH_BYTES: usize = 512 << 10;

/// What was written, read or copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The revision of the store that it was taken from: everything is as it was then.
    pub revision: Revision,
    /// How many entries.
    pub entries: u64,
}

/// Why there is no snapshot, or no store made from it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// A store failed. [`StoreError::Compacted`] says that the store forgot the revision meanwhile: try again.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The stream failed.
    #[error("the snapshot's stream: {0}")]
    Stream(#[from] std::io::Error),
    /// The bytes are no snapshot.
    #[error("this is no snapshot")]
    Foreign,
    /// A snapshot of a version that is not known here.
    #[error("a snapshot of version {0}, and not of {FORMAT_VERSION}")]
    Version(u32),
    /// The snapshot stops before its end.
    #[error("the snapshot is cut off")]
    Truncated,
    /// The bytes are not those that were written.
    #[error("the snapshot is damaged at byte {at}")]
    Damaged {
        /// Where the broken piece begins, in bytes.
        at: u64,
    },
    /// A store breaks its contract: a page of a list does not go on where the one before ended.
    #[error("the store lists its keys out of order")]
    Disordered,
    /// A store is filled only from nothing.
    #[error("the store is not empty, it has {keys} keys")]
    NotEmpty {
        /// How many keys there are.
        keys: u64,
    },
}

/// Writes everything that a store holds at one revision. The stream is flushed, and not shut down.
///
/// # Errors
/// The store or the stream fails; the store cannot list at an older revision.
pub async fn write(store: &dyn Store, into: impl AsyncWrite + Unpin + Send) -> Result<Summary, SnapshotError> {
    let mut pages = Pages::begin(store).await?;
    let mut writer = Writer::begin(into, pages.revision).await?;
    while let Some(entries) = pages.next().await? {
        for entry in entries {
            writer.entry(&entry.key, &entry.value).await?;
        }
    }
    let entries = writer.end().await?;
    Ok(Summary { revision: pages.revision, entries })
}

/// Reads a snapshot to its end and keeps nothing of it.
///
/// # Errors
/// It is not whole.
pub async fn verify(from: impl AsyncRead + Unpin + Send) -> Result<Summary, SnapshotError> {
    let mut reader = Reader::begin(from).await?;
    while reader.next().await?.is_some() {}
    Ok(reader.summary())
}

/// Fills an empty store from a snapshot, and gives what was in it. What was written before an error stays in the
/// store: [`verify`] first what may be damaged.
///
/// # Errors
/// The snapshot is not whole; the store fails, has keys, or is written to by others.
pub async fn restore(from: impl AsyncRead + Unpin + Send, store: &dyn Store) -> Result<Summary, SnapshotError> {
    let mut reader = Reader::begin(from).await?;
    let mut filling = Filling::begin(store).await?;
    while let Some((key, value)) = reader.next().await? {
        filling.put(key, value).await?;
    }
    filling.flush().await?;
    Ok(reader.summary())
}

/// Fills an empty store with what another one holds at one revision.
///
/// # Errors
/// A store fails; the first cannot list at an older revision; the second has keys, or is written to by others.
pub async fn copy(from: &dyn Store, to: &dyn Store) -> Result<Summary, SnapshotError> {
    let mut pages = Pages::begin(from).await?;
    let mut filling = Filling::begin(to).await?;
    let mut copied = 0;
    while let Some(entries) = pages.next().await? {
        copied += entries.len() as u64;
        for Entry { key, value, .. } in entries {
            filling.put(key, value).await?;
        }
    }
    filling.flush().await?;
    Ok(Summary { revision: pages.revision, entries: copied })
}

/// Everything in a store at one revision, page by page.
struct Pages<'a> {
    store: &'a dyn Store,
    revision: Revision,
    after: Option<Key>,
    ended: bool,
}

impl<'a> Pages<'a> {
    async fn begin(store: &'a dyn Store) -> Result<Self, SnapshotError> {
        if !store.capabilities().snapshots {
            return Err(StoreError::Unsupported("listing at an older revision").into());
        }
        Ok(Self { store, revision: store.status().await?.revision, after: None, ended: false })
    }

    async fn next(&mut self) -> Result<Option<Vec<Entry>>, SnapshotError> {
        if self.ended {
            return Ok(None);
        }
        let after = self.after.take();
        let options = ListOptions { revision: Some(self.revision), limit: Some(PAGE_ENTRIES), after: after.clone() };
        let page = self.store.list(&KeyRange::prefix(""), options).await?;
        // Or it would never end.
        let keys = after.iter().chain(page.entries.iter().map(|entry| &entry.key));
        if !keys.is_sorted_by(|one, next| one < next) {
            return Err(SnapshotError::Disordered);
        }
        self.after = page.entries.last().map(|entry| entry.key.clone());
        self.ended = page.remaining == 0 || self.after.is_none();
        Ok(Some(page.entries))
    }
}

/// A store that is being filled.
struct Filling<'a> {
    store: &'a dyn Store,
    batch: Batch,
    bytes: usize,
}

impl<'a> Filling<'a> {
    async fn begin(store: &'a dyn Store) -> Result<Self, SnapshotError> {
        // Not by the store's status, which may count more than is seen of it.
        let options = ListOptions { limit: Some(1), ..ListOptions::default() };
        let present = store.list(&KeyRange::prefix(""), options).await?;
        match present.entries.len() as u64 + present.remaining {
            0 => Ok(Self { store, batch: Batch::default(), bytes: 0 }),
            keys => Err(SnapshotError::NotEmpty { keys }),
        }
    }

    async fn put(&mut self, key: Key, value: Bytes) -> Result<(), SnapshotError> {
        if self.batch.operations.len() == BATCH_ENTRIES || self.bytes + value.len() > BATCH_BYTES {
            self.flush().await?;
        }
        self.bytes += value.len();
        self.batch.preconditions.push(Precondition::Absent { key: key.clone() });
        self.batch.operations.push(Operation::Put { key, value, time_to_live: None });
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), SnapshotError> {
        self.bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        if !batch.operations.is_empty() {
            self.store.commit(batch).await?;
        }
        Ok(())
    }
}
