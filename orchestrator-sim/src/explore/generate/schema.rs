//! An object that a schema describes: every field it has, with the first thing that may be there.

use serde_json::{Map, Value, json};

/// Levels below which nothing more is written: a schema of a definition has no references, so that this is for hostile ones only.
const DEPTH: usize = 32;

/// An example of what a structural schema takes (`apiextensions.k8s.io/v1`, `JSONSchemaProps`). Rules beyond the shape, as patterns and CEL,
/// are for the server to look at.
pub(super) fn example(schema: &Value) -> Value {
    value(schema, DEPTH)
}

fn value(schema: &Value, depth: usize) -> Value {
    let said = ["default", "example"].into_iter().find_map(|name| schema.get(name));
    if let Some(value) = said.or_else(|| schema["enum"].as_array().and_then(|values| values.first())) {
        return value.clone();
    }
    // Bounds are written as fractions even of whole numbers.
    let number = |name: &str| schema[name].as_f64().map(|bound| bound as i64);
    if schema["x-kubernetes-int-or-string"] == true {
        return json!(1);
    }
    match schema["type"].as_str() {
        Some("object") if depth > 0 => members(schema, depth),
        Some("array") if depth > 0 => {
            let many = number("minItems").unwrap_or(1).clamp(1, 16);
            (0..many).map(|_| value(&schema["items"], depth - 1)).collect()
        }
        Some("boolean") => json!(true),
        Some("integer" | "number") => json!(number("minimum").or(number("maximum")).unwrap_or(1)),
        Some("string") => text(schema),
        _ => json!({}),
    }
}

fn members(schema: &Value, depth: usize) -> Value {
    let named = schema["properties"].as_object().into_iter().flatten();
    let mut members: Map<String, Value> =
        named.map(|(name, schema)| (name.clone(), value(schema, depth - 1))).collect();
    let further = &schema["additionalProperties"];
    if further.is_object() {
        members.insert("one".to_owned(), value(further, depth - 1));
    }
    members.into()
}

fn text(schema: &Value) -> Value {
    match schema["format"].as_str() {
        Some("date-time") => json!("2026-01-01T00:00:00Z"),
        Some("date") => json!("2026-01-01"),
        Some("duration") => json!("1s"),
        Some("ipv4") => json!("192.0.2.1"),
        Some("uuid") => json!("2d5b8a8e-0000-4000-8000-000000000001"),
        Some("byte") => json!("b25l"),
        _ => json!("a".repeat(schema["minLength"].as_u64().unwrap_or(1).clamp(1, 64) as usize)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_there() {
        let schema = json!({"type": "object", "properties": {
            "size": {"type": "integer", "minimum": 3.0},
            "names": {"type": "array", "items": {"type": "string", "minLength": 2}, "minItems": 2},
            "mode": {"type": "string", "enum": ["fast", "slow"]},
            "map": {"type": "object", "additionalProperties": {"type": "boolean"}},
            "port": {"x-kubernetes-int-or-string": true},
            "given": {"type": "string", "default": "so"},
        }});
        assert_eq!(
            example(&schema),
            json!({
                "size": 3, "names": ["aa", "aa"], "mode": "fast", "map": {"one": true}, "port": 1, "given": "so",
            })
        );
    }
}
