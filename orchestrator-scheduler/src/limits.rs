//! All bounds of this crate, with their units.

use std::time::Duration;

/// How much is remembered about nodes, in nodes times kinds of pods.
pub const REMEMBERED_ANSWERS: usize = 1 << 20;
/// For at most so many kinds of pods anything is remembered, in kinds.
pub const REMEMBERED_KINDS: usize = 256;
/// At least so many nodes are considered for preemption, in nodes.
pub const FEWEST_PREEMPTION_CANDIDATES: usize = 100;
/// At least this share of nodes is considered for preemption, in percent.
pub const FEWEST_PREEMPTION_PERCENT: usize = 10;
/// How long a pod waits after its first failed attempt. Each further one doubles it.
pub const BACKOFF_START: Duration = Duration::from_secs(1);
/// How long a pod waits at most after a failed attempt.
pub const BACKOFF_LONGEST: Duration = Duration::from_secs(10);
/// After this time a refused pod is tried again even if nothing has happened.
pub const UNSCHEDULABLE_LONGEST: Duration = Duration::from_secs(300);
/// With the pods of so many groups of refused pods another is compared, to find its own, in groups.
pub const COMPARED_GROUPS: usize = 64;
/// How many pods are being bound at a time.
pub const CONCURRENT_BINDINGS: usize = 256;
/// How many calls that tell users (conditions, events) or make room (evictions) run at a time.
pub const CONCURRENT_REPORTS: usize = 64;
/// How long an extender may take to answer, unless it is configured otherwise.
pub const EXTENDER_LONGEST: Duration = Duration::from_secs(5);
/// How long the answer of an extender may be, in bytes: whole nodes are in it.
pub const EXTENDER_ANSWER_BYTES: usize = 64 << 20;
/// How much of a file of certificates is read, in bytes.
pub const CERTIFICATE_BYTES: u64 = 1 << 20;
/// How long volumes may take to be bound.
pub const VOLUME_BINDING_LONGEST: Duration = Duration::from_secs(600);
/// After this time a pod that was bound but not seen bound is no longer counted on its node.
pub const ASSUMED_LONGEST: Duration = Duration::from_secs(900);
/// How often a pod's status is tried to be written while others write it.
pub const STATUS_ATTEMPTS: usize = 4;
/// How many devices one claim can have, in devices.
pub const CLAIM_DEVICES: usize = 32;
/// How many pods can use one claim, in pods.
pub const CLAIM_USERS: usize = 256;
/// How long the devices of a claim may take to be prepared.
pub const DEVICE_BINDING_LONGEST: Duration = Duration::from_secs(600);
/// How long the search for devices on one node may take.
pub const DEVICE_FILTER_LONGEST: Duration = Duration::from_secs(10);
/// How many alternatives a request of a claim can have.
pub const ALTERNATIVES: usize = 8;
/// How much the search for devices may cost in one decision, on all nodes together, in steps: each device that is looked at is one,
/// and so is each byte of an expression that is read, and each part of one that is worked out.
pub const ALLOCATION_STEPS: u64 = 10_000_000;
/// How many such steps count as a second.
pub const ALLOCATION_STEPS_PER_SECOND: u64 = 1_000_000;
/// How long an expression that selects devices may be, in bytes.
pub const EXPRESSION_BYTES: usize = 10 << 10;
/// How much one expression may cost on one device, in steps.
pub const EXPRESSION_STEPS: u64 = 1_000_000;
