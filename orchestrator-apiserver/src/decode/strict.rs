//! A tree against the schema: unknown members go, wrong types are refused, quantities take their canonical form.

use orchestrator_core::quantity::Quantity;
use serde_json::{Map, Value};

use super::{
    base64,
    path::{Path, Step},
    schema::{FieldSchema, Message, Schema, Shape, Type},
    time::{self, TimeForm},
};
use crate::limits;

/// What was found on the way.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Paths of members that the schema does not know.
    pub(crate) unknown: Vec<String>,
}

/// A value of the wrong type, in the words of both of upstream's decoders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WrongType {
    /// As the decoder of JSON says it.
    pub(crate) json: String,
    /// As the converter of trees says it, which reads what a strategic merge leaves.
    pub(crate) tree: String,
}

impl WrongType {
    /// Both say the same.
    pub(crate) fn same(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { json: text.clone(), tree: text }
    }
}

/// Removes what the schema does not know from a tree.
///
/// # Errors
/// A value of the wrong type.
pub(crate) fn prune(tree: &mut Value, message: &Message, findings: &mut Findings) -> Result<(), WrongType> {
    let Value::Object(members) = tree else {
        let text = format!("json: cannot unmarshal {} into Go value of type {}", go_kind(tree), message.go_name);
        return Err(WrongType::same(text));
    };
    object(members, message, None, findings)
}

fn object(
    members: &mut Map<String, Value>,
    message: &Message,
    parent: Option<&Path<'_>>,
    findings: &mut Findings,
) -> Result<(), WrongType> {
    let mut error = None;
    members.retain(|name, value| {
        if error.is_some() {
            return true;
        }
        let path = Path { parent, step: Step::Member(name) };
        let Some(schema) = message.fields.get(name.as_str()) else {
            if findings.unknown.len() < limits::STRICT_ERRORS {
                findings.unknown.push(path.full());
            }
            return false;
        };
        if value.is_null() {
            return false;
        }
        let place = Place { owner: message, path: &path };
        if let Err(found) = member(value, schema, place, findings) {
            error = Some(found);
        }
        // A time can turn out to be none.
        if value.is_null() {
            return false;
        }
        // An empty list of managers says something: that they are to be forgotten.
        name == "managedFields" || !is_empty_collection(value, schema) || message.always_has(name)
    });
    error.map_or(Ok(()), Err)
}

/// Where a member stands.
#[derive(Clone, Copy)]
struct Place<'a> {
    owner: &'a Message,
    path: &'a Path<'a>,
}

impl Place<'_> {
    fn mismatch(&self, value: &Value, go_type: &str, tree: String) -> WrongType {
        let owner = self.owner.go_name.rsplit('.').next().unwrap_or_default();
        let json = format!(
            "json: cannot unmarshal {} into Go struct field {owner}.{} of type {go_type}",
            go_kind(value),
            self.path.members()
        );
        WrongType { json, tree }
    }
}

/// Go omits most empty lists and maps, so they are as good as absent.
fn is_empty_collection(value: &Value, schema: &FieldSchema) -> bool {
    match (value, schema.shape) {
        (Value::Array(items), Shape::List) => items.is_empty(),
        (Value::Object(members), Shape::Map) => members.is_empty(),
        _ => false,
    }
}

fn member(value: &mut Value, schema: &FieldSchema, place: Place<'_>, findings: &mut Findings) -> Result<(), WrongType> {
    match schema.shape {
        Shape::One => single(value, schema.of, place, findings),
        Shape::List => {
            let Value::Array(items) = value else {
                let tree = format!("cannot restore slice from {}", tree_kind(value));
                return Err(place.mismatch(value, &format!("[]{}", go_type(schema.of)), tree));
            };
            for (index, item) in items.iter_mut().enumerate() {
                let path = Path { parent: Some(place.path), step: Step::Index(index) };
                single(item, schema.of, Place { path: &path, ..place }, findings)?;
            }
            Ok(())
        }
        Shape::Map => {
            let Value::Object(members) = value else {
                let tree = format!("cannot restore map from {}", tree_kind(value));
                return Err(place.mismatch(value, &format!("map[string]{}", go_type(schema.of)), tree));
            };
            for (name, item) in members.iter_mut() {
                if item.is_null() {
                    *item = zero(schema.of);
                }
                let path = Path { parent: Some(place.path), step: Step::Key(name) };
                single(item, schema.of, Place { path: &path, ..place }, findings)?;
            }
            Ok(())
        }
    }
}

