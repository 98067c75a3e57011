//! HTTP, as far as a node speaks it: to containers that it probes, and about itself.

mod kubelet;
mod pages;
mod probe;

pub(crate) use kubelet::answer;
pub(crate) use probe::get;
