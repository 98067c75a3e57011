//! From JSON to protobuf, in one pass over the JSON and without a tree.
//!
//! JSON has its members in an order of its own, and protobuf wants lengths before contents. So each message lays down its
//! fields as pieces, as they come, and writes them in the order of their numbers at its end.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    schema::{Field, Label, Message, Place, Schema, Type},
    wire::{self, BYTES},
};

/// There is no such object in protobuf.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EncodeError {
    /// The JSON is no object of its kind.
    #[error("the object cannot be encoded in protobuf: {0}")]
    Json(#[from] serde_json::Error),
    /// No such kind.
    #[error("objects of kind {kind:?} in version {api_version:?} have no form in protobuf")]
    Unknown {
        /// `apiVersion`.
        api_version: String,
        /// `kind`.
        kind: String,
    },
}

/// Encodes one message after the other in the same memory.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    out: Vec<u8>,
    pieces: Vec<Piece>,
}

/// The content of a field, without tag and length.
#[derive(Clone, Copy, Debug)]
struct Piece {
    place: Place,
    start: usize,
    end: usize,
}

/// Where the message that is being read began.
struct Frame {
    out: usize,
    pieces: usize,
}

impl Encoder {
    /// The fields of this message, from JSON. Members that the message does not have are passed over.
    pub(super) fn encode(&mut self, message: &'static Message, json: &[u8]) -> Result<&[u8], EncodeError> {
        self.out.clear();
        self.pieces.clear();
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        let written = deserializer.deserialize_map(Root { encoder: self, message });
        written.and_then(|()| deserializer.end())?;
        Ok(&self.out)
    }

    fn open(&self) -> Frame {
        Frame { out: self.out.len(), pieces: self.pieces.len() }
    }

    /// Everything since then is a piece of the message around.
    fn piece(&mut self, place: Place, start: usize) {
        self.pieces.push(Piece { place, start, end: self.out.len() });
    }

    /// Writes the message whose pieces have come since then, in their place.
    fn close(&mut self, frame: &Frame, message: &Message) {
        let Some(pieces) = self.pieces.get_mut(frame.pieces..).filter(|pieces| !pieces.is_empty()) else {
            return self.out.extend_from_slice(&message.zero);
        };
        // Those of one field stay in their order.
        pieces.sort_unstable_by_key(|piece| (piece.place, piece.start));
        let written = self.out.len();
        assemble(message, 0, pieces, &mut self.out);
        self.out.drain(frame.out..written);
        self.pieces.truncate(frame.pieces);
    }

    fn members<'de, A: MapAccess<'de>>(&mut self, message: &'static Message, mut access: A) -> Result<(), A::Error> {
        let frame = self.open();
        let mut last = 0;
        while let Some(found) = access.next_key_seed(Name { of: message, last: &mut last })? {
            match found {
                Some((place, field)) => access.next_value_seed(Member { encoder: self, place, field })?,
                None => drop(access.next_value::<IgnoredAny>()?),
            }
        }
        self.close(&frame, message);
        Ok(())
    }

    /// Closes a map's entry whose key has been written, and whose value began there.
    fn entry(&mut self, of: Type, value: usize) {
        let mut head = wire::tag(2, of.wire());
        if of.wire() == BYTES {
            wire::varint(&mut head, (self.out.len() - value) as u64);
        }
        self.out.splice(value..value, head);
    }

    fn varint(&mut self, number: u64) {
        wire::varint(&mut self.out, number);
    }

    fn number(&mut self, of: Type, number: i64) -> bool {
        match of {
            Type::Int => self.varint(number.cast_unsigned()),
            Type::Double => self.out.extend_from_slice(&(number as f64).to_le_bytes()),
            Type::IntOrString => {
                self.out.extend_from_slice(b"\x08\0\x10");
                self.varint(number.cast_unsigned());
                self.out.extend_from_slice(b"\x1a\0");
            }
            Type::Quantity => wire::bytes(&mut self.out, 1, number.to_string().as_bytes()),
            _ => return false,
        }
        true
    }

    fn text(&mut self, of: Type, text: &str) -> bool {
        match of {
            Type::String => self.out.extend_from_slice(text.as_bytes()),
            Type::Bytes => return STANDARD.decode_vec(text, &mut self.out).is_ok(),
            Type::Time | Type::MicroTime => return self.time(of, text),
            Type::Quantity => wire::bytes(&mut self.out, 1, text.as_bytes()),
            Type::IntOrString => {
                self.out.extend_from_slice(b"\x08\x01\x10\0");
                wire::bytes(&mut self.out, 3, text.as_bytes());
            }
            _ => return false,
        }
        true
    }

