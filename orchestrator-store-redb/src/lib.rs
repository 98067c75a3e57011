//! A `Store` on disk, embedded: multi-version, on redb.
//!
//! Start at [`RedbStore`]. `orchestrator-store-disk` has what is no matter of redb: how commits become records, what durable and
//! damaged mean, and what happens when the disk is full. Here is redb below it ([`RedbEngine`]).
//!
//! All that waits becomes one transaction of redb, which writes copies of the pages that change and flushes twice: the pages,
//! and then the one byte that says which copy counts (redb's "quick repair"). So a store opens in the same time whether it was
//! closed or killed, however large it is; one flush would do, if redb read the whole file after a crash.
//!
//! # When the disk fails
//!
//! redb refuses to read after an error of its file. Here the file takes the error to itself (`file`): nothing more gets to the
//! disk, which is left as a crash would leave it, what redb writes on stays in memory, and the commit is answered with the
//! error. So what was acknowledged can still be read. An error of a read is redb's own, and stays with it.
//!
//! # What it costs
//!
//! Memory is [`Limits::cache_bytes`], whatever the size of the file. The file doubles when it grows, and what is not written to
//! takes no space. Space of what was removed is used again. It goes back to the disk when the file is more than twice as large as
//! what is stored (`waste`), while everybody waits, and therefore only as long as that is little: 128 MiB.

mod engine;
mod file;
mod limits;
mod waste;

use orchestrator_store_disk::DiskStore;
pub use orchestrator_store_disk::{DiskError as RedbError, Limits};

pub use engine::RedbEngine;

/// A store in a directory, on redb: `RedbStore::open(&env, path, Limits::default())`.
pub type RedbStore = DiskStore<RedbEngine>;
