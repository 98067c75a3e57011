//! Every bound of this crate.

use std::time::Duration;

/// Keys that one call asks for when a range is listed.
pub(crate) const PAGE_KEYS: usize = 1_000;
/// Times that a list of the present begins anew because a compaction overtook it.
pub(crate) const LIST_ROUNDS: usize = 4;
/// Times that a commit is sent because a lease was gone.
pub(crate) const LEASE_ROUNDS: usize = 3;
/// Longest lease that etcd grants, in seconds.
pub(crate) const LEASE_SECONDS: u64 = 9_000_000_000;
/// Keys that share a lease.
pub(crate) const LEASE_KEYS: usize = 1_000;
/// Part of its time to live by which a key may outlive it, so that others can share its lease: one in this many.
pub(crate) const LEASE_SLACK: u64 = 20;
/// What that part is at most, in seconds.
pub(crate) const LEASE_SLACK_SECONDS: u64 = 60;
/// Times to live for which a lease is remembered.
pub(crate) const LEASES_REMEMBERED: usize = 64;
/// Pause after all endpoints were tried in vain.
pub(crate) const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Commits that wait for a watcher. A watcher with more goes on from etcd once it has read half of them.
pub(crate) const WATCH_BUFFER_COMMITS: usize = 4096;
/// Size of the values that wait for a watcher, in bytes. One message of etcd may go beyond.
pub(crate) const WATCH_BUFFER_BYTES: usize = 8 << 20;
/// How long a watch that began in the past may be silent before it is held to have caught up.
pub(crate) const WATCH_SETTLE_TIME: Duration = Duration::from_secs(1);

/// Bounds of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Size of one value, in bytes. etcd's own bound is on a request, below.
    pub value_bytes: usize,
    /// Size of one key, in bytes, without the store's prefix.
    pub key_bytes: usize,
    /// Operations of one commit, and as many preconditions: etcd's `--max-txn-ops`.
    pub batch_operations: usize,
    /// Size of one commit as it is sent, in bytes: etcd's `--max-request-bytes`.
    pub request_bytes: usize,
    /// Size of one message from etcd, in bytes.
    pub answer_bytes: usize,
    /// How long an endpoint may take to answer.
    pub answer_time: Duration,
    /// How long it may take to connect to an endpoint.
    pub connect_time: Duration,
    /// How long a call may go from endpoint to endpoint. The last one has its time to answer even so.
    pub call_time: Duration,
    /// How long a watch goes from endpoint to endpoint until it ends with an error.
    pub outage_time: Duration,
    /// A connection in use is asked this often whether it is alive. etcd closes those that ask more often than every 5 seconds.
    pub keep_alive_interval: Duration,
    /// How long it may take to answer that.
    pub keep_alive_time: Duration,
    /// A silent watch asks etcd this often how far it is.
    pub bookmark_interval: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            value_bytes: 3 << 19,
            key_bytes: 2 << 10,
            batch_operations: 128,
            request_bytes: 3 << 19,
            answer_bytes: 64 << 20,
            answer_time: Duration::from_secs(8),
            connect_time: Duration::from_secs(2),
            call_time: Duration::from_secs(15),
            outage_time: Duration::from_secs(60),
            keep_alive_interval: Duration::from_secs(10),
            keep_alive_time: Duration::from_secs(5),
            bookmark_interval: Duration::from_secs(60),
        }
    }
}
