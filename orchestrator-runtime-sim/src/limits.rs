//! Every bound of this crate, with its unit.

/// Events that a receiver may lag behind, in events, before it is told to list again.
pub(crate) const EVENT_BACKLOG: usize = 32;

/// Bytes that a stream between a caller and a container holds.
pub(crate) const STREAM_BUFFER_BYTES: usize = 64 * 1024;

/// Planned failures of one verb, in calls.
pub(crate) const PLANNED_FAILURES: usize = 1024;

/// Lines that one script may log, in lines; a script's text form cannot ask for more.
pub(crate) const SCRIPT_LOG_LINES: usize = 10_000;
