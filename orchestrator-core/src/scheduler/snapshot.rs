//! The cluster as a scheduler sees it: nodes, the pods on them, and what plugins need besides.
//!
//! A snapshot is cheap to clone in part and to change: each node's state is shared until it changes.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use k8s_openapi::api::{
    apps::v1::{ReplicaSet, StatefulSet},
    core::v1::{Node, PersistentVolume, PersistentVolumeClaim, ReplicationController, Service},
    policy::v1::PodDisruptionBudget,
    storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment},
};

use super::{
    Devices, HostPort, PodInfo, Resources,
    history::{History, Version},
};
use crate::object::ObjectKey;

/// The cluster as a scheduler sees it.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    nodes: BTreeMap<String, Arc<NodeState>>,
    /// Where each pod is.
    places: BTreeMap<ObjectKey, Place>,
    /// Pods of nodes that are not there (yet, or any more).
    stranded: BTreeMap<String, Vec<Arc<PodInfo>>>,
    nominated: BTreeMap<String, BTreeMap<ObjectKey, Arc<PodInfo>>>,
    /// The node that is promised to each pod.
    promises: BTreeMap<ObjectKey, String>,
    images: BTreeMap<String, ImageState>,
    namespaces: BTreeMap<String, Arc<BTreeMap<String, String>>>,
    /// How many pods on nodes have wishes about pods near them.
    with_affinity: usize,
    /// How many pods to which nodes are promised have such wishes.
    promised_affinity: usize,
    history: History,
    /// Volumes and what belongs to them.
    pub volumes: Volumes,
    /// Devices, and who claims them.
    pub devices: Devices,
    /// How many pods may be disrupted.
    pub budgets: BTreeMap<ObjectKey, Arc<PodDisruptionBudget>>,
    /// What pods belong to.
    pub workloads: Workloads,
}

/// What pods belong to, by which those that say nothing about it are spread.
#[derive(Clone, Debug, Default)]
pub struct Workloads {
    /// Services.
    pub services: BTreeMap<ObjectKey, Arc<Service>>,
    /// Replication controllers.
    pub replication_controllers: BTreeMap<ObjectKey, Arc<ReplicationController>>,
    /// Replica sets.
    pub replica_sets: BTreeMap<ObjectKey, Arc<ReplicaSet>>,
    /// Stateful sets.
    pub stateful_sets: BTreeMap<ObjectKey, Arc<StatefulSet>>,
}

#[derive(Clone, Debug)]
struct Place {
    node: String,
    pod: Arc<PodInfo>,
}

/// Volumes and what belongs to them.
#[derive(Clone, Debug, Default)]
pub struct Volumes {
    /// Claims.
    pub claims: BTreeMap<ObjectKey, Arc<PersistentVolumeClaim>>,
    /// Volumes by name.
    pub volumes: BTreeMap<String, Arc<PersistentVolume>>,
    /// Classes by name.
    pub classes: BTreeMap<String, Arc<StorageClass>>,
    /// The drivers of nodes, by the nodes' names.
    pub csi_nodes: BTreeMap<String, Arc<CSINode>>,
    /// What drivers can do, by the drivers' names.
    pub csi_drivers: BTreeMap<String, Arc<CSIDriver>>,
    /// How much room drivers have, and where.
    pub capacities: BTreeMap<ObjectKey, Arc<CSIStorageCapacity>>,
    /// Which volumes are attached to which nodes, or are about to be.
    pub attachments: BTreeMap<String, Arc<VolumeAttachment>>,
}

/// An image that nodes have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImageState {
    /// Its size, in bytes.
    pub size: i64,
    /// How many nodes have it.
    pub nodes: usize,
}

/// A node and the pods on it.
#[derive(Clone, Debug)]
pub struct NodeState {
    name: Arc<str>,
    node: Arc<Node>,
    pods: Vec<Arc<PodInfo>>,
    requested: Resources,
    usual_requested: Resources,
    allocatable: Resources,
    images: Arc<BTreeMap<String, i64>>,
    with_affinity: usize,
}

impl Snapshot {
    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is no node.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The nodes, ordered by name.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &Arc<NodeState>> {
        self.nodes.values()
    }

    /// A node by name.
    pub fn node(&self, name: &str) -> Option<&Arc<NodeState>> {
        self.nodes.get(name)
    }

    /// A pod on a node (present or not).
    pub fn pod(&self, key: &ObjectKey) -> Option<&Arc<PodInfo>> {
        self.places.get(key).map(|place| &place.pod)
    }

    /// The node that a pod is on.
    pub fn place(&self, key: &ObjectKey) -> Option<&str> {
        self.places.get(key).map(|place| place.node.as_str())
    }

