//! What stands around an encoded object: the words that say what it is, a list, an event of a watch.

use std::{collections::VecDeque, fmt};

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
use crate::limits;

const META_VERSION: &str = "meta.k8s.io/v1";
const PARTIAL: &str = "PartialObjectMetadata";

/// An object from its JSON, as the kind that it says it is.
pub(crate) fn object(json: &[u8]) -> Result<Bytes, EncodeError> {
    let of = TypeMeta::of(json);
    encoded(&of.api_version, &of.kind, json)
}

/// The metadata of an object from its JSON, in a version of the group `meta.k8s.io`.
pub(crate) fn partial(json: &[u8], meta_version: &str) -> Result<Bytes, EncodeError> {
    let mut encoder = Encoder::default();
    let raw = encoder.encode(known(META_VERSION, PARTIAL)?, json)?;
    Ok(enveloped(meta_version, PARTIAL, raw))
}

/// A list, written item by item. What comes first says how long all of it is, so all items are encoded for that; the first
/// ones are kept, and the others are encoded again when their turn comes.
#[derive(Debug)]
pub(crate) struct ListWriter {
    begin: Bytes,
    of_item: &'static Message,
    tag: &'static [u8],
    encoder: Encoder,
    json: BytesMut,
    kept: VecDeque<Bytes>,
}

impl ListWriter {
    /// What stands behind the last item.
    pub(crate) const END: &'static [u8] = &[3 << 3 | 2, 0, 4 << 3 | 2, 0];

    /// For a list of objects of a kind. `metadata` is that of the list.
    pub(crate) fn new(kind: (&str, &str), metadata: &Value, items: &[Object]) -> Result<Self, EncodeError> {
        let (api_version, kind) = kind;
        Self::measured((api_version, &format!("{kind}List")), api_version, metadata, items)
    }

    /// For a list of the metadata of objects, in a version of the group `meta.k8s.io`.
    pub(crate) fn partial(meta_version: &str, metadata: &Value, items: &[Object]) -> Result<Self, EncodeError> {
        Self::measured((META_VERSION, &format!("{PARTIAL}List")), meta_version, metadata, items)
    }

    fn measured(
        (known_as, list_kind): (&str, &str),
        api_version: &str,
        metadata: &Value,
        items: &[Object],
    ) -> Result<Self, EncodeError> {
        let of_list = known(known_as, list_kind)?;
        let items_field = of_list.place("items").and_then(|place| Schema::get().field(of_list, place));
        let Some((field, Type::Message(id))) = items_field.map(|field| (field, field.of)) else {
            return Err(unknown(known_as, list_kind));
        };
        let mut encoder = Encoder::default();
        let head = serde_json::json!({ "metadata": metadata }).to_string();
        let head = encoder.encode(of_list, head.as_bytes())?.to_vec();
        let mut new = Self {
            begin: Bytes::new(),
            of_item: Schema::get().message(id),
            tag: &field.tag,
            encoder,
            json: BytesMut::new(),
            kept: VecDeque::new(),
        };
        let (mut length, mut out) = (head.len(), BytesMut::new());
        for item in items {
            new.encode(item, &mut out)?;
            length += out.len();
            // What is kept is a beginning: items are taken from there in order.
            if length <= limits::KEPT_ENCODINGS_BYTES {
                new.kept.push_back(Bytes::copy_from_slice(&out));
            }
            out.clear();
        }
        new.begin = begin(api_version, list_kind, length, &head);
        Ok(new)
    }

    /// What stands before the first item.
    pub(crate) fn begin(&self) -> Bytes {
        self.begin.clone()
    }

    /// Writes the next item.
    pub(crate) fn item(&mut self, item: &Object, out: &mut BytesMut) -> Result<(), EncodeError> {
        match self.kept.pop_front() {
            Some(encoded) => {
                out.put_slice(&encoded);
                Ok(())
            }
            None => self.encode(item, out),
        }
    }

    fn encode(&mut self, item: &Object, out: &mut BytesMut) -> Result<(), EncodeError> {
        self.json.clear();
        item.write_json(&mut self.json)?;
        let encoded = self.encoder.encode(self.of_item, &self.json)?;
        out.put_slice(self.tag);
        let mut length = Vec::new();
        wire::varint(&mut length, encoded.len() as u64);
        out.put_slice(&length);
        out.put_slice(encoded);
        Ok(())
    }
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
    let begin = begin(api_version, kind, raw.len(), &[]);
    [&begin, raw, ListWriter::END].concat().into()
}

/// An envelope up to and with the beginning of what is in it.
fn begin(api_version: &str, kind: &str, length: usize, head: &[u8]) -> Bytes {
    let mut of = Vec::new();
    wire::bytes(&mut of, 1, api_version.as_bytes());
    wire::bytes(&mut of, 2, kind.as_bytes());
    let mut out = Vec::with_capacity(MAGIC.len() + of.len() + head.len() + 20);
    out.extend_from_slice(MAGIC);
    wire::bytes(&mut out, 1, &of);
    out.push(2 << 3 | 2);
    wire::varint(&mut out, length as u64);
    out.extend_from_slice(head);
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
