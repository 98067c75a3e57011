//! What a worker remembers between decisions. All of it may be lost: a new agent starts with an empty memory.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;

use super::{
    backoff::{Backoff, after},
    operation::ProbeKind,
    probe::ProbeState,
};

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Memory {
    /// Waits between restarts, by container.
    pub(crate) crashes: BTreeMap<String, Backoff>,
    /// Waits between pulls, by image.
    pub(crate) pulls: BTreeMap<String, Backoff>,
    /// Why a container's present attempt has not started.
    pub(crate) failures: BTreeMap<String, Failure>,
    /// The attempt of a container that an image is present for.
    pub(crate) pulled: BTreeMap<String, u32>,
    /// `postStart` hooks of the attempts that this worker started.
    pub(crate) hooks: BTreeMap<String, (u32, Hook)>,
    /// Probes, by container, with the attempt they are about.
    pub(crate) probes: BTreeMap<String, (u32, BTreeMap<ProbeKind, ProbeState>)>,
    /// Attempts to be ended and restarted, with the reason in words.
    pub(crate) condemned: BTreeMap<String, (u32, String)>,
    /// What containers said at their end, by attempt.
    pub(crate) last_words: BTreeMap<(String, u32), String>,
    /// The state of the pod's directories.
    pub(crate) volumes: Volumes,
    /// Why the sandbox could not be made.
    pub(crate) sandbox_failure: Option<Failure>,
    /// Why something could not be stopped or removed.
    pub(crate) cleanup_failure: Option<Failure>,
    /// The node refused the pod: reason and message.
    pub(crate) rejection: Option<(String, String)>,
    /// The pod's deletion was asked for; the next time to ask.
    pub(crate) delete_again_at: Option<Timestamp>,
}

/// Why something has not happened, and when to try again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) at: Timestamp,
    pub(crate) retry_at: Timestamp,
}

impl Failure {
    pub(crate) fn new(reason: &str, message: String, at: Timestamp, wait: Duration) -> Self {
        Self { reason: reason.to_owned(), message, at, retry_at: after(at, wait) }
    }
}

/// Where a `postStart` hook is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    Due,
    Done,
}

/// Where a pod's directories are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Volumes {
    #[default]
    Unknown,
    Failed(Failure),
    Ready {
        refresh_at: Option<Timestamp>,
    },
    Gone,
}

impl Memory {
    /// Whether this attempt's `postStart` hook is through, as far as this worker knows.
    pub(crate) fn hook_done(&self, container: &str, attempt: u32) -> bool {
        !matches!(self.hooks.get(container), Some((of, Hook::Due)) if *of == attempt)
    }

    /// A probe's last verdict on this attempt.
    pub(crate) fn verdict(&self, container: &str, attempt: u32, kind: ProbeKind) -> Option<bool> {
        let (of, probes) = self.probes.get(container)?;
        if *of == attempt { probes.get(&kind)?.verdict } else { None }
    }

    /// Forgets what was about earlier attempts of a container.
    pub(crate) fn started(&mut self, container: &str, attempt: u32) {
        self.failures.remove(container);
        self.pulled.remove(container);
        self.condemned.remove(container);
        self.probes.remove(container);
        self.last_words.retain(|(name, of), _| name != container || of + 2 > attempt);
    }
}
