//! Contract suites, fault wrappers and strategies for every seam.

pub mod fake_api;
