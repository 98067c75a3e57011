//! Conditions of the common form: each once, with a status, a time and a reason.
//!
//! Upstream: `ValidateConditions` of `apimachinery/pkg/apis/meta/v1/validation`.

use std::collections::BTreeSet;

use orchestrator_core::status::FieldErrorKind;

use super::check;
use crate::field::{Errors, Field};

const STATUSES: [&str; 3] = ["False", "True", "Unknown"];
const REASON_BYTES: usize = 1024;
const MESSAGE_BYTES: usize = 32 * 1024;
const REASON: &str = "a condition reason must start with alphabetic character, optionally followed by a string of \
alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  \
or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is \
'[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')";

pub(super) fn validate(conditions: &Field<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for condition in conditions.items() {
        let of = condition.get("type");
        if !seen.insert(of.text()) {
            of.duplicate(errors);
        }
        check::label_key(&of, errors);
        let status = condition.get("status");
        if !STATUSES.contains(&status.text()) {
            status.not_supported(errors, &STATUSES);
        }
        let generation = condition.get("observedGeneration");
        if generation.int().is_some_and(|generation| generation < 0) {
            generation.invalid(errors, "must be greater than or equal to zero");
        }
        for name in ["lastTransitionTime", "reason"] {
            if condition.get(name).text().is_empty() {
                condition.get(name).required(errors, "must be set");
            }
        }
        let reason = condition.get("reason");
        if !reason.text().is_empty() && !is_reason(reason.text()) {
            reason.invalid(errors, REASON);
        }
        at_most(&reason, REASON_BYTES, errors);
        at_most(&condition.get("message"), MESSAGE_BYTES, errors);
    }
}

fn is_reason(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b',' | b':');
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.ends_with(|last: char| last.is_ascii_alphanumeric() || last == '_')
        && text.bytes().all(inner)
}

fn at_most(text: &Field<'_>, bytes: usize, errors: &mut Errors) {
    if text.len() > bytes {
        text.error(errors, FieldErrorKind::TooLong, format!("may not be more than {bytes} bytes"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn broken(conditions: &Value) -> Vec<String> {
        let mut errors = Errors::default();
        validate(&Field::root(conditions), &mut errors);
        errors.into_vec().into_iter().map(|error| error.field).collect()
    }

    #[test]
    fn each_is_whole_and_there_once() {
        let whole =
            json!({"type": "Ready", "status": "True", "reason": "A:b_", "lastTransitionTime": "2020-01-01T00:00:00Z"});
        assert_eq!(broken(&json!([whole])), [""; 0]);
        assert_eq!(broken(&json!([whole, whole])), ["[1].type"]);
        let wrong = json!([{"type": "a b", "status": "Yes", "observedGeneration": -1, "reason": "a b"}]);
        let fields = ["type", "status", "observedGeneration", "lastTransitionTime", "reason"];
        assert_eq!(broken(&wrong), fields.map(|name| format!("[0].{name}")));
    }
}
