//! The revisions of a stateful set's template: which one is current, which one is to be rolled out.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::{
    apps::v1::{ControllerRevision, StatefulSet},
    core::v1::{Pod, PodTemplateSpec},
};
use orchestrator_core::{meta::owner_reference, object::Object};

use crate::pods::{Keeper, REVISION_LABEL};

const HASH_LABEL: &str = "controller.kubernetes.io/hash";

/// The set, as one whose template is kept.
pub(crate) fn keeper(set: &StatefulSet) -> Keeper<'_> {
    Keeper {
        metadata: &set.metadata,
        template: set.spec.as_ref().map(|spec| &spec.template),
        reference: owner_reference(set, true),
        hash_label: HASH_LABEL,
    }
}

/// The revision that the set's pods had before the update; the update itself when there is none.
pub(crate) fn current_revision(
    set: &StatefulSet,
    revisions: &[Arc<ControllerRevision>],
    update: &ControllerRevision,
) -> ControllerRevision {
    let name = set.status.as_ref().and_then(|status| status.current_revision.as_ref());
    let current = revisions.iter().find(|revision| name.is_some() && revision.metadata.name.as_ref() == name);
    current.map_or_else(|| update.clone(), |current| current.as_ref().clone())
}

/// The template that a revision keeps; `None` when it is not one of ours.
pub(crate) fn template_of(revision: &ControllerRevision) -> Option<Arc<PodTemplateSpec>> {
    let template = revision.data.as_ref()?.0.get("spec")?.get("template")?;
    Object::from_tree(template.clone()).typed().ok()
}

/// Revisions beyond the history limit, the oldest first; never one that a pod or the set still uses.
pub(crate) fn surplus(
    set: &StatefulSet,
    revisions: &[Arc<ControllerRevision>],
    used: [&ControllerRevision; 2],
    pods: &[Arc<Pod>],
) -> Vec<Arc<ControllerRevision>> {
    let mut live: BTreeSet<&str> = used.iter().filter_map(|revision| revision.metadata.name.as_deref()).collect();
    live.extend(pods.iter().filter_map(|pod| pod_revision(pod)));
    let history: Vec<_> = revisions
        .iter()
        .filter(|revision| revision.metadata.name.as_deref().is_some_and(|name| !live.contains(name)))
        .cloned()
        .collect();
    let limit = set.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10);
    let surplus = history.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    history.into_iter().take(surplus).collect()
}

/// The name of a pod's revision.
pub(crate) fn pod_revision(pod: &Pod) -> Option<&str> {
    pod.metadata.labels.as_ref()?.get(REVISION_LABEL).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::{StatefulSetSpec, StatefulSetStatus};

    use super::*;
    use crate::pods::{Update, sorted};

    fn set(image: &str) -> StatefulSet {
        let mut set = StatefulSet::default();
        set.metadata.name = Some("s".to_owned());
        let mut spec = StatefulSetSpec { revision_history_limit: Some(1), ..Default::default() };
        spec.template.metadata.get_or_insert_default().labels = Some([("app".to_owned(), image.to_owned())].into());
        set.spec = Some(spec);
        set
    }

    fn created(set: &StatefulSet, history: &[Arc<ControllerRevision>]) -> ControllerRevision {
        match keeper(set).update(history, 0) {
            Update::Create(revision) => revision,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_template_seen_before_gets_a_new_number() {
        let first = Arc::new(created(&set("a"), &[]));
        let second = Arc::new(created(&set("b"), std::slice::from_ref(&first)));
        assert_eq!((first.revision, second.revision), (1, 2));
        let history = sorted(&[second.clone(), first.clone()]);
        assert_eq!(keeper(&set("b")).update(&history, 0), Update::Newest((*second).clone()));
        assert_eq!(keeper(&set("a")).update(&history, 0), Update::Renumber((*first).clone(), 3));
        assert_eq!(template_of(&first).as_deref(), set("a").spec.as_ref().map(|spec| &spec.template));
    }

    #[test]
    fn a_collision_changes_the_name() {
        let names = [0, 1].map(|collisions| keeper(&set("a")).make(1, collisions).metadata.name);
        assert_ne!(names[0], names[1]);
    }

    #[test]
    fn the_current_revision_is_the_one_of_the_status() {
        let first = Arc::new(created(&set("a"), &[]));
        let second = created(&set("b"), std::slice::from_ref(&first));
        let mut set = set("b");
        assert_eq!(current_revision(&set, std::slice::from_ref(&first), &second), second);
        let name = first.metadata.name.clone();
        set.status = Some(StatefulSetStatus { current_revision: name, ..Default::default() });
        assert_eq!(current_revision(&set, std::slice::from_ref(&first), &second), *first);
    }

    #[test]
    fn history_goes_when_nobody_uses_it() {
        let mut history: Vec<Arc<ControllerRevision>> = Vec::new();
        for image in ["a", "b", "c", "d", "e"] {
            history.push(Arc::new(created(&set(image), &history)));
        }
        let mut pod = Pod::default();
        let used_by_pod = history[0].metadata.name.clone().unwrap();
        pod.metadata.labels = Some([(REVISION_LABEL.to_owned(), used_by_pod)].into());
        let surplus = surplus(&set("e"), &history, [&history[3], &history[4]], &[Arc::new(pod)]);
        assert_eq!(surplus, [history[1].clone()]);
    }
}
