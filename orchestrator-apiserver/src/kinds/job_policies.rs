//! When a job counts as failed or as succeeded before all its pods are through.
//!
//! Upstream: `pkg/apis/batch/validation/validation.go`.

use orchestrator_core::status::FieldErrorKind;
use serde_json::Value;

use super::{check, go};
use crate::field::{Errors, Field};

const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];
const OPERATORS: [&str; 2] = ["In", "NotIn"];
const STATES: [&str; 3] = ["False", "True", "Unknown"];
const RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const INDEXES_BYTES: usize = 64 << 10;

/// The rules of a failure policy, part of the spec of a job.
pub(super) fn failure(spec: &Field<'_>, errors: &mut Errors) {
    let rules = spec.at("podFailurePolicy.rules");
    at_most(&rules, RULES_MAX, errors);
    for rule in rules.items() {
        failure_rule(spec, &rule, errors);
    }
}

/// The rules of a success policy, part of the spec of a job.
pub(super) fn success(spec: &Field<'_>, errors: &mut Errors) {
    let policy = spec.get("successPolicy");
    if spec.get("completionMode").text() != "Indexed" {
        let shown = go::show("SuccessPolicy", policy.value().unwrap_or(&Value::Null));
        return policy.wrong(errors, shown, "requires indexed completion mode");
    }
    let rules = policy.get("rules");
    if rules.len() == 0 {
        rules.required(errors, "at least one rules must be specified when the successPolicy is specified");
    }
    at_most(&rules, RULES_MAX, errors);
    let completions = spec.get("completions").int().unwrap_or(0);
    for rule in rules.items() {
        success_rule(&rule, completions, errors);
    }
}

fn at_most(list: &Field<'_>, most: usize, errors: &mut Errors) {
    if list.len() > most {
        list.error(errors, FieldErrorKind::TooMany, format!("{}: must have at most {most} items", list.len()));
    }
}

/// Refuses a text that is missing, with the known ones named as Go lists them, or that is none of these.
fn chosen(field: &Field<'_>, known: &[&str], errors: &mut Errors) {
    if field.text().is_empty() {
        let known = known.iter().map(|known| format!("{known:?}")).collect::<Vec<_>>().join(" ");
        field.required(errors, &format!("valid values: [{known}]"));
    } else {
        field.one_of(errors, known);
    }
}

fn failure_rule(spec: &Field<'_>, rule: &Field<'_>, errors: &mut Errors) {
    let action = rule.get("action");
    chosen(&action, &ACTIONS, errors);
    if action.text() == "FailIndex" && !spec.get("backoffLimitPerIndex").exists() {
        action.invalid(errors, "requires the backoffLimitPerIndex to be set");
    }
    let (codes, conditions) = (rule.get("onExitCodes"), rule.get("onPodConditions"));
    if codes.exists() {
        exit_codes(spec, &codes, errors);
    }
    at_most(&conditions, RULES_MAX, errors);
    for condition in conditions.items() {
        check::label_key(&condition.get("type"), errors);
        chosen(&condition.get("status"), &STATES, errors);
    }
    match (codes.exists(), conditions.len() > 0) {
        (true, true) => {
            let detail = "specifying both OnExitCodes and OnPodConditions is not supported";
            rule.error(errors, FieldErrorKind::Invalid, detail);
        }
        (false, false) => {
            let detail = "specifying one of OnExitCodes and OnPodConditions is required";
            rule.error(errors, FieldErrorKind::Invalid, detail);
        }
        _ => {}
    }
}

fn exit_codes(spec: &Field<'_>, codes: &Field<'_>, errors: &mut Errors) {
    let operator = codes.get("operator");
    chosen(&operator, &OPERATORS, errors);
    let container = codes.get("containerName");
    let known = ["containers", "initContainers"].iter().any(|list| {
        let containers = spec.at("template.spec").get(list).items();
        containers.iter().any(|known| known.get("name").text() == container.text())
    });
    if container.exists() && !known {
        container.invalid(errors, "must be one of the container or initContainer names in the pod template");
    }
    let values = codes.get("values");
    let shown = values.value().map_or_else(|| "null".to_owned(), Value::to_string);
    if values.len() == 0 {
        values.wrong(errors, &shown, "at least one value is required");
    }
    at_most(&values, EXIT_CODES_MAX, errors);
    let mut seen = Vec::new();
    for value in values.items().iter().take(EXIT_CODES_MAX) {
        let code = value.int().unwrap_or(0);
        if operator.text() == "In" && code == 0 {
            value.invalid(errors, "must not be 0 for the In operator");
        }
        if seen.contains(&code) {
            value.duplicate(errors);
        }
        seen.push(code);
    }
    if !seen.is_sorted() {
        values.wrong(errors, &shown, "must be ordered");
    }
}

