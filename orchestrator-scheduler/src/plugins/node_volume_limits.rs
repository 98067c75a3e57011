//! `NodeVolumeLimits`: how many volumes of a driver can be attached to a node.

use std::collections::{BTreeMap, BTreeSet};

use orchestrator_core::scheduler::{ClusterChange, NodeState, PodInfo, Rejection, Snapshot, Volumes};

use super::volume_binding::claims_of;
use crate::framework::{Filter, Indifferent, Local, Plugin, PreFilter, Prepared};

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

    fn local(&self, pod: &PodInfo, _cluster: &Snapshot) -> Option<&dyn Local> {
        claims_of(pod).next().is_none().then_some(&Indifferent)
    }
}

/// Volumes by driver, each once however many pods use it.
type Attached<'a> = BTreeMap<&'a str, BTreeSet<String>>;

struct Limits<'a> {
    wanted: Attached<'a>,
    volumes: &'a Volumes,
}

impl PreFilter for NodeVolumeLimits {
    fn pre_filter<'a>(&'a self, pod: &'a PodInfo, cluster: &'a Snapshot) -> Prepared<'a> {
        let mut wanted = Attached::new();
        attach(&mut wanted, pod, &cluster.volumes);
        if wanted.is_empty() { Prepared::Skip } else { Prepared::filter(Limits { wanted, volumes: &cluster.volumes }) }
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
        let mut attached = Attached::new();
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
            if let Some(csi) = volume.spec.as_ref().and_then(|spec| spec.csi.as_ref()) {
                attached.entry(&csi.driver).or_default().insert(csi.volume_handle.clone());
            }
        } else if let Some(class) = claim.storage_class_name.as_ref().and_then(|name| volumes.classes.get(name)) {
            attached.entry(&class.provisioner).or_default().insert(format!("claim {key}"));
        }
    }
}
