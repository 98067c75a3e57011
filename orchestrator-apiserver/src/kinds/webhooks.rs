//! Who is asked about writes: webhooks and admission policies.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{check, rules::Rules};
use crate::{
    field::{Errors, Field, items_mut, member, set_default},
    names,
};

/// Webhooks that may only refuse.
pub(super) const VALIDATING: Rules = Rules {
    generation: true,
    needs_version: true,
    default: |configuration| default_webhooks(configuration, false),
    validate: validate_webhooks,
    ..Rules::NONE
};

/// Webhooks that may change.
pub(super) const MUTATING: Rules =
    Rules { default: |configuration| default_webhooks(configuration, true), ..VALIDATING };

/// Admission policies in an expression language.
pub(super) const POLICIES: Rules = Rules {
    generation: true,
    status: true,
    needs_version: true,
    default: default_policy,
    create: |policy| *member(policy, "status") = json!({}),
    validate: |policy, errors| {
        let spec = policy.get("spec");
        constraints(&spec.get("matchConstraints"), errors);
        if spec.get("validations").len() + spec.get("auditAnnotations").len() == 0 {
            for name in ["validations", "auditAnnotations"] {
                spec.get(name).required(errors, "validations or auditAnnotations must contain at least one item");
            }
        }
    },
    ..Rules::NONE
};

/// Admission policies that change.
pub(super) const MUTATING_POLICIES: Rules = Rules {
    status: false,
    create: |_| {},
    validate: |policy, errors| {
        constraints(&policy.at("spec.matchConstraints"), errors);
        let mutations = policy.at("spec.mutations");
        if mutations.len() == 0 {
            mutations.required(errors, "mutations must contain at least one item");
        }
    },
    ..POLICIES
};

/// Where an admission policy holds.
pub(super) const BINDINGS: Rules = Rules {
    generation: true,
    needs_version: true,
    default: |binding| {
        if let Some(matched) = member(binding, "spec").get_mut("matchResources") {
            default_match(matched);
        }
    },
    validate: |binding, errors| {
        let spec = binding.get("spec");
        check::needed(&spec.get("policyName"), names::subdomain, errors);
        if binding.get("kind").text() == "ValidatingAdmissionPolicyBinding" && spec.get("validationActions").len() == 0
        {
            spec.get("validationActions").required(errors, "");
        }
    },
    ..Rules::NONE
};

/// What a policy is about must be said.
fn constraints(constraints: &Field<'_>, errors: &mut Errors) {
    if !constraints.exists() {
        constraints.required(errors, "");
    } else if constraints.get("resourceRules").len() == 0 {
        constraints.get("resourceRules").required(errors, "");
    }
}

fn default_rules(tree: &mut Value, list: &str) {
    for rule in items_mut(tree, list) {
        set_default(rule, "scope", "*");
    }
}

fn default_webhooks(configuration: &mut Value, mutating: bool) {
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

fn default_match(matched: &mut Value) {
    set_default(matched, "matchPolicy", "Equivalent");
    set_default(matched, "namespaceSelector", json!({}));
    set_default(matched, "objectSelector", json!({}));
    default_rules(matched, "resourceRules");
    default_rules(matched, "excludeResourceRules");
}

fn default_policy(policy: &mut Value) {
    let spec = member(policy, "spec");
    set_default(spec, "failurePolicy", "Fail");
    if let Some(matched) = spec.get_mut("matchConstraints") {
        default_match(matched);
    }
}

fn validate_webhooks(configuration: &Field<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for webhook in configuration.get("webhooks").items() {
        let name = webhook.get("name");
        qualified(&name, errors);
        if seen.contains(&name.text()) {
            name.duplicate(errors);
        }
        seen.insert(name.text());
        review_versions(&webhook.get("admissionReviewVersions"), errors);
        for rule in webhook.get("rules").items() {
            validate_rule(&rule, errors);
        }
        webhook.get("failurePolicy").one_of(errors, &["Fail", "Ignore"]);
        webhook.get("matchPolicy").one_of(errors, &["Equivalent", "Exact"]);
        let effects = webhook.get("sideEffects");
        if effects.exists() {
            effects.one_of(errors, &["None", "NoneOnDryRun"]);
        } else {
            effects.required(errors, "must specify one of None, NoneOnDryRun");
        }
        let timeout = webhook.get("timeoutSeconds");
        if timeout.int().is_some_and(|seconds| !(1..=30).contains(&seconds)) {
            timeout.invalid(errors, "the timeout value must be between 1 and 30 seconds");
        }
        check::label_selector(&webhook.get("namespaceSelector"), errors);
        check::label_selector(&webhook.get("objectSelector"), errors);
        client(&webhook.get("clientConfig"), errors);
    }
}

/// A name with at least three parts.
fn qualified(name: &Field<'_>, errors: &mut Errors) {
    if name.text().is_empty() {
        return name.required(errors, "");
    }
    let problems = names::subdomain(name.text());
    check::problems(name, &problems, errors);
    if problems.is_empty() && name.text().split('.').count() < 3 {
        name.invalid(errors, "should be a domain with at least three segments separated by dots");
    }
}

fn review_versions(versions: &Field<'_>, errors: &mut Errors) {
    if versions.len() == 0 {
        return versions.required(errors, "must specify one of v1, v1beta1");
    }
    if !versions.items().iter().any(|version| matches!(version.text(), "v1" | "v1beta1")) {
        versions.invalid(errors, "must include at least one of v1, v1beta1");
    }
}

fn validate_rule(rule: &Field<'_>, errors: &mut Errors) {
    for name in ["operations", "apiGroups", "apiVersions", "resources"] {
        if rule.get(name).len() == 0 {
            rule.get(name).required(errors, "");
        }
    }
    for operation in rule.get("operations").items() {
        operation.one_of(errors, &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"]);
    }
    rule.get("scope").one_of(errors, &["*", "Cluster", "Namespaced"]);
}

fn client(client: &Field<'_>, errors: &mut Errors) {
    let (url, service) = (client.get("url"), client.get("service"));
    match (url.exists(), service.exists()) {
        (true, false) if !url.text().starts_with("https://") => {
            url.invalid(errors, "'https' is the only allowed URL scheme; desired format: https://host[/path]");
        }
        (true, false) => {}
        (false, true) => {
            check::required(&service.get("namespace"), errors);
            check::required(&service.get("name"), errors);
            check::in_range(&service.get("port"), 1, 65_535, errors);
        }
        _ => client.required(errors, "exactly one of url or service is required"),
    }
}
