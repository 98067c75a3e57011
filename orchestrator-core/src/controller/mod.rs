//! The reconcile loop: shared caches, a queue of keys, and controllers that bring the world in line, key by key.
//!
//! Start at [`Reconciler`] and [`Controller`]. A reconciler gets a key, never an event: it reads the object and what
//! belongs to it from [`Caches`], decides, writes through [`Context::client`], and says when to come back.
//! Running twice, late, or after being killed anywhere gives the same end.
//!
//! What the loop sees to, so that reconcilers need not:
//!
//! - One run per key at a time, and a slow one holds up nobody else. A failed run comes again, later each time.
//! - A run sees what the last run of its key wrote; made again under its name is another object.
//! - Runs for nothing but own writes pause, longer each time, so that a reconciler which never settles stays cheap. Whatever
//!   comes from outside is served at once.
//! - What a watch lost, repeated or mixed up is found, by listing again.
//! - [`trace`] says why each run ran, what it read and what it wrote. [`leader`] lets one process of several work.
//!
//! ```text
//! Client ─list, watch─▶ Cache (one per kind and process) ─Change─▶ handlers ─key─▶ Queue ─▶ Reconciler
//! ```

mod cache;
mod caches;
mod context;
pub mod leader;
pub mod limits;
mod metrics;
mod own;
mod queue;
mod run;
pub mod trace;
mod worker;
mod writes;

use std::time::Duration;

use async_trait::async_trait;
use serde::{Serialize, de::DeserializeOwned};

pub use cache::{Cache, Change, Subscription};
pub use caches::Caches;
pub use context::Context;
pub use metrics::{ControllerMetrics, WorkQueues};
pub use queue::Queue;
pub use run::{Controller, generation_changed};
pub use trace::{Cause, Outcome, RunTrace};

use crate::object::ObjectKey;

/// A type that caches and controllers can hold: any `k8s-openapi` resource, any `kube::CustomResource`.
pub trait Kind:
    kube_core::Resource<DynamicType = ()> + Clone + DeserializeOwned + Serialize + Send + Sync + 'static
{
}

impl<K> Kind for K where
    K: kube_core::Resource<DynamicType = ()> + Clone + DeserializeOwned + Serialize + Send + Sync + 'static
{
}

/// Brings the world in line with what one object asks for.
///
/// It must be idempotent and safe to drop at any await. One key runs at most once at a time.
#[async_trait]
pub trait Reconciler: Send + Sync + 'static {
    /// The kind whose keys are reconciled.
    type Object: Kind;
    /// Why a run failed. The key is tried again, later each time.
    type Error: std::error::Error + Send + Sync + 'static;

    /// One run. The object may be gone: look it up in a cache.
    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> Result<Action, Self::Error>;
}

/// What to do after a run that succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing, until something changes.
    Done,
    /// Run again after this time, even if nothing changes.
    RequeueAfter(Duration),
}
