//! What stands around an encoded object: the words that say what it is, a list, an event of a watch.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use orchestrator_core::object::Object;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::{
    MAGIC,
    encode::{EncodeError, Encoder},
    schema::{Message, Schema, Type},
    wire,
};

const META_VERSION: &str = "meta.k8s.io/v1";

/// An object from its JSON, as the kind that it says it is.
pub(crate) fn object(json: &[u8]) -> Result<Bytes, EncodeError> {
    let of = TypeMeta::of(json);
    encoded(&of.api_version, &of.kind, json)
}

/// The metadata of an object from its JSON.
pub(crate) fn partial(json: &[u8]) -> Result<Bytes, EncodeError> {
    encoded(META_VERSION, "PartialObjectMetadata", json)
}

/// A list of objects of a kind. `metadata` is that of the list.
pub(crate) fn list(kind: (&str, &str), metadata: &Value, items: &[Object]) -> Result<Bytes, EncodeError> {
    let (api_version, kind) = kind;
    let list_kind = format!("{kind}List");
    let of_list = known(api_version, &list_kind)?;
    let mut encoder = Encoder::default();
    let head = serde_json::json!({ "metadata": metadata }).to_string();
    let mut raw = encoder.encode(of_list, head.as_bytes())?.to_vec();
    let items_field = of_list.place("items").and_then(|place| Schema::get().field(of_list, place));
    let Some((field, Type::Message(id))) = items_field.map(|field| (field, field.of)) else {
        return Err(unknown(api_version, &list_kind));
    };
    let of_item = Schema::get().message(id);
    let mut json = BytesMut::new();
    for item in items {
        json.clear();
        item.write_json(&mut json)?;
        let item = encoder.encode(of_item, &json)?;
        raw.extend_from_slice(&field.tag);
        wire::varint(&mut raw, item.len() as u64);
        raw.extend_from_slice(item);
    }
    Ok(enveloped(api_version, &list_kind, &raw))
}

/// A list of the metadata of objects.
pub(crate) fn partial_list(metadata: &Value, items: &[Object]) -> Result<Bytes, EncodeError> {
    list((META_VERSION, "PartialObjectMetadata"), metadata, items)
}

/// An event of a watch, behind its length. The object is already in its envelope; the event has none.
pub(crate) fn event(name: &str, object: &[u8], out: &mut BytesMut) {
    let sized = |length: usize| 1 + wire::varint_length(length as u64) + length;
    let around = sized(object.len());
    let mut head = Vec::new();
    wire::bytes(&mut head, 1, name.as_bytes());
    head.push(2 << 3 | 2);
    wire::varint(&mut head, around as u64);
    head.push(1 << 3 | 2);
    wire::varint(&mut head, object.len() as u64);
    out.reserve(4 + head.len() + object.len());
    out.put_u32((head.len() + object.len()) as u32);
    out.put_slice(&head);
    out.put_slice(object);
}

fn encoded(api_version: &str, kind: &str, json: &[u8]) -> Result<Bytes, EncodeError> {
    let mut encoder = Encoder::default();
    let raw = encoder.encode(known(api_version, kind)?, json)?;
    Ok(enveloped(api_version, kind, raw))
}

fn known(api_version: &str, kind: &str) -> Result<&'static Message, EncodeError> {
    Schema::get().kind(api_version, kind).ok_or_else(|| unknown(api_version, kind))
}

fn unknown(api_version: &str, kind: &str) -> EncodeError {
    EncodeError::Unknown { api_version: api_version.to_owned(), kind: kind.to_owned() }
}

/// Upstream's `runtime.Unknown`: the type, the object, and two fields that are always empty here.
fn enveloped(api_version: &str, kind: &str, raw: &[u8]) -> Bytes {
    let mut of = Vec::new();
    wire::bytes(&mut of, 1, api_version.as_bytes());
    wire::bytes(&mut of, 2, kind.as_bytes());
    let mut out = Vec::with_capacity(MAGIC.len() + of.len() + raw.len() + 20);
    out.extend_from_slice(MAGIC);
    wire::bytes(&mut out, 1, &of);
    wire::bytes(&mut out, 2, raw);
    wire::bytes(&mut out, 3, b"");
    wire::bytes(&mut out, 4, b"");
    out.into()
}

/// What an object says it is.
#[derive(Default)]
struct TypeMeta {
    api_version: String,
    kind: String,
}

impl TypeMeta {
    /// Reads no further than to the second of the two members, which mostly come first.
    fn of(json: &[u8]) -> Self {
        let mut found = Self::default();
        // What is wrong with the rest shows when it is encoded.
        let _ = serde_json::Deserializer::from_slice(json).deserialize_map(Head(&mut found));
        found
    }
}

struct Head<'a>(&'a mut TypeMeta);

impl<'de> Visitor<'de> for Head<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        while self.0.kind.is_empty() || self.0.api_version.is_empty() {
            match access.next_key::<std::borrow::Cow<'de, str>>()?.as_deref() {
                Some("kind") => self.0.kind = access.next_value()?,
                Some("apiVersion") => self.0.api_version = access.next_value()?,
                Some(_) => drop(access.next_value::<IgnoredAny>()?),
                None => break,
            }
        }
        Ok(())
    }
}
