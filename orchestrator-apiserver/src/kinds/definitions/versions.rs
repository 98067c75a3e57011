//! Versions of a kind: their schemas, columns and subresources. What all versions have in common is said once, in errors, too.

use std::collections::BTreeSet;

use orchestrator_core::status::FieldErrorKind;
use serde_json::Value;

use super::schema;
use crate::{
    field::{Errors, Field},
    kinds::check,
    names,
};

const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
const WARNING_BYTES: usize = 256;
const SELECTABLE_MAX: usize = 8;
const NO_DOT: &str = "must be a simple json path starting with .";

/// The rules of each version.
pub(super) fn validate(spec: &Field<'_>, errors: &mut Errors) {
    let versions = spec.get("versions").items();
    for version in &versions {
        let schema = version.at("schema.openAPIV3Schema");
        if !schema.exists() {
            schema.required(errors, "schemas are required");
        }
    }
    let shared = Shared::of(&versions);
    let mut seen = BTreeSet::new();
    let mut unique = true;
    for version in &versions {
        let name = version.get("name");
        unique &= seen.insert(name.text());
        check::at_once(&name, &names::label_1035(name.text()), errors);
        validate_version(version, &shared, errors);
    }
    let mut refuse = |detail: &str| spec.get("versions").wrong(errors, shared.show(&versions), detail);
    if !unique {
        refuse("must contain unique version names");
    }
    if versions.iter().filter(|version| is(version, "storage")).count() != 1 {
        refuse("must have exactly one version marked as storage version");
    }
}

/// The rules of what all versions have in common.
pub(super) fn validate_shared(spec: &Field<'_>, errors: &mut Errors) {
    let versions = spec.get("versions").items();
    let (shared, Some(first)) = (Shared::of(&versions), versions.first()) else { return };
    let root = spec.path();
    if shared.has("schema") {
        let has_status = first.at("subresources.status").exists();
        let place = format!("{root}.validation.openAPIV3Schema");
        schema::validate(&first.at("schema.openAPIV3Schema").shown_at(place), has_status, errors);
    }
    if shared.has("subresources") {
        subresources(&first.get("subresources").shown_at(format!("{root}.subresources")), errors);
    }
    if shared.has("additionalPrinterColumns") {
        columns(&first.get("additionalPrinterColumns").shown_at(format!("{root}.additionalPrinterColumns")), errors);
    }
    if shared.has("selectableFields") {
        let fields = first.get("selectableFields").shown_at(format!("{root}.selectableFields"));
        selectable(&fields, &first.at("schema.openAPIV3Schema"), errors);
    }
}

