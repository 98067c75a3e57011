//! What is particular to kinds, as clients see it over HTTP, and kinds that are served in several forms.

mod autoscalers;
mod bodies;
mod claims;
mod custom;
mod devices;
mod events;
mod forms;
mod nodes;
mod patches;
mod quotas;
mod signing;
mod statuses;
mod support;
