//! The plugins of upstream's default profile, one per file.

mod default_binder;
mod dynamic_resources;
mod image_locality;
mod inter_pod_affinity;
mod node;
mod node_affinity;
mod node_ports;
mod node_resources;
mod node_volume_limits;
mod pod_topology_spread;
mod preemption;
mod queue_sort;
mod scheduling_gates;
mod taint_toleration;
mod volume_binding;
mod volume_restrictions;

use std::sync::Arc;

pub use default_binder::DefaultBinder;
pub use dynamic_resources::DynamicResources;
pub(crate) use dynamic_resources::{give_back, take_devices};
pub use image_locality::ImageLocality;
pub use inter_pod_affinity::InterPodAffinity;
pub use node::{NodeName, NodeUnschedulable};
pub use node_affinity::NodeAffinity;
pub use node_ports::NodePorts;
pub use node_resources::{NodeResourcesBalancedAllocation, NodeResourcesFit, ScoredResource, ShapePoint, Strategy};
pub use node_volume_limits::NodeVolumeLimits;
pub use pod_topology_spread::{Defaults, PodTopologySpread};
pub use preemption::DefaultPreemption;
pub use queue_sort::PrioritySort;
pub use scheduling_gates::SchedulingGates;
pub use taint_toleration::TaintToleration;
pub use volume_binding::VolumeBinding;
pub use volume_restrictions::{VolumeRestrictions, VolumeZone};

use crate::framework::{PreFilter, PreScore, Profile};

/// Upstream's default profile, with a way to use nodes.
pub(crate) fn default_profile(name: &str, strategy: Strategy) -> Profile {
    let volume_binding = Arc::new(VolumeBinding::default());
    let devices = Arc::new(DynamicResources::default());
    let spread = Arc::new(PodTopologySpread::default());
    let fit = Arc::new(NodeResourcesFit::new(strategy));
    let filters: Vec<Arc<dyn PreFilter>> = vec![
        Arc::new(NodeUnschedulable),
        Arc::new(NodeName),
        Arc::new(TaintToleration),
        Arc::new(NodeAffinity::default()),
        Arc::new(NodePorts),
        fit.clone(),
        Arc::new(VolumeRestrictions),
        Arc::new(NodeVolumeLimits),
        volume_binding.clone(),
        Arc::new(VolumeZone),
        spread.clone(),
        Arc::new(InterPodAffinity::default()),
        devices.clone(),
    ];
    let scores: Vec<(i64, Arc<dyn PreScore>)> = vec![
        (3, Arc::new(TaintToleration)),
        (2, Arc::new(NodeAffinity::default())),
        (1, fit),
        (2, spread),
        (2, Arc::new(InterPodAffinity::default())),
        (1, devices.clone()),
        (1, Arc::new(NodeResourcesBalancedAllocation::default())),
        (1, Arc::new(ImageLocality)),
    ];
    Profile {
        name: name.to_owned(),
        pre_enqueue: vec![Arc::new(SchedulingGates), devices.clone()],
        queue_sort: Arc::new(PrioritySort),
        filters,
        post_filters: vec![devices.clone(), Arc::new(DefaultPreemption::default())],
        scores,
        reserve: vec![volume_binding.clone(), devices.clone()],
        permit: Vec::new(),
        pre_bind: vec![volume_binding, devices.clone()],
        bind: vec![Arc::new(DefaultBinder)],
        post_bind: vec![devices],
        extenders: Vec::new(),
    }
}
