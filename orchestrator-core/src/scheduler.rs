//! The `Scheduler` seam.
