//! The `Scheduler` seam: it decides where a pod runs; it never places.
//!
//! Start at [`Scheduler`]. A scheduler sees a [`Snapshot`] of the cluster and gives a [`Verdict`]; the loop of
//! `orchestrator-scheduler` keeps the snapshot, binds, and tells users. [`matching`] and [`Resources`] hold the rules
//! that others need too, such as which nodes a pod's affinity and tolerations let it onto.

mod devices;
mod history;
pub mod matching;
mod pod;
mod refusals;
mod resources;
mod snapshot;
mod verdict;

pub use devices::{DeviceId, Devices, PendingAllocation, Taken};
pub use history::Version;
pub use pod::{Affinity, AffinityTerm, HostPort, PodInfo};
pub use refusals::Refusals;
pub use resources::{Resources, container_requests, pod_requests};
pub use snapshot::{ImageState, NodeState, Snapshot, Volumes, Workloads};
pub use verdict::{Preemption, Rejection, Unschedulable, Verdict};

use k8s_openapi::api::{
    core::v1::{Node, Pod},
    resource::v1::ResourceClaim,
};

/// Decides where a pod runs.
///
/// The decision follows from its arguments alone: no I/O, no clock, no chance. What ties is broken by `tie`, so the
/// same arguments give the same verdict.
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
/// let verdict = FirstFit.schedule(&PodInfo::default(), &Snapshot::default(), 0);
/// let Verdict::Unschedulable(why) = verdict else { panic!() };
/// assert_eq!(why.message(), "no nodes available to schedule pods");
/// ```
pub trait Scheduler: Send + Sync + 'static {
    /// Where the pod runs, or why nowhere.
    fn schedule(&self, pod: &PodInfo, cluster: &Snapshot, tie: u64) -> Verdict;

    /// Whether a change of the cluster may make a pod schedulable that was refused for these reasons. A wrong "no"
    /// costs up to five minutes, a wrong "yes" one more decision. Of nodes that were refused alike, `why` may name one only.
    fn may_help(&self, _change: &ClusterChange<'_>, _pod: &PodInfo, _why: &Unschedulable) -> bool {
        true
    }

    /// Whether [`Self::may_help`] says the same of both pods, whatever changes, if the same plugins refused both. Of pods that
    /// wait and are alike, only one is asked about.
    fn wait_alike(&self, _a: &PodInfo, _b: &PodInfo, _why: &Unschedulable, _cluster: &Snapshot) -> bool {
        false
    }
}

/// Something happened that may make refused pods schedulable.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum ClusterChange<'a> {
    /// A node came, changed or went.
    Node {
        /// As it was.
        old: Option<&'a Node>,
        /// As it is.
        new: Option<&'a Node>,
    },
    /// A pod that has a node came, changed or went.
    AssignedPod {
        /// As it was.
        old: Option<&'a Pod>,
        /// As it is; `None` also when it has ended.
        new: Option<&'a Pod>,
    },
    /// The waiting pod itself changed.
    WaitingPod {
        /// As it was.
        old: &'a Pod,
        /// As it is.
        new: &'a Pod,
    },
    /// A volume, a claim, a class or a driver came, changed or went.
    Volumes,
    /// A claim of devices came, changed or went.
    ResourceClaim {
        /// As it was.
        old: Option<&'a ResourceClaim>,
        /// As it is.
        new: Option<&'a ResourceClaim>,
    },
    /// A class of devices or what a driver has of them came, changed or went.
    Devices,
    /// The labels of a namespace changed.
    Namespace(&'a str),
}
