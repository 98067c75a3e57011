//! `PrioritySort`: the most important pod first, then the one that has waited longest.

use std::{cmp::Ordering, time::Duration};

use orchestrator_core::scheduler::PodInfo;

use crate::framework::{Plugin, QueueSort};

/// The most important pod first, then the one that has waited longest.
#[derive(Clone, Copy, Debug)]
pub struct PrioritySort;

impl Plugin for PrioritySort {
    fn name(&self) -> &'static str {
        "PrioritySort"
    }
}

impl QueueSort for PrioritySort {
    fn order(&self, a: (&PodInfo, Duration), b: (&PodInfo, Duration)) -> Ordering {
        b.0.priority().cmp(&a.0.priority()).then(a.1.cmp(&b.1))
    }
}
