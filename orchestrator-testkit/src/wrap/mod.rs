//! Stores around stores: each keeps the contract of what it wraps, and adds one thing.

mod faulty;
mod keeping;
mod latency;
mod metrics;
mod prefix;

pub use faulty::{FaultRates, FaultyStore};
pub use keeping::KeepingStore;
pub use latency::SlowStore;
pub use metrics::{CallMetrics, MeteredStore, StoreMetrics};
pub use prefix::PrefixedStore;
