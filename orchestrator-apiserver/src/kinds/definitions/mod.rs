//! CustomResourceDefinitions.
//!
//! Upstream: `apiextensions-apiserver/pkg/apis/apiextensions` and `pkg/registry/customresourcedefinition`.

mod conversion;
mod naming;
mod schema;
mod versions;

use serde_json::{Value, json};

use super::{check, rules::Rules};
use crate::{
    field::{Errors, Field, items_mut, member, set_default},
    names,
    strategy::Generation,
};

/// The annotation that says who has agreed to a kind in a group of the community's.
const APPROVAL: &str = "api-approved.kubernetes.io";

/// Definitions of kinds.
pub(super) const DEFINITIONS: Rules = Rules {
    generation: Generation::Intent,
    status: true,
    needs_version: true,
    keeps_metadata_of_status: false,
    default,
    create,
    update: |new, _| store_version(new),
    validate_create: |definition, errors| validate(definition, None, errors),
    validate_update: |new, old, errors| validate(new, Some(old), errors),
    validate_status: |new, _, errors| naming::validate(&new.at("status.acceptedNames"), errors),
    ..Rules::NONE
};

fn default(definition: &mut Value) {
    let spec = member(definition, "spec");
    let kinds = member(spec, "names");
    let kind = kinds["kind"].as_str().unwrap_or_default().to_owned();
    set_default(kinds, "plural", "");
    set_default(kinds, "kind", "");
    if !kind.is_empty() {
        set_default(kinds, "singular", kind.to_lowercase());
        set_default(kinds, "listKind", format!("{kind}List"));
    }
    set_default(member(spec, "conversion"), "strategy", "None");
    if let Some(service) =
        spec["conversion"].get_mut("webhook").and_then(|hook| hook.get_mut("clientConfig")?.get_mut("service"))
    {
        set_default(service, "port", 443);
    }
    for version in items_mut(spec, "versions") {
        set_default(version, "served", false);
        set_default(version, "storage", false);
    }
}

fn create(definition: &mut Value) {
    *member(definition, "status") =
        json!({"acceptedNames": {"kind": "", "plural": ""}, "conditions": null, "storedVersions": null});
    store_version(definition);
}

/// Objects have been stored in every version that was ever the one to store in.
fn store_version(definition: &mut Value) {
    let root = Field::root(definition);
    let versions = root.at("spec.versions").items();
    let storage = versions.iter().find(|version| version.get("storage").bool() == Some(true));
    let Some(name) = storage.map(|version| version.get("name").text().to_owned()) else { return };
    let stored = member(member(definition, "status"), "storedVersions");
    match stored.as_array_mut() {
        Some(stored) if stored.iter().any(|stored| *stored == name) => {}
        Some(stored) => stored.push(name.into()),
        None => *stored = json!([name]),
    }
}

