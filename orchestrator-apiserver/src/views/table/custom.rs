//! The columns of custom kinds: each has a path into the object.
//!
//! Upstream: `tableconvertor` of `k8s.io/apiextensions-apiserver`.

use serde_json::Value;

use super::{
    columns::{column, created_column, name_column},
    json_path::JsonPath,
    row::{Row, Tree},
};
use crate::registry::{CustomColumn, Kind};

/// The columns of a custom kind with what it takes to fill them.
pub(super) struct CustomTable {
    pub(super) definitions: Vec<Value>,
    /// Type and path of each column after the name; no path where it is not understood.
    paths: Vec<(String, Option<JsonPath>)>,
}

impl CustomTable {
    pub(super) fn of(kind: &Kind) -> Self {
        let mut table = Self { definitions: vec![name_column()], paths: Vec::new() };
        if kind.columns.is_empty() {
            table.definitions.push(created_column("Age"));
            table.paths.push(("date".to_owned(), JsonPath::parse(".metadata.creationTimestamp")));
        }
        for custom in &kind.columns {
            table.definitions.push(definition(custom));
            table.paths.push((custom.of.clone(), JsonPath::parse(&custom.json_path)));
        }
        table
    }

    pub(super) fn cells(&self, row: &Row<'_>, object: &Value) -> Vec<Value> {
        let mut cells = vec![Value::from(row.name())];
        cells.extend(self.paths.iter().map(|(of, path)| {
            let found = path.as_ref().and_then(|path| path.find(object).into_iter().next());
            found.map_or(Value::Null, |value| cell(row, of, value))
        }));
        cells
    }
}

fn definition(custom: &CustomColumn) -> Value {
    let generated = || format!("Custom resource definition column (in JSONPath format): {}", custom.json_path);
    let description = Some(custom.description.clone()).filter(|text| !text.is_empty()).unwrap_or_else(generated);
    column(&custom.name, &custom.of, &custom.format, &description, custom.priority)
}

/// A value as a column's type has it; null where the value is of another type.
fn cell(row: &Row<'_>, of: &str, value: &Value) -> Value {
    match (of, value) {
        ("string", Value::String(_)) => value.clone(),
        ("string", Value::Null) => Value::from("<no value>"),
        ("string", other) => Value::from(other.to_string()),
        ("integer", Value::Number(number)) => {
            // Fractions are cut off.
            number.as_i64().or_else(|| number.as_f64().map(|fraction| fraction as i64)).into()
        }
        ("number", Value::Number(number)) => number.as_f64().into(),
        ("boolean", Value::Bool(_)) => value.clone(),
        ("date", Value::String(text)) if text.parse::<jiff::Timestamp>().is_ok() => row.since(Tree::new(value)).into(),
        ("date", Value::String(_)) => Value::from("<invalid>"),
        _ => Value::Null,
    }
}
