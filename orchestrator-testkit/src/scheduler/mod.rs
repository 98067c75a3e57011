//! The contract of a [`Scheduler`]: verdicts that any scheduler must give, whatever
//! it prefers.
//!
//! [`scheduler_contract!`](crate::scheduler_contract) makes a test of each. The clusters are drawn by `proptest`; one that
//! breaks a promise is made as small as it goes before it is shown.

mod cases;
mod clusters;

use orchestrator_core::scheduler::Scheduler;

pub use cases::{
    a_pod_that_fits_is_placed, an_empty_cluster_is_said_to_be_empty, closed_nodes_get_no_pods,
    every_refused_node_has_a_reason, gated_pods_wait, host_ports_are_taken_once, node_selectors_hold,
    nodes_are_not_overcommitted, the_same_question_has_the_same_answer, verdicts_name_nodes_of_the_cluster,
};
pub use clusters::{ClusterCase, NodeCase, PodCase, clusters};

/// A test for each promise of a scheduler: name a module and how to make one.
///
/// ```
/// use orchestrator_core::scheduler::{PodInfo, Scheduler, Snapshot, Unschedulable, Verdict};
///
/// /// Runs every pod on the first node that has room for one more.
/// struct FirstFit;
///
/// impl Scheduler for FirstFit {
///     fn schedule(&self, _pod: &PodInfo, cluster: &Snapshot, _tie: u64) -> Verdict {
///         let mut why = Unschedulable::new(cluster.len());
///         for node in cluster.nodes() {
///             if (node.pods().len() as i64) < node.allocatable().pods {
///                 return Verdict::Node(node.name().to_owned());
///             }
///             why.reject(node.name(), "Too many pods");
///         }
///         why.into()
///     }
/// }
///
/// // In a file of tests. This scheduler has a way to go: it looks at nothing but the number of pods.
/// orchestrator_testkit::scheduler_contract!(first_fit, || FirstFit);
///
/// orchestrator_testkit::scheduler::an_empty_cluster_is_said_to_be_empty(&FirstFit);
/// let overcommitted = std::panic::catch_unwind(|| {
///     orchestrator_testkit::scheduler::nodes_are_not_overcommitted(&FirstFit);
/// });
/// assert!(overcommitted.is_err());
/// ```
#[macro_export]
macro_rules! scheduler_contract {
    ($module:ident, $make:expr) => {
        $crate::scheduler_contract!(@all tests $module, $make);
    };
    // The one list of the contract's cases.
    (@all $what:ident $($arguments:tt)*) => {
        $crate::scheduler_contract! { @$what [
            the_same_question_has_the_same_answer, verdicts_name_nodes_of_the_cluster,
            an_empty_cluster_is_said_to_be_empty, every_refused_node_has_a_reason, nodes_are_not_overcommitted,
            host_ports_are_taken_once, closed_nodes_get_no_pods, node_selectors_hold, a_pod_that_fits_is_placed,
            gated_pods_wait
        ] $($arguments)* }
    };
    (@table [$($case:ident),+]) => {
        &[$((stringify!($case), $case)),+]
    };
    (@tests [$($case:ident),+] $module:ident, $make:expr) => {
        #[cfg(test)]
        mod $module {
            use super::*;
            $(
                #[test]
                fn $case() {
                    $crate::scheduler::$case(&($make)());
                }
            )+
        }
    };
}

/// A case of the contract; a promise that is broken is a panic that says which.
pub type Case = fn(&dyn Scheduler);

/// All cases with their names, for those who run them without a test harness.
pub const CASES: &[(&str, Case)] = scheduler_contract!(@all table);
