//! What makes a pod of a stateful set the one it is: name, labels, host name and claims.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#pod-identity>.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};

use orchestrator_core::meta::{controller_of, group_of, owner_reference};

use crate::pods::{REVISION_LABEL, pod_from_template, pod_name_prefix};

const POD_NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

/// The name of the set.
pub(crate) fn set_name(set: &StatefulSet) -> &str {
    set.metadata.name.as_deref().unwrap_or_default()
}

/// The name of the set's pod with this ordinal.
pub(crate) fn pod_name(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", set_name(set))
}

/// The ordinal that a name means in a set, if it is a name of one of its pods.
pub(crate) fn ordinal_of(set: &StatefulSet, name: &str) -> Option<i32> {
    let ordinal = name.strip_prefix(set_name(set))?.strip_prefix('-')?.parse().ok()?;
    (ordinal >= 0 && pod_name(set, ordinal) == name).then_some(ordinal)
}

/// The ordinals that the set wants, from the first to before the last.
pub(crate) fn ordinals(set: &StatefulSet) -> std::ops::Range<i32> {
    let spec = set.spec.as_ref();
    let start = spec.and_then(|spec| spec.ordinals.as_ref()?.start).unwrap_or(0);
    let replicas = spec.and_then(|spec| spec.replicas).unwrap_or(1);
    start..start.saturating_add(replicas.max(0))
}

/// The labels that tell the set's pods apart.
pub(crate) fn identity_labels(set: &StatefulSet, ordinal: i32) -> BTreeMap<String, String> {
    let labels = [(POD_NAME_LABEL, pod_name(set, ordinal)), (POD_INDEX_LABEL, ordinal.to_string())];
    labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Whether a pod carries its identity. As upstream, the label with the index does not matter for that.
pub(crate) fn has_identity(pod: &Pod) -> bool {
    pod.metadata.labels.as_ref().and_then(|labels| labels.get(POD_NAME_LABEL)) == pod.metadata.name.as_ref()
}

/// The pod of an ordinal, made from a revision's template.
pub(crate) fn make_pod(set: &StatefulSet, ordinal: i32, template: &PodTemplateSpec, revision: &str) -> Pod {
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    let mut pod = pod_from_template(template, namespace, owner_reference(set, true));
    let name = pod_name(set, ordinal);
    pod.metadata.generate_name = Some(pod_name_prefix(set_name(set)));
    pod.metadata.name = Some(name.clone());
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.extend(identity_labels(set, ordinal));
    labels.insert(REVISION_LABEL.to_owned(), revision.to_owned());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name);
    spec.subdomain = set.spec.as_ref().and_then(|spec| spec.service_name.clone());
    let claims = claim_names(set, ordinal);
    let mut volumes: Vec<Volume> = claims.iter().map(|(volume, claim)| claim_volume(volume, claim)).collect();
    let others = spec.volumes.take().unwrap_or_default();
    volumes.extend(others.into_iter().filter(|other| claims.iter().all(|(volume, _)| *volume != other.name)));
    spec.volumes = (!volumes.is_empty()).then_some(volumes);
    pod
}

fn claim_volume(volume: &str, claim: &str) -> Volume {
    Volume {
        name: volume.to_owned(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim.to_owned(),
            read_only: None,
        }),
        ..Default::default()
    }
}

fn claim_templates(set: &StatefulSet) -> &[PersistentVolumeClaim] {
    set.spec.as_ref().and_then(|spec| spec.volume_claim_templates.as_deref()).unwrap_or_default()
}

/// Volumes of an ordinal's pod and the claims behind them.
pub(crate) fn claim_names(set: &StatefulSet, ordinal: i32) -> Vec<(String, String)> {
    let volumes = claim_templates(set).iter().map(|template| template.metadata.name.clone().unwrap_or_default());
    volumes.map(|volume| (volume.clone(), format!("{volume}-{}", pod_name(set, ordinal)))).collect()
}

/// The claims of an ordinal's pod, as they are made.
pub(crate) fn make_claims(set: &StatefulSet, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let names = claim_names(set, ordinal);
    let selector = set.spec.as_ref().and_then(|spec| spec.selector.match_labels.clone()).unwrap_or_default();
    let claims = claim_templates(set).iter().zip(names).map(|(template, (_, name))| {
        let mut labels = template.metadata.labels.clone().unwrap_or_default();
        labels.extend(selector.clone());
        let owners = template.metadata.owner_references.clone().unwrap_or_default();
        let owners = Retention::of(set).owners(set, None, false, &owners);
        PersistentVolumeClaim {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: set.metadata.namespace.clone(),
                labels: Some(labels).filter(|labels| !labels.is_empty()),
                owner_references: (!owners.is_empty()).then_some(owners),
                ..template.metadata.clone()
            },
            spec: template.spec.clone(),
            status: None,
        }
    });
    claims.collect()
}

