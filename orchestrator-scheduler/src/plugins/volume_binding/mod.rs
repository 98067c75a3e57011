//! `VolumeBinding`: a pod's volumes must be reachable from its node; claims that wait for their first user get theirs.
//!
//! <https://kubernetes.io/docs/concepts/storage/storage-classes/#volume-binding-mode>

mod provision;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use k8s_openapi::api::{
    core::v1::{Node, ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec, Pod},
    storage::v1::StorageClass,
};
use kube_core::params::{Patch, PatchParams};
use orchestrator_core::{
    client::Api,
    meta::annotation,
    object::ObjectKey,
    quantity::Quantity,
    scheduler::{ClusterChange, NodeState, PodInfo, Rejection, Snapshot, Volumes, matching::node_selector_matches},
    selector::LabelSelector,
};
use serde_json::json;
use tokio::sync::Notify;

use self::provision::{can_provision, has_room, requested};
use crate::{
    framework::{BindError, Binding, Filter, Indifferent, Lasting, Plugin, PreBind, PreFilter, Prepared, Reserve},
    limits::VOLUME_BINDING_LONGEST,
};

const NAME: &str = "VolumeBinding";
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// Tells provisioners where a volume is wanted.
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const NODE_AFFINITY: &str = "node(s) didn't match PersistentVolume's node affinity";
const NOT_FOUND: &str = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";
const NO_VOLUME: &str = "node(s) didn't find available persistent volumes to bind";
const NO_ROOM: &str = "node(s) did not have enough free storage";

/// Refuses nodes that a pod's volumes cannot be reached from, and has claims bound that wait for their first user.
#[derive(Debug)]
pub struct VolumeBinding {
    longest: Duration,
    reserved: Mutex<BTreeMap<ObjectKey, Plan>>,
}

/// What is to be done for a pod's claims on its node.
#[derive(Clone, Debug, Default, PartialEq)]
struct Plan {
    /// Volumes that exist, and the claims they are for.
    bind: Vec<(String, ObjectReference)>,
    /// Claims that volumes are to be made for.
    provision: Vec<ObjectKey>,
}

impl Default for VolumeBinding {
    fn default() -> Self {
        Self::new(VOLUME_BINDING_LONGEST)
    }
}

impl Plugin for VolumeBinding {
    fn name(&self) -> &'static str {
        NAME
    }

    fn may_help(&self, change: &ClusterChange<'_>, _pod: &PodInfo) -> bool {
        matches!(
            change,
            ClusterChange::Volumes | ClusterChange::Node { new: Some(_), .. } | ClusterChange::WaitingPod { .. }
        )
    }

    fn waits_for(&self) -> &'static [&'static str] {
        &[
            "CSIDriver/Update",
            "CSINode/Add",
            "CSINode/Update",
            "CSIStorageCapacity/Add",
            "CSIStorageCapacity/Update",
            "Node/Add",
            "Node/UpdateNodeLabel",
            "PersistentVolume/Add",
            "PersistentVolume/Update",
            "PersistentVolumeClaim/Add",
            "PersistentVolumeClaim/Update",
            "StorageClass/Add",
            "StorageClass/Update",
        ]
    }

    fn lasting(&self, pod: &PodInfo, _cluster: &Snapshot) -> Option<&dyn Lasting> {
        claims_of(pod).next().is_none().then_some(&Indifferent)
    }
}

/// The claims that a pod uses, and whether each is made for it alone.
pub(super) fn claims_of(pod: &PodInfo) -> impl Iterator<Item = (ObjectKey, bool)> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    volumes.iter().filter_map(|volume| {
        let name = match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(claim), _) => (claim.claim_name.clone(), false),
            (None, Some(_)) => (format!("{}-{}", pod.key().name, volume.name), true),
            (None, None) => return None,
        };
        Some((ObjectKey::new(pod.key().namespace.clone(), name.0), name.1))
    })
}

/// A pod's claims, sorted by what is to be done about them.
#[derive(Default)]
struct Claims<'a> {
    bound: Vec<&'a str>,
    waiting: Vec<(&'a Arc<PersistentVolumeClaim>, &'a StorageClass)>,
}

