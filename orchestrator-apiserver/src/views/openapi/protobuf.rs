//! OpenAPI 2 in protobuf, which is the only form that `kubectl` asks for.
//!
//! Upstream: the messages of `gnostic`, <https://github.com/google/gnostic/blob/main/openapiv2/OpenAPIv2.proto>. They follow the
//! JSON of the document, except that maps are lists of names and values, and that a choice is a message around what was chosen.

use serde_json::{Map, Value};

/// What a member of a JSON object becomes.
#[derive(Clone, Copy)]
enum Form {
    Text,
    Flag,
    /// Each element on its own.
    Texts,
    /// A message.
    One(Message),
    /// A message for each element.
    Each(Message),
    /// A message whose one field is a list of names and values.
    Named(Message),
    /// The element, or all elements, inside of a message of one repeated text.
    Type,
    /// A schema, inside of a message of one repeated schema.
    Items,
    /// A schema or a flag, inside of a message that holds either.
    Additional,
    /// A schema inside of the choice of a response.
    ResponseSchema,
    /// Any value: a message whose second field is YAML.
    Any,
    /// Any value for each element.
    Anys,
}

/// A message: which members it has, and under which numbers.
#[derive(Clone, Copy)]
enum Message {
    Document,
    Info,
    Paths,
    PathItem,
    Operation,
    Parameter,
    Responses,
    Response,
    Schema,
    Primitive,
}

use Form::{Additional, Any, Anys, Each, Flag, Items, Named, One, ResponseSchema, Text, Texts, Type};

const DOCUMENT: &[(&str, u32, Form)] = &[
    ("swagger", 1, Text),
    ("info", 2, One(Message::Info)),
    ("paths", 8, One(Message::Paths)),
    ("definitions", 9, Named(Message::Schema)),
];
const INFO: &[(&str, u32, Form)] = &[("title", 1, Text), ("version", 2, Text)];
const PATH_ITEM: &[(&str, u32, Form)] = &[
    ("get", 2, One(Message::Operation)),
    ("put", 3, One(Message::Operation)),
    ("post", 4, One(Message::Operation)),
    ("delete", 5, One(Message::Operation)),
    ("options", 6, One(Message::Operation)),
    ("head", 7, One(Message::Operation)),
    ("patch", 8, One(Message::Operation)),
    ("parameters", 9, Each(Message::Parameter)),
];
const OPERATION: &[(&str, u32, Form)] = &[
    ("tags", 1, Texts),
    ("description", 3, Text),
    ("operationId", 5, Text),
    ("produces", 6, Texts),
    ("consumes", 7, Texts),
    ("parameters", 8, Each(Message::Parameter)),
    ("responses", 9, One(Message::Responses)),
];
const RESPONSE: &[(&str, u32, Form)] = &[("description", 1, Text), ("schema", 2, ResponseSchema)];
const SCHEMA: &[(&str, u32, Form)] = &[
    ("$ref", 1, Text),
    ("format", 2, Text),
    ("title", 3, Text),
    ("description", 4, Text),
    ("default", 5, Any),
    ("pattern", 13, Text),
    ("uniqueItems", 16, Flag),
    ("required", 19, Texts),
    ("enum", 20, Anys),
    ("additionalProperties", 21, Additional),
    ("type", 22, Type),
    ("items", 23, Items),
    ("allOf", 24, Each(Message::Schema)),
    ("properties", 25, Named(Message::Schema)),
];
const BODY_PARAMETER: &[(&str, u32, Form)] = &[
    ("description", 1, Text),
    ("name", 2, Text),
    ("in", 3, Text),
    ("required", 4, Flag),
    ("schema", 5, One(Message::Schema)),
];
const QUERY_PARAMETER: &[(&str, u32, Form)] = &[
    ("required", 1, Flag),
    ("in", 2, Text),
    ("description", 3, Text),
    ("name", 4, Text),
    ("type", 6, Text),
    ("format", 7, Text),
    ("items", 8, One(Message::Primitive)),
    ("uniqueItems", 20, Flag),
];
const PRIMITIVE: &[(&str, u32, Form)] = &[("type", 1, Text), ("format", 2, Text)];
const PATH_PARAMETER: &[(&str, u32, Form)] = &[
    ("required", 1, Flag),
    ("in", 2, Text),
    ("description", 3, Text),
    ("name", 4, Text),
    ("type", 5, Text),
    ("format", 6, Text),
    ("uniqueItems", 19, Flag),
];

