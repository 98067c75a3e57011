//! Which volume suits a claim, and what both look like once they are bound.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/storage/persistent-volumes/#binding>.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    Node, NodeSelectorRequirement, NodeSelectorTerm, ObjectReference, PersistentVolume, PersistentVolumeClaim,
    PersistentVolumeClaimStatus,
};
use orchestrator_core::{
    meta::{annotation, name, namespace, object_reference, uid},
    quantity::Quantity,
    selector::LabelSelector,
};

/// On a claim: it was bound once, and belongs to its volume for good.
pub(crate) const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On a claim or a volume: the controller chose the other side, not a person.
pub(crate) const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";

/// The claim that a volume is reserved for.
pub(crate) fn claim_reference(volume: &PersistentVolume) -> Option<&ObjectReference> {
    volume.spec.as_ref()?.claim_ref.as_ref()
}

/// Whether a volume is reserved for this claim, by name and, where known, by UID.
pub(crate) fn is_reserved_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    claim_reference(volume).is_some_and(|reference| {
        reference.name.as_deref() == Some(name(&claim.metadata))
            && reference.namespace.as_deref().unwrap_or_default() == namespace(&claim.metadata)
            && reference.uid.as_deref().is_none_or(|its| its.is_empty() || its == uid(&claim.metadata))
    })
}

/// Where the storage class stood in earlier days, and what it says still comes first.
const CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// The storage class that a claim names; empty is a class, too: that of volumes without one.
pub(crate) fn class_of(claim: &PersistentVolumeClaim) -> Option<&str> {
    annotation(&claim.metadata, CLASS).or_else(|| claim.spec.as_ref()?.storage_class_name.as_deref())
}

/// The volume that a claim asks for by name.
pub(crate) fn volume_name(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.spec.as_ref()?.volume_name.as_deref().filter(|name| !name.is_empty())
}

/// The phase of a volume.
pub(crate) fn volume_phase(volume: &PersistentVolume) -> &str {
    volume.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

/// The storage that a claim asks for.
pub(crate) fn requested(claim: &PersistentVolumeClaim) -> Quantity {
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let storage = resources.and_then(|resources| resources.requests.as_ref()?.get("storage"));
    storage.and_then(|storage| Quantity::try_from(storage).ok()).unwrap_or_default()
}

fn capacity(volume: &PersistentVolume) -> Quantity {
    let capacity = volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref());
    let storage = capacity.and_then(|capacity| capacity.get("storage"));
    storage.and_then(|storage| Quantity::try_from(storage).ok()).unwrap_or_default()
}

/// Why a volume that a claim names cannot be its volume.
pub(crate) fn mismatch(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<&'static str> {
    let (spec, wanted) = (volume.spec.as_ref()?, claim.spec.as_ref()?);
    let mode = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "Filesystem".to_owned());
    let has = |mode: &String| spec.access_modes.as_ref().is_some_and(|modes| modes.contains(mode));
    if capacity(volume) < requested(claim) {
        return Some("requested PV is too small");
    }
    let class = annotation(&volume.metadata, CLASS).or(spec.storage_class_name.as_deref());
    if class.unwrap_or_default() != class_of(claim).unwrap_or_default() {
        return Some("storageClassName does not match");
    }
    let attributes = |class: &Option<String>| class.clone().unwrap_or_default();
    if attributes(&spec.volume_attributes_class_name) != attributes(&wanted.volume_attributes_class_name) {
        return Some("volumeAttributesClassName does not match");
    }
    if mode(&spec.volume_mode) != mode(&wanted.volume_mode) {
        return Some("incompatible volumeMode");
    }
    if !wanted.access_modes.iter().flatten().all(has) {
        return Some("incompatible accessMode");
    }
    None
}

