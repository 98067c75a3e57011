//! From protobuf to the tree that JSON would give.

use std::cell::Cell;

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{
    MAGIC,
    schema::{Field, Label, Message, Schema, Type},
    wire::{Entries, Wire},
};
use crate::{decode, limits};

/// The bytes are no object.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum ProtobufError {
    /// They do not start as one.
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    Prefix,
    /// They end too early, or are not of the form that the field has.
    #[error("the protobuf message is not well-formed")]
    Malformed,
    /// There is no such kind in protobuf.
    #[error("no kind {kind:?} of version {version:?} is known in protobuf")]
    Unknown {
        /// `apiVersion`.
        version: String,
        /// `kind`.
        kind: String,
    },
    /// Messages inside of messages without end.
    #[error("the protobuf message is nested too deeply")]
    Deep,
    /// Values without end.
    #[error("the object has more than {} values", limits::OBJECT_VALUES)]
    ManyValues,
}

use ProtobufError::{Deep, Malformed, ManyValues, Prefix, Unknown};

/// How deep inside of an object a message is, and how many values were read before it.
#[derive(Clone, Copy)]
struct Place<'a> {
    depth: usize,
    values: &'a Cell<usize>,
}

impl Place<'_> {
    fn deeper(self) -> Result<Self, ProtobufError> {
        if self.depth < limits::NESTING_DEPTH { Ok(Self { depth: self.depth + 1, ..self }) } else { Err(Deep) }
    }

    fn count(self) -> Result<(), ProtobufError> {
        self.values.set(self.values.get() + 1);
        if self.values.get() <= limits::OBJECT_VALUES { Ok(()) } else { Err(ManyValues) }
    }
}

/// The object that is encoded here, as a tree.
pub(crate) fn object(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let values = Cell::new(0);
    let tree = nested(bytes, Place { depth: 0, values: &values })?;
    // JSON inside of messages adds up with them: what is stored has to be readable as JSON.
    if decode::fits(&tree, limits::OBJECT_DEPTH) { Ok(tree) } else { Err(Deep) }
}

fn nested(bytes: &[u8], place: Place<'_>) -> Result<Value, ProtobufError> {
    let envelope = bytes.strip_prefix(MAGIC).ok_or(Prefix)?;
    let (mut version, mut kind, mut raw) = ("", "", &[][..]);
    for entry in Entries(envelope) {
        match entry? {
            (1, meta) => {
                for entry in Entries(meta.bytes()?) {
                    match entry? {
                        (1, value) => version = value.text()?,
                        (2, value) => kind = value.text()?,
                        _ => {}
                    }
                }
            }
            (2, value) => raw = value.bytes()?,
            _ => {}
        }
    }
    let unknown = || Unknown { version: version.to_owned(), kind: kind.to_owned() };
    let mut tree = Map::new();
    fields(Schema::get().kind(version, kind).ok_or_else(unknown)?, raw, place, &mut tree)?;
    tree.insert("apiVersion".to_owned(), version.into());
    tree.insert("kind".to_owned(), kind.into());
    Ok(Value::Object(tree))
}

/// Puts the fields of a message into a tree.
fn fields(
    message: &Message,
    bytes: &[u8],
    place: Place<'_>,
    tree: &mut Map<String, Value>,
) -> Result<(), ProtobufError> {
    for entry in Entries(bytes) {
        let (number, wire) = entry?;
        // What is not known is of a later version: clients may be newer than servers.
        let Some(field) = message.numbered(number) else { continue };
        match (field.label, field.of) {
            (Label::Inline, Type::Message(id)) => {
                fields(Schema::get().message(id), wire.bytes()?, place.deeper()?, tree)?;
            }
            (Label::Map, of) => {
                let (key, value) = pair(of, wire, place)?;
                if let Value::Object(map) = tree.entry(field.json).or_insert_with(|| Map::new().into()) {
                    map.insert(key, value);
                }
            }
            (Label::List, of) => {
                let element = value(of, wire, place)?;
                if let Value::Array(list) = tree.entry(field.json).or_insert_with(|| Value::Array(Vec::new())) {
                    list.push(element);
                }
            }
            (Label::One | Label::Inline, of) => {
                let value = value(of, wire, place)?;
                if is_shown(field, &value) {
                    tree.insert(field.json.to_owned(), value);
                }
            }
        }
    }
    Ok(())
}

/// Whether a value stands in JSON. Encoders write the zero of most fields, and JSON leaves it out.
fn is_shown(field: &Field, value: &Value) -> bool {
    match value {
        Value::Null => false,
        _ if field.nullable && field.of != Type::Bytes || field.shown => true,
        Value::String(text) => !text.is_empty(),
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::Array(_) | Value::Object(_) => true,
    }
}

