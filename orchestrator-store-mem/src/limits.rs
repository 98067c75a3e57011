//! Every bound of this crate.

use std::time::Duration;

/// Commits that a watcher takes from the log at once.
pub(crate) const WATCH_BATCH_COMMITS: usize = 256;

/// Bounds of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Commits kept as history.
    pub history_commits: usize,
    /// Size of the values kept as history, in bytes.
    pub history_bytes: u64,
    /// Size of one value, in bytes.
    pub value_bytes: usize,
    /// Size of one key, in bytes.
    pub key_bytes: usize,
    /// Operations and preconditions of one commit.
    pub batch_operations: usize,
    /// A silent watch that wants bookmarks gets one this often.
    pub bookmark_interval: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            history_commits: 20_000,
            history_bytes: 16 << 20,
            value_bytes: 3 << 20,
            key_bytes: 2 << 10,
            batch_operations: 1_000,
            bookmark_interval: Duration::from_secs(60),
        }
    }
}
