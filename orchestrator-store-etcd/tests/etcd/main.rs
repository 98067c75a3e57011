//! The store on real etcd processes: its contract, who may use it, and what happens when members fail.

mod access;
mod bounds;
mod contract;
mod equivalence;
mod failover;
mod support;
