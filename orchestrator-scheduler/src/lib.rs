//! The scheduler: queue, snapshot, plugins, bind.
//!
//! Start at [`Scheduling`], the running scheduler. [`framework::Profile`] decides, purely; [`plugins`] are what it is
//! made of; [`model::Model`] is what the loop knows, and [`queue::Queue`] who waits. To decide otherwise, write a plugin
//! for [`framework`], an [`extender`], or a whole [`Scheduler`](orchestrator_core::scheduler::Scheduler). [`config`] reads upstream's
//! configuration. [`explain`] says why, and [`what_if`] decides without a cluster.

mod apply;
pub mod config;
pub mod explain;
pub mod extender;
pub mod framework;
mod guard;
pub mod http;
mod inbox;
pub mod limits;
pub mod model;
pub mod plugins;
pub mod queue;
mod scheduling;
pub mod what_if;

pub use scheduling::{Builder, Scheduling};
