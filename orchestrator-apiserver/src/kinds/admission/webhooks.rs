//! Webhooks that are asked about writes.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{FAILURE_POLICIES, MATCH_POLICIES, REINVOCATIONS, default_rules, match_conditions, validate_rule};
use crate::{
    field::{Errors, Field, items_mut, set_default},
    kinds::{check, rules::Rules, webhook_client},
    names,
    strategy::Generation,
};

const SIDE_EFFECTS: [&str; 2] = ["None", "NoneOnDryRun"];

/// Webhooks that may only refuse.
pub(in crate::kinds) const VALIDATING_WEBHOOKS: Rules = Rules {
    generation: Generation::Intent,
    needs_version: true,
    default: |configuration| default(configuration, false),
    validate,
    ..Rules::NONE
};

/// Webhooks that may change.
pub(in crate::kinds) const MUTATING_WEBHOOKS: Rules =
    Rules { default: |configuration| default(configuration, true), ..VALIDATING_WEBHOOKS };

fn default(configuration: &mut Value, mutating: bool) {
    for webhook in items_mut(configuration, "webhooks") {
        set_default(webhook, "failurePolicy", "Fail");
        set_default(webhook, "matchPolicy", "Equivalent");
        set_default(webhook, "namespaceSelector", json!({}));
        set_default(webhook, "objectSelector", json!({}));
        set_default(webhook, "timeoutSeconds", 10);
        set_default(webhook, "clientConfig", json!({}));
        set_default(webhook, "sideEffects", Value::Null);
        set_default(webhook, "admissionReviewVersions", Value::Null);
        if mutating {
            set_default(webhook, "reinvocationPolicy", "Never");
        }
        if let Some(service) = webhook.get_mut("clientConfig").and_then(|client| client.get_mut("service")) {
            set_default(service, "port", 443);
        }
        default_rules(webhook, "rules");
    }
}

fn validate(configuration: &Field<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for webhook in configuration.get("webhooks").items() {
        validate_webhook(&webhook, errors);
        let versions = webhook.get("admissionReviewVersions");
        webhook_client::review_versions(&versions, "must specify one of v1, v1beta1", errors);
        let name = webhook.get("name");
        if !name.text().is_empty() && !seen.insert(name.text()) {
            name.duplicate(errors);
        }
    }
}

fn validate_webhook(webhook: &Field<'_>, errors: &mut Errors) {
    qualified(&webhook.get("name"), errors);
    for rule in webhook.get("rules").items() {
        validate_rule(&rule, errors);
    }
    webhook.get("failurePolicy").one_of(errors, &FAILURE_POLICIES);
    webhook.get("matchPolicy").one_of(errors, &MATCH_POLICIES);
    let effects = webhook.get("sideEffects");
    if effects.exists() {
        effects.one_of(errors, &SIDE_EFFECTS);
    } else {
        effects.required(errors, &format!("must specify one of {}", SIDE_EFFECTS.join(", ")));
    }
    let timeout = webhook.get("timeoutSeconds");
    if timeout.int().is_some_and(|seconds| !(1..=30).contains(&seconds)) {
        timeout.invalid(errors, "the timeout value must be between 1 and 30 seconds");
    }
    check::label_selector(&webhook.get("namespaceSelector"), errors);
    check::label_selector(&webhook.get("objectSelector"), errors);
    webhook.get("reinvocationPolicy").one_of(errors, &REINVOCATIONS);
    webhook_client::validate(&webhook.get("clientConfig"), errors);
    match_conditions(&webhook.get("matchConditions"), errors);
}

/// A name with at least three parts.
fn qualified(name: &Field<'_>, errors: &mut Errors) {
    if name.text().is_empty() {
        return name.required(errors, "");
    }
    let problems = names::subdomain(name.text());
    if !problems.is_empty() {
        name.invalid(errors, &problems.join(","));
    } else if name.text().split('.').count() < 3 {
        name.invalid(errors, "should be a domain with at least three segments separated by dots");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{broken, with};

    fn hook() -> Value {
        json!({
            "name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": "https://example.com/a"},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
        })
    }

    fn broken_hook(place: &str, value: Value) -> Vec<String> {
        broken(&MUTATING_WEBHOOKS, json!({"metadata": {"name": "w"}, "webhooks": [with(hook(), place, value)]}))
    }

    #[test]
    fn webhooks_are_checked() {
        assert_eq!(broken_hook("timeoutSeconds", json!(30)), [""; 0]);
        for (place, value, expected) in [
            ("name", json!("a.b"), "name: \"a.b\": should be a domain with at least three segments separated by dots"),
            ("sideEffects", Value::Null, "sideEffects: must specify one of None, NoneOnDryRun"),
            ("sideEffects", json!("Some"), "sideEffects: \"Some\": supported values: \"None\", \"NoneOnDryRun\""),
            (
                "reinvocationPolicy",
                json!("Often"),
                "reinvocationPolicy: \"Often\": supported values: \"IfNeeded\", \"Never\"",
            ),
            (
                "admissionReviewVersions",
                json!(["v2"]),
                "admissionReviewVersions: [\"v2\"]: must include at least one of v1, v1beta1",
            ),
            ("admissionReviewVersions", json!(["v1", "v1"]), "admissionReviewVersions[1]: \"v1\": duplicate version"),
            ("clientConfig", json!({}), "clientConfig: exactly one of url or service is required"),
            ("matchConditions", json!([{"name": "n", "expression": " "}]), "matchConditions[0].expression: "),
        ] {
            assert_eq!(broken_hook(place, value), [format!("webhooks[0].{expected}")]);
        }
    }

    #[test]
    fn names_are_there_once_and_told_last() {
        let twice = with(hook(), "admissionReviewVersions", Value::Null);
        assert_eq!(
            broken(&VALIDATING_WEBHOOKS, json!({"webhooks": [hook(), twice]})),
            [
                "webhooks[1].admissionReviewVersions: must specify one of v1, v1beta1",
                "webhooks[1].name: \"a.example.com\"",
            ]
        );
    }
}
