//! Admission policies in an expression language, and where they hold. Expressions are stored; nobody compiles them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    FAILURE_POLICIES, MATCH_POLICIES, OPERATIONS, REINVOCATIONS, default_rules, match_conditions, validate_rule,
};
use crate::{
    field::{Errors, Field, member, set_default},
    kinds::{check, conditions, go, rules::Rules},
    names,
    strategy::Generation,
};

/// Reasons that a refusal may give.
const REASONS: [&str; 3] = ["Forbidden", "Invalid", "RequestEntityTooLarge"];
const ACTIONS: [&str; 3] = ["Audit", "Deny", "Warn"];
const PATCHES: [(&str, &str); 2] = [("ApplyConfiguration", "applyConfiguration"), ("JSONPatch", "jsonPatch")];
const ANNOTATIONS_MAX: usize = 20;
const ANNOTATION_BYTES: usize = 5 << 10;
/// Words of the expression language, which name no variable.
const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];
const EITHER: &str = "name and selector are mutually exclusive";

/// Policies that refuse.
pub(in crate::kinds) const VALIDATING_POLICIES: Rules = Rules {
    generation: Generation::Intent,
    status: true,
    needs_version: true,
    default: |policy| {
        let spec = member(policy, "spec");
        set_default(spec, "failurePolicy", "Fail");
        if let Some(matched) = spec.get_mut("matchConstraints") {
            default_match(matched);
        }
    },
    create: |policy| *member(policy, "status") = json!({}),
    validate: validate_policy,
    validate_status: |new, _, errors| {
        let status = new.get("status");
        for warning in status.at("typeChecking.expressionWarnings").items() {
            check::required(&warning.get("warning"), errors);
            if warning.get("fieldRef").text().trim().is_empty() {
                warning.get("fieldRef").required(errors, "");
            }
        }
        conditions::validate(&status.get("conditions"), errors);
    },
    ..Rules::NONE
};

/// Policies that change.
pub(in crate::kinds) const MUTATING_POLICIES: Rules = Rules {
    status: false,
    create: |_| {},
    validate: validate_mutating_policy,
    validate_status: |_, _, _| {},
    ..VALIDATING_POLICIES
};

/// Where a policy that refuses holds, and what comes of it.
pub(in crate::kinds) const VALIDATING_BINDINGS: Rules = Rules {
    generation: Generation::Intent,
    needs_version: true,
    default: |binding| {
        if let Some(matched) = member(binding, "spec").get_mut("matchResources") {
            default_match(matched);
        }
    },
    validate: |binding, errors| {
        validate_binding(binding, errors);
        actions(&binding.at("spec.validationActions"), errors);
    },
    ..Rules::NONE
};

/// Where a policy that changes holds.
pub(in crate::kinds) const MUTATING_BINDINGS: Rules = Rules {
    validate: |binding, errors| {
        validate_binding(binding, errors);
        can_be_changed(&binding.at("spec.matchResources.resourceRules"), errors);
    },
    ..VALIDATING_BINDINGS
};

fn default_match(matched: &mut Value) {
    set_default(matched, "matchPolicy", "Equivalent");
    set_default(matched, "namespaceSelector", json!({}));
    set_default(matched, "objectSelector", json!({}));
    default_rules(matched, "resourceRules");
    default_rules(matched, "excludeResourceRules");
}

fn validate_policy(policy: &Field<'_>, errors: &mut Errors) {
    let spec = policy.get("spec");
    what_it_is_about(&spec, false, errors);
    let (validations, annotations) = (spec.get("validations"), spec.get("auditAnnotations"));
    if validations.len() + annotations.len() == 0 {
        for list in [validations, annotations] {
            list.required(errors, "validations or auditAnnotations must contain at least one item");
        }
        return;
    }
    for validation in validations.items() {
        validate_validation(&validation, errors);
    }
    audit_annotations(policy.at("metadata.name").text(), &annotations, errors);
}

fn validate_mutating_policy(policy: &Field<'_>, errors: &mut Errors) {
    let spec = policy.get("spec");
    what_it_is_about(&spec, true, errors);
    let (mutations, reinvocation) = (spec.get("mutations"), spec.get("reinvocationPolicy"));
    if mutations.len() == 0 {
        mutations.required(errors, "mutations must contain at least one item");
    }
    for mutation in mutations.items() {
        validate_mutation(&mutation, errors);
    }
    if reinvocation.text().is_empty() {
        reinvocation.required(errors, "");
    } else {
        reinvocation.one_of(errors, &REINVOCATIONS);
    }
}

