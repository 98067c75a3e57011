//! `VolumeBinding`: a pod's volumes must be reachable from its node; claims that wait for their first user get theirs.
//!
//! <https://kubernetes.io/docs/concepts/storage/storage-classes/#volume-binding-mode>. How much room a driver says it
//! has (`CSIStorageCapacity`) is not looked at.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use k8s_openapi::api::{
    core::v1::{
        Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, ObjectReference, PersistentVolume,
        PersistentVolumeClaim, PersistentVolumeClaimSpec, Pod, TopologySelectorTerm,
    },
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

use crate::{
    framework::{BindError, Binding, Filter, Indifferent, Local, Plugin, PreBind, PreFilter, Prepared, Reserve},
    limits::VOLUME_BINDING_LONGEST,
};

const NAME: &str = "VolumeBinding";
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// Tells provisioners where a volume is wanted.
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";
const NODE_AFFINITY: &str = "node(s) didn't match PersistentVolume's node affinity";
const NOT_FOUND: &str = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";
const NO_VOLUME: &str = "node(s) didn't find available persistent volumes to bind";

/// Refuses nodes that a pod's volumes cannot be reached from, and has claims bound that wait for their first user.
#[derive(Debug, Default)]
pub struct VolumeBinding {
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

    fn local(&self, pod: &PodInfo, _cluster: &Snapshot) -> Option<&dyn Local> {
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

    /// What has to be done on a node, or why it cannot be done there. Volumes that are `taken` are left aside.
    fn plan(&self, node: &Node, volumes: &Volumes, taken: &BTreeSet<String>) -> Result<Plan, &'static str> {
        for name in &self.bound {
            let volume = volumes.volumes.get(*name).ok_or(NOT_FOUND)?;
            if !reachable(volume, node) {
                return Err(NODE_AFFINITY);
            }
        }
        let mut plan = Plan::default();
        let mut taken = taken.clone();
        for (claim, class) in &self.waiting {
            if let Some(name) = best_volume(claim, node, volumes, &taken) {
                taken.insert(name.to_owned());
                plan.bind.push((name.to_owned(), orchestrator_core::meta::object_reference(claim.as_ref())));
            } else if can_provision(class, node) {
                plan.provision.push(ObjectKey::of(&claim.metadata));
            } else {
                return Err(NO_VOLUME);
            }
        }
        Ok(plan)
    }
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
    let storage = |amounts: Option<&BTreeMap<String, _>>| {
        amounts.and_then(|amounts| amounts.get("storage")).and_then(|amount| Quantity::try_from(amount).ok())
    };
    let size = storage(spec.capacity.as_ref())?;
    let asked = storage(wanted.resources.as_ref().and_then(|resources| resources.requests.as_ref()));
    let suits = free
        && volume.metadata.deletion_timestamp.is_none()
        && text(&spec.storage_class_name) == class_of(claim).unwrap_or_default()
        && mode(&spec.volume_mode) == mode(&wanted.volume_mode)
        && wanted.access_modes.iter().flatten().all(has_mode)
        && selected
        && asked.is_none_or(|asked| asked <= size);
    suits.then_some(size)
}

/// Whether a class can have volumes made that are reachable from a node.
fn can_provision(class: &StorageClass, node: &Node) -> bool {
    let allowed = class.allowed_topologies.as_deref().unwrap_or_default();
    class.provisioner != NO_PROVISIONER
        && (allowed.is_empty() || allowed.iter().any(|term| node_selector_matches(&as_selector(term), node)))
}

fn as_selector(term: &TopologySelectorTerm) -> NodeSelector {
    let expressions = term.match_label_expressions.iter().flatten().map(|expression| NodeSelectorRequirement {
        key: expression.key.clone(),
        operator: "In".to_owned(),
        values: Some(expression.values.clone()),
    });
    let term = NodeSelectorTerm { match_expressions: Some(expressions.collect()), match_fields: None };
    NodeSelector { node_selector_terms: vec![term] }
}

struct Reach<'a> {
    claims: Claims<'a>,
    volumes: &'a Volumes,
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
        plan.err().map(|reason| Rejection::unresolvable(NAME, reason))
    }
}

impl VolumeBinding {
    fn reserved(&self) -> MutexGuard<'_, BTreeMap<ObjectKey, Plan>> {
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reserve for VolumeBinding {
    fn reserve(&self, pod: &PodInfo, node: &str, cluster: &Snapshot) -> Option<Rejection> {
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
            Err(reason) => Some(Rejection::new(NAME, reason)),
        }
    }

    fn unreserve(&self, pod: &PodInfo, _node: &str) {
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
        let bound = binding.caches.env().timeout(VOLUME_BINDING_LONGEST, all_bound(binding, &keys)).await;
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
        let mut cluster = cluster(&[("big", "b", "9Gi"), ("small", "b", "2Gi"), ("tiny", "a", "1Mi")], NO_PROVISIONER);
        add_claim(&mut cluster, "data", json!("local"));
        add_claim(&mut cluster, "more", json!("local"));
        let first = pod("first", &["data"]);
        assert_eq!(reasons(&cluster, &first), [Some(NO_VOLUME.to_owned()), None]);
        let plugin = VolumeBinding::default();
        assert_eq!(plugin.reserve(&first, "b", &cluster), None);
        assert_eq!(plugin.reserved()[first.key()].bind[0].0, "small");
        let second = pod("second", &["data", "more"]);
        assert_eq!(plugin.reserve(&second, "b", &cluster).unwrap().reasons, [NO_VOLUME]);
        plugin.unreserve(&first, "b");
        assert_eq!(plugin.reserve(&second, "b", &cluster), None);
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
}
