//! Vocabulary, traits, client and reconcile loop of the orchestrator. No network, no disk.
//!
//! Start at [`client::Api`] if you use a cluster, at [`controller`] if you write a reconciler, and at one of the
//! seams if you bring a part of your own: [`store::Store`], [`runtime::ContainerRuntime`], [`scheduler::Scheduler`],
//! [`node_connector::NodeConnector`], [`env::Environment`].

pub mod client;
pub mod controller;
pub mod cron;
pub mod env;
pub mod events;
pub mod meta;
pub mod metrics;
pub mod node_connector;
pub mod object;
pub mod quantity;
pub mod quota;
pub mod runtime;
pub mod scheduler;
pub mod selector;
pub mod status;
pub mod store;
pub mod yaml;
