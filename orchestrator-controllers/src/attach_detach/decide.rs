//! Which volumes are to be attached to a node, and which to be detached.
//!
//! Upstream: `pkg/controller/volume/attachdetach` and
//! <https://kubernetes-csi.github.io/docs/skip-attach.html>. What attaches is a CSI driver's attacher, which acts on
//! VolumeAttachments.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    sync::Arc,
    time::Duration,
};

use k8s_openapi::{
    api::{
        core::v1::{AttachedVolume, Node, PersistentVolume, Pod},
        storage::v1::{VolumeAttachment, VolumeAttachmentSource, VolumeAttachmentSpec},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use orchestrator_core::{events::Event, meta};
use sha2::{Digest, Sha256};

use crate::limits::FORCED_DETACH_TIME;

const MANAGED: &str = "volumes.kubernetes.io/controller-managed-attach-detach";
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// A volume that a driver attaches, and the pods of a node that use it.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub volume: Arc<PersistentVolume>,
    pub driver: String,
    pub handle: String,
    pub pods: Vec<Arc<Pod>>,
}

/// What is known when a node is decided on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Observed<'a> {
    pub name: &'a str,
    /// None when it is gone.
    pub node: Option<&'a Node>,
    /// What its pods use.
    pub wanted: &'a [Wanted],
    /// What is attached to it, or being attached or detached.
    pub attachments: &'a [Arc<VolumeAttachment>],
    /// Other nodes that have a volume, by the volume's name.
    pub elsewhere: &'a BTreeMap<String, BTreeSet<String>>,
    /// For how long a volume was wanted no longer, by the attachment's name.
    pub unwanted: &'a BTreeMap<String, Duration>,
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Decision {
    pub attach: Vec<VolumeAttachment>,
    pub detach: Vec<Arc<VolumeAttachment>>,
    /// What is wanted no longer but still in use.
    pub waiting: Vec<String>,
    /// What the node's status is to say, where it says something else.
    pub attached: Option<Vec<AttachedVolume>>,
    /// What there is to tell of pods.
    pub events: Vec<(Arc<Pod>, Event)>,
}

/// The name of an attachment, which a node computes as well to find it.
pub(super) fn attachment_name(wanted: &Wanted, node: &str) -> String {
    let digest = Sha256::digest(format!("{}{}{node}", wanted.handle, wanted.driver));
    digest.iter().fold("csi-".to_owned(), |mut name, byte| {
        // A string takes whatever is written.
        let _ = write!(name, "{byte:02x}");
        name
    })
}

/// Decides on one node.
pub(super) fn decide(observed: Observed<'_>) -> Decision {
    let mut decision = Decision::default();
    let by_name: BTreeMap<&str, &Arc<VolumeAttachment>> =
        observed.attachments.iter().map(|it| (meta::name(&it.metadata), it)).collect();
    let mut names = BTreeSet::new();
    let mut attached = Vec::new();
    for wanted in observed.wanted {
        let name = attachment_name(wanted, observed.name);
        match by_name.get(&*name) {
            Some(known) if meta::is_deleting(&known.metadata) => {}
            Some(known) => {
                if is_attached(known) {
                    attached.push(attached_volume(wanted));
                }
            }
            None if is_managed(observed.node) => attach(observed, wanted, &name, &mut decision),
            None => {}
        }
        names.insert(name);
    }
    for known in observed.attachments.iter().filter(|it| !names.contains(meta::name(&it.metadata))) {
        detach(observed, known, &mut decision);
    }
    note(observed, attached, &mut decision);
    decision
}

/// Whether attachments of a node are made here, and not by its kubelet.
fn is_managed(node: Option<&Node>) -> bool {
    node.is_some_and(|node| meta::annotation(&node.metadata, MANAGED) == Some("true"))
}

fn is_attached(attachment: &VolumeAttachment) -> bool {
    attachment.status.as_ref().is_some_and(|status| status.attached)
}

/// As a node's status names a volume.
fn unique_name(driver: &str, handle: &str) -> String {
    format!("kubernetes.io/csi/{driver}^{handle}")
}

fn attached_volume(wanted: &Wanted) -> AttachedVolume {
    AttachedVolume { name: unique_name(&wanted.driver, &wanted.handle), device_path: String::new() }
}

fn attach(observed: Observed<'_>, wanted: &Wanted, name: &str, decision: &mut Decision) {
    let volume = meta::name(&wanted.volume.metadata);
    if is_exclusive(&wanted.volume) && observed.elsewhere.get(volume).is_some_and(|nodes| !nodes.is_empty()) {
        let message = format!(
            "Multi-Attach error for volume {volume:?} Volume is already exclusively attached to one node and can't be \
             attached to another"
        );
        let told = |pod: &Arc<Pod>| (pod.clone(), Event::warning("FailedAttachVolume", message.clone()));
        decision.events.extend(wanted.pods.iter().map(told));
        return;
    }
    let source =
        VolumeAttachmentSource { persistent_volume_name: Some(volume.to_owned()), ..Default::default() };
    decision.attach.push(VolumeAttachment {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..Default::default() },
        spec: VolumeAttachmentSpec {
            attacher: wanted.driver.clone(),
            node_name: observed.name.to_owned(),
            source,
        },
        status: None,
    });
}

