//! Both directions against recorded objects and generated ones, and what nobody should send.

use std::sync::LazyLock;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::BytesMut;
use orchestrator_core::object::Object;
use proptest::{prelude::*, sample::Index};
use serde_json::{Map, Value, json};

use super::{
    ListWriter, decode,
    decode::ProtobufError::{Deep, Malformed, Prefix, Unknown},
    event, object, partial,
    schema::{Label, Message, Schema, Type},
    wire,
};
use crate::registry::Registry;

/// Recorded objects: name, JSON, protobuf.
fn pairs() -> impl Iterator<Item = (String, Value, Vec<u8>)> {
    let pairs: Vec<Value> = serde_json::from_str(include_str!("../../tests/fixtures/protobuf-pairs.json")).unwrap();
    pairs.into_iter().map(|mut pair| {
        let name = format!("{} {}", pair["groupVersion"], pair["kind"]);
        let bytes = STANDARD.decode(pair["protobuf"].as_str().unwrap()).unwrap();
        (name, pair["json"].take(), bytes)
    })
}

/// JSON inside of protobuf stays as its writer wrote it, and one of the recorded objects was written with a space.
fn as_written(json: &Value) -> String {
    json.to_string().replace(r#""data":{"a":1}"#, r#""data":{"a": 1}"#)
}

/// A tree without nulls: they say nothing.
fn said(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.iter().filter(|(_, value)| !value.is_null());
            members.map(|(name, value)| (name.clone(), said(value))).collect()
        }
        Value::Array(items) => items.iter().map(said).collect(),
        other => other.clone(),
    }
}

/// Where two trees differ.
fn differences(left: &Value, right: &Value, path: &str) -> Vec<String> {
    match (left, right) {
        (Value::Object(left), Value::Object(right)) => {
            let names: std::collections::BTreeSet<_> = left.keys().chain(right.keys()).collect();
            let member = |map: &Map<String, Value>, name: &String| map.get(name).cloned().unwrap_or_default();
            let all = names.into_iter();
            all.flat_map(|name| differences(&member(left, name), &member(right, name), &format!("{path}.{name}")))
                .collect()
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            left.iter().zip(right).flat_map(|(left, right)| differences(left, right, path)).collect()
        }
        _ if left == right => Vec::new(),
        _ => vec![format!("{path}: {left} and {right}")],
    }
}

