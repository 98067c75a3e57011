//! Whether a volume can be made for a claim where a node is.

use k8s_openapi::api::{
    core::v1::{
        Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PersistentVolumeClaim, TopologySelectorTerm,
    },
    storage::v1::{CSIStorageCapacity, StorageClass},
};
use orchestrator_core::{
    quantity::Quantity,
    scheduler::{Volumes, matching::node_selector_matches},
    selector::LabelSelector,
};

const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// Whether a class can have volumes made that are reachable from a node.
pub(super) fn can_provision(class: &StorageClass, node: &Node) -> bool {
    let allowed = class.allowed_topologies.as_deref().unwrap_or_default();
    !matches!(class.provisioner.as_str(), "" | NO_PROVISIONER)
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

/// Whether the driver of a class has enough room for a claim where a node is. Drivers that do not say how much they have
/// are taken to have enough.
pub(super) fn has_room(claim: &PersistentVolumeClaim, class: &StorageClass, node: &Node, volumes: &Volumes) -> bool {
    let driver = volumes.csi_drivers.get(&class.provisioner);
    if driver.and_then(|driver| driver.spec.storage_capacity) != Some(true) {
        return true;
    }
    let Some(wanted) = requested(claim) else { return true };
    let in_class = |capacity: &&CSIStorageCapacity| Some(&capacity.storage_class_name) == class.metadata.name.as_ref();
    let capacities = volumes.capacities.values().map(AsRef::as_ref).filter(in_class);
    capacities.filter(|capacity| is_near(capacity, node)).any(|capacity| {
        let most = capacity.maximum_volume_size.as_ref().or(capacity.capacity.as_ref());
        most.and_then(|most| Quantity::try_from(most).ok()).is_some_and(|most| wanted <= most)
    })
}

/// How large a volume a claim asks for.
pub(super) fn requested(claim: &PersistentVolumeClaim) -> Option<Quantity> {
    let resources = claim.spec.as_ref()?.resources.as_ref()?;
    Quantity::try_from(resources.requests.as_ref()?.get("storage")?).ok()
}

/// Whether room is where a node is. Without a topology it is nowhere.
fn is_near(capacity: &CSIStorageCapacity, node: &Node) -> bool {
    let topology = capacity.node_topology.as_ref().and_then(|topology| LabelSelector::from_meta(topology).ok());
    topology.is_some_and(|topology| topology.matches(&node.metadata.labels.clone().unwrap_or_default()))
}
