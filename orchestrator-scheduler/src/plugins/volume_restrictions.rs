//! `VolumeRestrictions` and `VolumeZone`: volumes that only one pod may use, and volumes of other zones.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{PersistentVolume, Volume};
use orchestrator_core::{
    object::ObjectKey,
    scheduler::{ClusterChange, NodeState, PodInfo, Rejection, Snapshot},
};

use super::volume_binding::claims_of;
use crate::framework::{Filter, Indifferent, Lasting, Plugin, PreFilter, Prepared};

const IN_USE: &str = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";
const DISK_IN_USE: &str = "node(s) had no available disk";
const ZONE_LABELS: [&str; 4] = [
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
];

/// Refuses nodes while another pod uses a volume that only one pod may use, and nodes where a disk is used that cannot be
/// used twice.
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
        (claims_of(pod).next().is_none() && disks(pod).next().is_none()).then_some(&Indifferent)
    }
}

struct Exclusive<'a> {
    /// The claims that are the pod's alone.
    claims: BTreeSet<ObjectKey>,
    /// Other pods that use them, wherever they are.
    users: usize,
    /// The disks that the pod names itself.
    disks: Vec<&'a Volume>,
}

/// The disks that a pod names itself.
fn disks(pod: &PodInfo) -> impl Iterator<Item = &Volume> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    volumes.iter().filter(|volume| {
        volume.gce_persistent_disk.is_some()
            || volume.aws_elastic_block_store.is_some()
            || volume.rbd.is_some()
            || volume.iscsi.is_some()
    })
}

/// Whether two volumes are one disk that cannot be used by both.
fn collide(a: &Volume, b: &Volume) -> bool {
    let both_read = |a: Option<bool>, b: Option<bool>| a == Some(true) && b == Some(true);
    let gce = a.gce_persistent_disk.as_ref().zip(b.gce_persistent_disk.as_ref());
    let aws = a.aws_elastic_block_store.as_ref().zip(b.aws_elastic_block_store.as_ref());
    let iscsi = a.iscsi.as_ref().zip(b.iscsi.as_ref());
    let rbd = a.rbd.as_ref().zip(b.rbd.as_ref());
    gce.is_some_and(|(a, b)| a.pd_name == b.pd_name && !both_read(a.read_only, b.read_only))
        || aws.is_some_and(|(a, b)| a.volume_id == b.volume_id)
        || iscsi.is_some_and(|(a, b)| a.iqn == b.iqn && !both_read(a.read_only, b.read_only))
        || rbd.is_some_and(|(a, b)| {
            let shared = a.monitors.iter().any(|monitor| b.monitors.contains(monitor));
            shared && a.pool == b.pool && a.image == b.image && !both_read(a.read_only, b.read_only)
        })
}

impl PreFilter for VolumeRestrictions {
    fn pre_filter<'a>(&'a self, pod: &'a PodInfo, cluster: &'a Snapshot) -> Prepared<'a> {
        let is_exclusive = |key: &ObjectKey| {
            let spec = cluster.volumes.claims.get(key).and_then(|claim| claim.spec.as_ref());
            let modes = spec.and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
            modes.iter().any(|mode| mode == "ReadWriteOncePod")
        };
        let claims: BTreeSet<_> = claims_of(pod).map(|(key, _)| key).filter(is_exclusive).collect();
        let disks: Vec<_> = disks(pod).collect();
        if claims.is_empty() && disks.is_empty() {
            return Prepared::Skip;
        }
        let mut exclusive = Exclusive { claims, users: 0, disks };
        let pods = cluster.nodes().flat_map(|node| node.pods());
        exclusive.users = pods.filter(|other| exclusive.is_used_by(other)).count();
        Prepared::filter(exclusive)
    }
}

impl Exclusive<'_> {
    fn is_used_by(&self, pod: &PodInfo) -> bool {
        claims_of(pod).any(|(key, _)| self.claims.contains(&key))
    }
}

