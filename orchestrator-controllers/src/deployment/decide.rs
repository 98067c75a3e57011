//! What a deployment wants done, from what is observed: replica sets to make, change and remove, and its status.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{Deployment, DeploymentStatus, ReplicaSet},
    core::v1::Pod,
};

use orchestrator_core::meta::controller_of;

use super::{
    rollback::{self, Rollback},
    rollout,
    sets::{REVISION, Sets, actual, replicas, revision_of},
    status::{self, Conditions},
    strategy::is_recreate,
};
use crate::pods::is_finished;

/// What is known when a deployment is decided on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observed<'a> {
    /// The deployment.
    pub deployment: &'a Deployment,
    /// Its replica sets.
    pub sets: &'a [Arc<ReplicaSet>],
    /// The pods of those sets; needed for the strategy `Recreate` only.
    pub pods: &'a [Arc<Pod>],
    /// The time.
    pub now: Timestamp,
}

/// A replica set to be written, and how its size changes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Write {
    /// As it is to be.
    pub set: ReplicaSet,
    /// From how many replicas to how many.
    pub scaled: Option<(i32, i32)>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Decision {
    /// A set to make.
    pub create: Option<Write>,
    /// Sets to change, in this order.
    pub update: Vec<Write>,
    /// Sets to remove: history beyond its limit.
    pub delete: Vec<ReplicaSet>,
    /// The deployment's revision, where it is to be noted anew.
    pub revision: Option<String>,
    /// The deployment's status.
    pub status: DeploymentStatus,
    /// A rollback that was asked for; the rollout goes on in the next step.
    pub rollback: Option<Rollback>,
    /// When time alone may change the decision.
    pub look_again: Option<Duration>,
}

/// Decides on one step. Each step leaves a state from which the next one follows, whoever takes it.
pub(crate) fn decide(observed: Observed<'_>) -> Decision {
    let Observed { deployment, now, .. } = observed;
    let mut sets = Sets::of(deployment, observed.sets);
    let mut conditions = status::conditions(deployment);
    if deployment.metadata.deletion_timestamp.is_some() {
        sets.refresh_new(deployment);
        status::note_new_set(deployment, &sets, &mut conditions, now);
        let status = status::calculate(deployment, &sets, conditions, now);
        return decision(observed, sets, Vec::new(), status, None);
    }
    status::note_pause(deployment, &mut conditions, now);
    let paused = deployment.spec.as_ref().and_then(|spec| spec.paused) == Some(true);
    let revision = rollback::requested(deployment);
    if let Some(revision) = revision.filter(|_| !paused) {
        return roll_back(observed, sets, conditions, revision);
    }
    let scaling = paused || rollout::is_scaling(deployment, &sets);
    if scaling || is_recreate(deployment) {
        sets.refresh_new(deployment);
        if scaling {
            rollout::scale_in_proportion(deployment, &mut sets);
        } else {
            let old_pods_run = old_pods_run(&sets, observed.pods);
            rollout::recreate(deployment, &mut sets, old_pods_run);
        }
    } else {
        sets.refresh_new(deployment);
        sets.ensure_new(deployment);
        rollout::roll(deployment, &mut sets);
    }
    status::note_new_set(deployment, &sets, &mut conditions, now);
    let mut status = status::calculate(deployment, &sets, conditions, now);
    if !scaling {
        status::judge_progress(deployment, &sets, &mut status, now);
    }
    let complete = deployment.status.as_ref().is_some_and(|status| status::is_complete(deployment, status));
    let may_forget = if paused { revision.is_none() } else { complete && !scaling };
    let delete = if may_forget { surplus_history(deployment, &sets) } else { Vec::new() };
    let look_again = if paused { None } else { status::look_again(deployment, &status, now) };
    decision(observed, sets, delete, status, look_again)
}

/// Decides on a rollback, for which the new set has to be there.
fn roll_back(observed: Observed<'_>, mut sets: Sets, mut conditions: Conditions, revision: i64) -> Decision {
    let Observed { deployment, now, .. } = observed;
    sets.refresh_new(deployment);
    sets.ensure_new(deployment);
    if sets.created {
        rollout::grow_new(deployment, &mut sets);
    }
    status::note_new_set(deployment, &sets, &mut conditions, now);
    let conditions = Some(conditions).filter(|conditions| !conditions.is_empty());
    let status = DeploymentStatus { conditions, ..deployment.status.clone().unwrap_or_default() };
    let rollback = Some(rollback::decide(deployment, &sets, revision));
    Decision { rollback, ..decision(observed, sets, Vec::new(), status, None) }
}

/// Writes down what differs from what was observed.
fn decision(
    observed: Observed<'_>,
    sets: Sets,
    delete: Vec<ReplicaSet>,
    status: DeploymentStatus,
    look_again: Option<Duration>,
) -> Decision {
    let revision = sets.new.as_ref().map(|new| revision_of(new).to_string());
    let annotations = observed.deployment.metadata.annotations.as_ref();
    let noted = annotations.and_then(|annotations| annotations.get(REVISION));
    let revision = revision.filter(|revision| noted != Some(revision));
    let (mut create, mut update) = (None, Vec::new());
    let Sets { new, old, created } = sets;
    if created {
        create = new.map(|set| Write { scaled: Some((0, replicas(&set))).filter(|(_, to)| *to > 0), set });
    } else {
        update.extend(new.and_then(|set| change(observed.sets, set)));
    }
    update.extend(old.into_iter().filter_map(|set| change(observed.sets, set)));
    update.retain(|write| delete.iter().all(|gone| gone.metadata.name != write.set.metadata.name));
    Decision { create, update, delete, revision, status, rollback: None, look_again }
}

fn change(observed: &[Arc<ReplicaSet>], set: ReplicaSet) -> Option<Write> {
    let before = observed.iter().find(|before| before.metadata.name == set.metadata.name)?;
    let (from, to) = (replicas(before), replicas(&set));
    (**before != set).then(|| Write { set, scaled: Some((from, to)).filter(|(from, to)| from != to) })
}

/// Whether a pod of an old set still runs, or may.
fn old_pods_run(sets: &Sets, pods: &[Arc<Pod>]) -> bool {
    let new = sets.new.as_ref().and_then(|new| new.metadata.uid.as_ref());
    pods.iter().any(|pod| {
        let owner = controller_of(&pod.metadata).map(|reference| &reference.uid);
        owner.is_some() && owner != new && !is_finished(pod)
    })
}

/// Old sets beyond the history limit, the oldest revisions first; only those that are at rest without pods.
fn surplus_history(deployment: &Deployment, sets: &Sets) -> Vec<ReplicaSet> {
    let limit = deployment.spec.as_ref().and_then(|spec| spec.revision_history_limit);
    let Some(limit) = limit.filter(|limit| *limit != i32::MAX) else { return Vec::new() };
    let mut living: Vec<&ReplicaSet> =
        sets.old.iter().filter(|set| set.metadata.deletion_timestamp.is_none()).collect();
    let surplus = living.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    living.sort_by_key(|set| revision_of(set));
    let at_rest = |set: &&ReplicaSet| {
        let observed = set.status.as_ref().and_then(|status| status.observed_generation).unwrap_or(0);
        actual(set) == 0 && replicas(set) == 0 && set.metadata.generation.unwrap_or(0) <= observed
    };
    living.into_iter().take(surplus).filter(at_rest).cloned().collect()
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
