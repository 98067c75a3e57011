//! What is asked of a server as a server: its health, what it has counted, where it is, and in which forms it answers.

mod forms;
mod health;
mod metrics;
mod own;
mod place;
mod service_ranges;
mod support;
