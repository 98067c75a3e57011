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
use orchestrator_core::object::Object;
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
    /// The version of the group `meta.k8s.io`, as `apiVersion`.
    pub(crate) meta_version: &'static str,
}

impl Default for TableOptions {
    fn default() -> Self {
        Self { include_object: IncludeObject::default(), headers: true, meta_version: "meta.k8s.io/v1" }
    }
}

/// What it takes to show objects of a kind as rows.
pub(crate) struct Table {
    columns: Columns,
    has_conditions: bool,
    now: Timestamp,
    options: TableOptions,
}

enum Columns {
    BuiltIn(&'static [Value], columns::Print),
    Custom(CustomTable),
}

impl Table {
    /// Times are told relative to `now`.
    pub(crate) fn new(kind: &Kind, now: Timestamp, options: TableOptions) -> Self {
        let columns = if kind.is_custom() {
            Columns::Custom(CustomTable::of(kind))
        } else {
            let (definitions, print) = columns::of(kind);
            Columns::BuiltIn(definitions, print)
        };
        Self { columns, has_conditions: kind.is("", "pods"), now, options }
    }

    /// Of objects that are not of their resource's kind, but its `Scale`.
    fn of_scales(now: Timestamp, options: TableOptions) -> Self {
        let (definitions, print) = columns::of_scale();
        Self { columns: Columns::BuiltIn(definitions, print), has_conditions: false, now, options }
    }

    /// A table without its rows. `metadata` is that of the list: version, continue token, remaining items.
    pub(crate) fn without_rows(&self, metadata: &Value) -> Value {
        let definitions = match &self.columns {
            Columns::BuiltIn(definitions, _) => definitions,
            Columns::Custom(table) => table.definitions.as_slice(),
        };
        json!({
            "kind": "Table",
            "apiVersion": self.options.meta_version,
            "metadata": metadata,
            "columnDefinitions": self.options.headers.then_some(definitions),
        })
    }

    /// An object as a row.
    pub(crate) fn row(&self, object: &Value) -> Value {
        let included = match self.options.include_object {
            IncludeObject::None => Value::Null,
            IncludeObject::Metadata => partial::object(object, self.options.meta_version),
            IncludeObject::Object => object.clone(),
        };
        let row = Row { object: Tree::new(object), now: self.now };
        let cells = match &self.columns {
            Columns::BuiltIn(_, print) => print(&row),
            Columns::Custom(table) => table.cells(&row, object),
        };
        let mut row = json!({"cells": cells, "object": included});
        if self.has_conditions
            && let Some(conditions) = pods::conditions(Tree::new(object))
        {
            row["conditions"] = conditions;
        }
        row
    }
}

/// Puts the objects of a list in the order of their rows: flow schemas are shown in the order in which they are tried.
pub(crate) fn sort(kind: &Kind, objects: &mut [Object]) {
    if kind.is("flowcontrol.apiserver.k8s.io", "flowschemas") {
        objects.sort_by_cached_key(|schema| schema.tree().ok().map(precedence));
    }
}

/// Objects of a kind as a table. `metadata` is that of the list.
pub(crate) fn table(kind: &Kind, objects: &[&Value], now: Timestamp, options: TableOptions, metadata: &Value) -> Value {
    let table = if are_scales(objects) { Table::of_scales(now, options) } else { Table::new(kind, now, options) };
    let mut whole = table.without_rows(metadata);
    whole["rows"] = objects.iter().map(|object| table.row(object)).collect();
    whole
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

fn precedence(schema: &Value) -> (i64, String) {
    let schema = Tree::new(schema);
    (schema.at("spec.matchingPrecedence").int(), schema.at("metadata.name").text().to_owned())
}

#[cfg(test)]
mod tests;
