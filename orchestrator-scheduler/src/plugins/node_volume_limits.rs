//! `NodeVolumeLimits`: how many volumes of a driver can be attached to a node.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::PersistentVolume;
use orchestrator_core::scheduler::{ClusterChange, NodeState, PodInfo, Rejection, Snapshot, Volumes};

use super::volume_binding::claims_of;
use crate::framework::{Filter, Indifferent, Lasting, Plugin, PreFilter, Prepared};

/// Refuses nodes that a pod's volumes cannot be attached to besides those that are.
#[derive(Clone, Copy, Debug)]
pub struct NodeVolumeLimits;

impl Plugin for NodeVolumeLimits {
    fn name(&self) -> &'static str {
        "NodeVolumeLimits"
    }

    fn may_help(&self, change: &ClusterChange<'_>, _pod: &PodInfo) -> bool {
        match change {
            ClusterChange::AssignedPod { old, .. } => old.is_some(),
            ClusterChange::Volumes | ClusterChange::Node { old: None, .. } => true,
            _ => false,
        }
    }

    fn waits_for(&self) -> &'static [&'static str] {
        &["AssignedPod/Delete", "CSINode/Add", "CSINode/Update", "PersistentVolumeClaim/Add", "VolumeAttachment/Delete"]
    }

    fn lasting(&self, pod: &PodInfo, _cluster: &Snapshot) -> Option<&dyn Lasting> {
        claims_of(pod).next().is_none().then_some(&Indifferent)
    }
}

/// Volumes by driver, each once however many pods use it.
type Attached<'a> = BTreeMap<&'a str, BTreeSet<String>>;

struct Limits<'a> {
    wanted: Attached<'a>,
    volumes: &'a Volumes,
    /// What is attached to each node, or is about to be, whoever uses it.
    attached: BTreeMap<&'a str, Attached<'a>>,
}

impl PreFilter for NodeVolumeLimits {
    fn pre_filter<'a>(&'a self, pod: &'a PodInfo, cluster: &'a Snapshot) -> Prepared<'a> {
        let mut wanted = Attached::new();
        attach(&mut wanted, pod, &cluster.volumes);
        if wanted.is_empty() {
            return Prepared::Skip;
        }
        let mut attached: BTreeMap<&str, Attached<'a>> = BTreeMap::new();
        for attachment in cluster.volumes.attachments.values() {
            let name = attachment.spec.source.persistent_volume_name.as_ref();
            let volume = name.and_then(|name| cluster.volumes.volumes.get(name));
            if let Some(volume) = volume {
                attach_volume(attached.entry(&attachment.spec.node_name).or_default(), volume);
            }
        }
        Prepared::filter(Limits { wanted, volumes: &cluster.volumes, attached })
    }
}

impl Filter for Limits<'_> {
    fn filter(&self, node: &NodeState) -> Option<Rejection> {
        let drivers = self.volumes.csi_nodes.get(node.name())?.spec.drivers.iter();
        let limits: BTreeMap<_, _> =
            drivers.filter_map(|driver| Some((driver.name.as_str(), driver.allocatable.as_ref()?.count?))).collect();
        if !self.wanted.keys().any(|driver| limits.contains_key(driver)) {
            return None;
        }
        let mut attached = self.attached.get(node.name()).cloned().unwrap_or_default();
        node.pods().iter().for_each(|pod| attach(&mut attached, pod, self.volumes));
        let exceeds = |(driver, wanted): (&&str, &BTreeSet<String>)| {
            let has = attached.get(driver).cloned().unwrap_or_default();
            let more = wanted.difference(&has).count();
            let limit = limits.get(driver).and_then(|limit| usize::try_from(*limit).ok());
            limit.is_some_and(|limit| more > 0 && has.len() + more > limit)
        };
        let exceeds = self.wanted.iter().any(exceeds);
        exceeds.then(|| Rejection::new("NodeVolumeLimits", "node(s) exceed max volume count"))
    }
}

/// Notes the volumes of a pod: by their handles once bound, before by their claims, under the class's driver.
fn attach<'a>(attached: &mut Attached<'a>, pod: &PodInfo, volumes: &'a Volumes) {
    for (key, _) in claims_of(pod) {
        let Some(claim) = volumes.claims.get(&key).and_then(|claim| claim.spec.as_ref()) else { continue };
        let volume = claim.volume_name.as_ref().and_then(|name| volumes.volumes.get(name));
        if let Some(volume) = volume {
            attach_volume(attached, volume);
        } else if let Some(class) = claim.storage_class_name.as_ref().and_then(|name| volumes.classes.get(name)) {
            attached.entry(&class.provisioner).or_default().insert(format!("claim {key}"));
        }
    }
}

fn attach_volume<'a>(attached: &mut Attached<'a>, volume: &'a PersistentVolume) {
    if let Some(csi) = volume.spec.as_ref().and_then(|spec| spec.csi.as_ref()) {
        attached.entry(&csi.driver).or_default().insert(csi.volume_handle.clone());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::Pod;
    use orchestrator_core::object::ObjectKey;
    use serde_json::{Value, json};

    use super::*;

    fn of<T: serde::de::DeserializeOwned>(value: Value) -> Arc<T> {
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn pod(name: &str, claim: &str) -> Arc<PodInfo> {
        let volume = json!({"name": "v", "persistentVolumeClaim": {"claimName": claim}});
        let spec = json!({"volumes": [volume], "containers": []});
        Arc::new(PodInfo::new(of::<Pod>(json!({"metadata": {"name": name, "namespace": "x"}, "spec": spec}))))
    }

    #[test]
    fn each_volume_counts_once_whoever_uses_it() {
        let mut cluster = Snapshot::default();
        cluster.set_node(of(json!({"metadata": {"name": "a"}})));
        for name in ["one", "two", "three"] {
            let volume = json!({"metadata": {"name": name}, "spec": {"csi": {"driver": "d", "volumeHandle": name}}});
            cluster.volumes.volumes.insert(name.to_owned(), of(volume));
            let claim = json!({"metadata": {"name": name, "namespace": "x"}, "spec": {"volumeName": name}});
            cluster.volumes.claims.insert(ObjectKey::new("x", name), of(claim));
        }
        let driver = json!({"name": "d", "nodeID": "a", "allocatable": {"count": 2}});
        let csi_node = json!({"metadata": {"name": "a"}, "spec": {"drivers": [driver]}});
        cluster.volumes.csi_nodes.insert("a".to_owned(), of(csi_node));
        let refused = |cluster: &Snapshot, claim: &str| {
            let pod = pod("new", claim);
            let Prepared::Filter { filter, .. } = NodeVolumeLimits.pre_filter(&pod, cluster) else { panic!() };
            filter.filter(cluster.node("a").unwrap()).is_some()
        };
        cluster.put_pod(pod("p", "one"), "a");
        assert!(!refused(&cluster, "one") && !refused(&cluster, "two"));
        let attachment = json!({
            "metadata": {"name": "left"},
            "spec": {"attacher": "d", "nodeName": "a", "source": {"persistentVolumeName": "two"}},
        });
        cluster.volumes.attachments.insert("left".to_owned(), of(attachment));
        assert!(!refused(&cluster, "one") && !refused(&cluster, "two") && refused(&cluster, "three"));
    }
}
