//! Flows: what one flow schema sent to its priority level.

use std::sync::{
    Arc,
    atomic::{AtomicI64, AtomicU64, Ordering},
};

use orchestrator_core::metrics::{Exposition, MetricType};

use super::Gauge;

/// Why a request did not get its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Its level has no queues, and no seat was free.
    ConcurrencyLimit,
    /// The queue was full.
    QueueFull,
    /// It waited too long.
    TimeOut,
}

/// The reasons in upstream's words, in the order of [`Refusal`].
const REASONS: [&str; 3] = ["concurrency-limit", "queue-full", "time-out"];

/// What is counted about a flow schema.
#[derive(Debug, Default)]
pub(crate) struct FlowCounts {
    dispatched: AtomicU64,
    rejected: [AtomicU64; REASONS.len()],
    waiting: Arc<AtomicI64>,
    executing: Arc<AtomicI64>,
}

/// A family of gauges: its name and help, and where the gauge is.
type Gauges = (&'static str, &'static str, fn(&FlowCounts) -> &AtomicI64);

const GAUGES: [Gauges; 2] = [
    ("apiserver_flowcontrol_current_executing_requests", "Requests whose turn it is", |counts| &counts.executing),
    ("apiserver_flowcontrol_current_inqueue_requests", "Requests that wait for their turn", |counts| &counts.waiting),
];

impl FlowCounts {
    /// A request waits for its turn.
    pub(crate) fn wait(&self) -> Gauge {
        Gauge::up(&self.waiting)
    }

    /// A request runs.
    pub(crate) fn run(&self) -> Gauge {
        self.dispatched.fetch_add(1, Ordering::Relaxed);
        Gauge::up(&self.executing)
    }

    /// A request is sent away.
    pub(crate) fn refuse(&self, why: Refusal) {
        if let Some(count) = self.rejected.get(why as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// All schemas, by level and name.
    pub(crate) fn write(flows: &[(String, String, Arc<Self>)], out: &mut Exposition) {
        fn labels((level, schema, _): &(String, String, Arc<FlowCounts>)) -> [(&'static str, &str); 2] {
            [("flow_schema", schema), ("priority_level", level)]
        }
        for (family, help, gauge) in GAUGES {
            out.family(family, MetricType::Gauge, help);
            for flow in flows {
                out.sample(family, &labels(flow), gauge(&flow.2).load(Ordering::Relaxed));
            }
        }
        let family = "apiserver_flowcontrol_dispatched_requests_total";
        out.family(family, MetricType::Counter, "Requests that got their turn");
        for flow in flows {
            out.sample(family, &labels(flow), flow.2.dispatched.load(Ordering::Relaxed));
        }
        let family = "apiserver_flowcontrol_rejected_requests_total";
        out.family(family, MetricType::Counter, "Requests that were sent away, and why");
        for flow in flows {
            let [schema, level] = labels(flow);
            for (reason, count) in REASONS.iter().zip(&flow.2.rejected) {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    out.sample(family, &[schema, level, ("reason", *reason)], count);
                }
            }
        }
    }
}