impl<'a> Claims<'a> {
    fn of(pod: &PodInfo, volumes: &'a Volumes) -> Result<Self, Rejection> {
        let refuse = |reason: String| Err(Rejection::unresolvable(NAME, reason));
        let mut claims = Self::default();
        let mut immediate = false;
        for (key, ephemeral) in claims_of(pod) {
            let Some(claim) = volumes.claims.get(&key) else {
                return refuse(if ephemeral {
                    let name = &key.name;
                    format!("waiting for ephemeral volume controller to create the persistentvolumeclaim \"{name}\"")
                } else {
                    format!("persistentvolumeclaim \"{}\" not found", key.name)
                });
            };
            if claim.metadata.deletion_timestamp.is_some() {
                return refuse(format!("persistentvolumeclaim \"{}\" is being deleted", key.name));
            }
            let volume = volume_of(claim);
            let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
            if let (Some("Lost"), Some(volume)) = (phase, volume) {
                let name = &key.name;
                return refuse(format!(
                    "persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \"{volume}\""
                ));
            }
            let class = class_of(claim).and_then(|name| volumes.classes.get(name));
            match (volume, class) {
                (Some(volume), _) if annotation(&claim.metadata, BIND_COMPLETED).is_some() => claims.bound.push(volume),
                (None, Some(class)) if waits_for_user(class) => claims.waiting.push((claim, class)),
                _ => immediate = true,
            }
        }
        if immediate { refuse("pod has unbound immediate PersistentVolumeClaims".to_owned()) } else { Ok(claims) }
    }

    /// What has to be done on a node, or all reasons why it cannot be done there. Volumes that are `taken` are left aside.
    fn plan(&self, node: &Node, volumes: &Volumes, taken: &BTreeSet<String>) -> Result<Plan, Vec<&'static str>> {
        let mut reasons = Vec::new();
        let bound: Option<Vec<_>> = self.bound.iter().map(|name| volumes.volumes.get(*name)).collect();
        if bound.iter().flatten().any(|volume| !reachable(volume, node)) {
            reasons.push(NODE_AFFINITY);
        }
        let mut plan = Plan::default();
        if let Err(reason) = self.plan_waiting(&mut plan, node, volumes, taken.clone()) {
            reasons.push(reason);
        }
        if bound.is_none() {
            reasons.push(NOT_FOUND);
        }
        if reasons.is_empty() { Ok(plan) } else { Err(reasons) }
    }

    fn plan_waiting(
        &self,
        plan: &mut Plan,
        node: &Node,
        volumes: &Volumes,
        mut taken: BTreeSet<String>,
    ) -> Result<(), &'static str> {
        let name = node.metadata.name.as_deref();
        let (chosen, mut free): (Vec<_>, Vec<_>) = self.waiting.iter().partition(|(claim, _)| chosen(claim).is_some());
        if chosen.iter().any(|(claim, _)| self::chosen(claim) != name) {
            return Err(NO_VOLUME);
        }
        let mut unmet = chosen;
        // The smallest first, so that a large volume is left for a large claim.
        free.sort_by_key(|(claim, _)| requested(claim));
        for of in free {
            match best_volume(of.0, node, volumes, &taken) {
                Some(name) => {
                    taken.insert(name.to_owned());
                    plan.bind.push((name.to_owned(), orchestrator_core::meta::object_reference(of.0.as_ref())));
                }
                None => unmet.push(of),
            }
        }
        for (claim, class) in unmet {
            if !can_provision(class, node) {
                return Err(NO_VOLUME);
            }
            if !has_room(claim, class, node, volumes) {
                return Err(NO_ROOM);
            }
            plan.provision.push(ObjectKey::of(&claim.metadata));
        }
        Ok(())
    }
}

/// The node that a volume is being made for.
fn chosen(claim: &PersistentVolumeClaim) -> Option<&str> {
    annotation(&claim.metadata, SELECTED_NODE)
}

fn volume_of(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.spec.as_ref()?.volume_name.as_deref().filter(|name| !name.is_empty())
}

fn class_of(claim: &PersistentVolumeClaim) -> Option<&str> {
    annotation(&claim.metadata, "volume.beta.kubernetes.io/storage-class")
        .or_else(|| claim.spec.as_ref()?.storage_class_name.as_deref())
}

fn waits_for_user(class: &StorageClass) -> bool {
    class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
}

/// Whether a volume can be reached from a node.
fn reachable(volume: &PersistentVolume, node: &Node) -> bool {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required.as_ref());
    required.is_none_or(|selector| node_selector_matches(selector, node))
}

