//! What the status of a namespace that goes away should say, and whether it may go.
//!
//! Upstream: `pkg/controller/namespace/deletion`.

use std::{collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{Namespace, NamespaceCondition, NamespaceStatus, Pod},
    apimachinery::pkg::apis::meta::v1::Time,
};
use orchestrator_core::{client::Resource, meta};

use crate::pods::is_finished;

/// The finalizer in `spec` that this controller removes.
pub(super) const FINALIZER: &str = "kubernetes";

/// What is known of the content after deleting all that can be deleted.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Content {
    /// How many objects are left, by `resource.group`.
    pub(super) remaining: BTreeMap<String, usize>,
    /// On how many objects each finalizer is left.
    pub(super) finalizers: BTreeMap<String, usize>,
    /// What went wrong on the way.
    pub(super) errors: Vec<String>,
    /// The server's resources are not known.
    pub(super) undiscovered: Option<String>,
}

impl Content {
    /// Nothing is left, as far as anybody can know.
    pub(super) fn is_gone(&self) -> bool {
        self.remaining.is_empty() && self.errors.is_empty() && self.undiscovered.is_none()
    }
}

/// Whether the pods of a namespace may still be there: they end in their own time.
pub(super) fn is_waiting_for(pods: &[Arc<Pod>], namespace: &Namespace, now: Timestamp) -> bool {
    let living = pods.iter().filter(|pod| !is_finished(pod));
    let longest = living.filter_map(|pod| pod.spec.as_ref()?.termination_grace_period_seconds).max().unwrap_or(0);
    let since = namespace.metadata.deletion_timestamp.as_ref().map_or(now, |time| time.0);
    now.duration_since(since) < SignedDuration::from_secs(longest)
}

/// The complaint about objects that stay although nothing keeps them.
pub(super) fn unexpected(namespace: &str, resource: &Resource) -> String {
    let Resource { group, version, plural, .. } = resource;
    format!("unexpected items still remain in namespace: {namespace} for gvr: {group}/{version}, Resource={plural}")
}

/// Whether this controller has work to do on a namespace.
pub(super) fn is_due(namespace: &Namespace) -> bool {
    let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_deref()).unwrap_or_default();
    namespace.metadata.deletion_timestamp.is_some() && finalizers.iter().any(|finalizer| finalizer == FINALIZER)
}

/// The namespace with the status that it should have, if that is not the one it has.
pub(super) fn with_status(namespace: &Namespace, content: &Content, now: &Time) -> Option<Namespace> {
    let mut status = namespace.status.clone().unwrap_or_default();
    status.phase = Some("Terminating".to_owned());
    let mut conditions = status.conditions.take().unwrap_or_default();
    for (type_, outcome) in outcomes(content) {
        meta::set_condition(&mut conditions, condition(type_, outcome, now));
    }
    status.conditions = Some(conditions);
    changed(namespace, status)
}

/// The namespace in its terminating phase, before anything is known of its content.
pub(super) fn terminating(namespace: &Namespace) -> Option<Namespace> {
    let status = namespace.status.clone().unwrap_or_default();
    changed(namespace, NamespaceStatus { phase: Some("Terminating".to_owned()), ..status })
}

/// The namespace without this controller's finalizer.
pub(super) fn finalized(namespace: &Namespace) -> Namespace {
    let mut namespace = namespace.clone();
    if let Some(finalizers) = namespace.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
        finalizers.retain(|finalizer| finalizer != FINALIZER);
    }
    namespace
}

fn changed(namespace: &Namespace, status: NamespaceStatus) -> Option<Namespace> {
    let status = Some(status);
    (namespace.status != status).then(|| Namespace { status, ..namespace.clone() })
}

/// `Err` is the bad case, whose condition is `True`; both carry reason and message.
type Outcome = Result<(&'static str, &'static str), (&'static str, String)>;

fn condition(type_: &str, outcome: Outcome, now: &Time) -> NamespaceCondition {
    let (status, reason, message) = match outcome {
        Ok((reason, message)) => ("False", reason, message.to_owned()),
        Err((reason, message)) => ("True", reason, message),
    };
    NamespaceCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: Some(now.clone()),
    }
}