/// Whether one node alone may have a volume.
fn is_exclusive(volume: &PersistentVolume) -> bool {
    let modes = volume.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
    !modes.iter().any(|mode| matches!(&**mode, "ReadWriteMany" | "ReadOnlyMany"))
}

/// Detaches a volume once the node does not use it any longer. A node that is silent for long has no say.
fn detach(observed: Observed<'_>, known: &Arc<VolumeAttachment>, decision: &mut Decision) {
    if meta::is_deleting(&known.metadata) {
        return;
    }
    let name = meta::name(&known.metadata);
    let waited = observed.unwanted.get(name).copied().unwrap_or_default();
    let has_no_say = observed.node.is_none_or(|node| {
        let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let is_silent = !meta::is_condition_true(conditions, "Ready") && waited >= FORCED_DETACH_TIME;
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
        is_silent || taints.iter().any(|taint| taint.key == OUT_OF_SERVICE)
    });
    if has_no_say || !is_in_use(observed.node, known) {
        decision.detach.push(known.clone());
    } else {
        decision.waiting.push(name.to_owned());
    }
}

/// Whether the node says that it uses the volume of an attachment.
fn is_in_use(node: Option<&Node>, attachment: &VolumeAttachment) -> bool {
    let in_use = node.and_then(|node| node.status.as_ref()?.volumes_in_use.as_deref()).unwrap_or_default();
    let of_driver = format!("kubernetes.io/csi/{}^", attachment.spec.attacher);
    in_use.iter().any(|name| {
        let handle = name.strip_prefix(&of_driver);
        let name = |handle: &str| {
            let digest = Sha256::digest(format!("{handle}{}{}", attachment.spec.attacher, attachment.spec.node_name));
            digest.iter().fold("csi-".to_owned(), |name, byte| format!("{name}{byte:02x}"))
        };
        handle.is_some_and(|handle| name(handle) == meta::name(&attachment.metadata))
    })
}

/// What the node's status says: what is attached, with what others than CSI drivers have attached.
fn note(observed: Observed<'_>, mut attached: Vec<AttachedVolume>, decision: &mut Decision) {
    if !is_managed(observed.node) {
        return;
    }
    let known = observed.node.and_then(|node| node.status.as_ref()?.volumes_attached.clone()).unwrap_or_default();
    let still_attached = |volume: &&AttachedVolume| {
        // What is being detached stays until it is gone.
        let waits = observed.attachments.iter().any(|it| is_attached(it) && is_of(it, volume));
        !volume.name.starts_with("kubernetes.io/csi/") || waits
    };
    for volume in known.iter().filter(still_attached) {
        if !attached.iter().any(|other| other.name == volume.name) {
            attached.push(volume.clone());
        }
    }
    attached.sort_by(|a, b| a.name.cmp(&b.name));
    let mut before = known;
    before.sort_by(|a, b| a.name.cmp(&b.name));
    decision.attached = (before != attached).then_some(attached);
}

fn is_of(attachment: &VolumeAttachment, volume: &AttachedVolume) -> bool {
    let node = Node {
        status: Some(k8s_openapi::api::core::v1::NodeStatus {
            volumes_in_use: Some(vec![volume.name.clone()]),
            ..Default::default()
        }),
        ..Default::default()
    };
    is_in_use(Some(&node), attachment)
}
