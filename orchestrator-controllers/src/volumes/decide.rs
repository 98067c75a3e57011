//! What to do about a claim and about a volume.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/storage/persistent-volumes/#lifecycle-of-a-volume-and-claim>.

use std::sync::Arc;

use k8s_openapi::api::{
    core::v1::{Node, PersistentVolume, PersistentVolumeClaim},
    storage::v1::StorageClass,
};
use orchestrator_core::meta::{annotation, name, uid};

use super::{
    matching::{
        BIND_COMPLETED, BOUND_BY_CONTROLLER, best, claim_reference, class_of, is_marked, is_reserved_for, mismatch,
        volume_name, volume_phase,
    },
    provision::{PROVISIONED_BY, PROVISIONER},
};

/// The annotation by which the scheduler says where a claim's first pod will run.
pub(crate) const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// The annotation that makes a class the one of claims that name none.
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// What is known about a claim.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClaimView<'a> {
    /// The claim.
    pub claim: &'a PersistentVolumeClaim,
    /// All volumes.
    pub volumes: &'a [Arc<PersistentVolume>],
    /// All storage classes.
    pub classes: &'a [Arc<StorageClass>],
    /// The node that the scheduler selected, if there is such a node.
    pub node: Option<&'a Node>,
    /// The names of pods that use the claim and have no node yet.
    pub waiting: &'a [String],
}

/// What to do about a claim.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ClaimDecision {
    /// It waits, for the reason and message of an event.
    Wait(Note),
    /// It waits for its volume to come.
    WaitForVolume,
    /// It has lost its volume.
    Lost(Note),
    /// Bind it to this volume, or finish doing so.
    Bind(Arc<PersistentVolume>),
    /// It gets the default class.
    AssignClass(String),
    /// Make a volume of this class.
    Provision(Arc<StorageClass>),
    /// Somebody else is to make a volume of this class.
    ProvisionElsewhere(Arc<StorageClass>),
    /// The selected node is gone: the scheduler is to select again.
    SelectAgain,
}

/// An event to record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    /// Whether it is bad news.
    pub warning: bool,
    /// The reason.
    pub reason: &'static str,
    /// The message.
    pub message: String,
}

fn note(warning: bool, reason: &'static str, message: impl Into<String>) -> Note {
    Note { warning, reason, message: message.into() }
}

/// Decides on a claim.
pub(crate) fn claim(view: ClaimView<'_>) -> ClaimDecision {
    let named = volume_name(view.claim);
    let volume = named.and_then(|named| view.volumes.iter().find(|volume| name(&volume.metadata) == named));
    if is_marked(view.claim, BIND_COMPLETED) {
        return bound_before(view.claim, named, volume);
    }
    let Some(named) = named else { return unbound(view) };
    let Some(volume) = volume else { return ClaimDecision::WaitForVolume };
    let reserved = claim_reference(volume).is_some();
    if reserved && !is_reserved_for(volume, view.claim) {
        let message = format!("volume \"{named}\" already bound to a different claim.");
        return ClaimDecision::Wait(note(true, "FailedBinding", message));
    }
    if let Some(why) = mismatch(volume, view.claim).filter(|_| !reserved) {
        let message = format!("Cannot bind to requested volume \"{named}\": {why}");
        return ClaimDecision::Wait(note(true, "VolumeMismatch", message));
    }
    ClaimDecision::Bind(volume.clone())
}

/// A claim that was bound once: its volume is its volume, or the claim is lost.
fn bound_before(
    claim: &PersistentVolumeClaim,
    named: Option<&str>,
    volume: Option<&Arc<PersistentVolume>>,
) -> ClaimDecision {
    let lost = |reason, message: &str| ClaimDecision::Lost(note(true, reason, message));
    if named.is_none() {
        return lost("ClaimLost", "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!");
    }
    let Some(volume) = volume else {
        return lost("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!");
    };
    if claim_reference(volume).is_some() && !is_reserved_for(volume, claim) {
        let message = "Two claims are bound to the same volume, this one is bound incorrectly";
        return lost("ClaimMisbound", message);
    }
    ClaimDecision::Bind(volume.clone())
}

