//! What is particular to kinds, as clients see it over HTTP, and events in both of their groups.

mod bodies;
mod claims;
mod custom;
mod events;
mod signing;
mod support;
