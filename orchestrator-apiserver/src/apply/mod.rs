//! Server-side apply: who manages which field of an object, and what applied configurations make of it. Pure.
//!
//! Start at [`Tracker`], which stands between a write and the object that is stored. Below it `updater` decides who manages
//! what, on `set`s of `path`s that come of values and their `types` by `field_set`, `compare`, `merge` and `remove`; `reconcile` makes up
//! for types that changed.

mod ancient;
mod builtin;
mod compare;
mod conflict;
mod fast;
mod field_set;
mod fields_v1;
mod last_applied;
mod managers;
mod merge;
mod open_api;
mod path;
mod reconcile;
mod remove;
mod set;
mod tracker;
mod types;
mod updater;
mod validate;

#[cfg(test)]
mod tests;

pub(crate) use builtin::{builtin, empty};
pub(crate) use conflict::Conflicts;
pub(crate) use open_api::custom;
pub(crate) use set::FieldSet;
pub(crate) use tracker::{ApplyError, Tracker, ignore_times};
pub(crate) use types::{TypeId, TypeRef, Types};
pub(crate) use updater::{Updater, Versions};
