//! The counts in the status of workloads: none below zero, and no part greater than the whole.
//!
//! Upstream: `pkg/apis/apps/validation/validation.go`.

use crate::field::{Errors, Field};

type Rule = fn(&Field<'_>, &Field<'_>, &mut Errors);

pub(super) const DEPLOYMENT: Rule = |new, _, errors| {
    let status = new.get("status");
    let parts = ["updatedReplicas", "readyReplicas", "availableReplicas"];
    not_negative(&status, &["observedGeneration", "replicas"], errors);
    not_negative(&status, &parts, errors);
    not_negative(&status, &["unavailableReplicas", "collisionCount"], errors);
    within(&status, &parts, errors);
    available_are_ready(&status, "readyReplicas", errors);
};

/// Also that of replication controllers.
pub(super) const REPLICA_SET: Rule = |new, _, errors| {
    let status = new.get("status");
    let parts = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
    not_negative(&status, &["replicas"], errors);
    not_negative(&status, &parts, errors);
    not_negative(&status, &["observedGeneration"], errors);
    within(&status, &parts, errors);
    available_are_ready(&status, "readyReplicas", errors);
};

pub(super) const STATEFUL_SET: Rule = |new, _, errors| {
    let status = new.get("status");
    let parts = ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
    not_negative(&status, &["replicas"], errors);
    not_negative(&status, &parts, errors);
    not_negative(&status, &["observedGeneration", "collisionCount"], errors);
    within(&status, &parts, errors);
    available_are_ready(&status, "status.readyReplicas", errors);
};

pub(super) const DAEMON_SET: Rule = |new, _, errors| {
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
};

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
}
