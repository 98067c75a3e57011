//! The rules of an election as a pure state machine; both clocks are given.
//!
//! Upstream: `k8s.io/client-go/tools/leaderelection`. A record is timed by the local monotonic clock from the moment
//! at which it was first seen, and never by the times that stand in it. So clocks may differ by any offset; their rates
//! may differ by less than the lease duration exceeds the renew deadline.

use std::time::Duration;

use jiff::Timestamp;

/// What a lease says about its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Empty: nobody.
    pub(super) holder: String,
    pub(super) duration: Duration,
    pub(super) acquired: Option<Timestamp>,
    pub(super) renewed: Option<Timestamp>,
    /// Rises with each term.
    pub(super) transitions: i32,
}

/// How long things take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    pub(super) lease: Duration,
    pub(super) renew_deadline: Duration,
}

/// What a candidate does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Write this record over the version; without a version, as a new lease.
    Write(Record, Option<String>),
    /// Nothing, unless the lease changes before this monotonic time.
    Wait(Duration),
    /// Stop leading: the term is over.
    Resign,
}

/// One candidate. No two candidates share an identity, not even one after the other.
#[derive(Debug)]
pub(super) struct Candidate {
    identity: String,
    timing: Timing,
    seen: Option<Seen>,
    /// Of the lease at the last look; `None`: there was none.
    version: Option<String>,
    /// The last look may be out of date.
    uncertain: bool,
    term: Option<Term>,
}

#[derive(Debug)]
struct Seen {
    record: Record,
    /// When the record was first seen.
    since: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Term {
    transitions: i32,
    acquired: Option<Timestamp>,
    /// When the last write that succeeded was begun.
    renewed: Duration,
}

impl Candidate {
    pub(super) fn new(identity: String, timing: Timing) -> Self {
        Self { identity, timing, seen: None, version: None, uncertain: true, term: None }
    }

    /// Whether to look before the next step: always, but for a leader whose last write was answered.
    pub(super) fn must_look(&self) -> bool {
        self.uncertain || self.term.is_none()
    }

    /// Takes in what was found at a look that is answered now. A lease that somebody removed is not free before its
    /// record would have been.
    pub(super) fn look(&mut self, found: Option<(Record, String)>, now: Duration) {
        self.uncertain = false;
        let Some((record, version)) = found else {
            self.version = None;
            return;
        };
        self.version = Some(version);
        if self.seen.as_ref().is_none_or(|seen| seen.record != record) {
            self.seen = Some(Seen { record, since: now });
        }
    }

    /// What to do now.
    pub(super) fn decide(&self, now: Duration, wall: Timestamp) -> Step {
        let over = self.version.clone();
        match (&self.seen, self.term) {
            (seen, Some(term)) => {
                let mine = seen.as_ref().is_some_and(|seen| self.is_of_term(&seen.record, term));
                if !mine || now >= self.deadline(term) {
                    return Step::Resign;
                }
                Step::Write(self.record(term.acquired, term.transitions, wall), over)
            }
            (None, None) => Step::Write(self.record(Some(wall), 0, wall), over),
            (Some(seen), None) if self.is_free(seen, now) => {
                Step::Write(self.record(Some(wall), seen.record.transitions.saturating_add(1), wall), over)
            }
            (Some(seen), None) => Step::Wait(seen.since.saturating_add(seen.record.duration)),
        }
    }

    /// A write was answered. It counts from when it was begun, and only if the answer came in time.
    pub(super) fn wrote(&mut self, record: Record, version: String, begun: Duration, now: Duration) {
        let term = Term { transitions: record.transitions, acquired: record.acquired, renewed: begun };
        self.term = Some(term).filter(|term| record.holder == self.identity && now < self.deadline(*term));
        self.seen = Some(Seen { record, since: now });
        self.version = Some(version);
        self.uncertain = false;
    }

    /// A write was refused, or nobody knows what became of it.
    pub(super) fn doubt(&mut self) {
        self.uncertain = true;
    }

    /// Stops leading.
    pub(super) fn resign(&mut self) {
        self.term = None;
    }

    /// What to write so that others need not wait, if the lease is held by this candidate.
    pub(super) fn release(&self, wall: Timestamp) -> Option<(Record, Option<String>)> {
        let seen = self.seen.as_ref().filter(|seen| seen.record.holder == self.identity)?;
        let freed = Record { holder: String::new(), duration: Duration::from_secs(1), ..seen.record.clone() };
        Some((Record { renewed: Some(self.after_seen(wall)), ..freed }, Some(self.version.clone()?)))
    }

    /// Until when this candidate leads, and the number of its term.
    pub(super) fn leads(&self) -> Option<(Duration, i32)> {
        self.term.map(|term| (self.deadline(term), term.transitions))
    }

    fn deadline(&self, term: Term) -> Duration {
        term.renewed.saturating_add(self.timing.renew_deadline)
    }

    fn is_of_term(&self, record: &Record, term: Term) -> bool {
        record.holder == self.identity && record.transitions == term.transitions
    }

    fn is_free(&self, seen: &Seen, now: Duration) -> bool {
        let holder = &seen.record.holder;
        holder.is_empty() || *holder == self.identity || now >= seen.since.saturating_add(seen.record.duration)
    }

    fn record(&self, acquired: Option<Timestamp>, transitions: i32, wall: Timestamp) -> Record {
        let (holder, duration) = (self.identity.clone(), self.timing.lease);
        Record { holder, duration, acquired, renewed: Some(self.after_seen(wall)), transitions }
    }

    /// Each record differs from the one before it, also when the clock stands still or goes back: others take a record
    /// that does not change for one that is not renewed.
    fn after_seen(&self, wall: Timestamp) -> Timestamp {
        let last = self.seen.as_ref().and_then(|seen| seen.record.renewed);
        let after = last.and_then(|last| last.checked_add(Duration::from_micros(1)).ok());
        after.map_or(wall, |after| after.max(wall))
    }
}
