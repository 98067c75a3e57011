//! CustomResourceDefinitions.
//!
//! Upstream: `apiextensions-apiserver/pkg/apis/apiextensions`.

use std::collections::BTreeSet;

use orchestrator_core::status::FieldErrorKind;
use serde_json::{Value, json};

use super::{check, custom_schema, rules::Rules};
use crate::{
    field::{Errors, Field, items_mut, member, set_default},
    limits, names,
};

/// Definitions of kinds.
pub(super) const DEFINITIONS: Rules = Rules {
    generation: true,
    status: true,
    needs_version: true,
    default,
    create,
    update: |new, _| store_version(new),
    validate,
    validate_update: |new, old, errors| {
        let (new, old) = (new.get("spec"), old.get("spec"));
        for name in ["group", "scope"] {
            check::immutable(&new, &old, name, errors);
        }
        for name in ["plural", "kind"] {
            check::immutable(&new.get("names"), &old.get("names"), name, errors);
        }
    },
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

fn validate(definition: &Field<'_>, errors: &mut Errors) {
    let spec = definition.get("spec");
    let (group, kinds) = (spec.get("group"), spec.get("names"));
    let name = definition.at("metadata.name");
    if name.text() != format!("{}.{}", kinds.get("plural").text(), group.text()) {
        name.invalid(errors, "must be spec.names.plural+\".\"+spec.group");
    }
    if group.text().is_empty() {
        group.required(errors, "");
    } else {
        check::problems(&group, &names::subdomain(group.text()), errors);
        if !group.text().contains('.') {
            group.invalid(errors, "should be a domain with at least one dot");
        }
    }
    let scope = spec.get("scope");
    if scope.text().is_empty() {
        scope.required(errors, "");
    } else {
        scope.one_of(errors, &["Cluster", "Namespaced"]);
    }
    versions(&spec, definition, errors);
    validate_names(&kinds, errors);
}

fn validate_names(kinds: &Field<'_>, errors: &mut Errors) {
    for name in ["plural", "singular", "kind", "listKind"] {
        let field = kinds.get(name);
        if field.text().is_empty() {
            field.required(errors, "");
        } else {
            check::problems(&field, &names::label_1035(&field.text().to_lowercase()), errors);
        }
    }
    for list in ["shortNames", "categories"] {
        for name in kinds.get(list).items() {
            check::problems(&name, &names::label_1035(name.text()), errors);
        }
    }
    let (kind, list) = (kinds.get("kind"), kinds.get("listKind"));
    if !kind.text().is_empty() && kind.text() == list.text() {
        list.invalid(errors, "kind and listKind may not be the same");
    }
}

fn versions(spec: &Field<'_>, definition: &Field<'_>, errors: &mut Errors) {
    let versions = spec.get("versions").items();
    let mut seen = BTreeSet::new();
    for version in &versions {
        let name = version.get("name");
        check::problems(&name, &names::label_1035(name.text()), errors);
        if seen.contains(&name.text()) {
            name.invalid(errors, "must be unique");
        }
        seen.insert(name.text());
        let schema = version.at("schema.openAPIV3Schema");
        if !schema.exists() {
            schema.required(errors, "schemas are required");
        }
    }
    let storage: Vec<_> = versions.iter().filter(|version| version.get("storage").bool() == Some(true)).collect();
    if storage.len() != 1 {
        spec.get("versions").wrong(
            errors,
            shown_versions(&versions),
            "must have exactly one version marked as storage version",
        );
    }
    schemas(&versions, errors);
    let stored = definition.at("status.storedVersions");
    let names: Vec<&str> = stored.items().iter().map(Field::text).collect();
    // The last one marked is what upstream takes for the one to store in.
    if let Some(last) = storage.last().map(|version| version.get("name").text())
        && !names.contains(&last)
    {
        stored.invalid(errors, &format!("must have the storage version {last}"));
    }
}

/// Versions as upstream quotes them: without what all versions have in common.
fn shown_versions(versions: &[Field<'_>]) -> String {
    let alike = |name: &str| {
        versions.windows(2).all(|pair| match pair {
            [left, right] => left.get(name).value() == right.get(name).value(),
            _ => true,
        })
    };
    let show = |version: &Field<'_>| {
        let flag = |name: &str| version.get(name).bool() == Some(true);
        let own = |name: &str| match version.get(name).value() {
            Some(value) if !alike(name) => value.to_string(),
            _ => "null".to_owned(),
        };
        format!(
            "{{\"Name\":{},\"Served\":{},\"Storage\":{},\"Deprecated\":{},\"DeprecationWarning\":{},\"Schema\":{},\
             \"Subresources\":{},\"AdditionalPrinterColumns\":{},\"SelectableFields\":{}}}",
            version.get("name").shown(),
            flag("served"),
            flag("storage"),
            flag("deprecated"),
            version.get("deprecationWarning").value().map_or_else(|| "null".to_owned(), Value::to_string),
            own("schema"),
            own("subresources"),
            own("additionalPrinterColumns"),
            own("selectableFields"),
        )
    };
    format!("[{}]", versions.iter().map(show).collect::<Vec<_>>().join(","))
}

/// Every schema must say of each of its parts what type it has.
fn schemas(versions: &[Field<'_>], errors: &mut Errors) {
    let shared = versions.windows(2).all(|pair| match pair {
        [left, right] => left.get("schema").value() == right.get("schema").value(),
        _ => true,
    });
    for (index, version) in versions.iter().enumerate() {
        let schema = version.at("schema.openAPIV3Schema");
        let Some(tree) = schema.value() else { continue };
        let path = if shared {
            "spec.validation.openAPIV3Schema".to_owned()
        } else {
            format!("spec.versions[{index}].schema.openAPIV3Schema")
        };
        structural(tree, &path, true, errors);
        patterns(tree, &path, errors);
        if shared {
            return;
        }
    }
}

/// Every pattern must be one, and there may not be too many.
fn patterns(schema: &Value, path: &str, errors: &mut Errors) {
    let patterns = custom_schema::patterns(schema);
    if patterns.len() > limits::SCHEMA_PATTERNS {
        let detail = format!("{}: must have at most {} different patterns", patterns.len(), limits::SCHEMA_PATTERNS);
        return errors.add(path, FieldErrorKind::TooMany, detail);
    }
    for pattern in patterns {
        if let Err(error) = custom_schema::compile(pattern) {
            // The last line says what is wrong, and those before it show where.
            let (all, why) = (error.to_string(), "must be a valid regular expression, but isn't");
            let detail = format!("{pattern:?}: {why}: {}", all.lines().last().unwrap_or_default());
            errors.add(path, FieldErrorKind::Invalid, detail);
        }
    }
}

fn structural(schema: &Value, path: &str, root: bool, errors: &mut Errors) {
    let free = schema["x-kubernetes-int-or-string"] == true || schema["x-kubernetes-preserve-unknown-fields"] == true;
    let of = schema["type"].as_str().unwrap_or_default();
    if of.is_empty() && (root || !free) {
        let detail = if root {
            "must not be empty at the root"
        } else if path.ends_with(".items") {
            "must not be empty for specified array items"
        } else {
            "must not be empty for specified object fields"
        };
        errors.add(format!("{path}.type"), FieldErrorKind::Required, detail);
    } else if root && of != "object" {
        let detail = format!("{of:?}: must be object at the root");
        errors.add(format!("{path}.type"), FieldErrorKind::Invalid, detail);
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        structural(property, &format!("{path}.properties[{name}]"), false, errors);
    }
    if let Some(items) = schema.get("items").filter(|items| items.is_object()) {
        structural(items, &format!("{path}.items"), false, errors);
    }
    if let Some(additional) = schema.get("additionalProperties").filter(|additional| additional.is_object()) {
        structural(additional, &format!("{path}.additionalProperties"), false, errors);
    }
}
