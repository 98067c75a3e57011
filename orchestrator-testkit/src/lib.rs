//! Contract suites, fault wrappers and strategies for every seam.
//!
//! Start at [`store_contract!`](crate::store_contract): it makes tests of what a `Store` has to promise, for an own one as
//! well. `wrap` has stores around stores; [`fake_api`] is an API server that is easy to break on purpose.

pub mod fake_api;
pub mod harness;
pub mod store;
pub mod wrap;
