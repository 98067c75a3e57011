//! Events of watches: how many, and how large.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use dashmap::DashMap;
use orchestrator_core::{
    client::Resource,
    metrics::{Buckets, Exposition, Histogram, MetricType},
};

use crate::{limits, objects::FixedState};

/// Sizes of events, in bytes; upstream's buckets.
const SIZES: Buckets = Buckets { bounds: &[1_024, 2_048, 4_096, 8_192, 16_384, 32_768, 65_536, 131_072], units: 1 };

/// What is counted about the events of a resource.
#[derive(Debug)]
pub(crate) struct WatchCounts {
    events: AtomicU64,
    sizes: Histogram,
}

impl Default for WatchCounts {
    fn default() -> Self {
        Self { events: AtomicU64::new(0), sizes: Histogram::new(SIZES) }
    }
}

impl WatchCounts {
    /// An event of this size is sent.
    pub(crate) fn sent(&self, bytes: usize) {
        self.events.fetch_add(1, Ordering::Relaxed);
        self.sizes.observe(bytes as u64);
    }
}

/// What is counted about events, by resource.
#[derive(Debug, Default)]
pub(crate) struct Watches(DashMap<Resource, Arc<WatchCounts>, FixedState>);

impl Watches {
    /// The counts of a kind in the registry.
    pub(crate) fn of(&self, resource: &Resource) -> Arc<WatchCounts> {
        if let Some(counts) = self.0.get(resource) {
            return counts.clone();
        }
        if self.0.len() >= limits::METRIC_SERIES {
            return Arc::default();
        }
        self.0.entry(resource.clone()).or_default().clone()
    }

    pub(super) fn write(&self, out: &mut Exposition) {
        let all: BTreeMap<Resource, Arc<WatchCounts>> =
            self.0.iter().map(|entry| (entry.key().clone(), entry.value().clone())).collect();
        fn labels(of: &Resource) -> [(&str, &str); 3] {
            [("group", &*of.group), ("resource", &*of.plural), ("version", &*of.version)]
        }
        let family = "apiserver_watch_events_total";
        out.family(family, MetricType::Counter, "Events that were sent to those who watch");
        for (resource, counts) in &all {
            out.sample(family, &labels(resource), counts.events.load(Ordering::Relaxed));
        }
        let family = "apiserver_watch_events_sizes";
        out.family(family, MetricType::Histogram, "Sizes of the events that were sent to those who watch, in bytes");
        for (resource, counts) in &all {
            out.distribution(family, &labels(resource), &counts.sizes.distribution());
        }
    }
}