/// What both kinds of policies say: of which objects they speak, and with which names.
fn what_it_is_about(spec: &Field<'_>, changes: bool, errors: &mut Errors) {
    spec.get("failurePolicy").one_of(errors, &FAILURE_POLICIES);
    let kind = spec.get("paramKind");
    if kind.exists() {
        parameter_kind(&kind, errors);
    }
    let constraints = spec.get("matchConstraints");
    if constraints.exists() {
        match_resources(&constraints, errors);
        check::required_list(&constraints.get("resourceRules"), errors);
        if changes {
            can_be_changed(&constraints.get("resourceRules"), errors);
        }
    } else {
        constraints.required(errors, "");
    }
    match_conditions(&spec.get("matchConditions"), errors);
    for variable in spec.get("variables").items() {
        let (name, expression) = (variable.get("name"), variable.get("expression"));
        if name.text().trim().is_empty() {
            name.required(errors, "name is not specified");
        } else if !is_identifier(name.text()) {
            name.invalid(errors, "name is not a valid CEL identifier");
        }
        if expression.text().trim().is_empty() {
            expression.required(errors, "expression is not specified");
        }
    }
}

fn is_identifier(name: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.starts_with(|first: char| first.is_ascii_digit()) && name.bytes().all(known) && !RESERVED.contains(&name)
}

fn parameter_kind(kind: &Field<'_>, errors: &mut Errors) {
    let (version, name) = (kind.get("apiVersion"), kind.get("kind"));
    match version.text().split('/').collect::<Vec<_>>()[..] {
        [""] => version.required(errors, ""),
        ["", ""] => version.invalid(errors, "version must be specified"),
        [number] => group_version(&version, "", number, errors),
        [group, number] => group_version(&version, group, number, errors),
        _ => version.invalid(errors, &format!("unexpected GroupVersion string: {}", version.text())),
    }
    if name.text().is_empty() {
        name.required(errors, "");
    }
    check::mixed_case(&name, errors);
}

fn group_version(field: &Field<'_>, group: &str, number: &str, errors: &mut Errors) {
    let problems = names::subdomain(group);
    if !group.is_empty() && !problems.is_empty() {
        field.wrong(errors, format!("{group:?}"), &problems.join(","));
    }
    let problems = names::label_1035(number);
    if number.is_empty() {
        field.invalid(errors, "version must be specified");
    } else if !problems.is_empty() {
        field.wrong(errors, format!("{number:?}"), &problems.join(","));
    }
}

fn match_resources(matched: &Field<'_>, errors: &mut Errors) {
    matched.get("matchPolicy").one_of(errors, &MATCH_POLICIES);
    for selector in ["namespaceSelector", "objectSelector"] {
        check::label_selector(&matched.get(selector), errors);
    }
    for rule in ["resourceRules", "excludeResourceRules"].iter().flat_map(|list| matched.get(list).items()) {
        let mut seen = BTreeSet::new();
        for name in rule.get("resourceNames").items() {
            check::problems(&name, &names::path_segment(name.text()), errors);
            if !seen.insert(name.text()) {
                name.duplicate(errors);
            }
        }
        validate_rule(&rule, errors);
    }
}

/// What is deleted cannot be changed. Upstream does not say which rule it means.
fn can_be_changed(rules: &Field<'_>, errors: &mut Errors) {
    let place = format!("{}.operations", rules.path());
    let known: Vec<&str> = OPERATIONS.into_iter().filter(|operation| *operation != "DELETE").collect();
    for operation in rules.items().iter().flat_map(|rule| rule.get("operations").items()) {
        operation.shown_at(place.clone()).one_of(errors, &known);
    }
}

fn validate_validation(validation: &Field<'_>, errors: &mut Errors) {
    let text = |name| validation.get(name).text();
    if text("expression").trim().is_empty() {
        validation.get("expression").required(errors, "expression is not specified");
    }
    let is_blank = |name| !text(name).is_empty() && text(name).trim().is_empty();
    if is_blank("messageExpression") {
        validation.get("messageExpression").invalid(errors, "must be non-empty if specified");
    }
    let message = validation.get("message");
    if is_blank("message") {
        message.invalid(errors, "message must be non-empty if specified");
    } else if message.text().trim().contains(['\n', '\r']) {
        message.invalid(errors, "message must not contain line breaks");
    }
    validation.get("reason").one_of(errors, &REASONS);
}

fn audit_annotations(policy: &str, annotations: &Field<'_>, errors: &mut Errors) {
    let items = annotations.items();
    if items.len() > ANNOTATIONS_MAX {
        let shown = items.iter().map(|item| go::show("AuditAnnotation", item.value().unwrap_or(&Value::Null)));
        let shown = format!("[{}]", shown.collect::<Vec<_>>().join(","));
        annotations.wrong(errors, shown, &format!("must not have more than {ANNOTATIONS_MAX} auditAnnotations"));
    }
    let mut seen = BTreeSet::new();
    for annotation in items {
        let (key, value) = (annotation.get("key"), annotation.get("valueExpression"));
        let name = format!("{policy}/{}", key.text());
        for problem in names::qualified_name(&name) {
            key.wrong(errors, format!("{name:?}"), &problem);
        }
        match value.text().trim() {
            "" => value.required(errors, "valueExpression is not specified"),
            text if text.len() > ANNOTATION_BYTES => {
                value.required(errors, &format!("must not exceed {ANNOTATION_BYTES} bytes in length"));
            }
            _ => {}
        }
        if !seen.insert(key.text()) {
            key.duplicate(errors);
        }
    }
}

