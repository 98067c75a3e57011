//! `VolumeRestrictions` and `VolumeZone`: volumes that only one pod may use, and volumes of other zones.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::PersistentVolume;
use orchestrator_core::{
    object::ObjectKey,
    scheduler::{ClusterChange, NodeState, PodInfo, Rejection, Snapshot},
};

use super::volume_binding::claims_of;
use crate::framework::{Filter, Indifferent, Lasting, Plugin, PreFilter, Prepared};

const IN_USE: &str = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";
const ZONE_LABELS: [&str; 4] = [
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
];

/// Refuses nodes while another pod uses a volume that only one pod may use.
#[derive(Clone, Copy, Debug)]
pub struct VolumeRestrictions;

/// Refuses nodes outside of the zones that a pod's volumes are in.
#[derive(Clone, Copy, Debug)]
pub struct VolumeZone;

impl Plugin for VolumeRestrictions {
    fn name(&self) -> &'static str {
        "VolumeRestrictions"
    }

    fn may_help(&self, change: &ClusterChange<'_>, _pod: &PodInfo) -> bool {
        matches!(change, ClusterChange::AssignedPod { old: Some(_), .. } | ClusterChange::Volumes)
    }

    fn waits_for(&self) -> &'static [&'static str] {
        &["AssignedPod/Delete", "PersistentVolumeClaim/Add", "PersistentVolumeClaim/Update"]
    }

    fn lasting(&self, pod: &PodInfo, _cluster: &Snapshot) -> Option<&dyn Lasting> {
        claims_of(pod).next().is_none().then_some(&Indifferent)
    }
}

/// Other pods that use the same exclusive claims, wherever they are.
struct Exclusive {
    claims: BTreeSet<ObjectKey>,
    users: usize,
}

impl PreFilter for VolumeRestrictions {
    fn pre_filter<'a>(&'a self, pod: &'a PodInfo, cluster: &'a Snapshot) -> Prepared<'a> {
        let is_exclusive = |key: &ObjectKey| {
            let spec = cluster.volumes.claims.get(key).and_then(|claim| claim.spec.as_ref());
            let modes = spec.and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
            modes.iter().any(|mode| mode == "ReadWriteOncePod")
        };
        let claims: BTreeSet<_> = claims_of(pod).map(|(key, _)| key).filter(is_exclusive).collect();
        if claims.is_empty() {
            return Prepared::Skip;
        }
        let mut exclusive = Exclusive { claims, users: 0 };
        let pods = cluster.nodes().flat_map(|node| node.pods());
        exclusive.users = pods.filter(|other| exclusive.is_used_by(other)).count();
        Prepared::filter(exclusive)
    }
}

impl Exclusive {
    fn is_used_by(&self, pod: &PodInfo) -> bool {
        claims_of(pod).any(|(key, _)| self.claims.contains(&key))
    }
}

impl Filter for Exclusive {
    fn filter(&self, _node: &NodeState) -> Option<Rejection> {
        (self.users > 0).then(|| Rejection::new("VolumeRestrictions", IN_USE))
    }

    fn add_pod(&mut self, pod: &PodInfo, _node: &NodeState) {
        self.users += usize::from(self.is_used_by(pod));
    }

    fn remove_pod(&mut self, pod: &PodInfo, _node: &NodeState) {
        self.users = self.users.saturating_sub(usize::from(self.is_used_by(pod)));
    }
}

impl Plugin for VolumeZone {
    fn name(&self) -> &'static str {
        "VolumeZone"
    }

    fn may_help(&self, change: &ClusterChange<'_>, _pod: &PodInfo) -> bool {
        matches!(change, ClusterChange::Volumes | ClusterChange::Node { new: Some(_), .. })
    }

    fn waits_for(&self) -> &'static [&'static str] {
        &[
            "Node/Add",
            "Node/UpdateNodeLabel",
            "PersistentVolume/Add",
            "PersistentVolume/Update",
            "PersistentVolumeClaim/Add",
            "PersistentVolumeClaim/Update",
            "StorageClass/Add",
        ]
    }

    fn lasting(&self, pod: &PodInfo, _cluster: &Snapshot) -> Option<&dyn Lasting> {
        claims_of(pod).next().is_none().then_some(&Indifferent)
    }
}

impl PreFilter for VolumeZone {
    fn pre_filter<'a>(&'a self, pod: &'a PodInfo, cluster: &'a Snapshot) -> Prepared<'a> {
        let volumes = claims_of(pod).filter_map(|(key, _)| {
            let claim = cluster.volumes.claims.get(&key)?;
            cluster.volumes.volumes.get(claim.spec.as_ref()?.volume_name.as_deref()?)
        });
        let zones: Vec<_> = volumes.flat_map(|volume| zones_of(volume)).collect();
        if zones.is_empty() {
            return Prepared::Skip;
        }
        Prepared::per_node(move |node| {
            let labels = node.node().metadata.labels.as_ref();
            // Clusters without zones have no wrong ones.
            let has_zones = labels.is_some_and(|labels| ZONE_LABELS.iter().any(|label| labels.contains_key(*label)));
            let fits = zones.iter().all(|(label, values)| node.label(label).is_some_and(|zone| values.contains(zone)));
            (has_zones && !fits).then(|| Rejection::unresolvable(self.name(), "node(s) had no available volume zone"))
        })
    }
}

/// The zones and regions that a volume's labels name; several are separated by `__`.
fn zones_of(volume: &PersistentVolume) -> Vec<(&'static str, BTreeSet<&str>)> {
    let labels = volume.metadata.labels.as_ref();
    let zones = ZONE_LABELS.iter().filter_map(|label| Some((*label, labels?.get(*label)?.split("__").collect())));
    zones.collect()
}
