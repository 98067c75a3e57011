//! From JSON to protobuf, in one pass over the JSON and without a tree.
//!
//! JSON has its members in an order of its own, and protobuf wants lengths before contents. So each message lays down its
//! fields as pieces, as they come, and writes them in the order of their numbers at its end.

use base64::{
    Engine, alphabet,
    engine::{GeneralPurpose, GeneralPurposeConfig},
};
use jiff::Timestamp;
use orchestrator_core::object::DecodeError;
use serde::de::Deserializer;

use super::{
    json::Root,
    schema::{Field, Label, Message, Place, Schema, Type},
    wire::{self, BYTES},
};

/// As Go reads it: the bits that are too many are not looked at.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

/// There is no such object in protobuf.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EncodeError {
    /// This is no object in JSON.
    #[error("the object cannot be encoded in protobuf: {0}")]
    Json(#[from] serde_json::Error),
    /// The object has no JSON.
    #[error(transparent)]
    Object(#[from] DecodeError),
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
    pub(super) out: Vec<u8>,
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
pub(super) struct Frame {
    pub(super) out: usize,
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

    pub(super) fn open(&self) -> Frame {
        Frame { out: self.out.len(), pieces: self.pieces.len() }
    }

    /// Everything since then is a piece of the message around.
    pub(super) fn piece(&mut self, place: Place, start: usize) {
        self.pieces.push(Piece { place, start, end: self.out.len() });
    }

    /// Writes the message whose pieces have come since then, in their place.
    pub(super) fn close(&mut self, frame: &Frame, message: &Message) {
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

    /// Puts the zero of a type in the place of what was written since then.
    pub(super) fn zero(&mut self, of: Type, start: usize) {
        self.out.truncate(start);
        self.out.extend_from_slice(of.zero(Schema::get()));
    }

    /// Closes a map's entry whose key has been written, and whose value began there.
    pub(super) fn entry(&mut self, of: Type, value: usize) {
        let mut head = wire::tag(2, of.wire());
        if of.wire() == BYTES {
            wire::varint(&mut head, (self.out.len() - value) as u64);
        }
        self.out.splice(value..value, head);
    }

    pub(super) fn varint(&mut self, number: u64) {
        wire::varint(&mut self.out, number);
    }

    /// Writes a number; false where the type takes none.
    pub(super) fn number(&mut self, of: Type, number: i64) -> bool {
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

    /// Writes a text; false where the type does not take it.
    pub(super) fn text(&mut self, of: Type, text: &str) -> bool {
        match of {
            Type::String => self.out.extend_from_slice(text.as_bytes()),
            Type::Bytes => return self.base64(text),
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

    /// Ends of lines may stand anywhere.
    fn base64(&mut self, text: &str) -> bool {
        let decoded = match text.contains(['\r', '\n']) {
            true => BASE64.decode_vec(text.replace(['\r', '\n'], ""), &mut self.out),
            false => BASE64.decode_vec(text, &mut self.out),
        };
        decoded.is_ok()
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