/// The smallest free volume that satisfies a claim on a node; one that was made for the claim before all others.
fn best_volume<'a>(
    claim: &PersistentVolumeClaim,
    node: &Node,
    volumes: &'a Volumes,
    taken: &BTreeSet<String>,
) -> Option<&'a str> {
    let spec = claim.spec.as_ref()?;
    let free = volumes.volumes.iter().filter(|(name, _)| !taken.contains(*name));
    let fitting = free.filter_map(|(name, volume)| {
        let size = fits(claim, spec, volume).filter(|_| reachable(volume, node))?;
        let made_for_others = volume.spec.as_ref()?.claim_ref.is_none();
        Some((made_for_others, size, name.as_str()))
    });
    fitting.min().map(|(.., name)| name)
}

/// The size of a volume that satisfies a claim.
fn fits(
    claim: &PersistentVolumeClaim,
    wanted: &PersistentVolumeClaimSpec,
    volume: &PersistentVolume,
) -> Option<Quantity> {
    let spec = volume.spec.as_ref()?;
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Available");
    let free = match &spec.claim_ref {
        None => phase == "Available",
        Some(reference) => {
            let uid = reference.uid.as_deref().unwrap_or_default();
            reference.name == claim.metadata.name
                && reference.namespace == claim.metadata.namespace
                && (uid.is_empty() || Some(uid) == claim.metadata.uid.as_deref())
        }
    };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let mode = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "Filesystem".to_owned());
    let has_mode = |mode: &String| spec.access_modes.iter().flatten().any(|has| has == mode);
    let selected = wanted.selector.as_ref().is_none_or(|selector| {
        let labels = volume.metadata.labels.clone().unwrap_or_default();
        LabelSelector::from_meta(selector).is_ok_and(|selector| selector.matches(&labels))
    });
    let size = Quantity::try_from(spec.capacity.as_ref()?.get("storage")?).ok()?;
    let asked = requested(claim);
    let suits = free
        && volume.metadata.deletion_timestamp.is_none()
        && text(&spec.storage_class_name) == class_of(claim).unwrap_or_default()
        && mode(&spec.volume_mode) == mode(&wanted.volume_mode)
        && wanted.access_modes.iter().flatten().all(has_mode)
        && selected
        && asked.is_none_or(|asked| asked <= size);
    suits.then_some(size)
}

struct Reach<'a> {
    claims: Claims<'a>,
    volumes: &'a Volumes,
}

fn refusal(reasons: Vec<&'static str>) -> Rejection {
    let reasons = reasons.into_iter().map(str::to_owned).collect();
    Rejection { plugin: NAME, reasons, unresolvable: true, failed: false }
}

impl PreFilter for VolumeBinding {
    fn pre_filter<'a>(&'a self, pod: &'a PodInfo, cluster: &'a Snapshot) -> Prepared<'a> {
        if claims_of(pod).next().is_none() {
            return Prepared::Skip;
        }
        match Claims::of(pod, &cluster.volumes) {
            Ok(claims) => Prepared::filter(Reach { claims, volumes: &cluster.volumes }),
            Err(rejection) => Prepared::Refuse(rejection),
        }
    }
}

impl Filter for Reach<'_> {
    fn filter(&self, node: &NodeState) -> Option<Rejection> {
        let plan = self.claims.plan(node.node(), self.volumes, &BTreeSet::new());
        plan.err().map(refusal)
    }
}

impl VolumeBinding {
    /// Volumes may take so long to be bound.
    pub fn new(longest: Duration) -> Self {
        Self { longest, reserved: Mutex::default() }
    }

