//! Every bound and period of this crate, with its unit.

use std::time::Duration;

/// First wait before a container or image is tried again; upstream's `backOffPeriod`.
pub(crate) const BACKOFF_FIRST: Duration = Duration::from_secs(10);
/// Longest wait before a container or image is tried again; upstream's `MaxContainerBackOff`.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(300);
/// A wait starts anew at the first step when so much time went well.
pub(crate) const BACKOFF_RESET: Duration = Duration::from_secs(600);
/// Wait before an operation is repeated that failed for a passing reason.
pub(crate) const RETRY: Duration = Duration::from_secs(10);
/// Wait before a call to the API is repeated.
pub(crate) const API_RETRY: Duration = Duration::from_secs(1);
/// How long a failed pull is shown as `ErrImagePull` before it is shown as `ImagePullBackOff`.
pub(crate) const PULL_ERROR_SHOWN: Duration = Duration::from_secs(1);
/// The least time that a container gets to end after its stop signal.
pub(crate) const GRACE_MIN: Duration = Duration::from_secs(1);
/// Period of the comparison of everything with the runtime.
pub(crate) const RELIST: Duration = Duration::from_secs(60);
/// How long a node's lease holds; upstream's `nodeLeaseDurationSeconds`.
pub(crate) const LEASE_DURATION_SECONDS: i32 = 40;
/// Period of renewals of the lease: a quarter of its duration.
pub(crate) const LEASE_RENEWAL: Duration = Duration::from_secs(10);
/// A node's unchanged status is written once in this time; upstream's `nodeStatusReportFrequency`.
pub(crate) const NODE_STATUS_REPORT: Duration = Duration::from_secs(300);
/// How much of a termination message is kept, in bytes.
pub(crate) const TERMINATION_MESSAGE_BYTES: usize = 4096;
/// How much of a log serves as termination message, in lines.
pub(crate) const TERMINATION_LOG_LINES: usize = 80;
/// How much of a log serves as termination message, in bytes.
pub(crate) const TERMINATION_LOG_BYTES: usize = 2048;
/// How much a probe's or hook's command may say, in bytes.
pub(crate) const COMMAND_OUTPUT_BYTES: usize = 10 * 1024;
/// How much of an HTTP answer's head a probe reads, in bytes.
pub(crate) const HTTP_HEAD_BYTES: usize = 16 * 1024;
/// How much of an HTTP answer a probe tells, in bytes.
pub(crate) const HTTP_BODY_BYTES: usize = 1024;
/// A projected volume's payload, in bytes.
pub(crate) const VOLUME_PAYLOAD_BYTES: usize = 4 * 1024 * 1024;
/// How deep `$(NAME)` expansion makes an environment value grow, in bytes.
pub(crate) const ENVIRONMENT_VALUE_BYTES: usize = 1024 * 1024;
/// A file that `fileKeyRef` reads, in bytes.
pub(crate) const FILES_IN_VOLUME: usize = 10_000;
/// How many runs of a container are kept in the runtime: the present one and the one before.
pub(crate) const RUNS_KEPT: usize = 2;
/// The least life of a service account token, in seconds.
pub(crate) const TOKEN_SECONDS_MIN: i64 = 600;
/// The life of a service account token, in seconds, where the volume does not say.
pub(crate) const TOKEN_SECONDS: i64 = 3600;
/// Period of the check whether projected volumes are still right.
pub(crate) const VOLUME_REFRESH: Duration = Duration::from_secs(60);
/// Images in a node's status; upstream's `nodeStatusMaxImages`.
pub(crate) const IMAGES_IN_STATUS: usize = 50;

/// How often images are looked at; upstream's `ImageGCPeriod`.
pub(crate) const IMAGE_COLLECTION_PERIOD: Duration = Duration::from_secs(300);