/// What Go makes of a null in a map.
fn zero(of: Type) -> Value {
    match of {
        Type::String | Type::Bytes | Type::Time(_) => "".into(),
        Type::Int32 | Type::Int64 | Type::Double | Type::IntOrString => 0.into(),
        Type::Quantity => "0".into(),
        Type::Bool => false.into(),
        Type::Strings => Value::Array(Vec::new()),
        Type::Message(_) => Value::Object(Map::new()),
        Type::Free => Value::Null,
    }
}

fn single(value: &mut Value, of: Type, place: Place<'_>, findings: &mut Findings) -> Result<(), WrongType> {
    match of {
        Type::Message(index) => {
            let message = Schema::get().message(index).ok_or_else(|| WrongType::same("unknown message"))?;
            if value.is_null() {
                *value = Value::Object(Map::new());
            }
            match value {
                Value::Object(members) => object(members, message, Some(place.path), findings),
                other => {
                    let tree = format!("cannot restore struct from: {}", tree_kind(other));
                    Err(place.mismatch(other, &message.go_name, tree))
                }
            }
        }
        Type::Quantity => quantity(value),
        Type::Time(form) => time(value, form, place),
        Type::Free => Ok(()),
        Type::Bytes if value.is_string() => bytes(value),
        _ if fits(value, of) => Ok(()),
        _ => Err(place.mismatch(value, &go_type(of), inconvertible(value, of))),
    }
}

/// Numbers count as convertible to text, and then are not.
fn inconvertible(value: &Value, of: Type) -> String {
    match (value, of) {
        (Value::Number(number), Type::String) if !number.is_f64() => "cannot convert int64 to string".to_owned(),
        (Value::Number(_), Type::Int32 | Type::Int64) => format!("cannot convert float64 to {}", go_type(of)),
        _ => format!("unrecognized type: {}", go_type(of)),
    }
}

/// What a value of a tree is to Go.
fn tree_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "invalid",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "slice",
        Value::Object(_) => "map",
    }
}

fn fits(value: &Value, of: Type) -> bool {
    match of {
        Type::String | Type::Bytes => value.is_string(),
        Type::Bool => value.is_boolean(),
        Type::Int32 => value.as_i64().is_some_and(|number| i32::try_from(number).is_ok()),
        Type::Int64 => value.as_i64().is_some(),
        Type::Double => value.is_number(),
        Type::IntOrString => value.is_string() || value.as_i64().is_some_and(|number| i32::try_from(number).is_ok()),
        Type::Strings => value.as_array().is_some_and(|items| items.iter().all(Value::is_string)),
        Type::Quantity | Type::Time(_) | Type::Free | Type::Message(_) => true,
    }
}

/// Bytes are kept on one line.
fn bytes(value: &mut Value) -> Result<(), WrongType> {
    let text = value.as_str().unwrap_or_default();
    if let Some(at) = base64::corrupt_at(text) {
        return Err(WrongType::same(format!("illegal base64 data at input byte {at}")));
    }
    if text.contains(['\r', '\n']) {
        *value = text.replace(['\r', '\n'], "").into();
    }
    Ok(())
}

/// Times are kept in UTC; the first of all is none.
fn time(value: &mut Value, form: TimeForm, place: Place<'_>) -> Result<(), WrongType> {
    let Value::String(text) = value else {
        let go = if value.is_number() { "number".to_owned() } else { go_kind(value) };
        let tree = format!("json: cannot unmarshal {go} into Go value of type string");
        return Err(place.mismatch(value, "string", tree));
    };
    let canonical = time::canonical(text, form).map_err(WrongType::same)?;
    if canonical.as_ref() != Some(text) {
        *value = canonical.into();
    }
    Ok(())
}

