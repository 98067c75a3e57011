//! Which volumes are to be attached to a node, and which to be detached.
//!
//! Upstream: `pkg/controller/volume/attachdetach` and
//! <https://kubernetes-csi.github.io/docs/skip-attach.html>. What attaches is a CSI driver's attacher, which acts on
//! VolumeAttachments.

use std::{
    collections::{BTreeMap, BTreeSet},
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
/// How names of volumes in a node's status begin where a CSI driver has attached them.
const CSI: &str = "kubernetes.io/csi/";
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
fn attachment_name(driver: &str, handle: &str, node: &str) -> String {
    let digest = Sha256::digest(format!("{handle}{driver}{node}"));
    digest.iter().fold("csi-".to_owned(), |name, byte| name + &format!("{byte:02x}"))
}

/// Decides on one node.
pub(super) fn decide(observed: Observed<'_>) -> Decision {
    let mut decision = Decision::default();
    let by_name: BTreeMap<&str, &Arc<VolumeAttachment>> =
        observed.attachments.iter().map(|it| (meta::name(&it.metadata), it)).collect();
    let mut names = BTreeSet::new();
    let mut attached = Vec::new();
    for wanted in observed.wanted {
        let name = attachment_name(&wanted.driver, &wanted.handle, observed.name);
        match by_name.get(&*name) {
            Some(known) if is_attached(known) && !meta::is_deleting(&known.metadata) => {
                attached.push(attached_volume(wanted));
            }
            Some(_) => {}
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
pub(super) fn is_managed(node: Option<&Node>) -> bool {
    node.is_some_and(|node| meta::annotation(&node.metadata, MANAGED) == Some("true"))
}

fn is_attached(attachment: &VolumeAttachment) -> bool {
    attachment.status.as_ref().is_some_and(|status| status.attached)
}

/// As a node's status names a volume.
fn unique_name(driver: &str, handle: &str) -> String {
    format!("{CSI}{driver}^{handle}")
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
    let source = VolumeAttachmentSource { persistent_volume_name: Some(volume.to_owned()), ..Default::default() };
    decision.attach.push(VolumeAttachment {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..Default::default() },
        spec: VolumeAttachmentSpec { attacher: wanted.driver.clone(), node_name: observed.name.to_owned(), source },
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
    in_use.iter().any(|name| is_of(attachment, name))
}

/// Whether an attachment is that of a volume, as a node's status names it.
fn is_of(attachment: &VolumeAttachment, volume: &str) -> bool {
    let VolumeAttachmentSpec { attacher, node_name, .. } = &attachment.spec;
    let handle = volume.strip_prefix(CSI).and_then(|rest| rest.strip_prefix(&**attacher)?.strip_prefix('^'));
    handle.is_some_and(|handle| attachment_name(attacher, handle, node_name) == meta::name(&attachment.metadata))
}

/// What the node's status says: what is attached, with what others than CSI drivers have attached.
fn note(observed: Observed<'_>, mut attached: Vec<AttachedVolume>, decision: &mut Decision) {
    if !is_managed(observed.node) {
        return;
    }
    let known = observed.node.and_then(|node| node.status.as_ref()?.volumes_attached.clone()).unwrap_or_default();
    let still_attached = |volume: &&AttachedVolume| {
        // What is being detached stays until it is gone.
        let waits = observed.attachments.iter().any(|it| is_attached(it) && is_of(it, &volume.name));
        !volume.name.starts_with(CSI) || waits
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

/// What there is to tell of an attachment that has changed.
pub(super) fn news(old: Option<&VolumeAttachment>, new: &VolumeAttachment) -> Option<Event> {
    let volume = new.spec.source.persistent_volume_name.as_deref()?;
    let error = |attachment: &VolumeAttachment| {
        attachment.status.as_ref().and_then(|status| status.attach_error.as_ref()?.message.clone())
    };
    if is_attached(new) && !old.is_some_and(is_attached) {
        let message = format!("AttachVolume.Attach succeeded for volume {volume:?} ");
        return Some(Event::normal("SuccessfulAttachVolume", message));
    }
    let failure = error(new).filter(|failure| old.and_then(error).as_ref() != Some(failure))?;
    Some(Event::warning("FailedAttachVolume", format!("AttachVolume.Attach failed for volume {volume:?} : {failure}")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn wanted(volume: &str, mode: &str) -> Wanted {
        let spec = json!({"accessModes": [mode], "csi": {"driver": "d", "volumeHandle": volume}});
        let volume_object = serde_json::from_value(json!({"metadata": {"name": volume}, "spec": spec})).unwrap();
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "uid": "u"}})).unwrap();
        Wanted {
            volume: Arc::new(volume_object),
            driver: "d".to_owned(),
            handle: volume.to_owned(),
            pods: vec![Arc::new(pod)],
        }
    }

    fn node(in_use: &[&str], ready: &str) -> Node {
        let in_use: Vec<_> = in_use.iter().map(|volume| unique_name("d", volume)).collect();
        serde_json::from_value(json!({
            "metadata": {"name": "n", "annotations": {MANAGED: "true"}},
            "status": {"volumesInUse": in_use, "conditions": [{"type": "Ready", "status": ready}]},
        }))
        .unwrap()
    }

    fn attachment(volume: &str, attached: bool) -> Arc<VolumeAttachment> {
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": attachment_name("d", volume, "n")},
                "spec": {"attacher": "d", "nodeName": "n", "source": {"persistentVolumeName": volume}},
                "status": {"attached": attached},
            }))
            .unwrap(),
        )
    }

    fn decided(
        node: Option<&Node>,
        wanted: &[Wanted],
        attachments: &[Arc<VolumeAttachment>],
        elsewhere: &[&str],
        waited: u64,
    ) -> Decision {
        let elsewhere = elsewhere.iter().map(|volume| ((*volume).to_owned(), ["m".to_owned()].into())).collect();
        let unwanted =
            attachments.iter().map(|it| (meta::name(&it.metadata).to_owned(), Duration::from_secs(waited))).collect();
        decide(Observed { name: "n", node, wanted, attachments, elsewhere: &elsewhere, unwanted: &unwanted })
    }

    #[test]
    fn volumes_come_with_their_pods() {
        let here = node(&[], "True");
        let first = decided(Some(&here), &[wanted("v", "ReadWriteOnce")], &[], &[], 0);
        assert_eq!(meta::name(&first.attach[0].metadata), attachment_name("d", "v", "n"));
        assert_eq!(first.attach[0].spec.source.persistent_volume_name.as_deref(), Some("v"));
        let pending = decided(Some(&here), &[wanted("v", "ReadWriteOnce")], &[attachment("v", false)], &[], 0);
        assert_eq!(pending, Decision::default());
        let attached = decided(Some(&here), &[wanted("v", "ReadWriteOnce")], &[attachment("v", true)], &[], 0);
        assert_eq!(attached.attached.unwrap()[0].name, "kubernetes.io/csi/d^v");
        let mut own = node(&[], "True");
        own.metadata.annotations = None;
        let unmanaged = decided(Some(&own), &[wanted("v", "ReadWriteOnce")], &[], &[], 0);
        assert_eq!(unmanaged, Decision::default(), "its kubelet attaches by itself");
    }

    #[test]
    fn one_node_alone_has_an_exclusive_volume() {
        let here = node(&[], "True");
        let refused = decided(Some(&here), &[wanted("v", "ReadWriteOnce")], &[], &["v"], 0);
        assert!(refused.attach.is_empty());
        assert!(refused.events[0].1.message.starts_with("Multi-Attach error for volume \"v\" "));
        assert_eq!(decided(Some(&here), &[wanted("v", "ReadWriteMany")], &[], &["v"], 0).attach.len(), 1);
    }

    #[test]
    fn volumes_go_when_nobody_uses_them() {
        let detaches =
            |node: Option<&Node>, waited| !decided(node, &[], &[attachment("v", true)], &[], waited).detach.is_empty();
        assert!(detaches(Some(&node(&[], "True")), 0));
        assert!(!detaches(Some(&node(&["v"], "True")), 9999), "the node uses it");
        assert!(!detaches(Some(&node(&["v"], "Unknown")), 300));
        assert!(detaches(Some(&node(&["v"], "Unknown")), 360));
        assert!(detaches(None, 0));
        let mut lost = node(&["v"], "True");
        lost.spec =
            serde_json::from_value(json!({"taints": [{"key": OUT_OF_SERVICE, "effect": "NoExecute"}]})).unwrap();
        assert!(detaches(Some(&lost), 0));
    }

    #[test]
    fn attachers_are_heard() {
        let told = |old: Option<&VolumeAttachment>, new: &VolumeAttachment| news(old, new).map(|event| event.message);
        let (before, after) = (attachment("v", false), attachment("v", true));
        assert_eq!(told(Some(&before), &after).as_deref(), Some("AttachVolume.Attach succeeded for volume \"v\" "));
        assert_eq!(told(Some(&after), &after), None);
        let mut failed = VolumeAttachment::clone(&before);
        failed.status = serde_json::from_value(json!({"attached": false, "attachError": {"message": "no"}})).unwrap();
        let message = "AttachVolume.Attach failed for volume \"v\" : no";
        assert_eq!(told(Some(&before), &failed).as_deref(), Some(message));
        assert_eq!(told(Some(&failed), &failed), None);
    }

    proptest! {
        #[test]
        fn what_is_attached_in_the_end_is_what_is_wanted(
            wants in prop::collection::btree_set("[a-e]", 0..5), has in prop::collection::btree_set("[a-e]", 0..5),
        ) {
            let here = node(&[], "True");
            let wanted: Vec<_> = wants.iter().map(|volume| wanted(volume, "ReadWriteOnce")).collect();
            let mut attachments: Vec<_> = has.iter().map(|volume| attachment(volume, true)).collect();
            let decision = decided(Some(&here), &wanted, &attachments, &[], 0);
            attachments.retain(|it| !decision.detach.contains(it));
            attachments.extend(decision.attach.into_iter().map(Arc::new));
            let volumes: BTreeSet<String> =
                attachments.iter().filter_map(|it| it.spec.source.persistent_volume_name.clone()).collect();
            prop_assert_eq!(volumes, wants);
        }
    }
}
