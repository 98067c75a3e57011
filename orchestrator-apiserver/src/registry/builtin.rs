//! The rows of the built-in kinds, from the table of the published API.

use std::borrow::Cow;

use orchestrator_core::client::Resource;

use super::{Kind, Subresource};
use crate::{decode::Schema, kinds, selection::selectable};

const RESOURCES: &str = include_str!("../../data/api-resources.tsv");

struct Row {
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    other_group_version: Option<(String, String)>,
    kind: &'static str,
    namespaced: bool,
    singular: &'static str,
    short_names: Vec<String>,
    categories: Vec<String>,
    verbs: Vec<String>,
}

fn words(text: &str) -> Vec<String> {
    text.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn split_group_version(text: &str) -> (&str, &str) {
    text.split_once('/').unwrap_or(("", text))
}

impl Row {
    fn parse(line: &'static str) -> Option<Self> {
        if line.starts_with('#') {
            return None;
        }
        let columns: Vec<&'static str> = line.split('\t').collect();
        let [group_version, resource, other, kind, namespaced, singular, short_names, categories, verbs] = columns[..]
        else {
            return None;
        };
        let (group, version) = split_group_version(group_version);
        let other_group_version = (!other.is_empty()).then(|| {
            let (group, version) = split_group_version(other);
            (group.to_owned(), version.to_owned())
        });
        Some(Self {
            group,
            version,
            resource,
            other_group_version,
            kind,
            namespaced: namespaced == "true",
            singular,
            short_names: words(short_names),
            categories: words(categories),
            verbs: words(verbs),
        })
    }
}

/// All built-in kinds.
pub(super) fn kinds() -> Vec<Kind> {
    let rows: Vec<Row> = RESOURCES.lines().filter_map(Row::parse).collect();
    let (subresources, parents): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.resource.contains('/'));
    parents.into_iter().map(|row| kind(row, &subresources)).collect()
}

fn kind(row: Row, subresources: &[Row]) -> Kind {
    let resource = Resource {
        group: Cow::Borrowed(row.group),
        version: Cow::Borrowed(row.version),
        plural: Cow::Borrowed(row.resource),
    };
    let subresources: Vec<Subresource> = subresources
        .iter()
        .filter(|sub| (sub.group, sub.version) == (row.group, row.version))
        .filter_map(|sub| {
            let name = sub.resource.strip_prefix(row.resource)?.strip_prefix('/')?;
            Some(Subresource {
                name: name.to_owned(),
                group_version: sub.other_group_version.clone(),
                kind: sub.kind.to_owned(),
                verbs: sub.verbs.clone(),
            })
        })
        .collect();
    let has_status = subresources.iter().any(|subresource| subresource.name == "status");
    Kind {
        prefix: prefix(row.group, row.resource),
        stored_as: stored_as(&resource),
        schema: Schema::get().kind(row.group, row.version, row.kind),
        strategy: kinds::strategy(row.group, row.resource, has_status),
        selectable: selectable(row.group, row.resource),
        kind: row.kind.to_owned(),
        singular: row.singular.to_owned(),
        short_names: row.short_names,
        categories: row.categories,
        namespaced: row.namespaced,
        verbs: row.verbs,
        subresources,
        resource,
        columns: Vec::new(),
        open_api: None,
        scale: None,
        object_type: super::ObjectType::default(),
    }
}

/// Where upstream keeps the objects in etcd.
fn prefix(group: &str, resource: &str) -> String {
    match (group, resource) {
        ("", "services") => "/registry/services/specs".to_owned(),
        ("", "endpoints") => "/registry/services/endpoints".to_owned(),
        ("", "nodes") => "/registry/minions".to_owned(),
        ("networking.k8s.io", "ingresses") => "/registry/ingress".to_owned(),
        ("apiextensions.k8s.io" | "apiregistration.k8s.io", _) => format!("/registry/{group}/{resource}"),
        _ => format!("/registry/{resource}"),
    }
}

/// The version that objects are stored in where several versions are served.
fn stored_as(resource: &Resource) -> String {
    match (&*resource.group, &*resource.plural) {
        ("events.k8s.io", "events") => "v1".to_owned(),
        ("autoscaling", _) => "autoscaling/v2".to_owned(),
        _ => resource.api_version(),
    }
}
