//! What a controller did: plain counters and the last run, to be read at any time.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::Queue;
use crate::object::ObjectKey;

/// The counters of one controller. All of them only grow, but `running`.
#[derive(Debug)]
pub struct ControllerMetrics {
    name: &'static str,
    queue: Queue<ObjectKey>,
    runs: AtomicU64,
    failures: AtomicU64,
    panics: AtomicU64,
    writes: AtomicU64,
    running: AtomicUsize,
    last: Mutex<Option<RunTrace>>,
}

/// One run of a reconciler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunTrace {
    /// Which key.
    pub key: ObjectKey,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took.
    pub duration: Duration,
    /// How many writes the API server accepted.
    pub writes: u64,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Done,
    /// As it should, and it wants to run again after this time.
    RequeueAfter(Duration),
    /// With this error; it runs again.
    Failed(String),
    /// With this panic; it runs again.
    Panicked(String),
}

impl ControllerMetrics {
    pub(super) fn new(name: &'static str, queue: Queue<ObjectKey>) -> Self {
        Self {
            name,
            queue,
            runs: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            running: AtomicUsize::new(0),
            last: Mutex::new(None),
        }
    }

    /// The controller's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Runs that ended.
    pub fn runs(&self) -> u64 {
        self.runs.load(Ordering::Relaxed)
    }

    /// Runs that ended with an error or a panic.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Runs that ended with a panic.
    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// Writes that the API server accepted.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// Runs that are under way.
    pub fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    /// Keys that wait, delayed ones included.
    pub fn queue_length(&self) -> usize {
        self.queue.len()
    }

    /// The run that ended last.
    pub fn last_run(&self) -> Option<RunTrace> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn begin(&self) {
        self.running.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end(&self, trace: RunTrace) {
        self.running.fetch_sub(1, Ordering::Relaxed);
        self.runs.fetch_add(1, Ordering::Relaxed);
        self.writes.fetch_add(trace.writes, Ordering::Relaxed);
        if matches!(trace.outcome, Outcome::Failed(_) | Outcome::Panicked(_)) {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        if matches!(trace.outcome, Outcome::Panicked(_)) {
            self.panics.fetch_add(1, Ordering::Relaxed);
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(trace);
    }
}