fn unbound(view: ClaimView<'_>) -> ClaimDecision {
    let ClaimView { claim, volumes, classes, node, waiting } = view;
    let class_name = class_of(claim);
    let class = class_name.and_then(|wanted| classes.iter().find(|class| name(&class.metadata) == wanted));
    let waits = class.is_some_and(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"));
    let selected = annotation(&claim.metadata, SELECTED_NODE);
    if waits && selected.is_some() && node.is_none() {
        return ClaimDecision::SelectAgain;
    }
    let node = node.filter(|_| waits);
    if let Some(volume) = best(claim, volumes, node, waits && selected.is_none()) {
        return ClaimDecision::Bind(volume);
    }
    if waits && selected.is_none() {
        return ClaimDecision::Wait(match waiting {
            [] => note(false, "WaitForFirstConsumer", "waiting for first consumer to be created before binding"),
            [pod] => note(false, "WaitForPodScheduled", format!("waiting for pod {pod} to be scheduled")),
            pods => note(false, "WaitForPodScheduled", format!("waiting for pods {} to be scheduled", pods.join(","))),
        });
    }
    match (class_name, class) {
        (None, _) => match default_class(classes) {
            Some(class) => ClaimDecision::AssignClass(name(&class.metadata).to_owned()),
            None => nothing_suits(),
        },
        (Some(""), _) => nothing_suits(),
        (Some(missing), None) => {
            let message = format!("storageclass.storage.k8s.io \"{missing}\" not found");
            ClaimDecision::Wait(note(true, "ProvisioningFailed", message))
        }
        (Some(_), Some(class)) => provision(claim, class),
    }
}

fn nothing_suits() -> ClaimDecision {
    let message = "no persistent volumes available for this claim and no storage class is set";
    ClaimDecision::Wait(note(false, "FailedBinding", message))
}

/// The newest default class; names break ties.
fn default_class(classes: &[Arc<StorageClass>]) -> Option<&Arc<StorageClass>> {
    let defaults = classes.iter().filter(|class| annotation(&class.metadata, DEFAULT_CLASS) == Some("true"));
    defaults.max_by(|a, b| {
        let created = |class: &StorageClass| class.metadata.creation_timestamp.as_ref().map(|time| time.0);
        created(a).cmp(&created(b)).then_with(|| name(&b.metadata).cmp(name(&a.metadata)))
    })
}

fn provision(claim: &PersistentVolumeClaim, class: &Arc<StorageClass>) -> ClaimDecision {
    let failed = |why: &str| ClaimDecision::Wait(note(true, "ProvisioningFailed", why));
    let spec = claim.spec.clone().unwrap_or_default();
    match class.provisioner.as_str() {
        "kubernetes.io/no-provisioner" => failed("no volume plugin matched name: kubernetes.io/no-provisioner"),
        PROVISIONER if spec.selector.is_some() => {
            failed("claim.spec.selector is not supported for dynamic provisioning")
        }
        PROVISIONER if spec.volume_mode.as_deref() == Some("Block") => {
            failed("orchestrator.local/directory does not support block volume provisioning")
        }
        PROVISIONER if spec.data_source.is_some() || spec.data_source_ref.is_some() => {
            failed("orchestrator.local/directory does not support data sources")
        }
        PROVISIONER => ClaimDecision::Provision(class.clone()),
        _ => ClaimDecision::ProvisionElsewhere(class.clone()),
    }
}

/// What to do about a volume.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum VolumeDecision {
    /// Nothing.
    Nothing,
    /// It is in this phase.
    Phase(&'static str),
    /// It is reserved for a claim that took another volume: give it back. Whether the reservation as a whole goes, or
    /// only its UID, because a person made it.
    Unbind {
        /// The reservation was the controller's own.
        entirely: bool,
    },
    /// Its claim is gone.
    Release(Reclaim),
}

/// What becomes of a volume whose claim is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reclaim {
    /// It stays for a person to look at.
    Retain,
    /// It goes, with its data.
    Delete,
    /// Whoever made it deletes it.
    Elsewhere,
    /// It cannot be done.
    Fail(Note),
}

/// Decides on a volume. `claim` is the claim of the name that the volume is reserved for.
pub(crate) fn volume(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>) -> VolumeDecision {
    let Some(reference) = claim_reference(volume) else { return VolumeDecision::Phase("Available") };
    let Some(wanted) = reference.uid.as_deref().filter(|uid| !uid.is_empty()) else {
        return VolumeDecision::Phase("Available");
    };
    let Some(claim) = claim.filter(|claim| uid(&claim.metadata) == wanted) else {
        return VolumeDecision::Release(reclaim(volume));
    };
    match volume_name(claim) {
        None => VolumeDecision::Nothing,
        Some(taken) if taken == name(&volume.metadata) => VolumeDecision::Phase("Bound"),
        Some(_) if is_made_and_deleted(volume) => VolumeDecision::Release(reclaim(volume)),
        Some(_) => {
            let entirely = annotation(&volume.metadata, BOUND_BY_CONTROLLER).is_some();
            VolumeDecision::Unbind { entirely }
        }
    }
}

fn policy(volume: &PersistentVolume) -> Option<&str> {
    volume.spec.as_ref()?.persistent_volume_reclaim_policy.as_deref()
}

/// Whether a volume was made for its claim and goes with it, whoever sees to that.
fn is_made_and_deleted(volume: &PersistentVolume) -> bool {
    annotation(&volume.metadata, PROVISIONED_BY).is_some() && policy(volume) == Some("Delete")
}

fn reclaim(volume: &PersistentVolume) -> Reclaim {
    let made_by = annotation(&volume.metadata, PROVISIONED_BY);
    match policy(volume) {
        Some("Delete") => match made_by {
            Some(PROVISIONER) => Reclaim::Delete,
            Some(_) => Reclaim::Elsewhere,
            None => {
                let path = volume.spec.as_ref().and_then(|spec| spec.host_path.as_ref()).map(|source| &source.path);
                let message = match path.filter(|path| path.strip_prefix("/tmp/").is_none_or(str::is_empty)) {
                    Some(path) => format!("host_path deleter only supports /tmp/.+ but received provided {path}"),
                    None => {
                        let (name, why) = (name(&volume.metadata), "no deletable volume plugin matched");
                        format!("error getting deleter volume plugin for volume \"{name}\": {why}")
                    }
                };
                Reclaim::Fail(note(true, "VolumeFailedDelete", message))
            }
        },
        Some("Recycle") => Reclaim::Fail(note(true, "VolumeFailedRecycle", "No recycler plugin found for the volume!")),
        _ => Reclaim::Retain,
    }
}

/// Whether a volume in this phase still has to be moved to another.
pub(crate) fn needs_phase(volume: &PersistentVolume, phase: &str) -> bool {
    volume.status.as_ref().and_then(|status| status.phase.as_deref()) != Some(phase)
        && !(phase == "Released" && volume_phase(volume) == "Failed")
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
