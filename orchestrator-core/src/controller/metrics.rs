//! What a controller did: plain counters and the last runs, to be read at any time.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use super::{Outcome, Queue, RunTrace, limits};
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
    recent: Mutex<VecDeque<Arc<RunTrace>>>,
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
            recent: Mutex::default(),
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
    pub fn last_run(&self) -> Option<Arc<RunTrace>> {
        self.lock().back().cloned()
    }

    /// The runs that ended last, at most [`limits::TRACED_RUNS`], in the order in which they ended.
    pub fn recent_runs(&self) -> Vec<Arc<RunTrace>> {
        self.lock().iter().cloned().collect()
    }

    pub(super) fn begin(&self) {
        self.running.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end(&self, trace: RunTrace) {
        self.running.fetch_sub(1, Ordering::Relaxed);
        self.runs.fetch_add(1, Ordering::Relaxed);
        self.writes.fetch_add(trace.writes.count(), Ordering::Relaxed);
        if matches!(trace.outcome, Outcome::Failed(_) | Outcome::Panicked(_)) {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        if matches!(trace.outcome, Outcome::Panicked(_)) {
            self.panics.fetch_add(1, Ordering::Relaxed);
        }
        let mut recent = self.lock();
        if recent.len() >= limits::TRACED_RUNS {
            recent.pop_front();
        }
        recent.push_back(Arc::new(trace));
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<RunTrace>>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
