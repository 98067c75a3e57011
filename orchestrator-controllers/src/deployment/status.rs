//! The status of a deployment: counters, and the conditions `Available`, `Progressing` and `ReplicaFailure`.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus};
use orchestrator_core::object::time;

use super::{
    sets::{Sets, actual, available},
    strategy::{max_unavailable, wanted},
};
use crate::pods::nonzero;

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
const REPLICA_FAILURE: &str = "ReplicaFailure";
const NEW_SET_AVAILABLE: &str = "NewReplicaSetAvailable";
const DEADLINE_EXCEEDED: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";

/// The conditions of a deployment.
pub(crate) type Conditions = Vec<DeploymentCondition>;

/// The deadline for progress; `None` when there is none.
fn progress_deadline(deployment: &Deployment) -> Option<SignedDuration> {
    let seconds = deployment.spec.as_ref()?.progress_deadline_seconds?;
    (seconds != i32::MAX).then(|| SignedDuration::from_secs(seconds.into()))
}

fn condition(type_: &str, status: &str, reason: &str, message: String, now: Timestamp) -> DeploymentCondition {
    DeploymentCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: Some(time(now)),
        last_transition_time: Some(time(now)),
    }
}

fn find<'a>(conditions: &'a [DeploymentCondition], type_: &str) -> Option<&'a DeploymentCondition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Replaces a condition, unless status and reason stay; the transition time moves only with the status.
fn set(conditions: &mut Conditions, mut condition: DeploymentCondition) {
    if let Some(current) = find(conditions, &condition.type_) {
        if current.status == condition.status && current.reason == condition.reason {
            return;
        }
        if current.status == condition.status {
            condition.last_transition_time = current.last_transition_time.clone();
        }
    }
    conditions.retain(|current| current.type_ != condition.type_);
    conditions.push(condition);
}

/// The conditions so far.
pub(crate) fn conditions(deployment: &Deployment) -> Conditions {
    deployment.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default()
}

/// Notes that the deployment was paused or resumed, so that the time in between does not count as stuck.
pub(crate) fn note_pause(deployment: &Deployment, conditions: &mut Conditions, now: Timestamp) {
    let current = find(conditions, PROGRESSING).and_then(|condition| condition.reason.as_deref());
    if progress_deadline(deployment).is_none() || current == Some(DEADLINE_EXCEEDED) {
        return;
    }
    let paused = deployment.spec.as_ref().and_then(|spec| spec.paused) == Some(true);
    let noted = current == Some(PAUSED);
    if paused && !noted {
        set(conditions, condition(PROGRESSING, "Unknown", PAUSED, "Deployment is paused".to_owned(), now));
    } else if !paused && noted {
        let resumed = condition(PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed".to_owned(), now);
        set(conditions, resumed);
    }
}

/// Notes that the set of the deployment's template was made, or found when nothing was noted before.
pub(crate) fn note_new_set(deployment: &Deployment, sets: &Sets, conditions: &mut Conditions, now: Timestamp) {
    let Some(new) = sets.new.as_ref().filter(|_| progress_deadline(deployment).is_some()) else { return };
    let name = new.metadata.name.as_deref().unwrap_or_default();
    if sets.created {
        let message = format!("Created new replica set \"{name}\"");
        set(conditions, condition(PROGRESSING, "True", "NewReplicaSetCreated", message, now));
    } else if find(conditions, PROGRESSING).is_none() {
        let message = format!("Found new replica set \"{name}\"");
        set(conditions, condition(PROGRESSING, "True", "FoundNewReplicaSet", message, now));
    }
}

/// Notes that the new set could not be made. `None` when the deployment has no deadline and thus no such condition.
pub(crate) fn note_create_failure(
    deployment: &Deployment,
    message: String,
    now: Timestamp,
) -> Option<DeploymentStatus> {
    progress_deadline(deployment)?;
    let mut conditions = conditions(deployment);
    set(&mut conditions, condition(PROGRESSING, "False", "ReplicaSetCreateError", message, now));
    Some(DeploymentStatus { conditions: Some(conditions), ..deployment.status.clone().unwrap_or_default() })
}

/// The counters of what the sets report, and whether enough is available.
pub(crate) fn calculate(
    deployment: &Deployment,
    sets: &Sets,
    mut conditions: Conditions,
    now: Timestamp,
) -> DeploymentStatus {
    let total: i32 = sets.all().map(actual).sum();
    let ready = sets.all().map(|set| set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0)).sum();
    let all_available: i32 = sets.all().map(available).sum();
    let (verdict, reason, message) = if all_available >= wanted(deployment) - max_unavailable(deployment) {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    set(&mut conditions, condition(AVAILABLE, verdict, reason, message.to_owned(), now));
    DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: nonzero(total),
        updated_replicas: nonzero(sets.new.as_ref().map_or(0, actual)),
        ready_replicas: nonzero(ready),
        available_replicas: nonzero(all_available),
        unavailable_replicas: nonzero((total - all_available).max(0)),
        terminating_replicas: terminating(sets),
        collision_count: deployment.status.as_ref().and_then(|status| status.collision_count),
        conditions: Some(conditions),
    }
}

