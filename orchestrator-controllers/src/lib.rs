//! The controllers of kube-controller-manager and cloud-controller-manager, one folder each.

mod deployment;
mod limits;
mod pods;
mod replicaset;
mod statefulset;
