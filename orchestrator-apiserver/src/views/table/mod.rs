//! Objects as tables, which `kubectl get` prints.
//!
//! Upstream: <https://kubernetes.io/docs/reference/using-api/api-concepts/#receiving-resources-as-tables> and
//! `pkg/printers/internalversion`. Cells of all columns are in the answer; the client leaves out those of `-o wide`.

mod cluster;
mod columns;
mod custom;
mod duration;
mod json_path;
mod network;
mod pods;
mod row;
mod storage;
mod workloads;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::registry::Kind;

use self::{
    custom::CustomTable,
    row::{Row, Tree},
};
use super::partial;

/// What of the object a row carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

impl IncludeObject {
    /// From the query parameter `includeObject`. `None` when it is none of those known.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "None" => Some(Self::None),
            "" | "Metadata" => Some(Self::Metadata),
            "Object" => Some(Self::Object),
            _ => None,
        }
    }
}

/// The columns of a built-in kind that are shown always.
pub(crate) fn column_names(kind: &Kind) -> Vec<&'static str> {
    let (columns, _) = columns::of(kind);
    columns.iter().filter(|column| column["priority"] == 0).filter_map(|column| column["name"].as_str()).collect()
}

/// How a table is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TableOptions {
    pub(crate) include_object: IncludeObject,
    /// Whether the columns are defined; in a watch, only its first table does so.
    pub(crate) headers: bool,
}

impl Default for TableOptions {
    fn default() -> Self {
        Self { include_object: IncludeObject::default(), headers: true }
    }
}

/// Objects of a kind as a table. `metadata` is that of the list: version, continue token, remaining items.
/// Times are told relative to `now`.
pub(crate) fn table(kind: &Kind, objects: &[&Value], now: Timestamp, options: TableOptions, metadata: &Value) -> Value {
    let mut objects = objects.to_vec();
    if kind.is("flowcontrol.apiserver.k8s.io", "flowschemas") {
        objects.sort_by_key(|schema| precedence(schema));
    }
    if kind.is_custom() && !are_scales(&objects) {
        let table = CustomTable::of(kind);
        let rows = rows(&objects, now, options, |row, object| table.cells(row, object));
        return assemble(&table.definitions, rows, options, metadata);
    }
    let (definitions, print) = if are_scales(&objects) { columns::of_scale() } else { columns::of(kind) };
    let mut rows = rows(&objects, now, options, |row, _| print(row));
    if kind.is("", "pods") {
        add_pod_conditions(&mut rows, &objects);
    }
    assemble(definitions, rows, options, metadata)
}

/// One object as a table.
pub(crate) fn single(kind: &Kind, object: &Value, now: Timestamp, options: TableOptions) -> Value {
    table(kind, &[object], now, options, &version_of(object))
}

/// Whether these are not objects of their resource's kind, but its `Scale`.
fn are_scales(objects: &[&Value]) -> bool {
    let first = objects.first().map(|object| Tree::new(object));
    first.is_some_and(|first| (first.get("apiVersion").text(), first.get("kind").text()) == ("autoscaling/v1", "Scale"))
}

fn version_of(object: &Value) -> Value {
    json!({"resourceVersion": Tree::new(object).at("metadata.resourceVersion").text()})
}

fn assemble(definitions: &[Value], rows: Vec<Value>, options: TableOptions, metadata: &Value) -> Value {
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": options.headers.then_some(definitions),
        "rows": rows,
    })
}

fn rows(
    objects: &[&Value],
    now: Timestamp,
    options: TableOptions,
    cells: impl Fn(&Row<'_>, &Value) -> Vec<Value>,
) -> Vec<Value> {
    let row = |object: &&Value| {
        let included = match options.include_object {
            IncludeObject::None => Value::Null,
            IncludeObject::Metadata => partial::object(object),
            IncludeObject::Object => (*object).clone(),
        };
        json!({"cells": cells(&Row { object: Tree::new(object), now }, object), "object": included})
    };
    objects.iter().map(row).collect()
}

fn add_pod_conditions(rows: &mut [Value], objects: &[&Value]) {
    for (row, object) in rows.iter_mut().zip(objects) {
        if let (Some(row), Some(conditions)) = (row.as_object_mut(), pods::conditions(Tree::new(object))) {
            row.insert("conditions".to_owned(), conditions);
        }
    }
}

/// Flow schemas are shown in the order in which they are tried.
fn precedence(schema: &Value) -> (i64, &str) {
    let schema = Tree::new(schema);
    (schema.at("spec.matchingPrecedence").int(), schema.at("metadata.name").text())
}

#[cfg(test)]
mod tests;
