//! From a container of a pod to what the runtime is asked for: environment, command, mounts, limits, security.

pub(crate) mod configuration;
pub(crate) mod environment;
pub(crate) mod expand;
pub(crate) mod fields;
pub(crate) mod security;
