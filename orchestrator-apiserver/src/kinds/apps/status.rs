//! The counts in the status of workloads: none below zero, and no part greater than the whole.
//!
//! Upstream: `pkg/apis/apps/validation/validation.go`.

use crate::field::{Errors, Field};

type Rule = fn(&Field<'_>, &Field<'_>, &mut Errors);

pub(super) const DEPLOYMENT: Rule = |new, old, errors| {
    let status = new.get("status");
    let parts = ["updatedReplicas", "readyReplicas", "availableReplicas"];
    not_negative(&status, &["observedGeneration", "replicas"], errors);
    not_negative(&status, &parts, errors);
    not_negative(&status, &["unavailableReplicas", "terminatingReplicas", "collisionCount"], errors);
    within(&status, &parts, errors);
    available_are_ready(&status, "readyReplicas", errors);
    collisions(&status, &old.get("status"), errors);
};

/// Also that of replication controllers.
pub(super) const REPLICA_SET: Rule = |new, _, errors| {
    let status = new.get("status");
    let parts = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
    not_negative(&status, &["replicas"], errors);
    not_negative(&status, &parts, errors);
    not_negative(&status, &["terminatingReplicas", "observedGeneration"], errors);
    within(&status, &parts, errors);
    available_are_ready(&status, "readyReplicas", errors);
};

pub(super) const STATEFUL_SET: Rule = |new, old, errors| {
    let status = new.get("status");
    let parts = ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
    not_negative(&status, &["replicas"], errors);
    not_negative(&status, &parts, errors);
    not_negative(&status, &["observedGeneration", "collisionCount"], errors);
    within(&status, &parts, errors);
    available_are_ready(&status, "status.readyReplicas", errors);
    collisions(&status, &old.get("status"), errors);
};

pub(super) const DAEMON_SET: Rule = |new, old, errors| {
    let names = [
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
        "observedGeneration",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberUnavailable",
        "collisionCount",
    ];
    not_negative(&new.get("status"), &names, errors);
    collisions(&new.get("status"), &old.get("status"), errors);
};

/// Names that were taken by others are counted, and never fewer than before.
fn collisions(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    let (count, before) = (new.get("collisionCount"), old.get("collisionCount").int());
    if count.int() < before {
        count.wrong(errors, count.int().unwrap_or(0), "cannot be decremented");
    }
}

fn not_negative(status: &Field<'_>, names: &[&str], errors: &mut Errors) {
    for name in names {
        status.get(name).not_negative(errors);
    }
}

fn within(status: &Field<'_>, parts: &[&str], errors: &mut Errors) {
    let whole = status.get("replicas").int().unwrap_or(0);
    for part in parts.iter().map(|part| status.get(part)) {
        if part.int().is_some_and(|part| part > whole) {
            part.invalid(errors, "cannot be greater than status.replicas");
        }
    }
}

fn available_are_ready(status: &Field<'_>, ready_words: &str, errors: &mut Errors) {
    let (available, ready) = (status.get("availableReplicas"), status.get("readyReplicas").int().unwrap_or(0));
    if available.int().is_some_and(|available| available > ready) {
        available.invalid(errors, &format!("cannot be greater than {ready_words}"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parts_are_no_greater_than_the_whole() {
        let set = json!({"status": {"replicas": 1, "readyReplicas": 2, "availableReplicas": -1}});
        let mut errors = Errors::default();
        let set = Field::root(&set);
        REPLICA_SET(&set, &set, &mut errors);
        let broken: Vec<String> = errors.into_vec().into_iter().map(|error| error.field).collect();
        assert_eq!(broken, ["status.availableReplicas", "status.readyReplicas"]);
    }

    #[test]
    fn collisions_are_not_forgotten() {
        let status = |count: serde_json::Value| json!({"status": {"replicas": 0, "collisionCount": count}});
        for rule in [DEPLOYMENT, STATEFUL_SET, DAEMON_SET] {
            let told = |new: serde_json::Value, old: serde_json::Value| {
                let (new, old, mut errors) = (status(new), status(old), Errors::default());
                rule(&Field::root(&new), &Field::root(&old), &mut errors);
                errors.into_vec().into_iter().map(|error| error.detail).collect::<Vec<_>>()
            };
            assert_eq!(told(json!(2), json!(1)), [""; 0]);
            assert_eq!(told(json!(2), json!(null)), [""; 0]);
            assert_eq!(told(json!(1), json!(2)), ["1: cannot be decremented"]);
            assert_eq!(told(json!(null), json!(2)), ["0: cannot be decremented"]);
        }
    }
}