impl Filter for Exclusive<'_> {
    fn filter(&self, node: &NodeState) -> Option<Rejection> {
        let used = || node.pods().iter().flat_map(|pod| disks(pod));
        if self.disks.iter().any(|disk| used().any(|used| collide(disk, used))) {
            return Some(Rejection::new("VolumeRestrictions", DISK_IN_USE));
        }
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
            // Nodes may have today's labels where volumes have those of before.
            let zone = |label: &str| node.label(label).or_else(|| node.label(&todays(label)));
            let fits = zones.iter().all(|(label, values)| zone(label).is_some_and(|zone| values.contains(zone)));
            (has_zones && !fits).then(|| Rejection::unresolvable(self.name(), "node(s) had no available volume zone"))
        })
    }
}

fn todays(label: &str) -> String {
    label.replace("failure-domain.beta.kubernetes.io", "topology.kubernetes.io")
}

/// The zones and regions that a volume's labels name; several are separated by `__`.
fn zones_of(volume: &PersistentVolume) -> Vec<(&'static str, BTreeSet<&str>)> {
    let labels = volume.metadata.labels.as_ref();
    let zones = ZONE_LABELS.iter().filter_map(|label| Some((*label, labels?.get(*label)?.split("__").collect())));
    zones.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn volume(kind: &str, source: Value) -> Volume {
        serde_json::from_value(json!({"name": "v", kind: source})).unwrap()
    }

    #[test]
    fn zones_fit_by_labels_of_then_and_now() {
        let of = |value: Value| std::sync::Arc::new(serde_json::from_value(value).unwrap());
        let mut cluster = Snapshot::default();
        for (name, labels) in [
            ("here", json!({"topology.kubernetes.io/zone": "b"})),
            ("there", json!({"topology.kubernetes.io/zone": "c"})),
            ("nowhere", json!({})),
        ] {
            let node = json!({"metadata": {"name": name, "labels": labels}});
            cluster.set_node(std::sync::Arc::new(serde_json::from_value(node).unwrap()));
        }
        let labels = json!({"failure-domain.beta.kubernetes.io/zone": "a__b"});
        cluster.volumes.volumes.insert("v".to_owned(), of(json!({"metadata": {"name": "v", "labels": labels}})));
        let claim = json!({"metadata": {"name": "c", "namespace": "x"}, "spec": {"volumeName": "v"}});
        let claim = std::sync::Arc::new(serde_json::from_value(claim).unwrap());
        cluster.volumes.claims.insert(ObjectKey::new("x", "c"), claim);
        let spec = json!({"containers": [], "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]});
        let pod = json!({"metadata": {"name": "p", "namespace": "x"}, "spec": spec});
        let pod = PodInfo::new(std::sync::Arc::new(serde_json::from_value(pod).unwrap()));
        let Prepared::Filter { filter, .. } = VolumeZone.pre_filter(&pod, &cluster) else { panic!() };
        let refused: Vec<_> = cluster.nodes().filter(|node| filter.filter(node).is_some()).collect();
        assert_eq!(refused.iter().map(|node| node.name()).collect::<Vec<_>>(), ["there"]);
    }

    #[test]
    fn disks_are_used_twice_by_readers_only() {
        let disk = |name: &str, read: bool| volume("gcePersistentDisk", json!({"pdName": name, "readOnly": read}));
        assert!(collide(&disk("a", true), &disk("a", false)) && collide(&disk("a", false), &disk("a", false)));
        assert!(!collide(&disk("a", true), &disk("a", true)) && !collide(&disk("a", false), &disk("b", false)));
        let block = volume("awsElasticBlockStore", json!({"volumeID": "a", "readOnly": true}));
        assert!(collide(&block, &block) && !collide(&block, &disk("a", false)));
        let image = |monitor: &str| volume("rbd", json!({"monitors": [monitor, "m"], "image": "i", "pool": "p"}));
        assert!(collide(&image("x"), &image("y")));
        let target = |name: &str| volume("iscsi", json!({"targetPortal": "t", "iqn": name, "lun": 0}));
        assert!(collide(&target("a"), &target("a")) && !collide(&target("a"), &target("b")));
    }
}
