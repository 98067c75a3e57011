//! Volumes that are directories of the machine, made for claims that ask for one.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use k8s_openapi::{
    api::{
        core::v1::{
            HostPathVolumeSource, Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PersistentVolume,
            PersistentVolumeClaim, PersistentVolumeSpec, VolumeNodeAffinity,
        },
        storage::v1::StorageClass,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use orchestrator_core::meta::{name, namespace, object_reference, uid};

/// The provisioner of classes whose volumes are local directories.
pub(crate) const PROVISIONER: &str = "orchestrator.local/directory";
/// On a volume: who made it, and thus who deletes it.
pub(crate) const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// What keeps a volume while it is bound.
pub(crate) const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";
const HOSTNAME: &str = "kubernetes.io/hostname";

/// Makes and removes the directories of provisioned volumes.
///
/// Both calls are idempotent. The controller names only direct children of `base`.
#[async_trait]
pub trait DirectoryProvisioner: Send + Sync + fmt::Debug {
    /// Makes the directory `base/name`.
    async fn provision(&self, base: &Path, name: &str) -> io::Result<()>;

    /// Removes the directory `base/name` with all that is in it. One that is gone is a success.
    async fn remove(&self, base: &Path, name: &str) -> io::Result<()>;
}

/// Leaves the making of directories to the nodes (the volumes are `DirectoryOrCreate`) and removes nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlannedDirectories;

#[async_trait]
impl DirectoryProvisioner for PlannedDirectories {
    async fn provision(&self, _base: &Path, _name: &str) -> io::Result<()> {
        Ok(())
    }

    async fn remove(&self, _base: &Path, _name: &str) -> io::Result<()> {
        Ok(())
    }
}

/// The name of the volume that is made for a claim.
pub(crate) fn volume_name_for(claim: &PersistentVolumeClaim) -> String {
    format!("pvc-{}", uid(&claim.metadata))
}

/// The name of the directory of a claim's volume.
pub(crate) fn directory_name(claim: &PersistentVolumeClaim) -> String {
    let (namespace, name) = (namespace(&claim.metadata), name(&claim.metadata));
    format!("{namespace}-{name}-{}", volume_name_for(claim))
}

/// The directory of a volume, if it is one of `base`'s children that was made for this very volume.
pub(crate) fn directory_of(volume: &PersistentVolume, base: &Path) -> Option<String> {
    let path = PathBuf::from(&volume.spec.as_ref()?.host_path.as_ref()?.path);
    let directory = path.file_name()?.to_str()?;
    let ours = path.parent() == Some(base) && directory.ends_with(&format!("-{}", name(&volume.metadata)));
    ours.then(|| directory.to_owned())
}

/// The volume of a claim, reserved for it. With a node, only that node reaches it.
pub(crate) fn make_volume(
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    base: &Path,
    node: Option<&Node>,
) -> PersistentVolume {
    let spec = claim.spec.clone().unwrap_or_default();
    let resources = spec.resources.unwrap_or_default();
    let storage = resources.requests.unwrap_or_default().remove_entry("storage");
    PersistentVolume {
        metadata: ObjectMeta {
            name: Some(volume_name_for(claim)),
            annotations: Some([(PROVISIONED_BY.to_owned(), PROVISIONER.to_owned())].into()),
            finalizers: Some(vec![VOLUME_PROTECTION.to_owned()]),
            ..Default::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: spec.access_modes,
            capacity: Some(storage.into_iter().collect()),
            claim_ref: Some(object_reference(claim)),
            host_path: Some(HostPathVolumeSource {
                path: base.join(directory_name(claim)).to_string_lossy().into_owned(),
                type_: Some("DirectoryOrCreate".to_owned()),
            }),
            mount_options: class.mount_options.clone(),
            node_affinity: node.map(only_on),
            persistent_volume_reclaim_policy: Some(class.reclaim_policy.clone().unwrap_or_else(|| "Delete".to_owned())),
            storage_class_name: class.metadata.name.clone(),
            volume_mode: Some(spec.volume_mode.unwrap_or_else(|| "Filesystem".to_owned())),
            ..Default::default()
        }),
        status: None,
    }
}

fn only_on(node: &Node) -> VolumeNodeAffinity {
    let labels = node.metadata.labels.as_ref();
    let hostname = labels.and_then(|labels| labels.get(HOSTNAME)).cloned();
    let requirement = NodeSelectorRequirement {
        key: HOSTNAME.to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![hostname.unwrap_or_else(|| name(&node.metadata).to_owned())]),
    };
    let term = NodeSelectorTerm { match_expressions: Some(vec![requirement]), match_fields: None };
    VolumeNodeAffinity { required: Some(NodeSelector { node_selector_terms: vec![term] }) }
}
