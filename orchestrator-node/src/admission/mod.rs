//! Whether a node takes a pod that was bound to it: unsupported features, fit, selectors.
//!
//! Reasons and messages are those of upstream's kubelet (`pkg/kubelet/lifecycle/predicate.go`) where it has them.

mod features;
mod fit;

pub(crate) use features::unsupported;
pub(crate) use fit::{Place, admit};
