//! The bounds of the reconcile loop, with their units.

use std::time::Duration;

/// Objects in one page of a list.
pub const LIST_PAGE_OBJECTS: usize = 500;

/// Changes of a watch that are taken in one go.
pub const WATCH_BATCH_CHANGES: usize = 256;

/// A watch is opened anew after a time between this and its double, as upstream's reflector does.
pub const WATCH_TIME: Duration = Duration::from_secs(300);

/// How much longer than agreed a watch may stay open before it counts as broken.
pub const WATCH_OVERTIME: Duration = Duration::from_secs(30);

/// The first pause after a list or watch failed; it doubles from there.
pub const RELIST_BACKOFF_FIRST: Duration = Duration::from_millis(100);

/// The longest pause after a list or watch failed. Well below the time after which a node that was not heard of counts
/// as gone: after an outage of the server, caches are back before that is decided.
pub const RELIST_BACKOFF_LONGEST: Duration = Duration::from_secs(5);

/// The first pause before a failed key is tried again; it doubles from there. As upstream's default rate limiter.
pub const RETRY_FIRST: Duration = Duration::from_millis(5);

/// The longest pause before a failed key is tried again. As upstream's default rate limiter.
pub const RETRY_LONGEST: Duration = Duration::from_secs(1000);

/// Keys that a controller works on at the same time, unless told otherwise. As upstream's `--concurrent-*-syncs`.
pub const CONCURRENCY_KEYS: usize = 5;

/// How long running reconciles may take to end after a shutdown was asked for.
pub const DRAIN_TIME: Duration = Duration::from_secs(30);

/// How long a run of a key waits for the caches to contain the key's last writes before it is put back.
pub const OWN_WRITES_TIME: Duration = Duration::from_secs(10);

/// Keys whose last writes are remembered at least, before those that the caches contain by now are forgotten.
pub const REMEMBERED_KEYS: usize = 256;

/// The pause before a key runs for the second time in a row for nothing but what it wrote itself; it doubles from there.
pub const OWN_WRITES_PAUSE_FIRST: Duration = Duration::from_millis(5);

/// The longest pause of a key that runs for nothing but what it wrote itself.
pub const OWN_WRITES_PAUSE_LONGEST: Duration = Duration::from_secs(60);

/// Causes that are noted for one run; the rest is counted.
pub const CAUSES_PER_RUN: usize = 8;

/// Reads that are noted for one run; the rest is counted.
pub const READS_PER_RUN: usize = 16;

/// Writes that are noted for one run; the rest is counted.
pub const WRITES_PER_RUN: usize = 16;

/// Runs of a controller whose traces are kept.
pub const TRACED_RUNS: usize = 64;

/// How long the lease of a leader election lasts after a renewal. As upstream's `LeaseDuration`.
pub const LEASE_DURATION: Duration = Duration::from_secs(15);

/// How long a leader works after its last renewal. As upstream's `RenewDeadline`.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);

/// How often a leader renews, and a candidate looks. As upstream's `RetryPeriod`.
pub const ELECTION_RETRY_PERIOD: Duration = Duration::from_secs(2);