fn validate(definition: &Field<'_>, old: Option<&Field<'_>>, errors: &mut Errors) {
    let spec = definition.get("spec");
    let (group, kinds, scope) = (spec.get("group"), spec.get("names"), spec.get("scope"));
    let name = definition.at("metadata.name");
    if name.text() != format!("{}.{}", kinds.get("plural").text(), group.text()) {
        name.invalid(errors, "must be spec.names.plural+\".\"+spec.group");
    }
    validate_group(&group, errors);
    if scope.text().is_empty() {
        scope.required(errors, "");
    } else {
        scope.one_of(errors, &["Cluster", "Namespaced"]);
    }
    versions::validate(&spec, errors);
    naming::required(&kinds, errors);
    naming::validate(&kinds, errors);
    versions::validate_shared(&spec, errors);
    conversion::validate(&spec.get("conversion"), old, errors);
    if let Some(old) = old {
        names_stay(&spec, old, errors);
    }
    naming::validate(&definition.at("status.acceptedNames"), errors);
    versions::stored(definition, errors);
    approval(definition, old, errors);
    let (keeps, kept) =
        (spec.get("preserveUnknownFields"), |old: &Field<'_>| old.at("spec.preserveUnknownFields").bool());
    if keeps.bool() == Some(true) && old.and_then(kept) != Some(true) {
        let detail = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema \
                      instead";
        keeps.invalid(errors, detail);
    }
}

fn validate_group(group: &Field<'_>, errors: &mut Errors) {
    let problems = names::subdomain(group.text());
    if group.text().is_empty() {
        group.required(errors, "");
    } else if !problems.is_empty() {
        group.invalid(errors, &problems.join(","));
    } else if !group.text().contains('.') {
        group.invalid(errors, "should be a domain with at least one dot");
    }
}

fn is_established(definition: &Field<'_>) -> bool {
    let conditions = definition.at("status.conditions").items();
    conditions.iter().any(|one| one.get("type").text() == "Established" && one.get("status").text() == "True")
}

/// What objects are stored under does not change: some of it once there may be objects, some of it never.
fn names_stay(spec: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    let before = old.get("spec");
    if is_established(old) {
        check::immutable(spec, &before, "scope", errors);
        check::immutable(&spec.get("names"), &before.get("names"), "kind", errors);
    }
    check::immutable(spec, &before, "group", errors);
    check::immutable(&spec.get("names"), &before.get("names"), "plural", errors);
}

/// Whether somebody has agreed to a kind, as far as its annotation says.
#[derive(PartialEq, Eq)]
enum Approval {
    Given,
    Bypassed,
    Missing,
    Invalid,
}

fn approval_of(definition: &Field<'_>) -> Approval {
    let annotation = definition.at("metadata.annotations").key(APPROVAL);
    let text = annotation.text();
    let host = text.split_once("://").map(|(_, rest)| rest.split('/').next().unwrap_or_default());
    match host {
        _ if text.is_empty() => Approval::Missing,
        _ if text.starts_with("unapproved") => Approval::Bypassed,
        Some(host) if !host.is_empty() => Approval::Given,
        _ => Approval::Invalid,
    }
}

/// Kinds in groups of the community's have been agreed to.
fn approval(definition: &Field<'_>, old: Option<&Field<'_>>, errors: &mut Errors) {
    let group = definition.at("spec.group").text();
    let is_of = |domain: &str| group == domain || group.ends_with(&format!(".{domain}"));
    let approval = approval_of(definition);
    if !(is_of("k8s.io") || is_of("kubernetes.io")) || old.is_some_and(|old| approval_of(old) == approval) {
        return;
    }
    let place = definition.at("metadata.annotations").key(APPROVAL);
    let must = format!("protected groups must have approval annotation {APPROVAL:?}");
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    match approval {
        Approval::Given | Approval::Bypassed => {}
        Approval::Missing => place.required(errors, &format!("{must}, {see}")),
        Approval::Invalid => {
            place.invalid(errors, &format!("{must} with either a URL or a reason starting with \"unapproved\", {see}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{broken, broken_by_change, broken_status, with};

    fn definition() -> Value {
        json!({"metadata": {"name": "things.example.com"}, "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}],
        }, "status": {"storedVersions": ["v1"]}})
    }

    #[test]
    fn definitions_are_checked() {
        assert_eq!(broken(&DEFINITIONS, definition()), [""; 0]);
        for (place, value, expected) in [
            ("spec.scope", json!("World"), "spec.scope: \"World\": supported values: \"Cluster\", \"Namespaced\""),
            (
                "spec.preserveUnknownFields",
                json!(true),
                "spec.preserveUnknownFields: true: cannot set to true, set x-kubernetes-",
            ),
            (
                "status.storedVersions",
                json!(["v1", "v0"]),
                "status.storedVersions[1]: \"v0\": missing from spec.versions; v0 was",
            ),
            (
                "spec.names.kind",
                json!("Some_Thing"),
                "spec.names.kind: \"Some_Thing\": may have mixed case, but should otherwise match: a DNS-1035",
            ),
        ] {
            let found = broken(&DEFINITIONS, with(definition(), place, value));
            assert!(found.iter().any(|error| error.starts_with(expected)), "{found:?}");
        }
    }

    #[test]
    fn groups_of_the_community_need_an_approval() {
        let of = |annotation: Value| {
            let named =
                with(with(definition(), "metadata.name", json!("things.x.k8s.io")), "spec.group", json!("x.k8s.io"));
            with(named, "metadata.annotations", json!({ APPROVAL: annotation }))
        };
        for good in ["https://github.com/kubernetes/kubernetes/pull/1", "unapproved, a test"] {
            assert_eq!(broken(&DEFINITIONS, of(good.into())), [""; 0]);
        }
        let place = format!("metadata.annotations[{APPROVAL}]");
        let found = broken(&DEFINITIONS, of("yes".into()));
        assert!(found[0].starts_with(&format!("{place}: \"yes\": protected groups must have")), "{found:?}");
        let found = broken(&DEFINITIONS, of(Value::Null));
        assert!(found[0].starts_with(&format!("{place}: protected groups must have")), "{found:?}");
        assert_eq!(broken_by_change(&DEFINITIONS, of(Value::Null), of(Value::Null)), [""; 0]);
    }

    #[test]
    fn scope_and_kind_stay_once_there_may_be_objects() {
        let other = with(definition(), "spec.scope", json!("Cluster"));
        assert_eq!(broken_by_change(&DEFINITIONS, definition(), other.clone()), [""; 0]);
        let established = with(definition(), "status.conditions", json!([{"type": "Established", "status": "True"}]));
        assert_eq!(broken_by_change(&DEFINITIONS, established, other), ["spec.scope: \"Cluster\": field is immutable"]);
    }

    #[test]
    fn names_in_the_status_are_names() {
        let status = json!({"status": {"acceptedNames": {"plural": "", "kind": "A B"}}});
        let found = broken_status(&DEFINITIONS, &json!({}), &status);
        assert!(found.len() == 1 && found[0].starts_with("status.acceptedNames.kind: \"A B\": may have"), "{found:?}");
    }
}
