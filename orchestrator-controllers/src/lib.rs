//! The controllers of kube-controller-manager and cloud-controller-manager, one folder each.
