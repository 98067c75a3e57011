//! The bounds of the controllers, with their units.

use std::time::Duration;

/// Pods that a replica set creates or deletes in one run. As upstream's `BurstReplicas`.
pub(crate) const PODS_PER_RUN: usize = 500;

/// Characters of `deployment.kubernetes.io/revision-history`; older revisions are forgotten. As upstream.
pub(crate) const REVISION_HISTORY_CHARACTERS: usize = 2000;

/// How often a new name is tried for a controller revision in one run when its name is taken by another.
pub(crate) const REVISION_NAME_TRIES: usize = 8;

/// Characters of a stateful set's name that go into the names of its revisions. As upstream.
pub(crate) const REVISION_PREFIX_CHARACTERS: usize = 223;

/// How long a node may be silent before its state counts as unknown. As upstream's `--node-monitor-grace-period`.
pub(crate) const NODE_GRACE_TIME: Duration = Duration::from_secs(50);

/// How long a node that has never reported may be silent. As upstream's `--node-startup-grace-period`.
pub(crate) const NODE_STARTUP_GRACE_TIME: Duration = Duration::from_secs(60);

/// How often nodes are looked at. As upstream's `--node-monitor-period`.
pub(crate) const NODE_MONITOR_PERIOD: Duration = Duration::from_secs(5);

/// Nodes per second that may get a `NoExecute` taint. As upstream's `--node-eviction-rate`.
pub(crate) const NODE_EVICTIONS_PER_SECOND: f64 = 0.1;

/// Finished pods that are kept in the cluster. As upstream's `--terminated-pod-gc-threshold`.
pub(crate) const TERMINATED_PODS: usize = 12_500;

/// How often pods that nobody cares for are looked for. As upstream's pod garbage collector.
pub(crate) const POD_COLLECTION_PERIOD: Duration = Duration::from_secs(20);

/// How long a node must be missing before its pods are deleted. As upstream's pod garbage collector.
pub(crate) const NODE_QUARANTINE_TIME: Duration = Duration::from_secs(40);

/// The first pause before a controller that panicked starts again; it doubles from there.
pub(crate) const RESTART_FIRST: Duration = Duration::from_millis(100);

/// The longest pause before a controller that panicked starts again.
pub(crate) const RESTART_LONGEST: Duration = Duration::from_secs(30);

/// How often the kinds of the server are asked for. As upstream's garbage collector.
pub(crate) const DISCOVERY_PERIOD: Duration = Duration::from_secs(30);

/// How often a namespace that cannot be emptied yet is tried again.
pub(crate) const NAMESPACE_RETRY: Duration = Duration::from_secs(5);

/// Objects of one resource in one page of a list of namespace finalization.
pub(crate) const NAMESPACE_PAGE_OBJECTS: usize = 500;

/// Endpoints in one slice. As upstream's `--max-endpoints-per-slice`.
pub(crate) const ENDPOINTS_PER_SLICE: usize = 100;

/// Owners that were found missing and are remembered. As upstream's `absentOwnerCache`.
pub(crate) const ABSENT_OWNERS: usize = 500;

/// Objects that the garbage collector looks at at the same time. As upstream's `--concurrent-gc-syncs`.
pub(crate) const COLLECTOR_WORKERS: usize = 20;

/// How long the garbage collector waits for kinds that cannot be listed. As upstream.
pub(crate) const SYNC_TIME: Duration = Duration::from_secs(30);

/// How soon the garbage collector looks again at what waits for a kind that is listed for the first time.
pub(crate) const DISCOVERY_DELAY: Duration = Duration::from_secs(1);

/// The pauses before each time that the kinds are asked for after a definition is established or gone.
pub(crate) const DISCOVERY_PAUSES: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(200), Duration::from_millis(800), Duration::from_secs(4)];