    fn time(&mut self, of: Type, text: &str) -> bool {
        let Ok(time) = text.parse::<Timestamp>() else { return false };
        let second = time.as_nanosecond().div_euclid(1_000_000_000);
        let micros = time.as_nanosecond().rem_euclid(1_000_000_000) / 1000;
        self.out.push(1 << 3);
        self.varint(i64::try_from(second).unwrap_or_default().cast_unsigned());
        self.out.push(2 << 3);
        self.varint(if of == Type::MicroTime { u64::try_from(micros * 1000).unwrap_or_default() } else { 0 });
        true
    }
}

/// Writes pieces in the order of the message's fields, and the zeros of those that are always there.
///
/// `level` counts the messages that this one is inlined in.
fn assemble(message: &Message, level: usize, mut pieces: &[Piece], out: &mut Vec<u8>) {
    for (index, field) in message.fields.iter().enumerate() {
        let own;
        (own, pieces) = of_field(pieces, level, index);
        match (field.label, field.of) {
            _ if own.is_empty() => out.extend_from_slice(&field.zero),
            (Label::Inline, Type::Message(id)) => {
                let inlined = Schema::get().message(id);
                out.extend_from_slice(&field.tag);
                wire::varint(out, size(inlined, level + 1, own) as u64);
                assemble(inlined, level + 1, own, out);
            }
            _ => {
                for piece in own {
                    out.extend_from_slice(&field.tag);
                    if is_sized(field) {
                        wire::varint(out, (piece.end - piece.start) as u64);
                    }
                    out.extend_from_within(piece.start..piece.end);
                }
            }
        }
    }
}

/// How much [`assemble`] writes.
fn size(message: &Message, level: usize, mut pieces: &[Piece]) -> usize {
    let sized = |field: &Field, length: usize| field.tag.len() + wire::varint_length(length as u64) + length;
    let mut total = 0;
    for (index, field) in message.fields.iter().enumerate() {
        let own;
        (own, pieces) = of_field(pieces, level, index);
        total += match (field.label, field.of) {
            _ if own.is_empty() => field.zero.len(),
            (Label::Inline, Type::Message(id)) => sized(field, size(Schema::get().message(id), level + 1, own)),
            _ if is_sized(field) => own.iter().map(|piece| sized(field, piece.end - piece.start)).sum(),
            _ => own.iter().map(|piece| field.tag.len() + piece.end - piece.start).sum(),
        };
    }
    total
}

/// The pieces of a field, and those of the fields after it.
fn of_field(pieces: &[Piece], level: usize, index: usize) -> (&[Piece], &[Piece]) {
    let end = pieces.iter().position(|piece| piece.place.index(level) != index).unwrap_or(pieces.len());
    pieces.split_at(end)
}

fn is_sized(field: &Field) -> bool {
    field.label == Label::Map || field.of.wire() == BYTES
}

/// The object itself.
struct Root<'e> {
    encoder: &'e mut Encoder,
    message: &'static Message,
}

impl<'de> Visitor<'de> for Root<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<(), A::Error> {
        self.encoder.members(self.message, access)
    }
}

/// The name of a member: the field that it is, if the message has one.
struct Name<'n> {
    of: &'static Message,
    last: &'n mut usize,
}

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<(Place, &'static Field)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name<'_> {
    type Value = Option<(Place, &'static Field)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        let place = self.of.place_after(self.last, name);
        Ok(place.and_then(|place| Some((place, Schema::get().field(self.of, place)?))))
    }
}

/// The value of a member: one, or several.
struct Member<'e> {
    encoder: &'e mut Encoder,
    place: Place,
    field: &'static Field,
}

impl<'de> DeserializeSeed<'de> for Member<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.field.label {
            Label::List | Label::Map => deserializer.deserialize_any(self),
            Label::One | Label::Inline => {
                let start = self.encoder.out.len();
                if (Single { encoder: &mut *self.encoder, of: self.field.of }).deserialize(deserializer)? {
                    self.encoder.piece(self.place, start);
                }
                Ok(())
            }
        }
    }
}

impl<'de> Visitor<'de> for Member<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the values of {}", self.field.json)
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let Self { encoder, place, field } = self;
        if field.label != Label::List {
            return Err(Error::custom(format!("{} is no list", field.json)));
        }
        let mut start = encoder.out.len();
        while let Some(said) = access.next_element_seed(Single { encoder: &mut *encoder, of: field.of })? {
            if !said {
                encoder.out.extend_from_slice(field.of.zero(Schema::get()));
            }
            encoder.piece(place, start);
            start = encoder.out.len();
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let Self { encoder, place, field } = self;
        if field.label != Label::Map {
            return Err(Error::custom(format!("{} is no map", field.json)));
        }
        let mut start = encoder.out.len();
        // Upstream writes maps in the order of their keys, which is the order that they have in JSON.
        while access.next_key_seed(Key(&mut *encoder))?.is_some() {
            let value = encoder.out.len();
            if !access.next_value_seed(Single { encoder: &mut *encoder, of: field.of })? {
                encoder.out.extend_from_slice(field.of.zero(Schema::get()));
            }
            encoder.entry(field.of, value);
            encoder.piece(place, start);
            start = encoder.out.len();
        }
        Ok(())
    }
}