#[test]
fn recorded_protobuf_is_the_recorded_json() {
    let mut found = Vec::new();
    for (name, json, bytes) in pairs() {
        match decode(&bytes) {
            Err(error) => found.push(format!("{name}: {error}")),
            Ok(decoded) => found.extend(differences(&said(&decoded), &said(&json), &name)),
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn recorded_json_is_the_recorded_protobuf_to_the_byte() {
    let mut found = Vec::new();
    for (name, json, bytes) in pairs() {
        let encoded = object(as_written(&json).as_bytes()).unwrap();
        if encoded != bytes {
            let at = encoded.iter().zip(&bytes).position(|(left, right)| left != right).unwrap_or(bytes.len());
            let around =
                |bytes: &[u8]| bytes[at.saturating_sub(30)..bytes.len().min(at + 30)].escape_ascii().to_string();
            found.push(format!("{name} at {at}: {} and {}", around(&encoded), around(&bytes)));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn lists_are_made_of_their_items() {
    for (name, json, bytes) in pairs().filter(|(_, json, _)| json["items"].is_array()) {
        let kind = json["kind"].as_str().and_then(|kind| kind.strip_suffix("List")).unwrap();
        let items = json["items"].as_array().unwrap().iter();
        let items: Vec<Object> = items.map(|item| Object::from_bytes(as_written(item).into())).collect();
        let version = json["apiVersion"].as_str().unwrap();
        let mut writer = ListWriter::new((version, kind), &json["metadata"], &items).unwrap();
        let mut list = BytesMut::from(&*writer.begin());
        items.iter().for_each(|item| writer.item(item, &mut list).unwrap());
        list.extend_from_slice(ListWriter::END);
        assert!(list == bytes, "{name}");
    }
}

/// Whatever is served has a message, and so have its lists and what its subresources take and give.
#[test]
fn every_kind_has_a_form() {
    let is_known = |version: &str, kind: &str| Schema::get().kind(version, kind).is_some();
    let mut found = Vec::new();
    for kind in Registry::new().kinds() {
        let version = kind.api_version();
        let lists =
            kind.verbs.iter().any(|verb| verb == "list").then(|| (version.clone(), format!("{}List", kind.kind)));
        let others = kind.subresources.iter().map(|subresource| {
            let other = subresource.group_version.clone().map(|(group, other)| match group.as_str() {
                "" => other,
                group => format!("{group}/{other}"),
            });
            (other.unwrap_or_else(|| version.clone()), subresource.kind.clone())
        });
        let all = [(version.clone(), kind.kind.clone())].into_iter().chain(lists).chain(others);
        found.extend(all.filter(|(version, kind)| !is_known(version, kind)));
    }
    assert_eq!(found, []);
}

#[test]
fn metadata_alone() {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}});
    let partial = decode(&partial(map.to_string().as_bytes(), "meta.k8s.io/v1").unwrap()).unwrap();
    let expected = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": {"name": "a"}});
    assert_eq!(partial, expected);
}

#[test]
fn an_event_stands_behind_its_length() {
    let mut out = BytesMut::new();
    event("ADDED", b"k8s\0...", &mut out);
    assert_eq!(out, b"\0\0\0\x12\x0a\x05ADDED\x12\x09\x0a\x07k8s\0...".as_slice());
    let mut out = BytesMut::new();
    event("ADDED", &[7; 300], &mut out);
    assert_eq!(u32::from_be_bytes(out[..4].try_into().unwrap()) as usize, out.len() - 4);
    assert!(wire::Entries(&out[4..]).all(|entry| entry.is_ok()));
}

#[test]
fn schemas_of_custom_kinds() {
    let schema = json!({
        "type": "object",
        "$ref": "#/a",
        "x-kubernetes-preserve-unknown-fields": false,
        "default": {"a": [1, null]},
        "enum": ["a", 1, null],
        "maximum": 1.5,
        "minimum": 0.0,
        "items": {"type": "string"},
        "additionalProperties": true,
        "additionalItems": false,
        "properties": {
            "either": {"items": [{"type": "string"}, {"type": "integer"}], "additionalProperties": {"type": "string"}},
            "deep": {"properties": {"deeper": {"not": {"anyOf": [{"minLength": 0}]}}}},
        },
        "dependencies": {"a": ["b", "c"], "d": {"type": "string"}},
    });
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com",
            "names": {"plural": "things", "kind": "Thing"},
            "scope": "Namespaced",
            "versions": [{"name": "v1", "served": true, "storage": false, "schema": {"openAPIV3Schema": schema}}],
        },
        "status": {"acceptedNames": {"plural": "", "kind": ""}},
    });
    let decoded = decode(&object(definition.to_string().as_bytes()).unwrap()).unwrap();
    assert_eq!(differences(&decoded, &definition, ""), Vec::<String>::new());
}

