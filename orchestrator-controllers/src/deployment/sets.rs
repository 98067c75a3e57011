//! The replica sets of a deployment: which one is new, which are old, and the notes that they carry.

use std::{cmp::Ordering, collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec},
        core::v1::PodTemplateSpec,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};

use orchestrator_core::meta::owner_reference;

use super::strategy::{max_surge, wanted};
use crate::{
    limits::{NAME_CHARACTERS, REVISION_HISTORY_CHARACTERS},
    pods::short_hash,
};

/// The label that tells the pods of a deployment's replica sets apart.
pub(crate) const TEMPLATE_HASH: &str = "pod-template-hash";
/// The number of the rollout that a replica set stands for.
pub(crate) const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
/// Asks for a rollback.
pub(crate) const ROLLBACK_TO: &str = "deprecated.deployment.rollback.to";
/// Annotations of a deployment that its replica sets do not get.
const OWN_ANNOTATIONS: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    ROLLBACK_TO,
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
];

/// Working copies of a deployment's replica sets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sets {
    /// The one whose template is the deployment's.
    pub new: Option<ReplicaSet>,
    /// The others, the oldest first.
    pub old: Vec<ReplicaSet>,
    /// `new` does not exist yet.
    pub created: bool,
}

impl Sets {
    /// Sorts the observed sets out. Of several with the deployment's template the oldest is the new one.
    pub(crate) fn of(deployment: &Deployment, observed: &[Arc<ReplicaSet>]) -> Self {
        let mut old: Vec<ReplicaSet> = observed.iter().map(|set| ReplicaSet::clone(set)).collect();
        old.sort_by(by_age);
        let new = old.iter().position(|set| has_template_of(deployment, set)).map(|index| old.remove(index));
        Self { new, old, created: false }
    }

    /// All sets, the new one last.
    pub(crate) fn all(&self) -> impl Iterator<Item = &ReplicaSet> {
        self.old.iter().chain(&self.new)
    }

    /// As [`Self::all`], to be changed.
    pub(crate) fn all_mut(&mut self) -> impl Iterator<Item = &mut ReplicaSet> {
        self.old.iter_mut().chain(&mut self.new)
    }

    fn next_revision(&self) -> i64 {
        self.old.iter().map(revision_of).max().unwrap_or(0) + 1
    }

    /// Brings the notes of an existing new set up to date. A set that becomes the newest again gets a new revision
    /// and remembers the one it had: that is what a rollback is.
    pub(crate) fn refresh_new(&mut self, deployment: &Deployment) {
        let revision = self.next_revision();
        let Some(new) = &mut self.new else { return };
        note(deployment, new, revision);
        if let Some(spec) = &mut new.spec {
            spec.min_ready_seconds = deployment.spec.as_ref().and_then(|spec| spec.min_ready_seconds);
        }
    }

    /// Adds the new set, still without replicas, if there is none.
    pub(crate) fn ensure_new(&mut self, deployment: &Deployment) {
        if self.new.is_some() {
            return;
        }
        let mut new = make(deployment);
        note(deployment, &mut new, self.next_revision());
        note_replicas(deployment, &mut new);
        self.new = Some(new);
        self.created = true;
    }
}

/// The replicas that a set is told to have.
pub(crate) fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// The available replicas that a set reports.
pub(crate) fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

/// The replicas that a set reports.
pub(crate) fn actual(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map_or(0, |status| status.replicas)
}

/// Tells a set how many replicas to have, and notes what the deployment wanted then.
pub(crate) fn scale(deployment: &Deployment, set: &mut ReplicaSet, to: i32) {
    set.spec.get_or_insert_default().replicas = Some(to);
    note_replicas(deployment, set);
}

/// The oldest first; names break ties.
pub(crate) fn by_age(a: &ReplicaSet, b: &ReplicaSet) -> Ordering {
    let key = |set: &ReplicaSet| {
        let created = set.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (created.is_none(), created, set.metadata.name.clone())
    };
    key(a).cmp(&key(b))
}

/// The number of the rollout; 0 when it has none.
pub(crate) fn revision_of(set: &ReplicaSet) -> i64 {
    number(&set.metadata, REVISION).unwrap_or(0)
}

/// The replicas that the deployment wanted when the set was last scaled.
pub(crate) fn desired_note(set: &ReplicaSet) -> Option<i32> {
    number(&set.metadata, DESIRED_REPLICAS)
}

/// The most replicas that the deployment allowed when the set was last scaled.
pub(crate) fn max_note(set: &ReplicaSet) -> Option<i32> {
    number(&set.metadata, MAX_REPLICAS)
}

