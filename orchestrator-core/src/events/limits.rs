//! The bounds of the event recorder, with their units. Those of correlation are upstream's.

use std::time::Duration;

/// Events that wait to be written; further ones are dropped.
pub const QUEUED_EVENTS: usize = 1000;

/// Events, and sources of events, that are remembered to find repeats.
pub const REMEMBERED_EVENTS: usize = 4096;

/// Different messages about the same thing until they are combined.
pub const SIMILAR_MESSAGES: usize = 10;

/// Messages further apart than this are not combined.
pub const SIMILAR_TIME: Duration = Duration::from_secs(600);

/// Events that one source may write about one object at once.
pub const BURST_EVENTS: f64 = 25.0;

/// The time after which such a source may write one more.
pub const REFILL_TIME: Duration = Duration::from_secs(300);

/// Tries to write an event while the server cannot be reached.
pub const WRITE_TRIES: u32 = 12;

/// The pause between two tries.
pub const WRITE_PAUSE: Duration = Duration::from_secs(10);

/// Tries to find a name that is free.
pub const NAME_TRIES: u32 = 4;

/// How long a shutdown waits for events to be written.
pub const SHUTDOWN_TIME: Duration = Duration::from_secs(5);
