//! Every bound of an exploration, with its unit.

use std::time::Duration;

use jiff::SignedDuration;

/// Faults of one run, when a seed draws them and nobody says how many.
pub(super) const FAULTS_PER_RUN: usize = 4;
/// Runs with one fault each, beside those that kill the process after a write.
pub(super) const SINGLE_FAULTS: usize = 600;
/// How long a world that is waited for may take to fall silent.
pub(super) const SETTLE: Duration = Duration::from_secs(3600);
/// How long nothing has to be written until a world counts as silent: longer than the pauses after failures.
pub(super) const CALM: Duration = Duration::from_secs(240);
/// How often a world that is waited for is looked at.
pub(super) const LOOK: Duration = Duration::from_secs(5);
/// How long it has to stay silent then.
pub(super) const SILENCE: Duration = Duration::from_secs(1200);
/// For how long a process hears nothing.
pub(super) const LATE: Duration = Duration::from_secs(20);
/// For how long a server is behind.
pub(super) const BEHIND: Duration = Duration::from_secs(15);
/// For how long a process stands still: longer than leases last.
pub(super) const STANDSTILL: Duration = Duration::from_secs(60);
/// By how much a clock jumps.
pub(super) const CLOCK_JUMP: SignedDuration = SignedDuration::from_hours(1);
/// The longest pause between two things that people do.
pub(super) const PAUSE: Duration = Duration::from_millis(3000);
/// Runs that are spent to make a failing one smaller.
pub(super) const SHRINKING_RUNS: usize = 200;
/// Changes of a run after which it counts as one that never ends.
pub(super) const CHANGES: usize = 20_000;
/// Lines of a timeline that are kept.
pub(super) const TIMELINE_LINES: usize = 400;
/// Letters of an object that a timeline shows.
pub(super) const SHOWN_LETTERS: usize = 200;
/// Seeds that are tried if nobody says how many.
pub(super) const SEEDS: u64 = 100;
/// Objects that are drawn until the server takes one.
pub(super) const DRAWS: usize = 256;
