//! Which claims of devices a pod lacks, and which claims nobody needs any longer.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/> and
//! `pkg/controller/resourceclaim`.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::{
    api::{
        core::v1::{Pod, PodResourceClaim, PodResourceClaimStatus},
        resource::v1::{ResourceClaim, ResourceClaimConsumerReference, ResourceClaimTemplate},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use orchestrator_core::meta::{self, controller_of};

use crate::pods::{is_deleting, is_finished};

/// Keeps a claim while devices are allocated to it.
pub(super) const FINALIZER: &str = "resource.kubernetes.io/delete-protection";

/// Which of a pod's claims a claim was made for.
const POD_CLAIM: &str = "resource.kubernetes.io/pod-claim-name";

/// Characters of a generated name before its random ones.
const NAME_CHARACTERS: usize = 57;

/// The claims of a pod.
pub(super) fn pod_claims(pod: &Pod) -> &[PodResourceClaim] {
    pod.spec.as_ref().and_then(|spec| spec.resource_claims.as_deref()).unwrap_or_default()
}

fn statuses(pod: &Pod) -> &[PodResourceClaimStatus] {
    pod.status.as_ref().and_then(|status| status.resource_claim_statuses.as_deref()).unwrap_or_default()
}

/// What a claim of a pod is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// So.
    Known(String),
    /// It has none yet: it is to be made.
    Unknown,
    /// It was found not to be needed.
    Unneeded,
}

/// The name of a pod's claim, and whether the claim was made for the pod.
pub(super) fn name_of(pod: &Pod, claim: &PodResourceClaim) -> (Name, bool) {
    if let Some(name) = &claim.resource_claim_name {
        return (Name::Known(name.clone()), false);
    }
    let status = statuses(pod).iter().find(|status| status.name == claim.name);
    let name = match status.map(|status| status.resource_claim_name.clone()) {
        None => Name::Unknown,
        Some(None) => Name::Unneeded,
        Some(Some(name)) => Name::Known(name),
    };
    (name, true)
}

/// Whether a claim was made for a pod.
pub(super) fn is_for(pod: &Pod, claim: &ResourceClaim) -> Result<(), String> {
    if meta::is_controlled_by(&claim.metadata, meta::uid(&pod.metadata)) {
        return Ok(());
    }
    let (namespace, name) = (meta::namespace(&pod.metadata), meta::name(&pod.metadata));
    let claim = meta::name(&claim.metadata);
    Err(format!("ResourceClaim {namespace}/{claim} was not created for pod {namespace}/{name} (pod is not owner)"))
}

/// What to do for a claim of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing.
    Nothing,
    /// Note that this claim was made for it.
    Note(String),
    /// Make a claim by this template.
    Make(String),
}

/// What to do for a claim of a pod. `find` finds claims by name, and `own` are those that the pod owns.
pub(super) fn need<'a>(
    pod: &Pod,
    wanted: &PodResourceClaim,
    find: impl Fn(&str) -> Option<Arc<ResourceClaim>>,
    own: impl IntoIterator<Item = &'a Arc<ResourceClaim>>,
) -> Need {
    let Some(template) = &wanted.resource_claim_template_name else { return Need::Nothing };
    match name_of(pod, wanted).0 {
        Name::Unneeded => return Need::Nothing,
        Name::Known(name) if find(&name).is_some_and(|claim| is_for(pod, &claim).is_ok()) => return Need::Nothing,
        Name::Known(_) | Name::Unknown => {}
    }
    let made = own.into_iter().find(|claim| meta::annotation(&claim.metadata, POD_CLAIM) == Some(&wanted.name));
    made.map_or_else(|| Need::Make(template.clone()), |claim| Need::Note(meta::name(&claim.metadata).to_owned()))
}

/// The claim that a template makes for a pod.
pub(super) fn make(pod: &Pod, wanted: &PodResourceClaim, template: &ResourceClaimTemplate) -> ResourceClaim {
    let given = template.spec.metadata.clone().unwrap_or_default();
    let mut annotations = given.annotations.unwrap_or_default();
    annotations.insert(POD_CLAIM.to_owned(), wanted.name.clone());
    ResourceClaim {
        metadata: ObjectMeta {
            generate_name: Some(generated_name(meta::name(&pod.metadata), &wanted.name)),
            labels: given.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![meta::owner_reference(pod, true)]),
            ..Default::default()
        },
        spec: template.spec.spec.clone(),
        status: None,
    }
}