/// A change is said in one of two ways.
fn validate_mutation(mutation: &Field<'_>, errors: &mut Errors) {
    let of = mutation.get("patchType");
    let Some((_, chosen)) = PATCHES.iter().find(|(name, _)| *name == of.text()) else {
        if of.text().is_empty() {
            return of.required(errors, "");
        }
        return of.not_supported(errors, &PATCHES.map(|(name, _)| name));
    };
    let (patch, expression) = (mutation.get(chosen), mutation.get(chosen).get("expression"));
    if !patch.exists() {
        patch.required(errors, &format!("must be specified when patchType is {}", of.text()));
    } else if expression.text().trim().is_empty() {
        expression.required(errors, "");
    }
    for (_, way) in PATCHES.iter().filter(|(_, way)| way != chosen && mutation.get(way).exists()) {
        let detail = format!("must not be specified when patchType is {}", of.text());
        mutation.get(way).wrong(errors, format!("\"{{{way}}}\""), &detail);
    }
}

fn validate_binding(binding: &Field<'_>, errors: &mut Errors) {
    let spec = binding.get("spec");
    check::needed(&spec.get("policyName"), names::subdomain, errors);
    let parameters = spec.get("paramRef");
    if parameters.exists() {
        parameter_reference(&parameters, errors);
    }
    match_resources(&spec.get("matchResources"), errors);
}

fn parameter_reference(reference: &Field<'_>, errors: &mut Errors) {
    let (name, selector) = (reference.get("name"), reference.get("selector"));
    let is_named = !name.text().is_empty();
    if is_named {
        check::problems(&name, &names::path_segment(name.text()), errors);
        if selector.exists() {
            name.forbidden(errors, EITHER);
        }
    }
    if selector.exists() {
        check::label_selector(&selector, errors);
        if is_named {
            selector.forbidden(errors, EITHER);
        }
    }
    if !is_named && !selector.exists() {
        reference.required(errors, "one of name or selector must be specified");
    }
    let missing = reference.get("parameterNotFoundAction");
    if missing.text().is_empty() {
        missing.required(errors, "");
    } else {
        missing.one_of(errors, &["Deny", "Allow"]);
    }
}

