//! Who is asked about writes: webhooks and admission policies, and what they have in common.
//!
//! Upstream: `pkg/apis/admissionregistration/validation/validation.go`.

mod policies;
mod webhooks;

use std::collections::BTreeSet;

use orchestrator_core::status::FieldErrorKind;
use serde_json::Value;

pub(super) use self::{
    policies::{MUTATING_BINDINGS, MUTATING_POLICIES, VALIDATING_BINDINGS, VALIDATING_POLICIES},
    webhooks::{MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS},
};
use super::check;
use crate::{
    field::{Errors, Field, items_mut, set_default},
    names,
};

const FAILURE_POLICIES: [&str; 2] = ["Fail", "Ignore"];
const MATCH_POLICIES: [&str; 2] = ["Equivalent", "Exact"];
const REINVOCATIONS: [&str; 2] = ["IfNeeded", "Never"];
const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const SCOPES: [&str; 3] = ["*", "Cluster", "Namespaced"];
const CONDITIONS_MAX: usize = 64;

fn default_rules(tree: &mut Value, list: &str) {
    for rule in items_mut(tree, list) {
        set_default(rule, "scope", "*");
    }
}

/// What is done to which resources.
fn validate_rule(rule: &Field<'_>, errors: &mut Errors) {
    let operations = rule.get("operations");
    check::required_list(&operations, errors);
    alone(&operations, "operations", errors);
    for operation in operations.items() {
        operation.one_of(errors, &OPERATIONS);
    }
    for (name, others) in [("apiGroups", "API groups"), ("apiVersions", "API versions")] {
        check::required_list(&rule.get(name), errors);
        alone(&rule.get(name), others, errors);
    }
    for version in rule.get("apiVersions").items() {
        check::required(&version, errors);
    }
    resources(&rule.get("resources"), errors);
    rule.get("scope").one_of(errors, &SCOPES);
}

/// What means all stands alone.
fn alone(list: &Field<'_>, others: &str, errors: &mut Errors) {
    if list.len() > 1 && list.items().iter().any(|item| item.text() == "*") {
        list.invalid(errors, &format!("if '*' is present, must not specify other {others}"));
    }
}

/// Resources and subresources, of which none is named twice: once by name, and once by a star.
fn resources(resources: &Field<'_>, errors: &mut Errors) {
    check::required_list(resources, errors);
    let (mut whole, mut subresources) = (BTreeSet::new(), BTreeSet::new());
    let (mut all, mut star, mut plain) = (false, false, false);
    for resource in resources.items() {
        let text = resource.text();
        check::required(&resource, errors);
        all |= text == "*/*";
        star |= text == "*";
        let Some((name, subresource)) = text.split_once('/') else {
            if !text.is_empty() {
                plain = text != "*";
            }
            continue;
        };
        if whole.contains(name) {
            resource.invalid(errors, &format!("if '{name}/*' is present, must not specify {text}"));
        }
        if subresources.contains(subresource) {
            resource.invalid(errors, &format!("if '*/{subresource}' is present, must not specify {text}"));
        }
        if subresource == "*" {
            whole.insert(name);
        }
        if name == "*" {
            subresources.insert(subresource);
        }
    }
    if all && resources.len() > 1 {
        resources.invalid(errors, "if '*/*' is present, must not specify other resources");
    }
    if star && plain {
        resources.invalid(errors, "if '*' is present, must not specify other resources without subresources");
    }
}

/// Conditions, each with an expression and a name of its own.
fn match_conditions(conditions: &Field<'_>, errors: &mut Errors) {
    if conditions.len() > CONDITIONS_MAX {
        let detail = format!("{}: must have at most {CONDITIONS_MAX} items", conditions.len());
        conditions.error(errors, FieldErrorKind::TooMany, detail);
    }
    let mut seen = BTreeSet::new();
    for condition in conditions.items() {
        let (name, expression) = (condition.get("name"), condition.get("expression"));
        if expression.text().trim().is_empty() {
            expression.required(errors, "");
        }
        check::needed(&name, names::qualified_name, errors);
        if !name.text().is_empty() && !seen.insert(name.text()) {
            name.duplicate(errors);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::told;

    fn broken(list: Value) -> Vec<String> {
        let rule = json!({"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": list});
        let mut errors = Errors::default();
        validate_rule(&Field::root(&rule), &mut errors);
        told(errors)
    }

    #[test]
    fn resources_are_named_once() {
        for good in
            [json!(["pods", "pods/log"]), json!(["*", "pods/*"]), json!(["*/*"]), json!(["*/scale", "pods/log"])]
        {
            assert_eq!(broken(good.clone()), [""; 0], "{good}");
        }
        for (list, expected) in [
            (json!([]), "resources: "),
            (json!([""]), "resources[0]: "),
            (
                json!(["pods/*", "pods/log"]),
                "resources[1]: \"pods/log\": if 'pods/*' is present, must not specify pods/log",
            ),
            (
                json!(["*/log", "pods/log"]),
                "resources[1]: \"pods/log\": if '*/log' is present, must not specify pods/log",
            ),
            (json!(["*/*", "a"]), "resources: [\"*/*\",\"a\"]: if '*/*' is present, must not specify other resources"),
            (
                json!(["*", "a"]),
                "resources: [\"*\",\"a\"]: if '*' is present, must not specify other resources without subresources",
            ),
        ] {
            assert_eq!(broken(list), [expected]);
        }
    }

    #[test]
    fn stars_stand_alone() {
        let rule = json!({
            "operations": ["*", "READ"], "apiGroups": ["*", ""], "apiVersions": ["", "*"], "resources": ["a"], "scope": "all",
        });
        let mut errors = Errors::default();
        validate_rule(&Field::root(&rule), &mut errors);
        assert_eq!(
            told(errors),
            [
                "operations: [\"*\",\"READ\"]: if '*' is present, must not specify other operations",
                "operations[1]: \"READ\": supported values: \"*\", \"CONNECT\", \"CREATE\", \"DELETE\", \"UPDATE\"",
                "apiGroups: [\"*\",\"\"]: if '*' is present, must not specify other API groups",
                "apiVersions: [\"\",\"*\"]: if '*' is present, must not specify other API versions",
                "apiVersions[0]: ",
                "scope: \"all\": supported values: \"*\", \"Cluster\", \"Namespaced\"",
            ]
        );
    }
}