#[test]
fn what_is_no_object() {
    assert_eq!(decode(b"{}"), Err(Prefix));
    assert_eq!(decode(b"k8s\0\x0a\xff"), Err(Malformed));
    let unknown = decode(b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Foo");
    assert_eq!(unknown, Err(Unknown { version: "v1".to_owned(), kind: "Foo".to_owned() }));
}

#[test]
fn what_is_no_object_in_json() {
    assert!(object(br#"{"apiVersion":"v1","kind":"Foo"}"#).is_err());
    assert!(object(b"[]").is_err());
    assert!(object(br#"{"apiVersion":"v1","kind":"Pod"} and more"#).is_err());
}

#[test]
fn what_is_of_the_wrong_type_is_left_out() {
    let wrong = [
        json!({"spec": [], "metadata": true}),
        json!({"spec": {"containers": {"a": 1}, "nodeSelector": ["a"], "volumes": "none", "tolerations": 1.5}}),
        json!({"spec": {"hostNetwork": "yes", "priority": 1.5, "hostname": {"a": {}}, "nodeName": [[]]}}),
        json!({"metadata": {"creationTimestamp": "soon", "generation": u64::MAX}}),
    ];
    let nothing = decode(&object(br#"{"apiVersion":"v1","kind":"Pod"}"#).unwrap()).unwrap();
    for mut pod in wrong {
        pod["apiVersion"] = "v1".into();
        pod["kind"] = "Pod".into();
        let decoded = decode(&object(pod.to_string().as_bytes()).unwrap()).unwrap();
        assert_eq!(dense(&decoded), dense(&nothing), "{pod}");
    }
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "data": {"a": "no base64", "b": "Y\ng=="}});
    let decoded = decode(&object(secret.to_string().as_bytes()).unwrap()).unwrap();
    assert_eq!(decoded["data"], json!({"a": "", "b": "Yg=="}));
}

/// A message inside of itself, that often.
fn nested(message: &[u8], number: u8, times: usize) -> Vec<u8> {
    (0..times).fold(message.to_vec(), |inner, _| {
        let mut out = Vec::new();
        wire::bytes(&mut out, number, &inner);
        out
    })
}

fn enveloped(version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let (mut of, mut out) = (Vec::new(), b"k8s\0".to_vec());
    wire::bytes(&mut of, 1, version.as_bytes());
    wire::bytes(&mut of, 2, kind.as_bytes());
    wire::bytes(&mut out, 1, &of);
    wire::bytes(&mut out, 2, raw);
    out
}

#[test]
fn nesting_without_end_is_refused() {
    // `not`, a schema in a schema, inside of a definition's versions.
    let mut schema = Vec::new();
    for _ in 0..10_000 {
        let mut outer = vec![0xe2, 0x01];
        wire::varint(&mut outer, schema.len() as u64);
        outer.extend_from_slice(&schema);
        schema = outer;
    }
    let mut version = Vec::new();
    wire::bytes(&mut version, 4, &nested(&schema, 1, 1));
    let definition = nested(&nested(&version, 7, 1), 2, 1);
    assert_eq!(decode(&enveloped("apiextensions.k8s.io/v1", "CustomResourceDefinition", &definition)), Err(Deep));
    // JSON that may be that deep where it stands alone.
    let json = format!("{}{}", "[".repeat(122), "]".repeat(122));
    let data = nested(json.as_bytes(), 1, 1);
    assert!(decode(&enveloped("apps/v1", "ControllerRevision", &nested(&data, 2, 1))).is_ok());
    let list = nested(&nested(&nested(&data, 8, 1), 1, 1), 4, 1);
    let definition = nested(&nested(&list, 7, 1), 2, 1);
    assert_eq!(decode(&enveloped("apiextensions.k8s.io/v1", "CustomResourceDefinition", &definition)), Err(Deep));
    // Objects in the places for JSON of objects.
    let list = (0..1000).fold(Vec::new(), |inner, _| enveloped("v1", "List", &nested(&nested(&inner, 1, 1), 2, 1)));
    assert_eq!(decode(&list), Err(Deep));
}

#[test]
fn lies_about_lengths_and_text() {
    let pod = |raw: &[u8]| decode(&enveloped("v1", "Pod", raw));
    assert_eq!(pod(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f"), Err(Malformed));
    assert_eq!(pod(b"\x0a\x7f"), Err(Malformed));
    assert_eq!(pod(b"\x0a\x03\x0a\x01\xff"), Err(Malformed), "text that is no UTF-8");
    assert_eq!(pod(b"\x08\x01"), Err(Malformed), "a number in place of metadata");
    assert_eq!(pod(b"\x0a\x04\x42\x02\x08"), Err(Malformed), "a time that breaks off");
    assert_eq!(pod(b"\x0b"), Err(Malformed), "a group");
}

/// What a generator of trees draws from.
struct Tape<'a>(std::slice::Iter<'a, u8>);

impl Tape<'_> {
    fn draw(&mut self) -> u8 {
        self.0.next().copied().unwrap_or_default()
    }

    fn text(&mut self) -> String {
        ["a", "", "ü", "with \"quotes\" and \n", "b"][usize::from(self.draw() % 5)].to_owned()
    }
}

/// Any tree of a message. Where the tape ends, nothing more is said.
fn tree(message: &Message, tape: &mut Tape<'_>, depth: usize) -> Map<String, Value> {
    let mut out = Map::new();
    for field in &message.fields {
        let count = tape.draw() % 4;
        if count < 2 || depth == 0 {
            continue;
        }
        match (field.label, field.of) {
            (Label::Inline, Type::Message(id)) => out.extend(tree(Schema::get().message(id), tape, depth)),
            (Label::List, of) => {
                let items = (0..count - 1).map(|_| value(of, tape, depth - 1)).collect();
                out.insert(field.json.to_owned(), items);
            }
            (Label::Map, of) => {
                let entries: Map<_, _> = (0..count - 1).map(|_| (tape.text(), value(of, tape, depth - 1))).collect();
                out.insert(field.json.to_owned(), entries.into());
            }
            (_, of) => drop(out.insert(field.json.to_owned(), value(of, tape, depth - 1))),
        }
    }
    out
}

fn value(of: Type, tape: &mut Tape<'_>, depth: usize) -> Value {
    let number = i64::from(tape.draw()) - 100;
    match of {
        Type::String => tape.text().into(),
        // JSON does not have what is empty.
        Type::Bytes => STANDARD.encode(tape.text() + ".").into(),
        Type::Bool => (number > 0).into(),
        Type::Int => number.into(),
        Type::Double => (number as f64 / 4.0).into(),
        Type::Time => "2026-11-23T06:12:57Z".into(),
        Type::MicroTime => "1969-11-23T06:12:57.000123Z".into(),
        Type::Quantity => "1500m".into(),
        Type::IntOrString if number > 0 => number.into(),
        Type::IntOrString => "25%".into(),
        Type::Strings => json!(["a", "b"]),
        Type::Json => json!({"a": [number, null], "b": {"c": ""}}),
        Type::SchemaOr(_) => json!({"type": "string"}),
        Type::Message(id) => tree(Schema::get().message(id), tape, depth).into(),
    }
}

/// A tree with the members of a message, and anything in their places.
fn wild(message: &Message, tape: &mut Tape<'_>, depth: usize) -> Map<String, Value> {
    let mut out = Map::new();
    for field in &message.fields {
        let inner = match field.of {
            Type::Message(id) | Type::SchemaOr(id) if depth > 0 => Some(Schema::get().message(id)),
            _ => None,
        };
        let value = match (tape.draw() % 12, inner) {
            (0..5, _) => continue,
            (5, _) => Value::Null,
            (6, _) => true.into(),
            (7, _) => u64::MAX.into(),
            (8, _) => json!(-0.5),
            (9, _) => tape.text().into(),
            (10, Some(inner)) => json!([wild(inner, tape, depth - 1), null, 1]),
            (11, Some(inner)) => wild(inner, tape, depth - 1).into(),
            (_, _) => json!({"a": ["b", {}], "c": {"d": 1}}),
        };
        out.insert(field.json.to_owned(), value);
    }
    out
}

/// Every kind that is served.
static KINDS: LazyLock<Vec<(String, String)>> =
    LazyLock::new(|| Registry::new().kinds().iter().map(|kind| (kind.api_version(), kind.kind.clone())).collect());

/// A tree without what is not told apart on the wire: zeros of what is always written (that of a quantity is a text), and
/// messages that say nothing.
fn dense(value: &Value) -> Value {
    let says = |value: &Value| match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty() && text != "0",
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
    };
    match value {
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| (name.clone(), dense(value)));
            members.filter(|(_, value)| says(value)).collect()
        }
        Value::Array(items) => items.iter().map(dense).collect(),
        other => other.clone(),
    }
}

proptest! {
    /// Nothing that an object says is lost or changed on the way there and back, and then nothing changes any more.
    #[test]
    fn there_and_back(kind in any::<Index>(), tape in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let (api_version, kind) = kind.get(&KINDS);
        let message = Schema::get().kind(api_version, kind).unwrap();
        let mut given = Value::from(tree(message, &mut Tape(tape.iter()), 8));
        given["apiVersion"] = api_version.as_str().into();
        given["kind"] = kind.as_str().into();
        let encoded = object(given.to_string().as_bytes()).unwrap();
        let decoded = decode(&encoded).unwrap();
        prop_assert_eq!(differences(&dense(&decoded), &dense(&given), ""), Vec::<String>::new());
        let again = object(decoded.to_string().as_bytes()).unwrap();
        prop_assert_eq!(again.escape_ascii().to_string(), encoded.escape_ascii().to_string());
        prop_assert_eq!(decode(&again).unwrap(), decoded);
    }

    /// An object that does not keep to its types is shown without what is wrong.
    #[test]
    fn any_tree(kind in any::<Index>(), tape in proptest::collection::vec(any::<u8>(), 0..500)) {
        let (api_version, kind) = kind.get(&KINDS);
        let mut given = wild(Schema::get().kind(api_version, kind).unwrap(), &mut Tape(tape.iter()), 6);
        given.insert("apiVersion".to_owned(), api_version.as_str().into());
        given.insert("kind".to_owned(), kind.as_str().into());
        let encoded = object(Value::from(given).to_string().as_bytes()).unwrap();
        prop_assert!(decode(&encoded).is_ok());
    }

    /// Whatever comes is an answer, not the end of the server.
    #[test]
    fn any_bytes(kind in any::<Index>(), bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let (api_version, kind) = kind.get(&KINDS);
        let _ = decode(&enveloped(api_version, kind, &bytes));
    }

    /// So is an object that was cut off or damaged on the way.
    #[test]
    fn damaged_objects(pair in 0..64_usize, cut in any::<Index>(), damage in any::<(Index, u8)>()) {
        let (.., mut bytes) = pairs().nth(pair).unwrap();
        bytes.truncate(cut.index(bytes.len()) + 1);
        let at = damage.0.index(bytes.len());
        bytes[at] = damage.1;
        let _ = decode(&bytes);
    }
}