/// The key of a map's entry.
struct Key<'e>(&'e mut Encoder);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<(), E> {
        wire::bytes(&mut self.0.out, 1, key.as_bytes());
        Ok(())
    }
}

/// One value, of which the content is written. False for a null, of which nothing is.
struct Single<'e> {
    encoder: &'e mut Encoder,
    of: Type,
}

impl<'de> DeserializeSeed<'de> for Single<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        if self.of != Type::Json {
            return deserializer.deserialize_any(self);
        }
        let json = <&RawValue>::deserialize(deserializer)?.get();
        if json == "null" {
            return Ok(false);
        }
        wire::bytes(&mut self.encoder.out, 1, json.as_bytes());
        Ok(true)
    }
}

impl Single<'_> {
    fn checked<E: Error>(&self, fits: bool) -> Result<bool, E> {
        if fits { Ok(true) } else { Err(E::custom(format!("a value is no {:?}", self.of))) }
    }

    /// The message of a choice between a schema and something else, and where that is.
    fn choice(&self) -> Option<(&'static Message, Place)> {
        let Type::SchemaOr(id) = self.of else { return None };
        let message = Schema::get().message(id);
        let other = message.fields.iter().find(|field| field.json != "schema")?;
        Some((message, message.place(other.json)?))
    }
}

impl<'de> Visitor<'de> for Single<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value of type {:?}", self.of)
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<bool, E> {
        let start = self.encoder.open();
        let choice = self.choice();
        if let (true, None) = (self.of != Type::Bool, choice) {
            return self.checked(false);
        }
        self.encoder.varint(value.into());
        if let Some((message, other)) = choice {
            self.encoder.piece(other, start.out);
            self.encoder.close(&start, message);
        }
        Ok(true)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<bool, E> {
        let fits = self.encoder.number(self.of, value);
        self.checked(fits)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<bool, E> {
        match self.of {
            Type::Double => self.visit_f64(value as f64),
            _ => self.visit_i64(i64::try_from(value).map_err(E::custom)?),
        }
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<bool, E> {
        self.encoder.out.extend_from_slice(&value.to_le_bytes());
        self.checked(self.of == Type::Double)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<bool, E> {
        let fits = self.encoder.text(self.of, text);
        self.checked(fits)
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<bool, A::Error> {
        match self.of {
            Type::Message(id) => self.encoder.members(Schema::get().message(id), access)?,
            Type::SchemaOr(_) => self.schema(access)?,
            _ => return self.checked(false),
        }
        Ok(true)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<bool, A::Error> {
        if self.of == Type::Strings {
            while let Some(text) = access.next_element::<std::borrow::Cow<'de, str>>()? {
                wire::bytes(&mut self.encoder.out, 1, text.as_bytes());
            }
            return Ok(true);
        }
        let Some((message, place)) = self.choice() else { return self.checked(false) };
        let Some(field) = Schema::get().field(message, place) else { return self.checked(false) };
        let frame = self.encoder.open();
        Member { encoder: &mut *self.encoder, place, field }.visit_seq(access)?;
        self.encoder.close(&frame, message);
        Ok(true)
    }
}

impl Single<'_> {
    /// An object where there may be something else. Next to a flag, which then is set.
    fn schema<'de, A: MapAccess<'de>>(self, access: A) -> Result<(), A::Error> {
        let chosen = self.choice().and_then(|(message, other)| {
            let (place, schema) = (message.place("schema")?, Schema::get());
            let Type::Message(of) = schema.field(message, place)?.of else { return None };
            let is_flag = schema.field(message, other)?.of == Type::Bool;
            Some((message, place, of, is_flag.then_some(other)))
        });
        let Some((message, place, of, flag)) = chosen else { return Err(Error::custom("no schema is expected here")) };
        let frame = self.encoder.open();
        if let Some(flag) = flag {
            self.encoder.varint(1);
            self.encoder.piece(flag, frame.out);
        }
        let start = self.encoder.out.len();
        self.encoder.members(Schema::get().message(of), access)?;
        self.encoder.piece(place, start);
        self.encoder.close(&frame, message);
        Ok(())
    }
}
