//! Images of every origin in a store on this machine: whole ones, broken ones, and those that mean harm.
//!
//! Layers have owners, devices and attributes that only root can give: these tests need root.

mod hostile;
mod pulls;
mod real_registry;
mod registry;
mod stores;
mod support;
mod unpacking;
