//! How long an exploration may take on the clock of the machine: the only place of it where real time passes.
#![expect(clippy::disallowed_methods, reason = "a budget is of real time")]

use std::time::{Duration, Instant};

/// Time that is left.
pub(super) struct Budget {
    begin: Instant,
    time: Option<Duration>,
}

impl Budget {
    /// So much from now on, or as much as it takes.
    pub(super) fn begin(time: Option<Duration>) -> Self {
        Self { begin: Instant::now(), time }
    }

    pub(super) fn is_left(&self) -> bool {
        self.time.is_none_or(|time| self.begin.elapsed() < time)
    }
}