/// An entry of a map: a message of key and value.
fn pair(of: Type, wire: Wire<'_>, place: Place<'_>) -> Result<(String, Value), ProtobufError> {
    let (mut key, mut found) = ("", None);
    for entry in Entries(wire.bytes()?) {
        match entry? {
            (1, wire) => key = wire.text()?,
            (2, wire) => found = Some(wire),
            _ => {}
        }
    }
    let nothing = match of {
        Type::Bool | Type::Int | Type::Double => Wire::Number(0),
        _ => Wire::Bytes(&[]),
    };
    Ok((key.to_owned(), value(of, found.unwrap_or(nothing), place)?))
}

/// One value. Null for a time or JSON of which nothing is said.
fn value(of: Type, wire: Wire<'_>, place: Place<'_>) -> Result<Value, ProtobufError> {
    place.count()?;
    Ok(match of {
        Type::String => wire.text()?.into(),
        Type::Bytes => STANDARD.encode(wire.bytes()?).into(),
        Type::Bool => (wire.number()? != 0).into(),
        Type::Int => wire.number()?.cast_signed().into(),
        Type::Double => f64::from_bits(wire.number()?).into(),
        Type::Time => time(wire.bytes()?, 0)?,
        Type::MicroTime => time(wire.bytes()?, 6)?,
        Type::Quantity => first(wire)?.map_or(Ok("0"), Wire::text)?.into(),
        Type::IntOrString => int_or_string(wire.bytes()?)?,
        Type::Strings => {
            let texts: Result<Vec<_>, _> = Entries(wire.bytes()?).map(|entry| entry?.1.text()).collect();
            texts?.into()
        }
        Type::Json => json(wire, place)?,
        Type::SchemaOr(id) => either(Schema::get().message(id), wire.bytes()?, place)?,
        Type::Message(id) => {
            let mut tree = Map::new();
            fields(Schema::get().message(id), wire.bytes()?, place.deeper()?, &mut tree)?;
            tree.into()
        }
    })
}

/// The only field of a message.
fn first(wire: Wire<'_>) -> Result<Option<Wire<'_>>, ProtobufError> {
    let mut found = None;
    for entry in Entries(wire.bytes()?) {
        if let (1, wire) = entry? {
            found = Some(wire);
        }
    }
    Ok(found)
}

/// JSON inside of a message. Encoders may put an object in protobuf in its place.
fn json(wire: Wire<'_>, place: Place<'_>) -> Result<Value, ProtobufError> {
    let Some(raw) = first(wire)? else { return Ok(Value::Null) };
    match raw.bytes()? {
        raw if raw.starts_with(MAGIC) => nested(raw, place.deeper()?),
        raw => serde_json::from_slice(raw).map_err(|_| Malformed),
    }
}

/// A schema, or what may stand in its place.
fn either(message: &Message, bytes: &[u8], place: Place<'_>) -> Result<Value, ProtobufError> {
    let mut tree = Map::new();
    fields(message, bytes, place.deeper()?, &mut tree)?;
    let is_flag = message.fields.iter().any(|field| field.of == Type::Bool);
    let schema = tree.remove("schema");
    Ok(match (schema, tree.into_iter().next()) {
        (_, Some((_, Value::Array(list)))) => list.into(),
        (Some(schema), _) => schema,
        (None, flag) if is_flag => flag.is_some().into(),
        (None, _) => Value::Null,
    })
}

fn time(bytes: &[u8], digits: usize) -> Result<Value, ProtobufError> {
    let (mut seconds, mut nanoseconds) = (None, 0);
    for entry in Entries(bytes) {
        match entry? {
            (1, wire) => seconds = Some(wire.number()?.cast_signed()),
            (2, wire) => nanoseconds = i32::try_from(wire.number()?).map_err(|_| Malformed)?,
            _ => {}
        }
    }
    let Some(seconds) = seconds else { return Ok(Value::Null) };
    let nanoseconds = if digits == 0 { 0 } else { nanoseconds };
    let time = Timestamp::new(seconds, nanoseconds).map_err(|_| Malformed)?;
    Ok(format!("{time:.digits$}").into())
}

fn int_or_string(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let (mut is_text, mut number, mut word) = (false, 0, "");
    for entry in Entries(bytes) {
        match entry? {
            (1, wire) => is_text = wire.number()? == 1,
            (2, wire) => number = wire.number()?.cast_signed(),
            (3, wire) => word = wire.text()?,
            _ => {}
        }
    }
    Ok(if is_text { word.into() } else { number.into() })
}
