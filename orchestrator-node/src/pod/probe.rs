//! Probes as a state machine over time: when to ask, and what the answers come to.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/>.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Probe};

use super::{backoff::after, operation::ProbeKind};

/// One probe of one run of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProbeState {
    /// When to ask next.
    pub(crate) next_at: Timestamp,
    /// The last answer, and how often it came in a row.
    pub(crate) streak: (bool, i32),
    /// What the answers come to; `None` before the first threshold was met.
    pub(crate) verdict: Option<bool>,
}

/// The probe of this kind that a container has.
pub(crate) fn of(container: &Container, kind: ProbeKind) -> Option<&Probe> {
    match kind {
        ProbeKind::Startup => container.startup_probe.as_ref(),
        ProbeKind::Liveness => container.liveness_probe.as_ref(),
        ProbeKind::Readiness => container.readiness_probe.as_ref(),
    }
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(value.and_then(|value| u64::try_from(value).ok()).filter(|value| *value > 0).unwrap_or(default))
}

/// How long an answer may take.
pub(crate) fn timeout(probe: &Probe) -> Duration {
    seconds(probe.timeout_seconds, 1)
}

impl ProbeState {
    /// A probe of a container that started at this time.
    pub(crate) fn new(probe: &Probe, started_at: Timestamp, verdict: Option<bool>) -> Self {
        let delay = probe.initial_delay_seconds.and_then(|delay| u64::try_from(delay).ok()).unwrap_or(0);
        let next_at = after(started_at, Duration::from_secs(delay));
        Self { next_at, streak: (verdict.unwrap_or(false), 0), verdict }
    }

    /// Takes in an answer. The next question follows a period after this one.
    #[must_use]
    pub(crate) fn answered(&self, probe: &Probe, success: bool, now: Timestamp) -> Self {
        let count = if self.streak.0 == success { self.streak.1.saturating_add(1) } else { 1 };
        let threshold =
            if success { probe.success_threshold.unwrap_or(1) } else { probe.failure_threshold.unwrap_or(3) };
        let verdict = if count >= threshold.max(1) { Some(success) } else { self.verdict };
        Self { next_at: after(now, seconds(probe.period_seconds, 10)), streak: (success, count), verdict }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[test]
    fn thresholds() {
        let probe = Probe { success_threshold: Some(2), failure_threshold: Some(3), ..Default::default() };
        let mut state = ProbeState::new(&probe, at(0), None);
        let mut verdicts = vec![];
        for answer in [true, true, false, false, true, false, false, false] {
            state = state.answered(&probe, answer, at(0));
            verdicts.push(state.verdict);
        }
        let yes = Some(true);
        assert_eq!(verdicts, [None, yes, yes, yes, yes, yes, yes, Some(false)]);
    }

    #[test]
    fn delay_and_period() {
        let probe = Probe { initial_delay_seconds: Some(5), period_seconds: Some(7), ..Default::default() };
        let state = ProbeState::new(&probe, at(0), None);
        assert_eq!(state.next_at, at(5));
        assert_eq!(state.answered(&probe, true, at(6)).next_at, at(13));
    }
}
