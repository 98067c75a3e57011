//! What people do to a world.

use std::{fmt, time::Duration};

use orchestrator_core::client::Request;

use super::timeline::words;

/// One thing that somebody does.
#[derive(Clone, Debug)]
pub(super) enum Action {
    /// A write.
    Write(Box<Request>),
    /// A pause.
    Wait(Duration),
    /// As long a pause as it takes until nothing is written any more.
    Settle,
}

impl From<Request> for Action {
    fn from(request: Request) -> Self {
        Self::Write(Box::new(request))
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write(request) => f.write_str(&words(request)),
            Self::Wait(time) => write!(f, "wait {} s", time.as_secs_f64()),
            Self::Settle => f.write_str("wait until nothing is written"),
        }
    }
}
