//! The status of a job: counts that only grow, and ends that stay.
//!
//! Upstream: `ValidateJobStatusUpdate`. What was wrong before, and does not change, is left alone.

use std::collections::BTreeSet;

use orchestrator_core::status::FieldErrorKind;
use serde_json::Value;

use super::job_policies::{count_indexes, intervals};
use crate::field::{Errors, Field};

pub(super) fn validate(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    let spec = new.get("spec");
    let change = Change { new: new.get("status"), old: old.get("status") };
    for name in ["active", "succeeded", "failed", "ready", "terminating"] {
        change.new.get(name).not_negative(errors);
    }
    uncounted(&change.new.get("uncountedTerminatedPods"), errors);
    change.completion(errors);
    change.end(errors);
    change.indexes(&spec, errors);
    if change.any(&["ready", "active"]) && change.count("ready") > change.count("active") {
        change.new.get("ready").invalid(errors, "cannot set more ready pods than active");
    }
    change.success(&spec, errors);
    change.lasting(&spec, errors);
}

/// Pods that are gone and not counted yet: each named, and once.
fn uncounted(pods: &Field<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for uid in ["succeeded", "failed"].iter().flat_map(|list| pods.get(list).items()) {
        if uid.text().is_empty() {
            uid.invalid(errors, "must not be empty");
        } else if !seen.insert(uid.text()) {
            uid.duplicate(errors);
        }
    }
}

struct Change<'a> {
    new: Field<'a>,
    old: Field<'a>,
}