/// Whether an annotation is not shared by a deployment and its sets.
pub(crate) fn is_own(annotation: &str) -> bool {
    OWN_ANNOTATIONS.contains(&annotation)
}

/// An annotation that is a number.
pub(crate) fn number<N: std::str::FromStr>(metadata: &ObjectMeta, annotation: &str) -> Option<N> {
    metadata.annotations.as_ref()?.get(annotation)?.parse().ok()
}

/// Whether a set stands for the deployment's template.
pub(crate) fn has_template_of(deployment: &Deployment, set: &ReplicaSet) -> bool {
    let own = deployment.spec.as_ref().map(|spec| without_hash(&spec.template));
    let its = set.spec.as_ref().and_then(|spec| spec.template.as_ref()).map(without_hash);
    own == its
}

/// A template without the label that its set has added.
pub(crate) fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    if let Some(labels) = template.metadata.as_mut().and_then(|metadata| metadata.labels.as_mut()) {
        labels.remove(TEMPLATE_HASH);
    }
    template
}

fn make(deployment: &Deployment) -> ReplicaSet {
    let spec = deployment.spec.clone().unwrap_or_default();
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count);
    let hash = short_hash(&spec.template, collisions);
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    let mut template = spec.template;
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(TEMPLATE_HASH.to_owned(), hash.clone());
    let labels = labels.clone();
    let mut match_labels = spec.selector.match_labels.unwrap_or_default();
    match_labels.insert(TEMPLATE_HASH.to_owned(), hash.clone());
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(name_of_set(name, &hash)),
            namespace: deployment.metadata.namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![owner_reference(deployment, true)]),
            ..Default::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: spec.min_ready_seconds,
            selector: LabelSelector { match_labels: Some(match_labels), ..spec.selector },
            template: Some(template),
        }),
        status: None,
    }
}

/// The name of a deployment's set, in which a long name of the deployment is cut.
fn name_of_set(deployment: &str, hash: &str) -> String {
    let room = NAME_CHARACTERS.saturating_sub(hash.len() + 1);
    let kept: String = deployment.chars().take(room).collect();
    format!("{kept}-{hash}")
}

/// Copies the deployment's annotations to its set and moves the set's revision forward.
fn note(deployment: &Deployment, set: &mut ReplicaSet, revision: i64) {
    let before = revision_of(set);
    let annotations = set.metadata.annotations.get_or_insert_default();
    for (key, value) in deployment.metadata.annotations.iter().flatten() {
        if !is_own(key) {
            annotations.insert(key.clone(), value.clone());
        }
    }
    if before < revision {
        let had = annotations.insert(REVISION.to_owned(), revision.to_string());
        if let Some(had) = had.filter(|had| !had.is_empty()) {
            let history = annotations.entry(REVISION_HISTORY.to_owned()).or_default();
            *history = remember(history, &had);
        }
    }
}

/// Appends to a comma-separated history and drops its oldest entries while it is too long.
fn remember(history: &str, revision: &str) -> String {
    let mut entries: Vec<&str> = history.split(',').filter(|entry| !entry.is_empty()).collect();
    entries.push(revision);
    let length = |entries: &[&str]| entries.iter().map(|entry| entry.len() + 1).sum::<usize>().saturating_sub(1);
    while entries.len() > 1 && length(&entries) > REVISION_HISTORY_CHARACTERS {
        entries.remove(0);
    }
    entries.join(",")
}

fn note_replicas(deployment: &Deployment, set: &mut ReplicaSet) {
    let notes = replica_notes(deployment);
    set.metadata.annotations.get_or_insert_default().extend(notes);
}

fn replica_notes(deployment: &Deployment) -> BTreeMap<String, String> {
    let wanted = wanted(deployment);
    let most = wanted.saturating_add(max_surge(deployment));
    [(DESIRED_REPLICAS.to_owned(), wanted.to_string()), (MAX_REPLICAS.to_owned(), most.to_string())].into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_history_is_bounded() {
        assert_eq!(remember("", "1"), "1");
        assert_eq!(remember("1,3", "5"), "1,3,5");
        let long = vec!["123456789"; 400].join(",");
        assert!(remember(&long, "7").len() <= REVISION_HISTORY_CHARACTERS && remember(&long, "7").ends_with(",7"));
        let fits = vec!["123456789"; 199].join(",");
        assert_eq!(remember(&fits, "1234567890").len(), REVISION_HISTORY_CHARACTERS, "to the last character");
    }

    #[test]
    fn a_long_name_is_cut_so_that_the_hash_fits() {
        assert_eq!(name_of_set("d", "abc"), "d-abc");
        let name = name_of_set(&"a".repeat(250), "0123456789");
        assert_eq!((name.len(), name.matches('a').count()), (NAME_CHARACTERS, 242));
    }
}
