//! Owner references, conditions, finalizers and other parts of metadata.
//!
//! Upstream: `k8s.io/apimachinery/pkg/apis/meta/v1` (`controller_ref.go`) and `k8s.io/apimachinery/pkg/api/meta`
//! (`conditions.go`).

use k8s_openapi::{
    api::core::v1::ObjectReference,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time},
};

/// The owner that manages an object, if there is one. At most one reference has `controller: true`.
pub fn controller_of(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    owners(metadata).iter().find(|reference| reference.controller == Some(true))
}

/// All owners.
pub fn owners(metadata: &ObjectMeta) -> &[OwnerReference] {
    metadata.owner_references.as_deref().unwrap_or_default()
}

/// Whether one of the owners has this UID.
pub fn is_owned_by(metadata: &ObjectMeta, uid: &str) -> bool {
    owners(metadata).iter().any(|reference| reference.uid == uid)
}

/// Whether the managing owner has this UID.
pub fn is_controlled_by(metadata: &ObjectMeta, uid: &str) -> bool {
    controller_of(metadata).is_some_and(|reference| reference.uid == uid)
}

/// A reference to an owner. One that manages its dependent also keeps its own foreground deletion waiting for it.
pub fn owner_reference<K>(owner: &K, controller: bool) -> OwnerReference
where
    K: kube_core::Resource<DynamicType = ()>,
{
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: controller.then_some(true),
        block_owner_deletion: controller.then_some(true),
    }
}

/// A reference to an object, as Events and endpoints carry it.
pub fn object_reference<K>(object: &K) -> ObjectReference
where
    K: kube_core::Resource<DynamicType = ()>,
{
    let metadata = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        namespace: metadata.namespace.clone(),
        name: metadata.name.clone(),
        uid: metadata.uid.clone(),
        resource_version: metadata.resource_version.clone(),
        field_path: None,
    }
}

/// The group of an `apiVersion`; empty for the core group.
pub fn group_of(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// Whether an object is being deleted.
pub fn is_deleting(metadata: &ObjectMeta) -> bool {
    metadata.deletion_timestamp.is_some()
}

/// The name; empty when there is none.
pub fn name(metadata: &ObjectMeta) -> &str {
    metadata.name.as_deref().unwrap_or_default()
}

/// The namespace; empty when there is none.
pub fn namespace(metadata: &ObjectMeta) -> &str {
    metadata.namespace.as_deref().unwrap_or_default()
}

/// The UID; empty when there is none.
pub fn uid(metadata: &ObjectMeta) -> &str {
    metadata.uid.as_deref().unwrap_or_default()
}

/// A label's value.
pub fn label<'a>(metadata: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    metadata.labels.as_ref()?.get(name).map(String::as_str)
}

/// An annotation's value.
pub fn annotation<'a>(metadata: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// Whether a finalizer is there.
pub fn has_finalizer(metadata: &ObjectMeta, finalizer: &str) -> bool {
    metadata.finalizers.iter().flatten().any(|known| known == finalizer)
}

/// Adds a finalizer; `false` when it was there.
pub fn add_finalizer(metadata: &mut ObjectMeta, finalizer: &str) -> bool {
    if has_finalizer(metadata, finalizer) {
        return false;
    }
    metadata.finalizers.get_or_insert_default().push(finalizer.to_owned());
    true
}

/// Removes a finalizer; `false` when it was not there.
pub fn remove_finalizer(metadata: &mut ObjectMeta, finalizer: &str) -> bool {
    let had = has_finalizer(metadata, finalizer);
    if let Some(finalizers) = &mut metadata.finalizers {
        finalizers.retain(|known| known != finalizer);
    }
    metadata.finalizers.take_if(|finalizers| finalizers.is_empty());
    had
}

/// One aspect of a status: a type that is `True`, `False` or `Unknown`, with the time since when.
pub trait Condition {
    /// Which aspect.
    fn type_(&self) -> &str;
    /// `True`, `False` or `Unknown`.
    fn status(&self) -> &str;
    /// When the status last changed.
    fn last_transition_time(&self) -> Option<&Time>;
    /// Sets when the status last changed.
    fn set_last_transition_time(&mut self, time: Option<Time>);
}

/// The condition of a type.
pub fn condition<'a, C: Condition>(conditions: &'a [C], type_: &str) -> Option<&'a C> {
    conditions.iter().find(|condition| condition.type_() == type_)
}

/// Whether the condition of a type is `True`.
pub fn is_condition_true<C: Condition>(conditions: &[C], type_: &str) -> bool {
    condition(conditions, type_).is_some_and(|condition| condition.status() == "True")
}

