//! Whole clusters in virtual time, with faults.