impl<'a> Change<'a> {
    /// Whether any of these changes: members of the status, or conditions.
    fn any(&self, names: &[&'a str]) -> bool {
        names.iter().any(|name| {
            let value = |status: &Field<'a>| status.get(name).value().filter(|value| !value.is_null());
            value(&self.new) != value(&self.old) || is_true(&self.new, name) != is_true(&self.old, name)
        })
    }

    fn count(&self, name: &'a str) -> i64 {
        self.new.get(name).int().unwrap_or(0)
    }

    fn has(&self, condition: &str) -> bool {
        is_true(&self.new, condition)
    }

    fn is_finished(&self) -> bool {
        self.has("Complete") || self.has("Failed")
    }

    /// What is wrong with the conditions is said without a value.
    fn refuse(&self, errors: &mut Errors, detail: &str) {
        self.new.get("conditions").error(errors, FieldErrorKind::Invalid, detail);
    }

    fn completion(&self, errors: &mut Errors) {
        let (start, end) = (self.new.get("startTime"), self.new.get("completionTime"));
        let is_complete = self.has("Complete");
        if self.any(&["Complete", "Failed"]) && is_complete && self.has("Failed") {
            self.refuse(errors, "cannot set Complete=True and Failed=true conditions");
        }
        if self.any(&["Complete", "FailureTarget"]) && is_complete && self.has("FailureTarget") {
            self.refuse(errors, "cannot set Complete=True and FailureTarget=true conditions");
        }
        if self.any(&["Complete", "completionTime"]) {
            if end.exists() && !is_complete {
                end.invalid(errors, "cannot set completionTime when there is no Complete=True condition");
            }
            if !end.exists() && is_complete {
                end.required(errors, "completionTime is required for Complete jobs");
            }
        }
        let before = start.exists() && end.exists() && seconds(&end) < seconds(&start);
        if self.any(&["startTime", "completionTime"]) && before {
            end.invalid(errors, "completionTime cannot be set before startTime");
        }
        if self.any(&["Failed", "FailureTarget"]) && self.has("Failed") && !self.has("FailureTarget") {
            self.refuse(errors, "cannot set Failed=True condition without the FailureTarget=true condition");
        }
        if self.any(&["Complete", "SuccessCriteriaMet"]) && is_complete && !self.has("SuccessCriteriaMet") {
            self.refuse(errors, "cannot set Complete=True condition without the SuccessCriteriaMet=true condition");
        }
    }

    /// Nothing of a finished job runs, ends or waits to be counted.
    fn end(&self, errors: &mut Errors) {
        let ended = |names: [&'a str; 3]| self.is_finished() && self.any(&names);
        if ended(["Complete", "Failed", "active"]) && self.count("active") > 0 {
            self.new.get("active").invalid(errors, "active>0 is invalid for finished job");
        }
        if ended(["Complete", "Failed", "startTime"]) && !self.new.get("startTime").exists() {
            self.new.get("startTime").required(errors, "startTime is required for finished job");
        }
        let pods = self.new.get("uncountedTerminatedPods");
        if ended(["Complete", "Failed", "uncountedTerminatedPods"])
            && pods.get("succeeded").len() + pods.get("failed").len() > 0
        {
            pods.invalid(errors, "uncountedTerminatedPods needs to be empty for finished job");
        }
        if ended(["Complete", "Failed", "terminating"]) && self.count("terminating") > 0 {
            self.new.get("terminating").invalid(errors, "terminating>0 is invalid for finished job");
        }
    }

    fn indexes(&self, spec: &Field<'_>, errors: &mut Errors) {
        let (completed, failed) = (self.new.get("completedIndexes"), self.new.get("failedIndexes"));
        let (completed_change, failed_change) = (self.any(&["completedIndexes"]), self.any(&["failedIndexes"]));
        let completions = spec.get("completions").int();
        let per_index = spec.get("backoffLimitPerIndex").exists();
        let check = |list: &Field<'_>, name: &str, errors: &mut Errors| {
            if let Some(Err(why)) = completions.map(|completions| count_indexes(list.text(), completions)) {
                list.invalid(errors, &format!("error parsing {name}: {why}"));
            }
        };
        if completed_change {
            check(&completed, "completedIndexes", errors);
            if completed.len() > 0 && spec.get("completionMode").text() != "Indexed" {
                completed.invalid(errors, "cannot set non-empty completedIndexes when non-indexed completion mode");
            }
        }
        if failed_change && failed.exists() {
            if per_index {
                check(&failed, "failedIndexes", errors);
            } else {
                failed.invalid(errors, "cannot set non-null failedIndexes when backoffLimitPerIndex is null");
            }
        }
        if (completed_change || failed_change)
            && let Some(index) = overlap(completed.text(), failed.text(), completions.unwrap_or(0))
        {
            let detail = format!("failedIndexes and completedIndexes overlap at index: {index}");
            failed.invalid(errors, &detail);
        }
    }

    fn success(&self, spec: &Field<'_>, errors: &mut Errors) {
        let met = self.has("SuccessCriteriaMet");
        if met && self.has("Failed") {
            self.refuse(errors, "cannot set SuccessCriteriaMet=True and Failed=true conditions");
        }
        if met && self.has("FailureTarget") {
            self.refuse(errors, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions");
        }
        if spec.get("successPolicy").exists() && !met && self.has("Complete") {
            let detail = "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True";
            self.refuse(errors, detail);
        }
    }

    /// What never goes back.
    fn lasting(&self, spec: &Field<'_>, errors: &mut Errors) {
        for condition in ["Failed", "Complete", "FailureTarget"] {
            if is_true(&self.old, condition) && !self.has(condition) {
                self.refuse(errors, &format!("cannot disable the terminal {condition}=True condition"));
            }
        }
        let less = |name| self.count(name) < self.old.get(name).int().unwrap_or(0);
        if less("failed") {
            self.new.get("failed").wrong(errors, self.count("failed"), "cannot decrease the failed counter");
        }
        // An indexed job that is made smaller has fewer indexes that succeeded.
        let number = |name| spec.get(name).value().unwrap_or(&Value::Null).clone();
        let is_elastic =
            spec.get("completionMode").text() == "Indexed" && number("completions") == number("parallelism");
        if less("succeeded") && !is_elastic {
            let count = self.count("succeeded");
            self.new.get("succeeded").wrong(errors, count, "cannot decrease the succeeded counter");
        }
        let (start, end) = (self.new.get("startTime"), self.new.get("completionTime"));
        let (old_start, old_end) = (self.old.get("startTime"), self.old.get("completionTime"));
        if end.exists() && old_end.exists() && end.value() != old_end.value() {
            end.invalid(errors, "completionTime cannot be mutated");
        }
        if old_start.exists() && start.value() != old_start.value() && spec.get("suspend").bool() != Some(true) {
            start.required(errors, "startTime cannot be removed for unsuspended job");
        }
        let (met, was_met) = (self.has("SuccessCriteriaMet"), is_true(&self.old, "SuccessCriteriaMet"));
        if was_met && !met {
            self.refuse(errors, "cannot disable the SuccessCriteriaMet=True condition");
        }
        if is_true(&self.old, "Complete") && !was_met && met {
            let detail = "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions";
            self.refuse(errors, detail);
        }
    }
}

fn is_true(status: &Field<'_>, condition: &str) -> bool {
    let conditions = status.get("conditions").items();
    conditions.iter().any(|one| one.get("type").text() == condition && one.get("status").text() == "True")
}

/// A time in seconds. What is no time has been refused when it was read.
fn seconds(time: &Field<'_>) -> Option<i64> {
    time.text().parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second)
}

/// The first index that is in both lists, which are in order.
fn overlap(completed: &str, failed: &str, completions: i64) -> Option<i64> {
    let (completed, failed) = (intervals(completed, completions).ok()?, intervals(failed, completions).ok()?);
    let mut failed = failed.into_iter().peekable();
    for (first, last) in completed {
        while let Some((failed_first, failed_last)) = failed.peek().copied() {
            if failed_last < first {
                failed.next();
            } else if failed_first <= last {
                return Some(first.max(failed_first));
            } else {
                break;
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn broken(spec: &Value, old: &Value, new: &Value) -> Vec<String> {
        let job = |status: &Value| json!({"spec": spec, "status": status});
        let (old, new) = (job(old), job(new));
        let mut errors = Errors::default();
        validate(&Field::root(&new), &Field::root(&old), &mut errors);
        errors.into_vec().into_iter().map(|error| format!("{}: {}", error.field, error.detail)).collect()
    }

    fn with(conditions: &[&str], rest: &Value) -> Value {
        let conditions: Vec<Value> =
            conditions.iter().map(|condition| json!({"type": condition, "status": "True"})).collect();
        let mut status = json!({"conditions": conditions, "startTime": "2020-01-01T00:00:00Z"});
        for (name, value) in rest.as_object().unwrap() {
            status[name] = value.clone();
        }
        status
    }

    #[test]
    fn a_job_completes_once_and_whole() {
        let spec = json!({"completionMode": "NonIndexed", "completions": 1});
        let running = json!({"active": 1, "ready": 1, "startTime": "2020-01-01T00:00:00Z"});
        let done = with(
            &["SuccessCriteriaMet", "Complete"],
            &json!({"completionTime": "2020-01-01T00:00:09Z", "succeeded": 1}),
        );
        assert_eq!(broken(&spec, &json!({}), &running), [""; 0]);
        assert_eq!(broken(&spec, &running, &done), [""; 0]);
        let hasty = with(&["Complete"], &json!({"active": 1}));
        assert_eq!(
            broken(&spec, &running, &hasty),
            [
                "status.completionTime: completionTime is required for Complete jobs",
                "status.conditions: cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
                "status.active: 1: active>0 is invalid for finished job",
            ]
        );
        let undone = broken(&spec, &done, &running);
        assert!(undone.contains(&"status.conditions: cannot disable the terminal Complete=True condition".to_owned()));
        assert!(
            undone.contains(&"status.succeeded: 0: cannot decrease the succeeded counter".to_owned()),
            "{undone:?}"
        );
        let early = with(&["SuccessCriteriaMet", "Complete"], &json!({"completionTime": "2019-01-01T00:00:09Z"}));
        let early = broken(&spec, &running, &early);
        assert!(early[0].ends_with("completionTime cannot be set before startTime"), "{early:?}");
    }

    #[test]
    fn what_was_wrong_before_is_left_alone() {
        let spec = json!({"completions": 1});
        let wrong = with(&["Complete"], &json!({"active": 1, "failedIndexes": "x"}));
        assert_eq!(broken(&spec, &wrong, &wrong), [""; 0]);
    }

    #[test]
    fn indexes_are_those_of_the_job_and_each_ends_once() {
        let spec = json!({"completionMode": "Indexed", "completions": 5, "backoffLimitPerIndex": 1});
        let lists = |completed: &str, failed: &str| {
            broken(&spec, &json!({}), &json!({"completedIndexes": completed, "failedIndexes": failed}))
        };
        assert_eq!(lists("0,2-3", "1,4"), [""; 0]);
        assert_eq!(
            lists("0,2-3", "3"),
            ["status.failedIndexes: \"3\": failedIndexes and completedIndexes overlap at index: 3"]
        );
        assert!(lists("5", "")[0].contains("error parsing completedIndexes: too large index"));
        let plain =
            broken(&json!({"completions": 5}), &json!({}), &json!({"completedIndexes": "0", "failedIndexes": "1"}));
        assert_eq!(plain.len(), 2);
    }

    #[test]
    fn overlaps_are_found_between_intervals() {
        assert_eq!(overlap("0-3,7-9", "4-6", 10), None);
        assert_eq!(overlap("0-3,7-9", "5,8", 10), Some(8));
        assert_eq!(overlap("", "5", 10), None);
        assert_eq!(overlap("2-4", "0-9", 10), Some(2));
    }
}