/// Sets the condition of its type; `false` when nothing changed. The new condition carries the present time as its
/// last transition; the known one is kept while the status stays the same.
pub fn set_condition<C: Condition + PartialEq>(conditions: &mut Vec<C>, mut new: C) -> bool {
    let Some(known) = conditions.iter_mut().find(|condition| condition.type_() == new.type_()) else {
        conditions.push(new);
        return true;
    };
    if known.status() == new.status() {
        new.set_last_transition_time(known.last_transition_time().cloned());
    }
    let changed = *known != new;
    *known = new;
    changed
}

/// Removes the condition of a type; `false` when there was none.
pub fn remove_condition<C: Condition>(conditions: &mut Vec<C>, type_: &str) -> bool {
    let before = conditions.len();
    conditions.retain(|condition| condition.type_() != type_);
    conditions.len() != before
}

macro_rules! conditions {
    ($($condition:ty),+ $(,)?) => {$(
        impl Condition for $condition {
            fn type_(&self) -> &str {
                &self.type_
            }

            fn status(&self) -> &str {
                &self.status
            }

            fn last_transition_time(&self) -> Option<&Time> {
                self.last_transition_time.as_ref()
            }

            fn set_last_transition_time(&mut self, time: Option<Time>) {
                self.last_transition_time = time;
            }
        }
    )+};
}

conditions!(
    k8s_openapi::api::apps::v1::DaemonSetCondition,
    k8s_openapi::api::apps::v1::DeploymentCondition,
    k8s_openapi::api::apps::v1::ReplicaSetCondition,
    k8s_openapi::api::apps::v1::StatefulSetCondition,
    k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscalerCondition,
    k8s_openapi::api::batch::v1::JobCondition,
    k8s_openapi::api::certificates::v1::CertificateSigningRequestCondition,
    k8s_openapi::api::core::v1::NamespaceCondition,
    k8s_openapi::api::core::v1::NodeCondition,
    k8s_openapi::api::core::v1::PersistentVolumeClaimCondition,
    k8s_openapi::api::core::v1::PodCondition,
    k8s_openapi::api::core::v1::ReplicationControllerCondition,
);

impl Condition for k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition {
    fn type_(&self) -> &str {
        &self.type_
    }

    fn status(&self) -> &str {
        &self.status
    }

    fn last_transition_time(&self) -> Option<&Time> {
        Some(&self.last_transition_time)
    }

    fn set_last_transition_time(&mut self, time: Option<Time>) {
        if let Some(time) = time {
            self.last_transition_time = time;
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::PodCondition};

    use super::*;

    fn condition_at(status: &str, second: i64) -> PodCondition {
        PodCondition {
            type_: "Ready".to_owned(),
            status: status.to_owned(),
            last_transition_time: Some(Time(jiff::Timestamp::from_second(second).unwrap())),
            ..Default::default()
        }
    }

    #[test]
    fn a_transition_is_a_change_of_the_status() {
        let mut conditions = Vec::new();
        assert!(set_condition(&mut conditions, condition_at("False", 1)));
        assert!(!set_condition(&mut conditions, condition_at("False", 2)));
        assert_eq!(conditions, [condition_at("False", 1)]);
        assert!(set_condition(&mut conditions, condition_at("True", 3)));
        assert_eq!(conditions, [condition_at("True", 3)]);
        assert!(is_condition_true(&conditions, "Ready"));
        let reason = PodCondition { reason: Some("r".to_owned()), ..condition_at("True", 4) };
        assert!(set_condition(&mut conditions, reason));
        assert_eq!(conditions[0].last_transition_time, condition_at("True", 3).last_transition_time);
        assert!(remove_condition(&mut conditions, "Ready"));
        assert!(!remove_condition(&mut conditions, "Ready"));
    }

    #[test]
    fn finalizers_are_a_set() {
        let mut metadata = ObjectMeta::default();
        assert!(add_finalizer(&mut metadata, "a"));
        assert!(!add_finalizer(&mut metadata, "a"));
        assert!(remove_finalizer(&mut metadata, "a"));
        assert!(!remove_finalizer(&mut metadata, "a"));
        assert_eq!(metadata, ObjectMeta::default());
    }

    #[test]
    fn the_controller_is_the_reference_that_says_so() {
        let metadata = ObjectMeta { name: Some("web".to_owned()), uid: Some("u".to_owned()), ..Default::default() };
        let owner = ReplicaSet { metadata, ..Default::default() };
        let child = ObjectMeta {
            owner_references: Some(vec![owner_reference(&owner, false), owner_reference(&owner, true)]),
            ..Default::default()
        };
        let reference = controller_of(&child).unwrap();
        assert_eq!((reference.api_version.as_str(), reference.kind.as_str()), ("apps/v1", "ReplicaSet"));
        assert_eq!(group_of(&reference.api_version), "apps");
        assert!(is_controlled_by(&child, "u") && is_owned_by(&child, "u") && !is_owned_by(&child, "v"));
    }
}
