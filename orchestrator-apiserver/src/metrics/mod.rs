//! What the server counts: upstream's metrics, by upstream's names and labels.
//!
//! To count takes an atomic addition, and for what has many labels a look-up in a sharded map. Labels are drawn from the
//! registry and from closed sets, and there is a bound on their combinations, so that clients cannot make the server grow.
//!
//! Compared with upstream: what clients in this process ask for is not counted as requests, and only requests in flight
//! at the moment are shown, not the most in the last second.
//!
//! Upstream: <https://kubernetes.io/docs/reference/instrumentation/metrics/>.

mod flows;
pub(crate) mod objects;
mod requests;
mod store;
mod watches;

use std::sync::{Arc, Mutex, PoisonError};

use orchestrator_core::metrics::{Buckets, Exposition, MetricSource};

pub(crate) use flows::{FlowCounts, Refusal};
pub(crate) use requests::{Call, Gauge, Present, Recording, Requests};
pub(crate) use store::{MeasuredStore, StoreTimes};
pub(crate) use watches::{WatchCounts, Watches};

/// Times of requests, in nanoseconds; upstream's buckets.
const TIMES: Buckets = Buckets {
    bounds: &[
        5_000_000,
        25_000_000,
        50_000_000,
        100_000_000,
        200_000_000,
        400_000_000,
        600_000_000,
        800_000_000,
        1_000_000_000,
        1_250_000_000,
        1_500_000_000,
        2_000_000_000,
        3_000_000_000,
        4_000_000_000,
        5_000_000_000,
        6_000_000_000,
        8_000_000_000,
        10_000_000_000,
        15_000_000_000,
        20_000_000_000,
        30_000_000_000,
        45_000_000_000,
        60_000_000_000,
    ],
    units: 1_000_000_000,
};

/// Everything that is counted, but for flows, which count themselves.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) requests: Requests,
    pub(crate) watches: Watches,
    pub(crate) store: Arc<StoreTimes>,
    sources: Mutex<Vec<Arc<dyn MetricSource>>>,
}

impl Metrics {
    pub(crate) fn new(store: Arc<StoreTimes>) -> Self {
        Self { requests: Requests::default(), watches: Watches::default(), store, sources: Mutex::default() }
    }

    /// Shows what another part counts as well.
    pub(crate) fn add_source(&self, source: Arc<dyn MetricSource>) {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner).push(source);
    }

    /// All of it, as it is now.
    pub(crate) fn write(&self, out: &mut Exposition) {
        self.requests.write(out);
        self.watches.write(out);
        self.store.write(out);
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner).clone();
        sources.iter().for_each(|source| source.write(out));
    }
}
