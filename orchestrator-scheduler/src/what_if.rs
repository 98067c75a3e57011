//! What would happen to pods on a cluster, without the cluster: capacity is planned so, and decisions are replayed.

use std::sync::Arc;

use k8s_openapi::{
    api::{
        core::v1::{Namespace, Node, Pod},
        resource::v1::{DeviceClass, ResourceClaim, ResourceSlice},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use orchestrator_core::{
    object::ObjectKey,
    scheduler::{PodInfo, Scheduler, Snapshot, Verdict},
};
use serde::{Deserialize, Serialize};

use crate::plugins::take_devices;

/// A pod, and what is decided about it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The pod.
    pub pod: Arc<PodInfo>,
    /// The decision.
    pub verdict: Verdict,
}

/// Decides about pods one after another, each with those before it in their places and their claims with devices. A pod that can only run if others are
/// removed is not placed, and nothing is removed.
///
/// ```
/// use std::sync::Arc;
/// use k8s_openapi::api::core::v1::Pod;
/// use orchestrator_core::scheduler::{PodInfo, Snapshot, Verdict};
/// use orchestrator_scheduler::{framework::Profile, what_if::what_if};
///
/// let pods = [Arc::new(PodInfo::from(Pod::default()))];
/// let (outcomes, _) = what_if(&Profile::default(), Snapshot::default(), pods, 0);
/// let Verdict::Unschedulable(why) = &outcomes[0].verdict else { panic!() };
/// assert_eq!(why.message(), "no nodes available to schedule pods");
/// ```
pub fn what_if(
    scheduler: &dyn Scheduler,
    mut cluster: Snapshot,
    pods: impl IntoIterator<Item = Arc<PodInfo>>,
    tie: u64,
) -> (Vec<Outcome>, Snapshot) {
    let mut outcomes = Vec::new();
    for (number, pod) in pods.into_iter().enumerate() {
        // Each pod has a tie of its own, or all of them would lean to one side.
        let tie = tie.wrapping_add((number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let verdict = scheduler.schedule(&pod, &cluster, tie);
        if let Verdict::Node(node) = &verdict {
            take_devices(&pod, node, &mut cluster);
            cluster.put_pod(pod.clone(), node);
        }
        outcomes.push(Outcome { pod, verdict });
    }
    (outcomes, cluster)
}

/// All that a decision follows from, to be kept and decided about again. What volumes, budgets and services have to do with
/// it is not in it, and of devices neither what was chosen for claims that are not known to have it yet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Recording {
    /// The nodes.
    pub nodes: Vec<Node>,
    /// The namespaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<Namespace>,
    /// The pods on nodes.
    #[serde(default)]
    pub pods: Vec<Pod>,
    /// The claims of devices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resource_claims: Vec<ResourceClaim>,
    /// The classes of devices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub device_classes: Vec<DeviceClass>,
    /// What drivers have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resource_slices: Vec<ResourceSlice>,
    /// The pod that was decided about.
    pub pending: Pod,
    /// What broke ties.
    #[serde(default)]
    pub tie: u64,
}

impl Recording {
    /// Records what a decision is about to follow from.
    pub fn of(pod: &PodInfo, cluster: &Snapshot, tie: u64) -> Self {
        let namespaces = cluster.namespaces().map(|(name, labels)| {
            let mut namespace = Namespace::default();
            namespace.metadata.name = Some(name.to_owned());
            namespace.metadata.labels = Some(labels.clone());
            namespace
        });
        let placed = |node: &str, pod: &PodInfo| {
            let mut pod = pod.pod().as_ref().clone();
            pod.spec.get_or_insert_default().node_name = Some(node.to_owned());
            pod
        };
        Self {
            nodes: cluster.nodes().map(|node| node.node().as_ref().clone()).collect(),
            namespaces: namespaces.collect(),
            pods: cluster.nodes().flat_map(|node| node.pods().iter().map(|pod| placed(node.name(), pod))).collect(),
            resource_claims: cluster.devices.claims().map(|(_, claim)| claim.as_ref().clone()).collect(),
            device_classes: cluster.devices.classes.values().map(|class| class.as_ref().clone()).collect(),
            resource_slices: cluster.devices.slices.values().map(|slice| slice.as_ref().clone()).collect(),
            pending: pod.pod().as_ref().clone(),
            tie,
        }
    }

    /// The cluster as it was.
    pub fn cluster(&self) -> Snapshot {
        let mut cluster = Snapshot::default();
        for namespace in &self.namespaces {
            let name = namespace.metadata.name.as_deref().unwrap_or_default();
            cluster.set_namespace(name, Some(namespace.metadata.labels.clone().unwrap_or_default()));
        }
        self.nodes.iter().for_each(|node| cluster.set_node(Arc::new(node.clone())));
        let name = |metadata: &ObjectMeta| metadata.name.clone().unwrap_or_default();
        for claim in &self.resource_claims {
            cluster.devices.set_claim(ObjectKey::of(&claim.metadata), Some(Arc::new(claim.clone())));
        }
        for class in &self.device_classes {
            cluster.devices.classes.insert(name(&class.metadata), Arc::new(class.clone()));
        }
        for slice in &self.resource_slices {
            cluster.devices.slices.insert(name(&slice.metadata), Arc::new(slice.clone()));
        }
        for pod in &self.pods {
            let pod = Arc::new(PodInfo::from(pod.clone()));
            if let Some(node) = pod.node_name().map(str::to_owned) {
                cluster.put_pod(pod, &node);
            }
        }
        cluster
    }

    /// Decides again.
    pub fn replay(&self, scheduler: &dyn Scheduler) -> Verdict {
        scheduler.schedule(&PodInfo::from(self.pending.clone()), &self.cluster(), self.tie)
    }
}