/// Both names, each shortened in proportion where they are too long together.
fn generated_name(pod: &str, claim: &str) -> String {
    let whole = format!("{pod}-{claim}-");
    if whole.len() <= NAME_CHARACTERS {
        return whole;
    }
    let part = |name: &str| name.chars().take(name.len() * NAME_CHARACTERS / whole.len()).collect::<String>();
    format!("{}-{}", part(pod), part(claim))
}

/// The statuses of a pod's claims, with these names noted.
pub(super) fn with_names(pod: &Pod, noted: &[(String, String)]) -> Vec<PodResourceClaimStatus> {
    let is_noted = |status: &&PodResourceClaimStatus| noted.iter().any(|(claim, _)| *claim == status.name);
    let mut all: Vec<_> = statuses(pod).iter().filter(|status| !is_noted(status)).cloned().collect();
    let new = noted
        .iter()
        .map(|(claim, name)| PodResourceClaimStatus { name: claim.clone(), resource_claim_name: Some(name.clone()) });
    all.extend(new);
    all
}

/// The claim, reserved for a pod that was bound without the scheduler; nothing where that is not possible or done already.
pub(super) fn reserved(pod: &Pod, claim: &ResourceClaim) -> Option<ResourceClaim> {
    let status = claim.status.as_ref().filter(|status| status.allocation.is_some())?;
    let users = status.reserved_for.as_deref().unwrap_or_default();
    let uid = meta::uid(&pod.metadata);
    if users.len() >= crate::limits::CLAIM_USERS || users.iter().any(|user| user.uid == uid) {
        return None;
    }
    let mut claim = claim.clone();
    let user = ResourceClaimConsumerReference {
        api_group: None,
        resource: "pods".to_owned(),
        name: meta::name(&pod.metadata).to_owned(),
        uid: uid.to_owned(),
    };
    claim.status.get_or_insert_default().reserved_for.get_or_insert_default().push(user);
    Some(claim)
}

/// Whether a pod will not run, or not any longer.
pub(super) fn is_done(pod: &Pod) -> bool {
    let is_bound = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()).is_some_and(|node| !node.is_empty());
    is_finished(pod) || is_deleting(pod) && !is_bound
}

/// The pods that a claim is reserved for.
pub(super) fn users(claim: &ResourceClaim) -> &[ResourceClaimConsumerReference] {
    claim.status.as_ref().and_then(|status| status.reserved_for.as_deref()).unwrap_or_default()
}

/// The first user of a claim that is no pod: nobody here knows what becomes of those.
pub(super) fn foreign_user(claim: &ResourceClaim) -> Option<&ResourceClaimConsumerReference> {
    users(claim).iter().find(|user| user.resource != "pods" || user.api_group.as_ref().is_some_and(|it| !it.is_empty()))
}

/// The claim without users that are gone, and without its devices once nobody is left; nothing where all is as it should be.
pub(super) fn freed(claim: &ResourceClaim, gone: &BTreeSet<String>) -> Option<ResourceClaim> {
    let is_left = |user: &ResourceClaimConsumerReference| !gone.contains(&user.uid);
    let left = users(claim).iter().filter(|user| is_left(user)).count();
    let is_protected = meta::has_finalizer(&claim.metadata, FINALIZER);
    let has_devices = claim.status.as_ref().is_some_and(|status| status.allocation.is_some());
    let loses_users = left < users(claim).len();
    let goes = meta::is_deleting(&claim.metadata) && left == 0 && has_devices && is_protected;
    if !loses_users && !goes {
        return None;
    }
    let mut claim = claim.clone();
    let status = claim.status.get_or_insert_default();
    if let Some(users) = &mut status.reserved_for {
        users.retain(is_left);
    }
    status.reserved_for.take_if(|users| users.is_empty());
    if left == 0 && is_protected {
        status.allocation = None;
    }
    Some(claim)
}

/// Whether a claim is protected for nothing.
pub(super) fn is_protected_in_vain(claim: &ResourceClaim, was_freed: bool) -> bool {
    let has_devices = claim.status.as_ref().is_some_and(|status| status.allocation.is_some());
    meta::has_finalizer(&claim.metadata, FINALIZER)
        && !has_devices
        && users(claim).is_empty()
        && (was_freed || meta::is_deleting(&claim.metadata))
}

