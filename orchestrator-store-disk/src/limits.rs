//! Every bound of this crate.

use std::time::Duration;

/// Commits that a watcher takes from the log at once.
pub(crate) const WATCH_BATCH_COMMITS: usize = 256;
/// Size of the values that a watcher reads from disk at once, in bytes. One commit is given whatever its size.
pub(crate) const WATCH_BATCH_BYTES: u64 = 4 << 20;
/// Newest commits that are kept in memory for watchers.
pub(crate) const RECENT_COMMITS: usize = 4096;
/// Size of the values of the newest commits that are kept in memory for watchers, in bytes.
pub(crate) const RECENT_BYTES: u64 = 8 << 20;
/// Calls that wait for the writer; others wait until it has room.
pub(crate) const WAITING_WRITES: usize = 4096;
/// Size of what the writer takes at once, in bytes. One commit is taken whatever its size.
pub(crate) const GROUP_BYTES: usize = 4 << 20;
/// Commits that one step of a compaction forgets. Other writes happen between steps.
pub(crate) const COMPACTION_STEP_COMMITS: usize = 256;
/// Keys that go away at once when their time has come.
pub(crate) const EXPIRY_BATCH_KEYS: usize = 256;
/// How long keys whose time has come wait when they could not be removed.
pub(crate) const EXPIRY_RETRY: Duration = Duration::from_secs(1);
/// Bounds of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Commits kept as history. Those that are written together are kept until the next ones are.
    pub history_commits: usize,
    /// Size of the values kept as history, in bytes. As above.
    pub history_bytes: u64,
    /// Size of one value, in bytes.
    pub value_bytes: usize,
    /// Size of one key, in bytes.
    pub key_bytes: usize,
    /// Operations and preconditions of one commit.
    pub batch_operations: usize,
    /// Size of the keys and values of one commit, in bytes.
    pub batch_bytes: usize,
    /// A silent watch that wants bookmarks gets one this often.
    pub bookmark_interval: Duration,
    /// What the engine may keep in memory of what it read or wrote, in bytes. The engine says how well it keeps to that.
    pub cache_bytes: u64,
    /// Free space that the disk must have for a commit that puts anything, in bytes. Reads, deletions and compactions go on below.
    pub reserve_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            history_commits: 20_000,
            history_bytes: 16 << 20,
            value_bytes: 3 << 20,
            key_bytes: 2 << 10,
            batch_operations: 1_000,
            batch_bytes: 32 << 20,
            bookmark_interval: Duration::from_secs(60),
            cache_bytes: 32 << 20,
            reserve_bytes: 32 << 20,
        }
    }
}
