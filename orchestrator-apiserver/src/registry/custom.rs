//! The rows that a CustomResourceDefinition adds.

use std::sync::Arc;

use orchestrator_core::client::Resource;
use serde_json::Value;

use super::{CustomColumn, Kind, ScalePaths, Subresource};
use crate::{field::Field, kinds::Custom};

const VERBS: [&str; 8] = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];

/// The kinds of a definition, one for each served version.
pub(crate) fn custom_kinds(definition: &Value) -> Vec<Kind> {
    let root = Field::root(definition);
    let spec = root.get("spec");
    let versions = spec.get("versions").items();
    let storage = versions.iter().find(|version| version.get("storage").bool() == Some(true));
    let group = spec.get("group").text();
    let stored_as = format!("{group}/{}", storage.map_or("", |version| version.get("name").text()));
    versions
        .iter()
        .filter(|version| version.get("served").bool() == Some(true))
        .map(|version| kind(&spec, version, &stored_as))
        .collect()
}

fn texts(field: &Field<'_>) -> Vec<String> {
    field.items().iter().map(|item| item.text().to_owned()).collect()
}

fn kind(spec: &Field<'_>, version: &Field<'_>, stored_as: &str) -> Kind {
    let (group, names) = (spec.get("group").text(), spec.get("names"));
    let (plural, kind) = (names.get("plural").text(), names.get("kind").text());
    let has_status = version.at("subresources.status").exists();
    let scale = version.at("subresources.scale");
    let mut subresources = Vec::new();
    let mut subresource = |name: &str, group_version: Option<(&str, &str)>, kind: &str| {
        subresources.push(Subresource {
            name: name.to_owned(),
            group_version: group_version.map(|(group, version)| (group.to_owned(), version.to_owned())),
            kind: kind.to_owned(),
            verbs: ["get", "patch", "update"].map(str::to_owned).to_vec(),
        });
    };
    if has_status {
        subresource("status", None, kind);
    }
    if scale.exists() {
        subresource("scale", Some(("autoscaling", "v1")), "Scale");
    }
    let singular = Some(names.get("singular").text()).filter(|singular| !singular.is_empty());
    Kind {
        resource: Resource::new(group.to_owned(), version.get("name").text().to_owned(), plural.to_owned()),
        kind: kind.to_owned(),
        singular: singular.map_or_else(|| kind.to_lowercase(), str::to_owned),
        short_names: texts(&names.get("shortNames")),
        categories: texts(&names.get("categories")),
        namespaced: spec.get("scope").text() == "Namespaced",
        verbs: VERBS.map(str::to_owned).to_vec(),
        subresources,
        prefix: format!("/registry/{group}/{plural}"),
        stored_as: stored_as.to_owned(),
        schema: None,
        strategy: Arc::new(Custom::new(has_status, version.at("schema.openAPIV3Schema").value())),
        columns: version.get("additionalPrinterColumns").items().iter().map(column).collect(),
        open_api: version.at("schema.openAPIV3Schema").value().cloned(),
        selectable: version.get("selectableFields").items().iter().map(|field| path(&field.get("jsonPath"))).collect(),
        scale: scale.exists().then(|| ScalePaths {
            spec_replicas: path(&scale.get("specReplicasPath")),
            status_replicas: path(&scale.get("statusReplicasPath")),
            label_selector: path(&scale.get("labelSelectorPath")),
        }),
        object_type: super::ObjectType::default(),
    }
}

fn path(field: &Field<'_>) -> String {
    field.text().trim_start_matches('.').to_owned()
}

fn column(field: &Field<'_>) -> CustomColumn {
    let text = |name: &str| field.get(name).text().to_owned();
    CustomColumn {
        name: text("name"),
        of: text("type"),
        format: text("format"),
        description: text("description"),
        priority: field.get("priority").int().unwrap_or(0),
        json_path: text("jsonPath"),
    }
}
