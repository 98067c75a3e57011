//! A `Store` on disk, embedded: multi-version, on sled.
//!
//! Start at [`SledStore`]. `orchestrator-store-disk` has what is no matter of sled: how commits become records, what durable and
//! damaged mean, and what happens when the disk is full. Here is sled below it ([`SledEngine`]).
//!
//! A commit that was acknowledged was written, and its file flushed by `fdatasync`, because sled's own flush waits for the page
//! cache only. A damaged end of sled's log is a prefix of the commits again. sled answers some damage with a panic, which
//! becomes an error.
//!
//! # What sled does not do
//!
//! It has no use for a full disk: a write that finds it full is its last, and reads may fail after that as well, until the store
//! is opened again with room to spare.
//!
//! It never gives up memory for its table of pages, which is a few bytes for each key. Its threads for input and output, and a
//! lock that batches take, are shared by all databases of a process, and its threads stay when the last of them is closed.

mod engine;
mod limits;

use orchestrator_store_disk::DiskStore;
pub use orchestrator_store_disk::{DiskError as SledError, Limits};

pub use engine::SledEngine;

/// A store in a directory, on sled: `SledStore::open(&env, path, Limits::default())`. What sled keeps in memory exceeds
/// [`Limits::cache_bytes`] for a while.
pub type SledStore = DiskStore<SledEngine>;