/// All conditions, in upstream's order.
fn outcomes(content: &Content) -> [(&'static str, Outcome); 5] {
    let counts = |counts: &BTreeMap<String, usize>, text: fn(&str, usize) -> String| {
        counts.iter().map(|(name, count)| text(name, *count)).collect::<Vec<_>>().join(", ")
    };
    let discovery = match &content.undiscovered {
        None => Ok(("ResourcesDiscovered", "All resources successfully discovered")),
        Some(error) => Err(("DiscoveryFailed", format!("Discovery failed for some groups, 1 failing: {error}"))),
    };
    let deletion = match content.errors.as_slice() {
        [] => Ok(("ContentDeleted", "All content successfully deleted, may be waiting on finalization")),
        errors => {
            let mut errors = errors.to_vec();
            errors.sort();
            let failed =
                format!("Failed to delete all resource types, {} remaining: {}", errors.len(), errors.join(", "));
            Err(("ContentDeletionFailed", failed))
        }
    };
    let remaining = match content.remaining.is_empty() {
        true => Ok(("ContentRemoved", "All content successfully removed")),
        false => {
            let list = counts(&content.remaining, |name, count| format!("{name} has {count} resource instances"));
            Err(("SomeResourcesRemain", format!("Some resources are remaining: {list}")))
        }
    };
    let finalizers = match content.finalizers.is_empty() {
        true => Ok(("ContentHasNoFinalizers", "All content-preserving finalizers finished")),
        false => {
            let list = counts(&content.finalizers, |name, count| format!("{name} in {count} resource instances"));
            let message = format!("Some content in the namespace has finalizers remaining: {list}");
            Err(("SomeFinalizersRemain", message))
        }
    };
    [
        ("NamespaceDeletionDiscoveryFailure", discovery),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            Ok(("ParsedGroupVersions", "All legacy kube types successfully parsed")),
        ),
        ("NamespaceDeletionContentFailure", deletion),
        ("NamespaceContentRemaining", remaining),
        ("NamespaceFinalizersRemaining", finalizers),
    ]
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::NamespaceSpec;
    use proptest::prelude::*;

    use super::*;

    fn time(second: i64) -> Time {
        Time(jiff::Timestamp::from_second(second).unwrap())
    }

    fn namespace() -> Namespace {
        let mut namespace = Namespace::default();
        namespace.metadata.deletion_timestamp = Some(time(0));
        namespace.spec = Some(NamespaceSpec { finalizers: Some(vec![FINALIZER.to_owned(), "other".to_owned()]) });
        namespace
    }

    #[test]
    fn what_remains_is_told() {
        let content = Content {
            remaining: [("pods.".to_owned(), 2)].into(),
            finalizers: [("example.com/keep".to_owned(), 1)].into(),
            ..Default::default()
        };
        let told = with_status(&namespace(), &content, &time(1)).unwrap().status.unwrap();
        assert_eq!(told.phase.as_deref(), Some("Terminating"));
        let conditions = told.conditions.unwrap();
        let message = |type_: &str| meta::condition(&conditions, type_).unwrap().message.clone().unwrap();
        assert_eq!(
            message("NamespaceContentRemaining"),
            "Some resources are remaining: pods. has 2 resource instances"
        );
        assert_eq!(
            message("NamespaceFinalizersRemaining"),
            "Some content in the namespace has finalizers remaining: example.com/keep in 1 resource instances"
        );
        assert!(!meta::is_condition_true(&conditions, "NamespaceDeletionContentFailure"));
    }

    #[test]
    fn what_stays_without_a_reason_is_unexpected() {
        let errors = vec!["b".to_owned(), unexpected("n", &Resource::new("", "v1", "pods"))];
        let content = Content { errors, ..Default::default() };
        let told = with_status(&namespace(), &content, &time(1)).unwrap().status.unwrap();
        let conditions = told.conditions.unwrap();
        let failure = meta::condition(&conditions, "NamespaceDeletionContentFailure").unwrap();
        let expected = "Failed to delete all resource types, 2 remaining: b, unexpected items still remain in \
                        namespace: n for gvr: /v1, Resource=pods";
        assert_eq!(failure.message.as_deref(), Some(expected));
    }

    #[test]
    fn pods_have_the_longest_of_their_times_to_go() {
        let mut pod = crate::pods::fixtures::running("p", None);
        pod.spec.get_or_insert_default().termination_grace_period_seconds = Some(30);
        let pods = [Arc::new(pod)];
        let waits = |pods: &[Arc<Pod>], second| is_waiting_for(pods, &namespace(), time(second).0);
        assert!(waits(&pods, 29) && !waits(&pods, 30) && !waits(&[], 0));
    }

    #[test]
    fn only_the_own_finalizer_is_removed() {
        let namespace = namespace();
        assert!(is_due(&namespace));
        let finalized = finalized(&namespace);
        assert!(!is_due(&finalized));
        assert_eq!(finalized.spec.unwrap().finalizers.unwrap(), ["other"]);
    }

    proptest! {
        #[test]
        fn a_status_that_says_it_already_is_not_written_again(
            remaining in prop::collection::btree_map("[a-c]", 1..3_usize, 0..3),
            errors in prop::collection::vec("[a-c]", 0..2),
        ) {
            let content = Content { remaining, errors, ..Default::default() };
            let first = with_status(&namespace(), &content, &time(1)).unwrap();
            prop_assert_eq!(with_status(&first, &content, &time(2)), None);
            prop_assert_eq!(first.status.unwrap().conditions.unwrap().len(), 5);
        }
    }
}