/// The pod that a claim was made for.
pub(super) fn owning_pod(claim: &ResourceClaim) -> Option<&OwnerReference> {
    controller_of(&claim.metadata).filter(|owner| owner.kind == "Pod" && owner.api_version == "v1")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn pod(status: Value) -> Pod {
        let claims =
            json!([{"name": "gpu", "resourceClaimTemplateName": "t"}, {"name": "own", "resourceClaimName": "c"}]);
        let metadata = json!({"name": "p", "namespace": "n", "uid": "u"});
        let spec = json!({"containers": [], "resourceClaims": claims});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status})).unwrap()
    }

    fn claim(users: &[&str], finalizer: bool) -> ResourceClaim {
        let user = |uid: &&str| json!({"resource": "pods", "name": uid, "uid": uid});
        let users: Vec<_> = users.iter().map(user).collect();
        let finalizers = if finalizer { json!([FINALIZER]) } else { json!([]) };
        serde_json::from_value(json!({
            "metadata": {"name": "c", "namespace": "n", "finalizers": finalizers},
            "spec": {"devices": {}}, "status": {"allocation": {}, "reservedFor": users},
        }))
        .unwrap()
    }

    #[test]
    fn a_claim_is_made_once_for_each_template() {
        let template: ResourceClaimTemplate =
            serde_json::from_value(json!({"metadata": {"name": "t"}, "spec": {"spec": {"devices": {}}}})).unwrap();
        let new = pod(json!({}));
        let [by_template, by_name] = pod_claims(&new) else { panic!("two claims") };
        let nothing = |_: &str| None;
        assert_eq!(need(&new, by_name, nothing, []), Need::Nothing);
        assert_eq!(need(&new, by_template, nothing, []), Need::Make("t".to_owned()));
        let mut made = make(&new, by_template, &template);
        assert_eq!(made.metadata.generate_name.as_deref(), Some("p-gpu-"));
        made.metadata.name = Some("p-gpu-x".to_owned());
        let made = Arc::new(made);
        assert_eq!(need(&new, by_template, nothing, [&made]), Need::Note("p-gpu-x".to_owned()));
        let noted = with_names(&new, &[("gpu".to_owned(), "p-gpu-x".to_owned())]);
        let known = pod(json!({"resourceClaimStatuses": noted}));
        assert_eq!(need(&known, by_template, |_| Some(made.clone()), []), Need::Nothing);
        assert_eq!(need(&known, by_template, nothing, []), Need::Make("t".to_owned()), "it was deleted");
        let unneeded = pod(json!({"resourceClaimStatuses": [{"name": "gpu"}]}));
        assert_eq!(need(&unneeded, by_template, nothing, []), Need::Nothing);
    }

    #[test]
    fn long_names_are_shortened_in_proportion() {
        let name = generated_name(&"p".repeat(60), &"c".repeat(20));
        assert_eq!(name, format!("{}-{}", "p".repeat(41), "c".repeat(13)));
    }

    #[test]
    fn devices_are_given_back_with_the_last_user() {
        let gone = |uids: &[&str]| uids.iter().map(|uid| (*uid).to_owned()).collect();
        let both = claim(&["a", "b"], true);
        assert_eq!(freed(&both, &gone(&[])), None);
        let one = freed(&both, &gone(&["a"])).unwrap();
        assert!(users(&one).len() == 1 && one.status.as_ref().unwrap().allocation.is_some());
        let none = freed(&both, &gone(&["a", "b"])).unwrap();
        assert!(users(&none).is_empty() && none.status.as_ref().unwrap().allocation.is_none());
        assert!(is_protected_in_vain(&none, true));
        assert_eq!(freed(&claim(&[], true), &gone(&[])), None, "allocated ahead of its first user");
        let mut going = claim(&[], true);
        going.metadata.deletion_timestamp = Some(orchestrator_core::object::time(jiff::Timestamp::UNIX_EPOCH));
        assert!(freed(&going, &gone(&[])).is_some());
    }

    proptest! {
        #[test]
        fn only_users_that_are_gone_lose_a_claim(
            users in prop::collection::btree_set("[a-f]", 0..6), gone in prop::collection::btree_set("[a-f]", 0..6), finalizer in any::<bool>(),
        ) {
            let all: Vec<&str> = users.iter().map(String::as_str).collect();
            let before = claim(&all, finalizer);
            let after = freed(&before, &gone).unwrap_or(before);
            let left: BTreeSet<String> = super::users(&after).iter().map(|user| user.uid.clone()).collect();
            prop_assert_eq!(&left, &users.difference(&gone).cloned().collect());
            prop_assert!(left.is_empty() || after.status.as_ref().unwrap().allocation.is_some());
            prop_assert_eq!(freed(&after, &gone), None);
        }
    }
}