    /// The state that it is in now, to ask [`Self::changed_since`] with later.
    pub fn version(&self) -> Version {
        self.history.version()
    }

    /// The names of the nodes that have changed since a state, those with other pods or promises included, some more than
    /// once; `None` if that is not known, or if nodes came or went.
    pub fn changed_since(&self, version: &Version) -> Option<impl Iterator<Item = &str>> {
        self.history.since(version)
    }

    /// The nodes that are promised to pods which are not there yet, with these pods.
    pub fn promises(&self) -> impl Iterator<Item = (&str, &BTreeMap<ObjectKey, Arc<PodInfo>>)> {
        self.nominated.iter().map(|(node, pods)| (node.as_str(), pods))
    }

    /// The node that is promised to a pod which is not there yet.
    pub fn promised_to(&self, pod: &ObjectKey) -> Option<&str> {
        self.promises.get(pod).map(String::as_str)
    }

    /// Whether any node is promised to a pod which is not there yet.
    pub fn any_promise(&self) -> bool {
        !self.promises.is_empty()
    }

    /// Whether any pod that a node is promised to has wishes about the pods near it.
    pub fn any_promised_affinity(&self) -> bool {
        self.promised_affinity > 0
    }

    /// The pods to which a node was promised, and which are not there yet.
    pub fn nominated(&self, node: &str) -> impl Iterator<Item = &Arc<PodInfo>> {
        self.nominated.get(node).into_iter().flat_map(BTreeMap::values)
    }

    /// The labels of a namespace; none if it is not known.
    pub fn namespace_labels(&self, namespace: &str) -> &BTreeMap<String, String> {
        const NONE: &BTreeMap<String, String> = &BTreeMap::new();
        self.namespaces.get(namespace).map_or(NONE, Arc::as_ref)
    }

    /// The namespaces that are known, with their labels.
    pub fn namespaces(&self) -> impl Iterator<Item = (&str, &BTreeMap<String, String>)> {
        self.namespaces.iter().map(|(name, labels)| (name.as_str(), labels.as_ref()))
    }

    /// An image, if any node has it.
    pub fn image(&self, name: &str) -> Option<ImageState> {
        self.images.get(name).copied()
    }

    /// Whether any pod on a node has wishes about the pods near it.
    pub fn any_affinity(&self) -> bool {
        self.with_affinity > 0
    }

    /// A node came or changed.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let name = node.metadata.name.clone().unwrap_or_default();
        let state = NodeState::new(name.clone(), node);
        self.count_images(&state, true);
        match self.nodes.entry(name) {
            Entry::Occupied(mut entry) => {
                self.history.changed(&entry.get().name);
                let old = entry.get().clone();
                let (node, allocatable, images) = (state.node, state.allocatable, state.images);
                *entry.get_mut() = Arc::new(NodeState { node, allocatable, images, ..(*old).clone() });
                self.count_images(&old, false);
            }
            Entry::Vacant(entry) => {
                self.history.other_nodes();
                let mut state = state;
                for pod in self.stranded.remove(entry.key()).unwrap_or_default() {
                    state.add_pod(pod);
                }
                self.with_affinity += state.with_affinity;
                entry.insert(Arc::new(state));
            }
        }
    }

    /// A node went. Its pods are kept in mind until they go.
    pub fn remove_node(&mut self, name: &str) {
        let Some(state) = self.nodes.remove(name) else { return };
        self.history.other_nodes();
        self.count_images(&state, false);
        self.with_affinity -= state.with_affinity;
        if !state.pods.is_empty() {
            self.stranded.insert(name.to_owned(), state.pods.clone());
        }
    }

    fn count_images(&mut self, state: &NodeState, come: bool) {
        for (image, size) in state.images.iter() {
            let counted = self.images.entry(image.clone()).or_default();
            counted.size = *size;
            counted.nodes = if come { counted.nodes + 1 } else { counted.nodes.saturating_sub(1) };
            if counted.nodes == 0 {
                self.images.remove(image);
            }
        }
    }

    /// A pod is on a node, or will be. It takes the place of the pod of that key.
    pub fn put_pod(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.remove_pod(&pod.key().clone());
        self.places.insert(pod.key().clone(), Place { node: node.to_owned(), pod: pod.clone() });
        match self.nodes.get_mut(node) {
            Some(state) => {
                self.with_affinity += usize::from(!pod.affinity().is_empty());
                self.history.changed(&state.name);
                Arc::make_mut(state).add_pod(pod);
            }
            None => self.stranded.entry(node.to_owned()).or_default().push(pod),
        }
    }

    /// A pod went, or has ended.
    pub fn remove_pod(&mut self, key: &ObjectKey) -> Option<Arc<PodInfo>> {
        let place = self.places.remove(key)?;
        if let Some(state) = self.nodes.get_mut(&place.node) {
            self.history.changed(&state.name);
            if Arc::make_mut(state).remove_pod(key).is_some() {
                self.with_affinity -= usize::from(!place.pod.affinity().is_empty());
            }
        } else if let Entry::Occupied(mut entry) = self.stranded.entry(place.node) {
            entry.get_mut().retain(|pod| pod.key() != key);
            if entry.get().is_empty() {
                entry.remove();
            }
        }
        Some(place.pod)
    }

    /// A node is promised to a pod. A pod has at most one promise.
    pub fn nominate(&mut self, pod: Arc<PodInfo>, node: &str) {
        let key = pod.key().clone();
        self.forget_nomination(&key);
        self.changed(node);
        self.promised_affinity += usize::from(!pod.affinity().is_empty());
        self.nominated.entry(node.to_owned()).or_default().insert(key.clone(), pod);
        self.promises.insert(key, node.to_owned());
    }

    /// The promise to a pod is void or fulfilled.
    pub fn forget_nomination(&mut self, key: &ObjectKey) {
        let Some(node) = self.promises.remove(key) else { return };
        self.changed(&node);
        if let Entry::Occupied(mut entry) = self.nominated.entry(node) {
            let pod = entry.get_mut().remove(key);
            self.promised_affinity -= usize::from(pod.is_some_and(|pod| !pod.affinity().is_empty()));
            if entry.get().is_empty() {
                entry.remove();
            }
        }
    }

    fn changed(&mut self, node: &str) {
        if let Some(state) = self.nodes.get(node) {
            self.history.changed(&state.name);
        }
    }

    /// A namespace came, changed, or went (`None`).
    pub fn set_namespace(&mut self, name: &str, labels: Option<BTreeMap<String, String>>) {
        if self.namespaces.get(name).map(AsRef::as_ref) != labels.as_ref() {
            // Which pods are meant by others may have changed on any node.
            self.history.other_nodes();
        }
        match labels {
            Some(labels) => self.namespaces.insert(name.to_owned(), Arc::new(labels)),
            None => self.namespaces.remove(name),
        };
    }
}

