//! The steps of a rollout: which replica sets grow and shrink now, within surge and unavailability.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#strategy>.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

use super::{
    sets::{Sets, actual, available, by_age, desired_note, max_note, replicas, scale},
    strategy::{is_recreate, max_surge, max_unavailable, wanted},
};

/// One step of a rolling update: the new set grows, or else old ones shrink.
pub(crate) fn roll(deployment: &Deployment, sets: &mut Sets) {
    if !grow_new(deployment, sets) {
        shrink_old(deployment, sets);
    }
}

/// Brings the new set towards the wanted size. Whether it changed.
pub(crate) fn grow_new(deployment: &Deployment, sets: &mut Sets) -> bool {
    let total: i32 = sets.all().map(replicas).sum();
    let Some(new) = &mut sets.new else { return false };
    let (has, wanted) = (replicas(new), wanted(deployment));
    let room = if is_recreate(deployment) {
        i32::MAX
    } else {
        wanted.saturating_add(max_surge(deployment)).saturating_sub(total).max(0)
    };
    let to = if has > wanted { wanted } else { has + room.min(wanted - has) };
    if to != has {
        scale(deployment, new, to);
    }
    to != has
}

/// Shrinks old sets as far as enough pods stay available: first their pods that are not available anyway, then,
/// from the oldest set on, those that are.
fn shrink_old(deployment: &Deployment, sets: &mut Sets) {
    let total: i32 = sets.all().map(replicas).sum();
    let all_available: i32 = sets.all().map(remaining_available).sum();
    let least = wanted(deployment) - max_unavailable(deployment);
    let new_unavailable = sets.new.as_ref().map_or(0, |new| replicas(new) - remaining_available(new));
    let mut unhealthy_budget = total - least - new_unavailable;
    if unhealthy_budget <= 0 {
        return;
    }
    for old in &mut sets.old {
        let count = (replicas(old) - available(old)).clamp(0, unhealthy_budget);
        if count > 0 {
            unhealthy_budget -= count;
            let to = replicas(old) - count;
            scale(deployment, old, to);
        }
    }
    let mut healthy_budget = all_available - least;
    for old in &mut sets.old {
        let count = replicas(old).min(healthy_budget);
        if count > 0 {
            healthy_budget -= count;
            let to = replicas(old) - count;
            scale(deployment, old, to);
        }
    }
}

/// The available replicas that a set will still have when it has shrunk to what it was told. A set whose controller
/// lags reports more, and counting those would shrink the others too far.
fn remaining_available(set: &ReplicaSet) -> i32 {
    available(set).min(replicas(set))
}

/// One step of a recreation: old sets go to zero; once none of their pods runs, the new set comes at full size.
pub(crate) fn recreate(deployment: &Deployment, sets: &mut Sets, old_pods_run: bool) {
    let mut shrunk = false;
    for old in sets.old.iter_mut().filter(|old| replicas(old) > 0) {
        scale(deployment, old, 0);
        shrunk = true;
    }
    if shrunk || old_pods_run || sets.old.iter().any(|old| actual(old) > 0) {
        return;
    }
    sets.ensure_new(deployment);
    grow_new(deployment, sets);
}

/// Whether the wanted number changed since the sets were last scaled.
pub(crate) fn is_scaling(deployment: &Deployment, sets: &Sets) -> bool {
    let mut active = sets.all().filter(|set| replicas(set) > 0);
    active.any(|set| desired_note(set).is_some_and(|desired| desired != wanted(deployment)))
}

/// Scales without rolling: a single set takes it all; in the middle of a rollout every set takes its share.
pub(crate) fn scale_in_proportion(deployment: &Deployment, sets: &mut Sets) {
    if let Some(only) = only_active_or_newest(sets) {
        let wanted = wanted(deployment);
        // A set of the right size is not written again for its notes alone, unless they would make every run a scaling.
        if replicas(only) != wanted || desired_note(only).is_some_and(|desired| desired != wanted) {
            scale(deployment, only, wanted);
        }
        return;
    }
    if sets.new.as_ref().is_some_and(|new| is_saturated(deployment, new)) {
        sets.old.iter_mut().filter(|old| replicas(old) > 0).for_each(|old| scale(deployment, old, 0));
        return;
    }
    if !is_recreate(deployment) {
        share(deployment, sets);
    }
}

/// The one set that has replicas, or, when none has, the newest of all.
fn only_active_or_newest(sets: &mut Sets) -> Option<&mut ReplicaSet> {
    match sets.all().filter(|set| replicas(set) > 0).count() {
        0 if sets.new.is_some() => sets.new.as_mut(),
        0 => sets.old.last_mut(),
        1 => sets.all_mut().find(|set| replicas(set) > 0),
        _ => None,
    }
}

/// Whether the new set has all that is wanted, and all of it available.
fn is_saturated(deployment: &Deployment, new: &ReplicaSet) -> bool {
    let wanted = wanted(deployment);
    replicas(new) == wanted && desired_note(new) == Some(wanted) && available(new) == wanted
}

/// Spreads the change over the sets in proportion to their sizes; what rounding leaves goes to the largest.
fn share(deployment: &Deployment, sets: &mut Sets) {
    let wanted = wanted(deployment);
    let mut active: Vec<&mut ReplicaSet> = sets.all_mut().filter(|set| replicas(set) > 0).collect();
    let allowed = if wanted > 0 { wanted.saturating_add(max_surge(deployment)) } else { 0 };
    let change = allowed - active.iter().map(|set| replicas(set)).sum::<i32>();
    active.sort_by(|a, b| {
        let age = if change > 0 { by_age(b, a) } else { by_age(a, b) };
        replicas(b).cmp(&replicas(a)).then(age)
    });
    let mut changed = 0;
    let mut sizes = Vec::with_capacity(active.len());
    for set in &active {
        let rest = change - changed;
        let fraction = fraction(deployment, set, allowed);
        let part = match change {
            _ if rest == 0 => 0,
            1.. => fraction.min(rest),
            _ => fraction.max(rest),
        };
        changed += part;
        sizes.push(replicas(set) + part);
    }
    if let Some(largest) = sizes.first_mut() {
        *largest = (*largest + change - changed).max(0);
    }
    for (set, size) in active.into_iter().zip(sizes) {
        scale(deployment, set, size);
    }
}

/// By how much a set's share of the deployment changes, rounded to the nearest.
fn fraction(deployment: &Deployment, set: &ReplicaSet, allowed: i32) -> i32 {
    let has = replicas(set);
    if wanted(deployment) == 0 {
        return -has;
    }
    let reported = deployment.status.as_ref().and_then(|status| status.replicas).unwrap_or(0);
    let before = max_note(set).filter(|most| *most > 0).unwrap_or(reported);
    if before <= 0 {
        return 0;
    }
    let twice = 2 * i64::from(has) * i64::from(allowed) + i64::from(before);
    let size = twice.div_euclid(2 * i64::from(before));
    i32::try_from(size).unwrap_or(i32::MAX).saturating_sub(has)
}