/// A document as a `Document` message.
pub(crate) fn encode(document: &Value) -> Vec<u8> {
    message(Message::Document, document)
}

fn message(of: Message, value: &Value) -> Vec<u8> {
    match of {
        Message::Document => members(DOCUMENT, None, value),
        Message::Info => members(INFO, Some(7), value),
        Message::PathItem => members(PATH_ITEM, Some(10), value),
        Message::Operation => members(OPERATION, Some(13), value),
        Message::Response => members(RESPONSE, Some(5), value),
        Message::Schema => members(SCHEMA, Some(31), value),
        Message::Paths => named(2, value, |item| message(Message::PathItem, item)),
        // Each response stands in a choice of response and reference.
        Message::Responses => named(1, value, |response| wrapped(1, &message(Message::Response, response))),
        Message::Parameter => parameter(value),
        Message::Primitive => members(PRIMITIVE, None, value),
    }
}

/// A parameter, inside of the choices that it is one of.
fn parameter(value: &Value) -> Vec<u8> {
    let chosen = match value["in"].as_str() {
        Some("body") => wrapped(1, &members(BODY_PARAMETER, Some(6), value)),
        Some("path") => wrapped(2, &wrapped(4, &members(PATH_PARAMETER, Some(22), value))),
        _ => wrapped(2, &wrapped(3, &members(QUERY_PARAMETER, Some(23), value))),
    };
    wrapped(1, &chosen)
}

/// The members of an object that the message knows; those that start with `x-` are its extensions.
fn members(known: &[(&str, u32, Form)], extensions: Option<u32>, value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, number, form) in known {
        if let Some(member) = value.get(name) {
            write(&mut out, *number, *form, member);
        }
    }
    let all = value.as_object().into_iter().flatten();
    if let Some(number) = extensions {
        for (name, member) in all.filter(|(name, _)| name.starts_with("x-")) {
            bytes(&mut out, number, &pair(name, &any(member)));
        }
    }
    out
}

fn write(out: &mut Vec<u8>, number: u32, form: Form, value: &Value) {
    let elements = || value.as_array().into_iter().flatten();
    match form {
        Text => bytes(out, number, text(value)),
        Flag => {
            if value.as_bool() == Some(true) {
                varint(out, u64::from(number << 3));
                out.push(1);
            }
        }
        Texts => elements().for_each(|element| bytes(out, number, text(element))),
        One(of) => bytes(out, number, &message(of, value)),
        Each(of) => elements().for_each(|element| bytes(out, number, &message(of, element))),
        Named(of) => bytes(out, number, &named(1, value, |item| message(of, item))),
        Type => bytes(out, number, &wrapped(1, text(value))),
        Items | ResponseSchema => bytes(out, number, &wrapped(1, &message(Message::Schema, value))),
        Additional => {
            let mut chosen = Vec::new();
            match value {
                Value::Bool(flag) => chosen.extend([2 << 3, u8::from(*flag)]),
                schema => bytes(&mut chosen, 1, &message(Message::Schema, schema)),
            }
            bytes(out, number, &chosen);
        }
        Any => bytes(out, number, &any(value)),
        Anys => elements().for_each(|element| bytes(out, number, &any(element))),
    }
}

/// A map as a list of names and values.
fn named(number: u32, map: &Value, encode: impl Fn(&Value) -> Vec<u8>) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in map.as_object().unwrap_or(&Map::new()) {
        bytes(&mut out, number, &pair(name, &encode(value)));
    }
    out
}

