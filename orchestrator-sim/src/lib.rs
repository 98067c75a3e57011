//! Whole clusters in virtual time, with faults.
//!
//! Start at [`SimCluster`]: API server, store, controllers, scheduler and node agents on simulated machines, all driven by
//! one seed. Kill what you like, wait in virtual time, and ask [`SimCluster::settled`] whether everything is as it should
//! be. [`invariants`] says what that is, as pure functions over a [`Snapshot`]; [`History`] is everything that was ever
//! written, with a hash that two runs of a seed share. [`chaos`] draws faults from the seed, and [`scenario`] puts all of
//! it together as the project's own tests do.
//!
//! To test a reconciler of your own, start at [`explore`](explore::explore).

mod builder;
pub mod chaos;
mod cluster;
mod control_plane;
mod diary;
pub mod explore;
mod history;
mod image;
pub mod invariants;
mod limits;
mod link;
mod lock;
mod nodes;
mod recorder;
pub mod scenario;
mod snapshot;

pub use builder::{BuildError, SimClusterBuilder};
pub use cluster::SimCluster;
pub use history::{Difference, History, Record};
pub use image::Image;
pub use snapshot::{PodOnMachine, Snapshot, Stored, Typed};
