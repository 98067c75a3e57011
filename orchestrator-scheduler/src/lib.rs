//! The scheduler: queue, snapshot, plugins, bind.
//!
//! Start at [`framework::Profile`], which decides, and at [`plugins`], which it is made of.

pub mod framework;
pub mod limits;
pub mod plugins;