/// Whether claims go with the set, and with the pods that scaling removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retention {
    delete_with_set: bool,
    delete_when_scaled: bool,
}

impl Retention {
    /// As the set says; claims stay when it says nothing.
    pub(crate) fn of(set: &StatefulSet) -> Self {
        let policy = set.spec.as_ref().and_then(|spec| spec.persistent_volume_claim_retention_policy.as_ref());
        let delete = |text: Option<&String>| text.is_some_and(|text| text == "Delete");
        Self {
            delete_with_set: delete(policy.and_then(|policy| policy.when_deleted.as_ref())),
            delete_when_scaled: delete(policy.and_then(|policy| policy.when_scaled.as_ref())),
        }
    }

    /// Whether claims go with the pods that scaling removes.
    pub(crate) fn deletes_when_scaled(self) -> bool {
        self.delete_when_scaled
    }

    /// The owners that a claim is to have: its set while it is to go with the set, its pod once scaling removes that.
    /// The garbage collector does the rest. A claim that somebody else controls gets no owner of ours, and one of an earlier
    /// set or pod of the same name is left alone.
    pub(crate) fn owners(
        self,
        set: &StatefulSet,
        pod: Option<&Pod>,
        scaled_down: bool,
        owners: &[OwnerReference],
    ) -> Vec<OwnerReference> {
        let is_ours = |owner: &OwnerReference| is_of(owner, set, pod);
        if owners.iter().any(|owner| is_ours(owner) && !is_current(owner, set, pod)) {
            return owners.to_vec();
        }
        let others: Vec<OwnerReference> = owners.iter().filter(|owner| !is_ours(owner)).cloned().collect();
        if is_controlled_by_other(set, pod, owners) {
            return others;
        }
        let to_pod = self.delete_when_scaled && scaled_down;
        let wanted = (self.delete_with_set && !to_pod).then(|| owner_reference(set, true));
        let wanted = wanted.or_else(|| pod.filter(|_| to_pod).map(|pod| owner_reference(pod, true)));
        let has: Vec<&OwnerReference> = owners.iter().filter(|owner| is_ours(owner)).collect();
        let is_so = |wanted: &OwnerReference| matches!(has[..], [owner] if owner.uid == wanted.uid && owner.controller == Some(true));
        if wanted.as_ref().map_or(has.is_empty(), is_so) {
            return owners.to_vec();
        }
        others.into_iter().chain(wanted).collect()
    }
}

/// Whether an owner is the set or the pod, or an earlier one of its name.
fn is_of(owner: &OwnerReference, set: &StatefulSet, pod: Option<&Pod>) -> bool {
    let is = |kind: &str, group: &str| owner.kind == kind && group_of(&owner.api_version) == group;
    is("StatefulSet", "apps") && owner.name == set_name(set)
        || is("Pod", "") && pod.is_some_and(|pod| Some(&owner.name) == pod.metadata.name.as_ref())
}

/// Whether an owner is the very set or pod, not an earlier one of its name.
fn is_current(owner: &OwnerReference, set: &StatefulSet, pod: Option<&Pod>) -> bool {
    let of_pod = pod.is_some_and(|pod| Some(&owner.uid) == pod.metadata.uid.as_ref());
    of_pod || Some(&owner.uid) == set.metadata.uid.as_ref()
}

/// Whether somebody else controls a claim, so that the retention policy does not matter for it.
pub(crate) fn is_controlled_by_other(set: &StatefulSet, pod: Option<&Pod>, owners: &[OwnerReference]) -> bool {
    owners.iter().any(|owner| owner.controller == Some(true) && !is_of(owner, set, pod))
}