    fn reserved(&self) -> MutexGuard<'_, BTreeMap<ObjectKey, Plan>> {
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reserve for VolumeBinding {
    fn reserve(&self, pod: &PodInfo, node: &str, cluster: &mut Snapshot) -> Option<Rejection> {
        claims_of(pod).next()?;
        let claims = match Claims::of(pod, &cluster.volumes) {
            Ok(claims) => claims,
            Err(rejection) => return Some(rejection),
        };
        let mut reserved = self.reserved();
        let taken = reserved.values().flat_map(|plan| plan.bind.iter().map(|(name, _)| name.clone())).collect();
        match claims.plan(cluster.node(node)?.node(), &cluster.volumes, &taken) {
            Ok(plan) => {
                reserved.insert(pod.key().clone(), plan);
                None
            }
            Err(reasons) => Some(refusal(reasons)),
        }
    }

    fn unreserve(&self, pod: &PodInfo, _node: &str, _cluster: &mut Snapshot) {
        self.reserved().remove(pod.key());
    }
}

#[async_trait]
impl PreBind for VolumeBinding {
    async fn pre_bind(&self, binding: &Binding) -> Result<(), BindError> {
        if claims_of(&binding.pod).next().is_none() {
            return Ok(());
        }
        let Some(plan) = self.reserved().get(binding.pod.key()).cloned() else { return Ok(()) };
        let volumes = Api::<PersistentVolume>::all(binding.caches.client());
        for (name, claim) in &plan.bind {
            let patch = json!({
                "metadata": {"annotations": {BOUND_BY_CONTROLLER: "yes"}},
                "spec": {"claimRef": claim},
            });
            volumes.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        }
        for claim in &plan.provision {
            let claims = Api::<PersistentVolumeClaim>::namespaced(binding.caches.client(), &claim.namespace);
            let patch = json!({"metadata": {"annotations": {SELECTED_NODE: binding.node}}});
            claims.patch(&claim.name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        }
        let keys: Vec<_> = claims_of(&binding.pod).map(|(key, _)| key).collect();
        let bound = binding.caches.env().timeout(self.longest, all_bound(binding, &keys)).await;
        self.reserved().remove(binding.pod.key());
        let why = match bound {
            Ok(true) => return Ok(()),
            Ok(false) => "pod does not exist any more",
            Err(_) => "timed out waiting for the condition",
        };
        Err(BindError::Refused(Rejection::new(NAME, why)))
    }
}

/// Resolves when all these claims are bound, or with `false` when the pod is gone.
async fn all_bound(binding: &Binding, keys: &[ObjectKey]) -> bool {
    let claims = binding.caches.cache::<PersistentVolumeClaim>();
    let pods = binding.caches.cache::<Pod>();
    let changed = Arc::new(Notify::new());
    let (of_claims, of_pods) = (changed.clone(), changed.clone());
    let _of_claims = claims.on_change(move |_| of_claims.notify_one());
    let _of_pods = pods.on_change(move |_| of_pods.notify_one());
    let is_bound = |key: &ObjectKey| {
        claims
            .get(key)
            .is_some_and(|claim| volume_of(&claim).is_some() && annotation(&claim.metadata, BIND_COMPLETED).is_some())
    };
    loop {
        if keys.iter().all(is_bound) {
            return true;
        }
        if pods.get(binding.pod.key()).is_none_or(|pod| pod.metadata.uid != binding.pod.metadata.uid) {
            return false;
        }
        changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn cluster(volume_names: &[(&str, &str, &str)], provisioner: &str) -> Snapshot {
        let mut cluster = Snapshot::default();
        for name in ["a", "b"] {
            let node = json!({"metadata": {"name": name, "labels": {"host": name}}});
            cluster.set_node(Arc::new(serde_json::from_value(node).unwrap()));
        }
        let class = json!({
            "metadata": {"name": "local"}, "provisioner": provisioner, "volumeBindingMode": "WaitForFirstConsumer",
        });
        cluster.volumes.classes.insert("local".to_owned(), Arc::new(serde_json::from_value(class).unwrap()));
        for (name, node, size) in volume_names {
            let volume = json!({
                "metadata": {"name": name},
                "spec": {
                    "storageClassName": "local", "capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"],
                    "nodeAffinity": {"required": {"nodeSelectorTerms": [
                        {"matchExpressions": [{"key": "host", "operator": "In", "values": [node]}]},
                    ]}},
                },
            });
            cluster.volumes.volumes.insert((*name).to_owned(), Arc::new(serde_json::from_value(volume).unwrap()));
        }
        cluster
    }

    fn add_claim(cluster: &mut Snapshot, name: &str, class: Value) {
        let claim = json!({
            "metadata": {"name": name, "namespace": "x", "uid": name},
            "spec": {
                "storageClassName": class, "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}},
            },
        });
        let claim: PersistentVolumeClaim = serde_json::from_value(claim).unwrap();
        cluster.volumes.claims.insert(ObjectKey::new("x", name), Arc::new(claim));
    }

    fn pod(name: &str, claims: &[&str]) -> PodInfo {
        let volumes: Vec<_> =
            claims.iter().map(|claim| json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}})).collect();
        let pod = json!({"metadata": {"name": name, "namespace": "x"}, "spec": {"volumes": volumes, "containers": []}});
        PodInfo::from(serde_json::from_value::<Pod>(pod).unwrap())
    }

    fn reasons(cluster: &Snapshot, pod: &PodInfo) -> Vec<Option<String>> {
        let plugin = VolumeBinding::default();
        match plugin.pre_filter(pod, cluster) {
            Prepared::Skip => vec![],
            Prepared::Refuse(rejection) => vec![rejection.reasons.first().cloned()],
            Prepared::Filter { filter, .. } => {
                cluster.nodes().map(|node| filter.filter(node)?.reasons.first().cloned()).collect()
            }
        }
    }

    #[test]
    fn local_volumes_draw_pods_to_their_nodes() {
        let mut cluster = cluster(
            &[("big", "b", "9Gi"), ("small", "b", "2Gi"), ("tiny", "a", "1Mi")],
            "kubernetes.io/no-provisioner",
        );
        add_claim(&mut cluster, "data", json!("local"));
        add_claim(&mut cluster, "more", json!("local"));
        let first = pod("first", &["data"]);
        assert_eq!(reasons(&cluster, &first), [Some(NO_VOLUME.to_owned()), None]);
        let plugin = VolumeBinding::default();
        assert_eq!(plugin.reserve(&first, "b", &mut cluster), None);
        assert_eq!(plugin.reserved()[first.key()].bind[0].0, "small");
        let second = pod("second", &["data", "more"]);
        assert_eq!(plugin.reserve(&second, "b", &mut cluster).unwrap().reasons, [NO_VOLUME]);
        plugin.unreserve(&first, "b", &mut cluster);
        assert_eq!(plugin.reserve(&second, "b", &mut cluster), None);
    }

    #[test]
    fn reasons_are_upstreams() {
        let mut cluster = cluster(&[], "example.com/made");
        add_claim(&mut cluster, "data", json!("local"));
        add_claim(&mut cluster, "now", json!(""));
        assert_eq!(reasons(&cluster, &pod("p", &["data"])), [None, None]);
        assert_eq!(reasons(&cluster, &pod("p", &[])), []);
        let whole = |claim: &str| reasons(&cluster, &pod("p", &[claim]))[0].clone().unwrap();
        assert_eq!(whole("none"), "persistentvolumeclaim \"none\" not found");
        assert_eq!(whole("now"), "pod has unbound immediate PersistentVolumeClaims");
    }

    #[test]
    fn drivers_that_say_how_much_they_have_are_heeded() {
        let mut cluster = cluster(&[], "example.com/made");
        add_claim(&mut cluster, "data", json!("local"));
        let driver = json!({"metadata": {"name": "example.com/made"}, "spec": {"storageCapacity": true}});
        let driver = Arc::new(serde_json::from_value(driver).unwrap());
        cluster.volumes.csi_drivers.insert("example.com/made".to_owned(), driver);
        let wanting = pod("p", &["data"]);
        assert_eq!(reasons(&cluster, &wanting), [Some(NO_ROOM.to_owned()), Some(NO_ROOM.to_owned())]);
        for (name, host, size) in [("one", "a", "512Mi"), ("two", "b", "2Gi")] {
            let capacity = json!({
                "metadata": {"name": name, "namespace": "x"}, "storageClassName": "local", "capacity": size,
                "nodeTopology": {"matchLabels": {"host": host}},
            });
            let capacity = Arc::new(serde_json::from_value(capacity).unwrap());
            cluster.volumes.capacities.insert(ObjectKey::new("x", name), capacity);
        }
        assert_eq!(reasons(&cluster, &wanting), [Some(NO_ROOM.to_owned()), None]);
    }

    #[test]
    fn a_volume_that_is_being_made_keeps_its_node() {
        let mut cluster = cluster(&[], "example.com/made");
        add_claim(&mut cluster, "data", json!("local"));
        let key = ObjectKey::new("x", "data");
        let mut claim = cluster.volumes.claims[&key].as_ref().clone();
        claim.metadata.annotations = Some(BTreeMap::from([(SELECTED_NODE.to_owned(), "b".to_owned())]));
        cluster.volumes.claims.insert(key, Arc::new(claim));
        assert_eq!(reasons(&cluster, &pod("p", &["data"])), [Some(NO_VOLUME.to_owned()), None]);
    }
}