fn success_rule(rule: &Field<'_>, completions: i64, errors: &mut Errors) {
    let (count, indexes) = (rule.get("succeededCount"), rule.get("succeededIndexes"));
    if !count.exists() && !indexes.exists() {
        rule.required(errors, "at least one of succeededCount or succeededIndexes must be specified");
    }
    if indexes.len() > INDEXES_BYTES {
        indexes.error(errors, FieldErrorKind::TooLong, format!("may not be more than {INDEXES_BYTES} bytes"));
    }
    let listed = if indexes.exists() { count_indexes(indexes.text(), completions) } else { Ok(0) };
    if let Err(why) = &listed {
        indexes.invalid(errors, &format!("error parsing succeededIndexes: {why}"));
    }
    let Some(number) = count.int() else { return };
    count.not_negative(errors);
    if number > completions {
        let detail = format!("must be less than or equal to {completions} (the number of specified completions)");
        count.invalid(errors, &detail);
    }
    let listed = listed.unwrap_or(0);
    if indexes.exists() && number > listed {
        let detail = format!(
            "must be less than or equal to {listed} (the number of indexes in the specified succeededIndexes field)"
        );
        count.invalid(errors, &detail);
    }
}

/// How many indexes a list of intervals such as `0,2-5` names.
pub(super) fn count_indexes(text: &str, completions: i64) -> Result<i64, String> {
    Ok(intervals(text, completions)?.iter().map(|(first, last)| last - first + 1).sum())
}

/// The intervals of a list of indexes, each with its first and its last index, in order.
pub(super) fn intervals(text: &str, completions: i64) -> Result<Vec<(i64, i64)>, String> {
    let mut last = None;
    let mut found = Vec::new();
    for interval in text.split(',').filter(|_| !text.is_empty()) {
        let limits: Vec<&str> = interval.split('-').collect();
        if limits.len() > 2 {
            return Err(format!(
                "the fragment {interval:?} violates the requirement that an index interval can have at most two parts \
                 separated by '-'"
            ));
        }
        let mut first = None;
        for limit in limits {
            let index: i64 =
                limit.parse().map_err(|_| format!("cannot convert string to integer for index: {limit:?}"))?;
            if index >= completions {
                return Err(format!("too large index: {limit:?}"));
            }
            if let Some(previous) = last.filter(|previous| *previous >= index) {
                return Err(format!("non-increasing order, previous: {previous}, current: {index}"));
            }
            first = first.or(Some(index));
            last = Some(index);
        }
        found.extend(first.zip(last));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn intervals_of_indexes_are_counted() {
        for (text, expected) in [("", 0), ("0", 1), ("0,2-4", 4), ("1-2,4", 3)] {
            assert_eq!(count_indexes(text, 5), Ok(expected), "{text}");
        }
        for text in ["a", "5", "1,1", "3-2", "1-2-3", "0,", "-1"] {
            assert!(count_indexes(text, 5).is_err(), "{text}");
        }
    }

    #[test]
    fn failure_rules_name_codes_in_order() {
        let broken = |rule: Value| {
            let spec = json!({
                "podFailurePolicy": {"rules": [rule]},
                "template": {"spec": {"containers": [{"name": "a"}]}},
            });
            let mut errors = Errors::default();
            failure(&Field::root(&spec), &mut errors);
            errors.into_vec().into_iter().map(|error| error.detail).collect::<Vec<_>>()
        };
        let codes = |values: Value| json!({"action": "FailJob", "onExitCodes": {"operator": "In", "values": values}});
        assert_eq!(broken(codes(json!([1, 2]))), [] as [&str; 0]);
        assert_eq!(broken(codes(json!([2, 1]))), ["[2,1]: must be ordered"]);
        assert_eq!(broken(codes(json!([0]))), ["0: must not be 0 for the In operator"]);
        assert_eq!(
            broken(json!({"action": "FailIndex", "onPodConditions": [{"type": "a", "status": "True"}]})),
            ["\"FailIndex\": requires the backoffLimitPerIndex to be set"]
        );
    }
}