/// The smallest volume that suits a claim; a volume reserved for it comes first. With a node, only volumes that the
/// node reaches.
pub(crate) fn best(
    claim: &PersistentVolumeClaim,
    volumes: &[Arc<PersistentVolume>],
    node: Option<&Node>,
    only_reserved: bool,
) -> Option<Arc<PersistentVolume>> {
    let selector = claim.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let selector = match selector.map(LabelSelector::from_meta) {
        Some(Err(_)) => return None,
        Some(Ok(selector)) => Some(selector),
        None => None,
    };
    let selected = |volume: &PersistentVolume| {
        let empty = Default::default();
        let labels = volume.metadata.labels.as_ref().unwrap_or(&empty);
        selector.as_ref().is_none_or(|selector| selector.matches(labels))
    };
    let living = |volume: &&Arc<PersistentVolume>| volume.metadata.deletion_timestamp.is_none();
    let fits = |volume: &&Arc<PersistentVolume>| mismatch(volume, claim).is_none();
    let reserved = volumes.iter().filter(living).filter(fits).find(|volume| is_reserved_for(volume, claim));
    if reserved.is_some() || only_reserved {
        return reserved.cloned();
    }
    let free = |volume: &&Arc<PersistentVolume>| {
        claim_reference(volume).is_none() && volume_phase(volume) == "Available" && selected(volume)
    };
    let reached = |volume: &&Arc<PersistentVolume>| node.is_none_or(|node| reaches(node, volume));
    let suitable = volumes.iter().filter(living).filter(fits).filter(free).filter(reached);
    suitable.min_by(|a, b| capacity(a).cmp(&capacity(b)).then(name(&a.metadata).cmp(name(&b.metadata)))).cloned()
}

/// Whether a volume's node affinity allows a node.
fn reaches(node: &Node, volume: &PersistentVolume) -> bool {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
    let Some(required) = affinity.and_then(|affinity| affinity.required.as_ref()) else { return true };
    required.node_selector_terms.iter().any(|term| term_matches(node, term))
}

fn term_matches(node: &Node, term: &NodeSelectorTerm) -> bool {
    let labels = node.metadata.labels.as_ref();
    let label = |key: &str| labels.and_then(|labels| labels.get(key)).map(String::as_str);
    let field = |key: &str| (key == "metadata.name").then(|| name(&node.metadata));
    let expressions = term.match_expressions.iter().flatten();
    let fields = term.match_fields.iter().flatten();
    let empty = term.match_expressions.as_ref().is_none_or(Vec::is_empty)
        && term.match_fields.as_ref().is_none_or(Vec::is_empty);
    !empty
        && expressions.into_iter().all(|one| requirement_holds(one, label(&one.key)))
        && fields.into_iter().all(|one| requirement_holds(one, field(&one.key)))
}

fn requirement_holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = value.is_some_and(|value| values.iter().any(|one| one == value));
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<i64>().ok());
    let bound = number(values.first().map(String::as_str));
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => number(value).zip(bound).is_some_and(|(value, bound)| value > bound),
        "Lt" => number(value).zip(bound).is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

/// The volume as it is when bound to a claim; `None` when it is so already.
pub(crate) fn bound_volume(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<PersistentVolume> {
    if is_reserved_for(volume, claim)
        && claim_reference(volume).and_then(|reference| reference.uid.as_deref()) == Some(uid(&claim.metadata))
    {
        return None;
    }
    let mut bound = volume.clone();
    if claim_reference(volume).is_none() {
        let annotations = bound.metadata.annotations.get_or_insert_default();
        annotations.insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
    }
    bound.spec.get_or_insert_default().claim_ref = Some(object_reference(claim));
    Some(bound)
}

/// The claim as it is when bound to a volume; `None` when it is so already.
pub(crate) fn bound_claim(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Option<PersistentVolumeClaim> {
    let its_name = name(&volume.metadata);
    let mut bound = claim.clone();
    let annotations = bound.metadata.annotations.get_or_insert_default();
    if volume_name(claim) != Some(its_name) {
        annotations.insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
    }
    annotations.insert(BIND_COMPLETED.to_owned(), "yes".to_owned());
    bound.spec.get_or_insert_default().volume_name = Some(its_name.to_owned());
    (bound != *claim).then_some(bound)
}

/// The status of a claim that is bound to a volume.
pub(crate) fn bound_status(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> PersistentVolumeClaimStatus {
    let spec = volume.spec.clone().unwrap_or_default();
    let status = claim.status.clone().unwrap_or_default();
    // A claim that was bound before keeps what it was given: growing it is not the binder's business.
    let first = status.phase.as_deref() != Some("Bound");
    PersistentVolumeClaimStatus {
        phase: Some("Bound".to_owned()),
        access_modes: spec.access_modes,
        capacity: if first { spec.capacity } else { status.capacity.clone().or(spec.capacity) },
        current_volume_attributes_class_name: match first {
            true => spec.volume_attributes_class_name,
            false => status.current_volume_attributes_class_name.clone(),
        },
        ..status
    }
}

/// Whether an annotation says yes by being there.
pub(crate) fn is_marked(claim: &PersistentVolumeClaim, mark: &str) -> bool {
    annotation(&claim.metadata, mark).is_some()
}