fn actions(actions: &Field<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for action in actions.items() {
        action.one_of(errors, &ACTIONS);
        if !seen.insert(action.text()) {
            action.duplicate(errors);
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        let detail = "must not contain both Deny and Warn (repeating the same validation failure information in the API \
                      response and headers serves no purpose)";
        actions.invalid(errors, detail);
    }
    if seen.is_empty() {
        actions.required(errors, "at least one validation action is required");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{broken, broken_status, with};

    fn policy() -> Value {
        json!({"metadata": {"name": "p"}, "spec": {
            "matchConstraints": {"resourceRules": [
                {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]},
            ]},
            "validations": [{"expression": "true"}],
        }})
    }

    fn mutating() -> Value {
        let mutations = json!([{"patchType": "JSONPatch", "jsonPatch": {"expression": "[]"}}]);
        let policy = with(with(policy(), "spec.validations", Value::Null), "spec.mutations", mutations);
        with(policy, "spec.reinvocationPolicy", json!("Never"))
    }

    #[test]
    fn policies_are_checked() {
        assert_eq!(broken(&VALIDATING_POLICIES, policy()), [""; 0]);
        let annotation = |key: &str| json!([{"key": key, "valueExpression": "'a'"}]);
        for (place, value, expected) in [
            ("matchConstraints", Value::Null, "matchConstraints: "),
            ("matchConstraints.resourceRules", json!([]), "matchConstraints.resourceRules: "),
            ("failurePolicy", json!("Maybe"), "failurePolicy: \"Maybe\": supported values: \"Fail\", \"Ignore\""),
            ("paramKind", json!({"apiVersion": "v1"}), "paramKind.kind: "),
            (
                "paramKind",
                json!({"apiVersion": "a/b/c", "kind": "K"}),
                "paramKind.apiVersion: \"a/b/c\": unexpected GroupVersion string: a/b/c",
            ),
            (
                "paramKind",
                json!({"apiVersion": "a/", "kind": "K"}),
                "paramKind.apiVersion: \"a/\": version must be specified",
            ),
            (
                "variables",
                json!([{"name": "for", "expression": "1"}]),
                "variables[0].name: \"for\": name is not a valid CEL identifier",
            ),
            ("variables", json!([{"name": "a"}]), "variables[0].expression: expression is not specified"),
            ("validations", json!([{"expression": " "}]), "validations[0].expression: expression is not specified"),
            (
                "validations",
                json!([{"expression": "a", "message": "a\nb"}]),
                "validations[0].message: \"a\\nb\": message must not contain line breaks",
            ),
            (
                "validations",
                json!([{"expression": "a", "message": " "}]),
                "validations[0].message: \" \": message must be non-empty if specified",
            ),
            (
                "auditAnnotations",
                json!([{"key": "k"}]),
                "auditAnnotations[0].valueExpression: valueExpression is not specified",
            ),
            (
                "matchConstraints.resourceRules",
                json!([
                    {"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"], "resourceNames": ["a", "a"]},
                ]),
                "matchConstraints.resourceRules[0].resourceNames[1]: \"a\"",
            ),
        ] {
            assert_eq!(
                broken(&VALIDATING_POLICIES, with(policy(), &format!("spec.{place}"), value)),
                [format!("spec.{expected}")]
            );
        }
        let found = broken(&VALIDATING_POLICIES, with(policy(), "spec.auditAnnotations", annotation("a b")));
        assert!(
            found.len() == 1 && found[0].starts_with("spec.auditAnnotations[0].key: \"p/a b\": name part must"),
            "{found:?}"
        );
    }

    #[test]
    fn nothing_that_goes_is_changed() {
        assert_eq!(broken(&MUTATING_POLICIES, mutating()), [""; 0]);
        let deleting =
            json!([{"operations": ["DELETE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]);
        for (place, value, expected) in [
            (
                "matchConstraints.resourceRules",
                deleting,
                "matchConstraints.resourceRules.operations: \"DELETE\": supported values: \"*\", \"CONNECT\", \"CREATE\", \"UPDATE\"",
            ),
            ("reinvocationPolicy", Value::Null, "reinvocationPolicy: "),
            ("mutations", json!([]), "mutations: mutations must contain at least one item"),
            ("mutations", json!([{}]), "mutations[0].patchType: "),
            (
                "mutations",
                json!([{"patchType": "JSONPatch"}]),
                "mutations[0].jsonPatch: must be specified when patchType is JSONPatch",
            ),
            (
                "mutations",
                json!([{"patchType": "ApplyConfiguration", "jsonPatch": {}, "applyConfiguration": {"expression": "a"}}]),
                "mutations[0].jsonPatch: \"{jsonPatch}\": must not be specified when patchType is ApplyConfiguration",
            ),
        ] {
            assert_eq!(
                broken(&MUTATING_POLICIES, with(mutating(), &format!("spec.{place}"), value)),
                [format!("spec.{expected}")]
            );
        }
    }

    #[test]
    fn bindings_say_what_comes_of_a_refusal() {
        let binding = json!({"spec": {"policyName": "p", "validationActions": ["Deny"]}});
        assert_eq!(broken(&VALIDATING_BINDINGS, binding.clone()), [""; 0]);
        let found = broken(
            &VALIDATING_BINDINGS,
            with(binding.clone(), "spec.validationActions", json!(["Deny", "Warn", "Deny", "No"])),
        );
        assert_eq!(found.len(), 3, "{found:?}");
        assert_eq!(
            broken(&VALIDATING_BINDINGS, with(binding.clone(), "spec.validationActions", json!([]))),
            ["spec.validationActions: at least one validation action is required"]
        );
        let both = json!({"name": "n", "selector": {}, "parameterNotFoundAction": "Deny"});
        assert_eq!(
            broken(&VALIDATING_BINDINGS, with(binding.clone(), "spec.paramRef", both)),
            [format!("spec.paramRef.name: {EITHER}"), format!("spec.paramRef.selector: {EITHER}")]
        );
        assert_eq!(
            broken(&MUTATING_BINDINGS, with(binding, "spec.paramRef", json!({}))),
            ["spec.paramRef: one of name or selector must be specified", "spec.paramRef.parameterNotFoundAction: "]
        );
    }

    #[test]
    fn warnings_of_a_status_say_what_and_where() {
        let status =
            json!({"status": {"typeChecking": {"expressionWarnings": [{"fieldRef": " "}]}, "conditions": [{}]}});
        let found = broken_status(&VALIDATING_POLICIES, &json!({}), &status);
        let place = "status.typeChecking.expressionWarnings[0]";
        assert_eq!(found[..2], [format!("{place}.warning: "), format!("{place}.fieldRef: ")]);
        assert!(found[2..].iter().all(|error| error.starts_with("status.conditions[0].")), "{found:?}");
    }
}
