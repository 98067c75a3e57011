//! The reference Store: multi-version, in memory.
