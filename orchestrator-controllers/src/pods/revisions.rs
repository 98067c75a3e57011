//! Controller revisions: what a workload's template was, each time that it changed.

use std::sync::Arc;

use k8s_openapi::{
    api::{apps::v1::ControllerRevision, core::v1::PodTemplateSpec},
    apimachinery::pkg::{
        apis::meta::v1::{ObjectMeta, OwnerReference},
        runtime::RawExtension,
    },
};
use kube_core::params::PostParams;
use orchestrator_core::{
    client::Api,
    meta,
    status::{ApiError, ApiResult, Reason},
};
use serde_json::{Value, json};

use super::short_hash;
use crate::limits::{REVISION_NAME_TRIES, REVISION_PREFIX_CHARACTERS};

/// The label of a revision that has its hash. The pods of a workload have it too, with a value of its choice.
pub(crate) const REVISION_LABEL: &str = "controller-revision-hash";

/// A workload whose template is kept in revisions.
#[derive(Clone, Debug)]
pub(crate) struct Keeper<'a> {
    /// The workload's.
    pub metadata: &'a ObjectMeta,
    /// What is kept.
    pub template: Option<&'a PodTemplateSpec>,
    /// The workload, as its revisions name it.
    pub reference: OwnerReference,
    /// The label with the hash.
    pub hash_label: &'static str,
}

/// What a workload's template asks for, in terms of its revisions.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Update {
    /// The newest revision has it.
    Newest(ControllerRevision),
    /// An older revision has it: a rollback. It is to get this number.
    Renumber(ControllerRevision, i64),
    /// None has it; this one is to be made.
    Create(ControllerRevision),
}

/// The revisions, the oldest first.
pub(crate) fn sorted(revisions: &[Arc<ControllerRevision>]) -> Vec<Arc<ControllerRevision>> {
    let mut revisions = revisions.to_vec();
    revisions.sort_by_key(|revision| {
        let created = revision.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (revision.revision, created, revision.metadata.name.clone())
    });
    revisions
}

/// Whether two revisions say the same.
pub(crate) fn is_equal(a: &ControllerRevision, b: &ControllerRevision) -> bool {
    a.data.as_ref().map(|data| &data.0) == b.data.as_ref().map(|data| &data.0)
}

impl Keeper<'_> {
    /// Which revision the template is. `revisions` are [`sorted`].
    pub(crate) fn update(&self, revisions: &[Arc<ControllerRevision>], collisions: i32) -> Update {
        let next = revisions.last().map_or(1, |newest| newest.revision + 1);
        let wanted = self.make(next, collisions);
        match revisions.iter().rposition(|revision| is_equal(revision, &wanted)) {
            Some(index) if index + 1 == revisions.len() => Update::Newest(revisions[index].as_ref().clone()),
            Some(index) => Update::Renumber(revisions[index].as_ref().clone(), next),
            None => Update::Create(wanted),
        }
    }

    /// A revision of the template, as a patch that puts the template back.
    pub(crate) fn make(&self, revision: i64, collisions: i32) -> ControllerRevision {
        let mut body = serde_json::to_value(self.template).unwrap_or(Value::Null);
        if let Some(body) = body.as_object_mut() {
            body.insert("$patch".to_owned(), json!("replace"));
        }
        let data = json!({"spec": {"template": body}});
        let hash = short_hash(&data, Some(collisions));
        let prefix: String = meta::name(self.metadata).chars().take(REVISION_PREFIX_CHARACTERS).collect();
        let mut labels =
            self.template.and_then(|template| template.metadata.as_ref()?.labels.clone()).unwrap_or_default();
        labels.insert(self.hash_label.to_owned(), hash.clone());
        ControllerRevision {
            metadata: ObjectMeta {
                name: Some(format!("{prefix}-{hash}")),
                namespace: self.metadata.namespace.clone(),
                labels: Some(labels),
                annotations: self.metadata.annotations.clone(),
                owner_references: Some(vec![self.reference.clone()]),
                ..Default::default()
            },
            data: Some(RawExtension(data)),
            revision,
        }
    }

    /// Makes or renumbers the template's revision where needed. Gives it, and the number of collisions then.
    pub(crate) async fn write_update(
        &self,
        api: &Api<ControllerRevision>,
        revisions: &[Arc<ControllerRevision>],
        mut collisions: i32,
    ) -> ApiResult<(ControllerRevision, i32)> {
        for _ in 0..REVISION_NAME_TRIES {
            let wanted = match self.update(revisions, collisions) {
                Update::Newest(revision) => return Ok((revision, collisions)),
                Update::Renumber(revision, number) => {
                    let revision = ControllerRevision { revision: number, ..revision };
                    let name = meta::name(&revision.metadata);
                    let written = api.replace(name, &PostParams::default(), &revision).await?;
                    return Ok((ControllerRevision::clone(&written), collisions));
                }
                Update::Create(revision) => revision,
            };
            match api.create(&PostParams::default(), &wanted).await {
                Ok(created) => return Ok((ControllerRevision::clone(&created), collisions)),
                Err(error) if error.is_already_exists() => {
                    let existing = api.get(meta::name(&wanted.metadata)).await?;
                    if is_equal(&existing, &wanted) {
                        return Ok((ControllerRevision::clone(&existing), collisions));
                    }
                    collisions += 1;
                }
                Err(error) => return Err(error),
            }
        }
        Err(ApiError::new(Reason::Conflict, "every name for a new controller revision is taken"))
    }
}
