//! What a controller did: plain counters and the last runs, to be read at any time.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use super::{
    Outcome, Queue, RunTrace, limits,
    queue::{QueueCounts, TIMES},
};
use crate::{
    metrics::{Distribution, Exposition, Histogram, MetricSource, MetricType},
    object::ObjectKey,
};

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
    worked: Histogram,
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
            worked: Histogram::new(TIMES),
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
        self.worked.observe_time(trace.duration);
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

/// The counters of all controllers that share [`Caches`](super::Caches), as upstream's `workqueue_` metrics. Of controllers
/// with the same name the one that started last counts.
#[derive(Clone, Debug, Default)]
pub struct WorkQueues(Arc<Mutex<BTreeMap<&'static str, Arc<ControllerMetrics>>>>);

impl WorkQueues {
    pub(super) fn insert(&self, metrics: Arc<ControllerMetrics>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(metrics.name, metrics);
    }

    /// The counters of each controller, by name.
    pub fn controllers(&self) -> Vec<Arc<ControllerMetrics>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

/// A family of plain numbers: its name, type and help, and where the number is.
type Numbers = (&'static str, MetricType, &'static str, fn(&QueueCounts) -> u64);

const NUMBERS: [Numbers; 3] = [
    ("workqueue_adds_total", MetricType::Counter, "Keys that came into the queue", |counts| counts.adds),
    ("workqueue_depth", MetricType::Gauge, "Keys that wait in the queue", |counts| counts.depth as u64),
    ("workqueue_retries_total", MetricType::Counter, "Keys that came again after a failure", |counts| counts.retries),
];

impl MetricSource for WorkQueues {
    fn write(&self, out: &mut Exposition) {
        let controllers = self.controllers();
        let counts: Vec<QueueCounts> = controllers.iter().map(|controller| controller.queue.counts()).collect();
        let worked = controllers.iter().map(|controller| controller.worked.distribution());
        let worked: Vec<Distribution> = worked.collect();
        let names = || controllers.iter().map(|controller| [("name", controller.name)]);
        for (family, of, help, value) in NUMBERS {
            out.family(family, of, help);
            names().zip(&counts).for_each(|(labels, counts)| out.sample(family, &labels, value(counts)));
        }
        let family = "workqueue_queue_duration_seconds";
        out.family(family, MetricType::Histogram, "Time that keys waited before they were worked on, in seconds");
        names().zip(&counts).for_each(|(labels, counts)| out.distribution(family, &labels, &counts.waited));
        let family = "workqueue_work_duration_seconds";
        out.family(family, MetricType::Histogram, "Time that was worked on a key, in seconds");
        names().zip(&worked).for_each(|(labels, worked)| out.distribution(family, &labels, worked));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::env::Simulation;

    #[test]
    fn queues_tell_what_waited_and_what_came_again() {
        let simulation = Simulation::new(1);
        let env = simulation.env();
        let shown = simulation.run(async move {
            let queue = Queue::new(&env);
            let all = WorkQueues::default();
            all.insert(Arc::new(ControllerMetrics::new("pods", queue.clone())));
            let key = |name: &str| ObjectKey { namespace: String::new(), name: name.to_owned() };
            queue.add(key("a"));
            queue.add(key("a"));
            queue.add_after(key("b"), Duration::from_secs(3600));
            env.sleep(Duration::from_secs(5)).await;
            let taken = queue.next().await.unwrap();
            queue.retry(taken.clone());
            queue.add(taken);
            let mut out = Exposition::default();
            all.write(&mut out);
            out.into_text()
        });
        let shown = shown.unwrap();
        for line in [
            "# TYPE workqueue_depth gauge",
            "workqueue_adds_total{name=\"pods\"} 2",
            "workqueue_depth{name=\"pods\"} 1",
            "workqueue_retries_total{name=\"pods\"} 1",
            "workqueue_queue_duration_seconds_bucket{name=\"pods\",le=\"1\"} 0",
            "workqueue_queue_duration_seconds_bucket{name=\"pods\",le=\"10\"} 1",
            "workqueue_queue_duration_seconds_sum{name=\"pods\"} 5",
            "workqueue_work_duration_seconds_count{name=\"pods\"} 0",
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line} in {shown}");
        }
    }
}