/// Quantities may be written as numbers, and are kept in their canonical form.
fn quantity(value: &mut Value) -> Result<(), WrongType> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Null => return Ok(()),
        _ => return Err(WrongType::same(QUANTITY_ERROR)),
    };
    let quantity: Quantity = text.parse().map_err(|error| WrongType::same(format!("{error}")))?;
    *value = quantity.to_string().into();
    Ok(())
}

const QUANTITY_ERROR: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

/// What a value of JSON is in the words of Go's decoder.
pub(crate) fn go_kind(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Number(number) if number.is_f64() => format!("number {number}"),
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "string".to_owned(),
        Value::Array(_) => "array".to_owned(),
        Value::Object(_) => "object".to_owned(),
    }
}

fn go_type(of: Type) -> String {
    match of {
        Type::String => "string".to_owned(),
        Type::Int32 => "int32".to_owned(),
        Type::Int64 => "int64".to_owned(),
        Type::Bool => "bool".to_owned(),
        Type::Double => "float64".to_owned(),
        Type::Bytes => "[]uint8".to_owned(),
        // Go reads a text first, and then the time in it.
        Type::Time(_) => "string".to_owned(),
        Type::Quantity => "resource.Quantity".to_owned(),
        Type::IntOrString => "intstr.IntOrString".to_owned(),
        Type::Strings => "[]string".to_owned(),
        Type::Free => "json".to_owned(),
        Type::Message(index) => Schema::get().message(index).map(|message| message.go_name.clone()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(group: &str, kind: &str, tree: Value, expected: Result<(Value, &[&str]), &str>) {
        let mut tree = tree;
        let mut findings = Findings::default();
        let message = Schema::get().kind(group, "v1", kind).unwrap();
        let result = prune(&mut tree, message, &mut findings);
        match expected {
            Ok((expected, unknown)) => {
                assert_eq!(result, Ok(()));
                assert_eq!(tree, expected);
                assert_eq!(findings.unknown, unknown);
            }
            Err(error) => assert_eq!(result.map_err(|error| error.json), Err(error.to_owned())),
        }
    }

    #[test]
    fn unknown_members_are_named_and_removed() {
        let tree =
            json!({"kind": "Service", "metadata": {"name": "x"}, "spec": {"types": "NodePort", "ports": [{"prt": 1}]}});
        let pruned = json!({"kind": "Service", "metadata": {"name": "x"}, "spec": {"ports": [{}]}});
        check("", "Service", tree, Ok((pruned, &["spec.ports[0].prt", "spec.types"])));
    }

    #[test]
    fn wrong_types_are_refused_in_the_words_of_go() {
        check(
            "apps",
            "ReplicaSet",
            json!({"spec": {"replicas": "three"}}),
            Err("json: cannot unmarshal string into Go struct field ReplicaSetSpec.spec.replicas of type int32"),
        );
    }

    #[test]
    fn times_are_checked_and_become_canonical() {
        let pod = |time: Value| json!({"status": {"startTime": time}});
        let canonical = pod("2026-01-01T00:00:00Z".into());
        check("", "Pod", pod("2026-01-01T01:00:00.5+01:00".into()), Ok((canonical, &[])));
        check("", "Pod", pod("0001-01-01T00:00:00Z".into()), Ok((json!({"status": {}}), &[])));
        check(
            "",
            "Pod",
            pod("yesterday".into()),
            Err("parsing time \"yesterday\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"yesterday\" as \"2006\""),
        );
        check(
            "",
            "Pod",
            pod(7.into()),
            Err("json: cannot unmarshal number into Go struct field PodStatus.status.startTime of type string"),
        );
    }

    #[test]
    fn quantities_become_canonical() {
        let tree = json!({"spec": {"containers": [{"resources": {"limits": {"cpu": 1.5, "memory": "1024Mi"}}}]}});
        let canonical = json!({"spec": {"containers": [{"resources": {"limits": {"cpu": "1500m", "memory": "1Gi"}}}]}});
        check("", "Pod", tree, Ok((canonical, &[])));
    }
}