/// What of the versions is the same in all of them.
struct Shared(Vec<&'static str>);

impl Shared {
    fn of(versions: &[Field<'_>]) -> Self {
        let parts = ["schema", "subresources", "additionalPrinterColumns", "selectableFields"];
        let alike = |name: &str| {
            versions.windows(2).all(|pair| match pair {
                [left, right] => left.get(name).value() == right.get(name).value(),
                _ => true,
            })
        };
        Self(parts.into_iter().filter(|part| alike(part)).collect())
    }

    fn has(&self, part: &str) -> bool {
        self.0.contains(&part)
    }

    /// Versions as upstream quotes them: without what all versions have in common.
    fn show(&self, versions: &[Field<'_>]) -> String {
        let show = |version: &Field<'_>| {
            let own = |name: &str| match version.get(name).value() {
                Some(value) if !self.has(name) => value.to_string(),
                _ => "null".to_owned(),
            };
            format!(
                "{{\"Name\":{},\"Served\":{},\"Storage\":{},\"Deprecated\":{},\"DeprecationWarning\":{},\"Schema\":{},\
                 \"Subresources\":{},\"AdditionalPrinterColumns\":{},\"SelectableFields\":{}}}",
                version.get("name").shown(),
                is(version, "served"),
                is(version, "storage"),
                is(version, "deprecated"),
                version.get("deprecationWarning").value().map_or_else(|| "null".to_owned(), Value::to_string),
                own("schema"),
                own("subresources"),
                own("additionalPrinterColumns"),
                own("selectableFields"),
            )
        };
        format!("[{}]", versions.iter().map(show).collect::<Vec<_>>().join(","))
    }
}

fn is(version: &Field<'_>, flag: &str) -> bool {
    version.get(flag).bool() == Some(true)
}

/// The rules of what a version has for itself.
fn validate_version(version: &Field<'_>, shared: &Shared, errors: &mut Errors) {
    deprecation(version, errors);
    let tree = version.at("schema.openAPIV3Schema");
    if !shared.has("schema") && tree.exists() {
        schema::validate(&tree, version.at("subresources.status").exists(), errors);
    }
    if !shared.has("subresources") {
        subresources(&version.get("subresources"), errors);
    }
    if !shared.has("additionalPrinterColumns") {
        columns(&version.get("additionalPrinterColumns"), errors);
    }
    if !shared.has("selectableFields") {
        selectable(&version.get("selectableFields"), &tree, errors);
    }
}

fn deprecation(version: &Field<'_>, errors: &mut Errors) {
    let warning = version.get("deprecationWarning");
    if !warning.exists() {
        return;
    }
    if !is(version, "deprecated") {
        return warning.invalid(errors, "can only be set for deprecated versions");
    }
    if warning.len() > WARNING_BYTES {
        warning.invalid(errors, &format!("must be <= {WARNING_BYTES} characters long"));
    }
    if warning.len() == 0 {
        warning.invalid(errors, "must not be an empty string");
    }
    if let Some((index, _)) = warning.text().char_indices().find(|(_, letter)| letter.is_control()) {
        let only = "must only contain printable UTF-8 characters";
        warning.invalid(errors, &format!("{only}; non-printable character found at index {index}"));
    }
}

fn subresources(subresources: &Field<'_>, errors: &mut Errors) {
    let scale = subresources.get("scale");
    if !scale.exists() {
        return;
    }
    let paths: [(&str, &[&str], &str); 3] = [
        ("specReplicasPath", &[".spec."], "should be a json path under .spec"),
        ("statusReplicasPath", &[".status."], "should be a json path under .status"),
        ("labelSelectorPath", &[".spec.", ".status."], "should be a json path under either .spec or .status"),
    ];
    for (name, roots, detail) in paths {
        let path = scale.get(name);
        if path.text().is_empty() {
            if name != "labelSelectorPath" {
                path.required(errors, "");
            }
        } else if !path.text().starts_with('.') {
            path.invalid(errors, NO_DOT);
        } else if !roots.iter().any(|root| path.text().starts_with(root)) {
            path.invalid(errors, detail);
        }
    }
}

fn columns(columns: &Field<'_>, errors: &mut Errors) {
    for column in columns.items() {
        let (name, of, format) = (column.get("name"), column.get("type"), column.get("format"));
        if name.text().is_empty() {
            name.required(errors, "");
        }
        let types = format!("must be one of {}", COLUMN_TYPES.join(","));
        if of.text().is_empty() {
            of.required(errors, &types);
        } else if !COLUMN_TYPES.contains(&of.text()) {
            of.invalid(errors, &types);
        }
        if !format.text().is_empty() && !COLUMN_FORMATS.contains(&format.text()) {
            format.invalid(errors, &format!("must be one of {}", COLUMN_FORMATS.join(",")));
        }
        let path = column.get("jsonPath").shown_at(format!("{}.JSONPath", column.path()));
        if path.text().is_empty() {
            path.required(errors, "");
        } else if !path.text().starts_with('.') {
            path.invalid(errors, NO_DOT);
        }
    }
}

/// Fields that objects are selected by: simple values that the schema knows.
fn selectable(fields: &Field<'_>, schema: &Field<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for field in fields.items() {
        let path = field.get("jsonPath");
        if path.text().is_empty() {
            path.required(errors, "");
            continue;
        }
        let steps = path.text().trim_start_matches('.').split('.');
        let found = steps
            .clone()
            .try_fold(schema.clone(), |schema, step| Some(schema.get("properties").key(step)).filter(Field::exists));
        let Some(found) = found.filter(|_| path.text().starts_with('.')) else {
            path.invalid(errors, "is an invalid path: does not refer to a valid field");
            continue;
        };
        if steps.clone().next() == Some("metadata") {
            path.invalid(errors, "must not point to fields in metadata");
        }
        if !matches!(found.get("type").text(), "string" | "boolean" | "integer") {
            let detail = "must point to a field of type string, boolean or integer. Enum string fields and strings with \
                          formats are allowed.";
            path.invalid(errors, detail);
        }
        if !seen.insert(path.text()) {
            path.duplicate(errors);
        }
    }
    if seen.len() > SELECTABLE_MAX {
        let detail = format!("{}: must have at most {SELECTABLE_MAX} items", seen.len());
        fields.error(errors, FieldErrorKind::TooMany, detail);
    }
}

/// Versions that objects may be stored in are there as long as the status says so.
pub(super) fn stored(definition: &Field<'_>, errors: &mut Errors) {
    let (versions, stored) = (definition.at("spec.versions").items(), definition.at("status.storedVersions"));
    if stored.len() == 0 {
        let shown = stored.value().map_or_else(|| "null".to_owned(), Value::to_string);
        return stored.wrong(errors, shown, "must have at least one stored version");
    }
    let named: Vec<&str> = stored.items().iter().map(Field::text).collect();
    for version in versions.iter().filter(|version| is(version, "storage")) {
        let name = version.get("name").text();
        if !named.contains(&name) {
            stored.invalid(errors, &format!("must have the storage version {name}"));
        }
    }
    for version in stored.items() {
        let name = version.text();
        if !versions.iter().any(|known| known.get("name").text() == name) {
            let detail = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions \
                 until a storage migration ensures no data remains persisted in {name} and removes {name} from \
                 status.storedVersions"
            );
            version.invalid(errors, &detail);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{told, with};

    fn version(name: &str) -> Value {
        json!({"name": name, "served": true, "storage": name == "v1", "schema": {"openAPIV3Schema": {
            "type": "object", "properties": {"spec": {"type": "object", "properties": {"a": {"type": "string"}}}},
        }}})
    }

    fn broken(versions: Value) -> Vec<String> {
        let (spec, mut errors) = (json!({"spec": {"versions": versions}}), Errors::default());
        let spec = Field::root(&spec).get("spec");
        validate(&spec, &mut errors);
        validate_shared(&spec, &mut errors);
        told(errors)
    }

    #[test]
    fn what_versions_share_is_named_once() {
        let column = |path: &str| json!([{"name": "A", "type": "text", "jsonPath": path}]);
        let types = "\"text\": must be one of boolean,date,integer,number,string";
        let with_columns = |name: &str, path: &str| with(version(name), "additionalPrinterColumns", column(path));
        assert_eq!(
            broken(json!([with_columns("v1", ".a"), with_columns("v2", ".a")])),
            [format!("spec.additionalPrinterColumns[0].type: {types}")]
        );
        assert_eq!(
            broken(json!([with_columns("v1", ".a"), with_columns("v2", "a")])),
            [
                format!("spec.versions[0].additionalPrinterColumns[0].type: {types}"),
                format!("spec.versions[1].additionalPrinterColumns[0].type: {types}"),
                format!("spec.versions[1].additionalPrinterColumns[0].JSONPath: \"a\": {NO_DOT}"),
            ]
        );
    }

    #[test]
    fn scales_and_selectable_fields_lead_somewhere() {
        let scale = json!({"scale": {"specReplicasPath": ".status.a", "labelSelectorPath": "x"}});
        assert_eq!(
            broken(json!([with(version("v1"), "subresources", scale)])),
            [
                "spec.subresources.scale.specReplicasPath: \".status.a\": should be a json path under .spec".to_owned(),
                "spec.subresources.scale.statusReplicasPath: ".to_owned(),
                format!("spec.subresources.scale.labelSelectorPath: \"x\": {NO_DOT}"),
            ]
        );
        let fields = |paths: &[&str]| paths.iter().map(|path| json!({"jsonPath": path})).collect::<Value>();
        let selectable = |paths: &[&str]| broken(json!([with(version("v1"), "selectableFields", fields(paths))]));
        assert_eq!(selectable(&[".spec.a"]), [""; 0]);
        let found = selectable(&[".spec", ".spec.a", ".spec.a", ".spec.b"]);
        assert!(
            found[0].starts_with("spec.selectableFields[0].jsonPath: \".spec\": must point to a field of type"),
            "{found:?}"
        );
        assert_eq!(found[1], "spec.selectableFields[2].jsonPath: \".spec.a\"");
        assert!(
            found[2].starts_with("spec.selectableFields[3].jsonPath: \".spec.b\": is an invalid path"),
            "{found:?}"
        );
    }

    #[test]
    fn warnings_are_for_outdated_versions() {
        let warned = with(version("v1"), "deprecationWarning", json!("old"));
        let why = "spec.versions[0].deprecationWarning: \"old\": can only be set for deprecated versions";
        assert_eq!(broken(json!([warned])), [why]);
        assert_eq!(broken(json!([with(warned, "deprecated", json!(true))])), [""; 0]);
        let found = broken(json!([version("v1"), version("v1")]));
        assert!(found[0].ends_with("must contain unique version names"), "{found:?}");
    }
}