fn pair(name: &str, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    bytes(&mut out, 1, name.as_bytes());
    bytes(&mut out, 2, value);
    out
}

/// Any value, as YAML: JSON is that, too.
fn any(value: &Value) -> Vec<u8> {
    wrapped(2, format!("{value}\n").as_bytes())
}

fn text(value: &Value) -> &[u8] {
    value.as_str().unwrap_or_default().as_bytes()
}

/// A message of one field.
fn wrapped(number: u32, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    bytes(&mut out, number, value);
    out
}

/// A field of some length: text or message.
fn bytes(out: &mut Vec<u8>, number: u32, value: &[u8]) {
    varint(out, u64::from(number << 3 | 2));
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lengths_beyond_a_byte() {
        let mut out = Vec::new();
        varint(&mut out, 300);
        varint(&mut out, 127);
        assert_eq!(out, [0xac, 0x02, 0x7f]);
    }

    #[test]
    fn a_small_document() {
        let document = json!({"swagger": "2.0", "info": {"title": "a", "version": "b"}});
        assert_eq!(encode(&document), b"\x0a\x032.0\x12\x06\x0a\x01a\x12\x01b");
    }

    #[test]
    fn a_schema() {
        let schema = json!({"type": "object", "additionalProperties": {"$ref": "r"}, "x-k": true});
        let expected =
            b"\xaa\x01\x05\x0a\x03\x0a\x01r\xb2\x01\x08\x0a\x06object\xfa\x01\x0e\x0a\x03x-k\x12\x07\x12\x05true\n";
        assert_eq!(message(Message::Schema, &schema), expected);
    }

    #[test]
    fn parameters_are_inside_of_their_choices() {
        let query = json!({"name": "n", "in": "query", "type": "string"});
        assert_eq!(parameter(&query), b"\x0a\x16\x12\x14\x1a\x12\x12\x05query\x22\x01n\x32\x06string");
        let body = json!({"name": "body", "in": "body", "required": true});
        assert_eq!(parameter(&body), b"\x0a\x10\x0a\x0e\x12\x04body\x1a\x04body\x20\x01");
    }

    /// Every member of the real document has a place in the messages: nothing is lost on the way.
    #[test]
    fn nothing_is_left_out() {
        fn check(known: &[(&str, u32, Form)], value: &Value) {
            for name in value.as_object().into_iter().flatten().map(|(name, _)| name) {
                let is_known = name.starts_with("x-") || known.iter().any(|(known, ..)| known == name);
                assert!(is_known, "{name} has no number");
            }
        }
        fn schema(value: &Value) {
            check(SCHEMA, value);
            let nested = ["items", "additionalProperties"].iter().filter_map(|name| value.get(name));
            let properties = value["properties"].as_object().into_iter().flat_map(Map::values);
            nested.chain(properties).filter(|nested| nested.is_object()).for_each(schema);
        }
        let document = super::super::v2(&crate::registry::Registry::new());
        check(DOCUMENT, &document);
        document["definitions"].as_object().into_iter().flat_map(Map::values).for_each(schema);
        for item in document["paths"].as_object().into_iter().flat_map(Map::values) {
            check(PATH_ITEM, item);
            for operation in item.as_object().into_iter().flat_map(Map::values).filter(|value| value.is_object()) {
                check(OPERATION, operation);
                let parameters = operation["parameters"].as_array().into_iter().flatten();
                for parameter in parameters.chain(item["parameters"].as_array().into_iter().flatten()) {
                    let known = match parameter["in"].as_str() {
                        Some("body") => BODY_PARAMETER,
                        Some("path") => PATH_PARAMETER,
                        _ => QUERY_PARAMETER,
                    };
                    check(known, parameter);
                }
                for response in operation["responses"].as_object().into_iter().flat_map(Map::values) {
                    check(RESPONSE, response);
                }
            }
        }
    }
}
