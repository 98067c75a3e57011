//! Whole clusters in virtual time, with faults.
//!
//! Start at [`SimCluster`]: API server, store, controllers, scheduler and node agents on simulated machines, all driven by
//! one seed. Kill what you like, wait in virtual time, and ask [`SimCluster::settled`] whether everything is as it should
//! be. [`invariants`] says what that is, as pure functions over a [`Snapshot`]; [`History`] is everything that was ever
//! written, with a hash that two runs of a seed share. [`chaos`] draws faults from the seed, and [`scenario`] puts all of
//! it together as the project's own tests do.
//!
//! To test a controller of your own, start at [`TestCluster`] for what it does when you look on, and at
//! [`explore`](explore::explore) for what it does when things go wrong.

mod builder;
pub mod chaos;
mod cluster;
mod control_plane;
mod diary;
pub mod explore;
mod history;
mod host;
mod http;
mod image;
pub mod invariants;
mod limits;
mod link;
mod lock;
mod nodes;
mod objects;
mod process;
mod recorder;
mod requests;
pub mod scenario;
mod snapshot;
mod test_cluster;
mod tokio_timers;

pub use builder::{BuildError, SimClusterBuilder};
pub use cluster::SimCluster;
pub use history::{Difference, History, Record};
pub use image::Image;
pub use objects::Objects;
pub use process::Process;
pub use snapshot::{PodOnMachine, Snapshot, Stored, Typed};
pub use test_cluster::{TestCluster, TestClusterBuilder, TestError, Unexpected};