impl NodeState {
    /// A node without pods.
    pub fn new(name: String, node: Arc<Node>) -> Self {
        let status = node.status.as_ref();
        let allocatable = status.and_then(|status| status.allocatable.as_ref());
        let images = status.and_then(|status| status.images.as_deref()).unwrap_or_default().iter();
        let images = images.flat_map(|image| {
            let names = image.names.iter().flatten();
            names.map(|name| (name.clone(), image.size_bytes.unwrap_or(0)))
        });
        Self {
            name: name.into(),
            pods: Vec::new(),
            requested: Resources::default(),
            usual_requested: Resources::default(),
            allocatable: allocatable.map(Resources::from_written).unwrap_or_default(),
            images: Arc::new(images.collect()),
            with_affinity: 0,
            node,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The node.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// A label of the node.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.node.metadata.labels.as_ref()?.get(key).map(String::as_str)
    }

    /// The pods on it.
    pub fn pods(&self) -> &[Arc<PodInfo>] {
        &self.pods
    }

    /// Whether any pod on it has wishes about the pods near it.
    pub fn any_affinity(&self) -> bool {
        self.with_affinity > 0
    }

    /// What the pods on it take.
    pub fn requested(&self) -> &Resources {
        &self.requested
    }

    /// What the pods on it take, with usual amounts for containers that ask for no CPU or memory.
    pub fn usual_requested(&self) -> &Resources {
        &self.usual_requested
    }

    /// What pods may take.
    pub fn allocatable(&self) -> &Resources {
        &self.allocatable
    }

    /// The ports that pods on it take.
    pub fn used_ports(&self) -> impl Iterator<Item = &HostPort> {
        self.pods.iter().flat_map(|pod| pod.host_ports())
    }

    /// Whether it has an image.
    pub fn has_image(&self, name: &str) -> bool {
        self.images.contains_key(name)
    }

    /// Puts a pod on it.
    pub fn add_pod(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(pod.requests());
        self.usual_requested.add(pod.usual_requests());
        self.with_affinity += usize::from(!pod.affinity().is_empty());
        self.pods.push(pod);
    }

    /// Takes a pod off it.
    pub fn remove_pod(&mut self, key: &ObjectKey) -> Option<Arc<PodInfo>> {
        let at = self.pods.iter().position(|pod| pod.key() == key)?;
        let pod = self.pods.remove(at);
        self.requested.subtract(pod.requests());
        self.usual_requested.subtract(pod.usual_requests());
        self.with_affinity -= usize::from(!pod.affinity().is_empty());
        Some(pod)
    }
}