/// The sum over all sets that have a status; unknown when one of them does not say.
fn terminating(sets: &Sets) -> Option<i32> {
    let reported = sets.all().filter_map(|set| set.status.as_ref());
    reported
        .filter(|status| status.observed_generation.unwrap_or(0) > 0)
        .map(|status| status.terminating_replicas)
        .sum()
}

/// Whether all that is wanted is there, new and available, and this was seen for the newest spec.
pub(crate) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = nonzero(wanted(deployment));
    status.updated_replicas.unwrap_or(0) == wanted.unwrap_or(0)
        && status.replicas.unwrap_or(0) == wanted.unwrap_or(0)
        && status.available_replicas.unwrap_or(0) == wanted.unwrap_or(0)
        && status.observed_generation >= deployment.metadata.generation
}

/// Whether anything moved between two statuses.
fn progressed(before: &DeploymentStatus, after: &DeploymentStatus) -> bool {
    let old = |status: &DeploymentStatus| status.replicas.unwrap_or(0) - status.updated_replicas.unwrap_or(0);
    after.updated_replicas.unwrap_or(0) > before.updated_replicas.unwrap_or(0)
        || old(after) < old(before)
        || after.ready_replicas.unwrap_or(0) > before.ready_replicas.unwrap_or(0)
        || after.available_replicas.unwrap_or(0) > before.available_replicas.unwrap_or(0)
}

/// When the deadline for progress ends, while somebody waits for progress.
fn deadline(deployment: &Deployment, conditions: &[DeploymentCondition]) -> Option<Timestamp> {
    let current = find(conditions, PROGRESSING)?;
    if matches!(current.reason.as_deref(), Some(NEW_SET_AVAILABLE | DEADLINE_EXCEEDED)) {
        return None;
    }
    let since = current.last_update_time.as_ref()?.0;
    since.checked_add(progress_deadline(deployment)?).ok()
}

/// Judges the rollout: complete, progressing, or stuck for longer than allowed; and takes over failures of the sets.
pub(crate) fn judge_progress(deployment: &Deployment, sets: &Sets, status: &mut DeploymentStatus, now: Timestamp) {
    let conditions = status.conditions.take().unwrap_or_default();
    let before = deployment.status.clone().unwrap_or_default();
    let mut after = conditions.clone();
    if progress_deadline(deployment).is_none() {
        after.retain(|condition| condition.type_ != PROGRESSING);
    } else {
        let current = find(&conditions, PROGRESSING);
        let settled = status.replicas == status.updated_replicas
            && current.is_some_and(|condition| condition.reason.as_deref() == Some(NEW_SET_AVAILABLE));
        let subject = match &sets.new {
            Some(new) => format!("ReplicaSet \"{}\"", new.metadata.name.as_deref().unwrap_or_default()),
            None => format!("Deployment \"{}\"", deployment.metadata.name.as_deref().unwrap_or_default()),
        };
        if settled {
            // The rollout has ended; pods that come and go later are no news of it.
        } else if is_complete(deployment, status) {
            let message = format!("{subject} has successfully progressed.");
            set(&mut after, condition(PROGRESSING, "True", NEW_SET_AVAILABLE, message, now));
        } else if progressed(&before, status) {
            let message = format!("{subject} is progressing.");
            let mut progressing = condition(PROGRESSING, "True", "ReplicaSetUpdated", message, now);
            if let Some(current) = current.filter(|current| current.status == "True") {
                progressing.last_transition_time = current.last_transition_time.clone();
            }
            after.retain(|condition| condition.type_ != PROGRESSING);
            after.push(progressing);
        } else if deadline(deployment, &conditions).is_some_and(|deadline| deadline < now) {
            let message = format!("{subject} has timed out progressing.");
            set(&mut after, condition(PROGRESSING, "False", DEADLINE_EXCEEDED, message, now));
        }
    }
    match failure(sets) {
        Some(failure) => set(&mut after, failure),
        None => after.retain(|condition| condition.type_ != REPLICA_FAILURE),
    }
    status.conditions = Some(after);
}

/// A failure that a set reports, the new set's first.
fn failure(sets: &Sets) -> Option<DeploymentCondition> {
    let mut conditions = sets.new.iter().chain(&sets.old).filter_map(|set| set.status.as_ref()?.conditions.as_ref());
    let failed = conditions.find_map(|conditions| {
        conditions.iter().find(|condition| condition.type_ == REPLICA_FAILURE && condition.status == "True")
    })?;
    Some(DeploymentCondition {
        type_: REPLICA_FAILURE.to_owned(),
        status: failed.status.clone(),
        reason: failed.reason.clone(),
        message: failed.message.clone(),
        last_update_time: failed.last_transition_time.clone(),
        last_transition_time: failed.last_transition_time.clone(),
    })
}

/// When to look again whether the rollout is stuck: just after the deadline.
pub(crate) fn look_again(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> Option<Duration> {
    if is_complete(deployment, status) {
        return None;
    }
    let deadline = deadline(deployment, status.conditions.as_deref()?)?;
    let left = Duration::try_from(deadline.duration_since(now)).unwrap_or(Duration::ZERO);
    Some(left + Duration::from_secs(1))
}
