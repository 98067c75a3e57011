//! What people do to a world.

use std::{fmt, time::Duration};

use orchestrator_core::client::{Call, Request};
use serde_json::Value;

use super::{drawn::Draw, timeline::words};

/// One thing that somebody does.
#[derive(Clone, Debug)]
pub(super) enum Action {
    /// A write.
    Write(Box<Request>),
    /// A write that each seed draws.
    Drawn(Draw),
    /// A pause.
    Wait(Duration),
    /// As long a pause as it takes until nothing is written any more.
    Settle,
}

impl Action {
    pub(super) fn is_drawn(&self) -> bool {
        matches!(self, Self::Drawn(_))
    }

    /// What somebody creates.
    pub(super) fn object(&self) -> Option<Value> {
        let Self::Write(request) = self else { return None };
        match &request.call {
            Call::Create { object, .. } => object.to_tree().ok(),
            _ => None,
        }
    }
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
            Self::Drawn(_) => f.write_str("create what a seed draws"),
            Self::Wait(time) => write!(f, "wait {} s", time.as_secs_f64()),
            Self::Settle => f.write_str("wait until nothing is written"),
        }
    }
}
