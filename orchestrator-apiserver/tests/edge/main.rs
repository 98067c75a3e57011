//! What is asked of a server as a server: its health, and what it has counted.

mod health;
mod metrics;
mod support;
