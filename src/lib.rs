//! Kubernetes as Rust crates.
