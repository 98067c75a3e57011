//! Rolls a deployment back to an earlier revision, as an annotation asks for which once was a field.
//!
//! Upstream: `pkg/controller/deployment/rollback.go`.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use orchestrator_core::{events::Event, meta};

use super::sets::{ROLLBACK_TO, Sets, has_template_of, is_own, number, revision_of, without_hash};

const NOT_FOUND: &str = "DeploymentRollbackRevisionNotFound";

/// What comes of the wish for a rollback, which is taken back in any case.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rollback {
    /// The set whose template and annotations the deployment gets; none where there is nothing to go back to.
    pub to: Option<ReplicaSet>,
    /// What is told.
    pub event: Event,
}

/// The revision that is asked for; 0 means the one before the newest. What is no number is not heard.
pub(crate) fn requested(deployment: &Deployment) -> Option<i64> {
    number(&deployment.metadata, ROLLBACK_TO)
}

/// Decides on a rollback to a revision.
pub(crate) fn decide(deployment: &Deployment, sets: &Sets, revision: i64) -> Rollback {
    let name = meta::name(&deployment.metadata);
    let refused = |reason: &str, message: String| Rollback { to: None, event: Event::warning(reason, message) };
    let revision = if revision == 0 { last_revision(sets) } else { revision };
    if revision == 0 {
        return refused(NOT_FOUND, "Unable to find last revision.".to_owned());
    }
    match sets.all().find(|set| revision_of(set) == revision) {
        None => refused(NOT_FOUND, "Unable to find the revision to rollback to.".to_owned()),
        Some(set) if has_template_of(deployment, set) => {
            let message = format!("The rollback revision contains the same template as current deployment {name:?}");
            refused("DeploymentRollbackTemplateUnchanged", message)
        }
        Some(set) => {
            let message = format!("Rolled back deployment {name:?} to revision {revision}");
            Rollback { to: Some(set.clone()), event: Event::normal("DeploymentRollback", message) }
        }
    }
}

/// The second highest revision; 0 when there is none.
fn last_revision(sets: &Sets) -> i64 {
    let mut revisions: Vec<i64> = sets.all().map(revision_of).collect();
    revisions.sort_unstable();
    revisions.into_iter().rev().nth(1).unwrap_or(0).max(0)
}

impl Rollback {
    /// The deployment after it. It gets the set's annotations as well, or its own would be copied to the set.
    pub(crate) fn applied_to(&self, deployment: &Deployment) -> Deployment {
        let mut deployment = deployment.clone();
        let mut annotations = deployment.metadata.annotations.take().unwrap_or_default();
        if let Some(set) = &self.to {
            let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
            deployment.spec.get_or_insert_default().template = template.map(without_hash).unwrap_or_default();
            annotations.retain(|key, _| is_own(key));
            let of_set = set.metadata.annotations.iter().flatten().filter(|(key, _)| !is_own(key));
            annotations.extend(of_set.map(|(key, value)| (key.clone(), value.clone())));
        }
        annotations.remove(ROLLBACK_TO);
        deployment.metadata.annotations = Some(annotations).filter(|annotations| !annotations.is_empty());
        deployment
    }
}
