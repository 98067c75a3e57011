//! Contract suites, fault wrappers and strategies for every seam.
//!
//! Whoever implements a seam runs its contract: [`store_contract!`](crate::store_contract),
//! [`client_contract!`](crate::client_contract), [`scheduler_contract!`](crate::scheduler_contract),
//! [`runtime_contract!`](crate::runtime_contract). Each makes a test of each promise; what is declared as missing is
//! reported as skipped. [`wrap`] has stores around stores; [`linearizability`] looks for the
//! story behind what concurrent callers saw; [`fake_api`] is an API server that is easy to
//! break on purpose, [`network`] a bad line to any, [`registry`] a real registry of images.

pub mod client;
pub mod fake_api;
pub mod harness;
pub mod linearizability;
pub mod network;
pub mod registry;
pub mod runtime;
pub mod scheduler;
pub mod store;
pub mod wrap;