/// Whether a claim goes away with an earlier pod of this name: a new pod must not use it.
pub(crate) fn belongs_to_former_pod(claim: &PersistentVolumeClaim, pod_name: &str) -> bool {
    controller_of(&claim.metadata).is_some_and(|owner| owner.kind == "Pod" && owner.name == pod_name)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::{StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec};

    use super::*;

    fn set(deleted: &str, scaled: &str) -> StatefulSet {
        let mut set = StatefulSet::default();
        set.metadata.name = Some("s".to_owned());
        set.metadata.uid = Some("uid-s".to_owned());
        let template = PersistentVolumeClaim {
            metadata: ObjectMeta { name: Some("w".to_owned()), ..Default::default() },
            ..Default::default()
        };
        set.spec = Some(StatefulSetSpec {
            service_name: Some("svc".to_owned()),
            volume_claim_templates: Some(vec![template]),
            persistent_volume_claim_retention_policy: Some(StatefulSetPersistentVolumeClaimRetentionPolicy {
                when_deleted: Some(deleted.to_owned()),
                when_scaled: Some(scaled.to_owned()),
            }),
            ..Default::default()
        });
        set
    }

    #[test]
    fn only_canonical_names_are_ordinals() {
        let set = set("Retain", "Retain");
        for (name, ordinal) in
            [("s-0", Some(0)), ("s-12", Some(12)), ("s-01", None), ("s-", None), ("t-0", None), ("s--1", None)]
        {
            assert_eq!(ordinal_of(&set, name), ordinal, "{name}");
        }
    }

    #[test]
    fn a_pod_carries_its_identity_and_claims() {
        let mut template = PodTemplateSpec::default();
        let own = Volume { name: "w".to_owned(), ..Default::default() };
        let other = Volume { name: "x".to_owned(), ..Default::default() };
        template.spec.get_or_insert_default().volumes = Some(vec![own, other]);
        let pod = make_pod(&set("Retain", "Retain"), 3, &template, "s-abc");
        assert_eq!(pod.metadata.name.as_deref(), Some("s-3"));
        assert_eq!(pod.metadata.labels.as_ref().unwrap()[POD_INDEX_LABEL], "3");
        let spec = pod.spec.unwrap();
        assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("s-3"), Some("svc")));
        let volumes = spec.volumes.unwrap();
        assert_eq!(volumes.iter().map(|volume| volume.name.as_str()).collect::<Vec<_>>(), ["w", "x"]);
        assert_eq!(volumes[0].persistent_volume_claim.as_ref().unwrap().claim_name, "w-s-3");
    }

    #[test]
    fn claims_of_others_and_of_earlier_pods_get_no_owner() {
        let set = set("Delete", "Delete");
        let mut pod = Pod::default();
        pod.metadata.name = Some("s-3".to_owned());
        pod.metadata.uid = Some("uid-pod".to_owned());
        let owners = |owners: &[OwnerReference]| Retention::of(&set).owners(&set, Some(&pod), false, owners);
        let own = owner_reference(&set, true);
        let other = OwnerReference { kind: "Other".to_owned(), controller: Some(true), ..own.clone() };
        assert_eq!(owners(&[other.clone(), own.clone()]), std::slice::from_ref(&other));
        assert!(is_controlled_by_other(&set, Some(&pod), &[other]));
        let earlier = OwnerReference { uid: "earlier".to_owned(), ..owner_reference(&pod, true) };
        assert_eq!(owners(std::slice::from_ref(&earlier)), [earlier]);
        let plain = OwnerReference { controller: None, ..own.clone() };
        assert_eq!(owners(&[plain]), [own], "an owner of ours controls");
    }

    #[test]
    fn the_retention_policy_decides_on_owners() {
        let mut pod = Pod::default();
        pod.metadata.name = Some("s-3".to_owned());
        pod.metadata.uid = Some("uid-pod".to_owned());
        for (deleted, scaled, scaled_down, expected) in [
            ("Retain", "Retain", true, vec![]),
            ("Delete", "Retain", false, vec!["uid-s"]),
            ("Delete", "Retain", true, vec!["uid-s"]),
            ("Retain", "Delete", false, vec![]),
            ("Retain", "Delete", true, vec!["uid-pod"]),
            ("Delete", "Delete", false, vec!["uid-s"]),
            ("Delete", "Delete", true, vec!["uid-pod"]),
        ] {
            let set = set(deleted, scaled);
            let owners = Retention::of(&set).owners(&set, Some(&pod), scaled_down, &[]);
            let uids: Vec<&str> = owners.iter().map(|owner| owner.uid.as_str()).collect();
            assert_eq!(uids, expected, "{deleted} {scaled} {scaled_down}");
            assert_eq!(Retention::of(&set).owners(&set, Some(&pod), scaled_down, &owners), owners);
            let none = self::set("Retain", "Retain");
            assert!(Retention::of(&none).owners(&none, Some(&pod), scaled_down, &owners).is_empty());
        }
    }
}
