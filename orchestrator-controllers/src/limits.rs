//! The bounds of the controllers, with their units.

use std::time::Duration;

/// Pods that a replica set creates or deletes in one run. As upstream's `BurstReplicas`.
pub(crate) const PODS_PER_RUN: usize = 500;

/// Pods that a daemon set creates, and that it deletes, in one run. As upstream's `BurstReplicas` for daemon sets.
pub(crate) const DAEMON_PODS_PER_RUN: usize = 250;

/// How long a daemon pod that failed again stays at first; twice as long each time. As upstream.
pub(crate) const FAILED_DAEMON_POD_PAUSE: Duration = Duration::from_secs(1);

/// The longest that a failed daemon pod stays. As upstream.
pub(crate) const FAILED_DAEMON_POD_PAUSE_LONGEST: Duration = Duration::from_secs(15 * 60);

/// Pods that a job creates, or that it deletes, in one run. As upstream's `MaxPodCreateDeletePerSync`.
pub(crate) const JOB_PODS_PER_RUN: usize = 500;

/// Pods of a job that have ended and that its status names at the same time. As upstream's `MaxUncountedPods`.
pub(crate) const UNCOUNTED_PODS: usize = 500;

/// How long a job waits after a pod has failed; twice as long after each further one. As upstream.
pub(crate) const JOB_PAUSE: Duration = Duration::from_secs(10);

/// The longest that a job waits after pods have failed. As upstream.
pub(crate) const JOB_PAUSE_LONGEST: Duration = Duration::from_secs(600);

/// Characters of the prefix that the server completes to the name of a pod.
pub(crate) const POD_PREFIX_CHARACTERS: usize = 58;

/// Times of a cron job that may have been missed before it is told. As upstream.
pub(crate) const MANY_MISSED_TIMES: i64 = 100;

/// How long after its time a cron job looks at it, so that the time has come for sure. As upstream.
pub(crate) const CRON_DELAY: Duration = Duration::from_millis(100);

/// How long a pod that is to be evicted may take to be deleted. As upstream.
pub(crate) const DISRUPTION_TIME: Duration = Duration::from_secs(120);

/// How often quotas are computed anew in any case. As upstream's `--resource-quota-sync-period`.
pub(crate) const QUOTA_PERIOD: Duration = Duration::from_secs(300);

/// How often a horizontal pod autoscaler looks at its metrics. As upstream's `--horizontal-pod-autoscaler-sync-period`.
pub(crate) const AUTOSCALER_PERIOD: Duration = Duration::from_secs(15);

/// How long a recommendation keeps a workload from shrinking. As upstream's
/// `--horizontal-pod-autoscaler-downscale-stabilization`.
pub(crate) const DOWNSCALE_WINDOW: Duration = Duration::from_secs(300);

/// How long after its start the CPU usage of a pod may be that of its start. As upstream's
/// `--horizontal-pod-autoscaler-cpu-initialization-period`.
pub(crate) const CPU_INITIALIZATION_TIME: Duration = Duration::from_secs(300);

/// How long after its start a pod that ceases to be ready counts as one that never was. As upstream's
/// `--horizontal-pod-autoscaler-initial-readiness-delay`.
pub(crate) const INITIAL_READINESS_DELAY: Duration = Duration::from_secs(30);

/// How far usage may be from its target, as a part of it, before anything is scaled. As upstream's
/// `--horizontal-pod-autoscaler-tolerance`.
pub(crate) const AUTOSCALER_TOLERANCE: f64 = 0.1;

/// Addresses in one Endpoints object, and of one of its subsets that are mirrored. As upstream.
pub(crate) const ADDRESSES_PER_ENDPOINTS: usize = 1000;

/// Characters of an object's name. As upstream's `DNS1123SubdomainMaxLength`.
pub(crate) const NAME_CHARACTERS: usize = 253;

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

/// The length of a node's range of IPv4 addresses for pods, in bits. As upstream's `--node-cidr-mask-size-ipv4`.
pub(crate) const NODE_PREFIX_IPV4: u8 = 24;

/// The length of a node's range of IPv6 addresses for pods, in bits. As upstream's `--node-cidr-mask-size-ipv6`.
pub(crate) const NODE_PREFIX_IPV6: u8 = 64;

/// How many bits tell the nodes of one range of addresses apart. As upstream, where ranges of IPv6 are concerned.
pub(crate) const NODES_OF_A_RANGE_BITS: u8 = 16;

/// How long a range of service addresses that nobody uses stays after its deletion was asked for. As upstream.
pub(crate) const SERVICE_RANGE_GRACE_TIME: Duration = Duration::from_secs(10);

/// How often requests for certificates that are over are looked for. As upstream's cleaner.
pub(crate) const REQUEST_CLEANING_PERIOD: Duration = Duration::from_secs(3600);

/// How long a request for a certificate is kept after it was denied, or issued. As upstream's cleaner.
pub(crate) const DECIDED_REQUEST_TIME: Duration = Duration::from_secs(3600);

/// How long a request for a certificate waits for a decision. As upstream's cleaner.
pub(crate) const PENDING_REQUEST_TIME: Duration = Duration::from_secs(24 * 3600);

/// How long a certificate lives, unless it is asked for less. As upstream's `--cluster-signing-duration`.
pub(crate) const CERTIFICATE_TIME: Duration = Duration::from_secs(365 * 24 * 3600);

/// The shortest that a certificate lives. As upstream.
pub(crate) const SHORTEST_CERTIFICATE_TIME: Duration = Duration::from_secs(600);

/// How long before its signature a certificate is valid, for clocks that differ. As upstream.
pub(crate) const CERTIFICATE_BACKDATING: Duration = Duration::from_secs(300);

/// A certificate that lives for less than this does not end earlier for its early beginning. As upstream.
pub(crate) const SHORT_CERTIFICATE_TIME: Duration = Duration::from_secs(8 * 3600);

/// How often the addresses of nodes are compared with those of their machines. As upstream's
/// `--node-status-update-frequency` of the cloud controller manager.
pub(crate) const NODE_ADDRESS_PERIOD: Duration = Duration::from_secs(300);

/// How long a node without a machine's name may wait for its initialization before the cloud is asked whether its machine
/// exists. As upstream.
pub(crate) const UNINITIALIZED_NODE_TIME: Duration = Duration::from_secs(60);

/// How often the routes of a cloud are compared with its nodes. As upstream's `--route-reconciliation-period`.
pub(crate) const ROUTE_PERIOD: Duration = Duration::from_secs(10);

/// Routes that are made or removed at the same time. As upstream.
pub(crate) const ROUTES_AT_ONCE: usize = 200;

/// Users that a claim of devices has at most. As upstream's `ResourceClaimReservedForMaxSize`.
pub(crate) const CLAIM_USERS: usize = 256;

/// How often tokens of service accounts that nobody uses are looked for. As upstream.
pub(crate) const LEGACY_TOKEN_PERIOD: Duration = Duration::from_secs(24 * 3600);

/// How long such a token is not used before it is taken out of use, and stays after that. As upstream's
/// `--legacy-service-account-token-clean-up-period`.
pub(crate) const LEGACY_TOKEN_TIME: Duration = Duration::from_secs(365 * 24 * 3600);

/// How long a node that is not ready may say that it uses a volume which nobody wants there. As upstream's
/// `MaxWaitForUnmountDuration`.
pub(crate) const FORCED_DETACH_TIME: Duration = Duration::from_secs(360);

/// How soon a volume that could not be attached or detached is looked at again.
pub(crate) const DETACH_RETRY: Duration = Duration::from_secs(10);
