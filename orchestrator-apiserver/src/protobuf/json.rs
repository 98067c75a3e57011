//! JSON as it comes, laid down as pieces of protobuf.
//!
//! Types are checked where objects come in. Should a value of the wrong type have slipped through, it is left out: one object
//! must not take a whole list from its readers.

use std::fmt;

use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Value, value::RawValue};

use super::{
    encode::Encoder,
    schema::{Field, Label, Message, Place, Schema, Type},
    wire,
};

/// The object itself.
pub(super) struct Root<'e> {
    pub(super) encoder: &'e mut Encoder,
    pub(super) message: &'static Message,
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

impl Encoder {
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
                match (Single { encoder: &mut *self.encoder, of: self.field.of }).deserialize(deserializer)? {
                    true => self.encoder.piece(self.place, start),
                    false => self.encoder.out.truncate(start),
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

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let Self { encoder, place, field } = self;
        if field.label != Label::List {
            return IgnoredAny.visit_seq(access).map(drop);
        }
        let mut start = encoder.out.len();
        while let Some(said) = access.next_element_seed(Single { encoder: &mut *encoder, of: field.of })? {
            if !said {
                encoder.zero(field.of, start);
            }
            encoder.piece(place, start);
            start = encoder.out.len();
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let Self { encoder, place, field } = self;
        if field.label != Label::Map {
            return IgnoredAny.visit_map(access).map(drop);
        }
        let mut start = encoder.out.len();
        // Upstream writes maps in the order of their keys, which is the order that they have in JSON.
        while access.next_key_seed(Key(&mut *encoder))?.is_some() {
            let value = encoder.out.len();
            if !access.next_value_seed(Single { encoder: &mut *encoder, of: field.of })? {
                encoder.zero(field.of, value);
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

/// One value, of which the content is written. False for a null and what is of another type, of which nothing counts.
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

impl<'de> Visitor<'de> for Single<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value of type {:?}", self.of)
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_bool<E>(self, value: bool) -> Result<bool, E> {
        let frame = self.encoder.open();
        let flag = self.choice().filter(|(.., other)| other.of == Type::Bool);
        self.encoder.varint(value.into());
        if let Some((message, place, _)) = flag {
            self.encoder.piece(place, frame.out);
            self.encoder.close(&frame, message);
        }
        Ok(self.of == Type::Bool || flag.is_some())
    }

    fn visit_i64<E>(self, value: i64) -> Result<bool, E> {
        Ok(self.encoder.number(self.of, value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<bool, E> {
        match i64::try_from(value) {
            Ok(value) => self.visit_i64(value),
            Err(_) => self.visit_f64(value as f64),
        }
    }

    fn visit_f64<E>(self, value: f64) -> Result<bool, E> {
        self.encoder.out.extend_from_slice(&value.to_le_bytes());
        Ok(self.of == Type::Double)
    }

    fn visit_str<E>(self, text: &str) -> Result<bool, E> {
        Ok(self.encoder.text(self.of, text))
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<bool, A::Error> {
        match self.of {
            Type::Message(id) => self.encoder.members(Schema::get().message(id), access).map(|()| true),
            Type::SchemaOr(_) => self.schema(access),
            _ => IgnoredAny.visit_map(access).map(|_| false),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<bool, A::Error> {
        if self.of == Type::Strings {
            while let Some(text) = access.next_element::<Value>()? {
                wire::bytes(&mut self.encoder.out, 1, text.as_str().unwrap_or_default().as_bytes());
            }
            return Ok(true);
        }
        let Some((message, place, field)) = self.choice() else { return IgnoredAny.visit_seq(access).map(|_| false) };
        let frame = self.encoder.open();
        Member { encoder: &mut *self.encoder, place, field }.visit_seq(access)?;
        self.encoder.close(&frame, message);
        Ok(true)
    }
}

impl Single<'_> {
    /// The message of a choice between a schema and something else, and where that is.
    fn choice(&self) -> Option<(&'static Message, Place, &'static Field)> {
        let Type::SchemaOr(id) = self.of else { return None };
        let message = Schema::get().message(id);
        let other = message.fields.iter().find(|field| field.json != "schema")?;
        Some((message, message.place(other.json)?, other))
    }

    /// A schema where there may be something else. Next to a flag, which then is set.
    fn schema<'de, A: MapAccess<'de>>(self, access: A) -> Result<bool, A::Error> {
        let chosen = self.choice().and_then(|(message, other, field)| {
            let place = message.place("schema")?;
            let Type::Message(of) = Schema::get().field(message, place)?.of else { return None };
            Some((message, place, of, (field.of == Type::Bool).then_some(other)))
        });
        let Some((message, place, of, flag)) = chosen else { return IgnoredAny.visit_map(access).map(|_| false) };
        let frame = self.encoder.open();
        if let Some(flag) = flag {
            self.encoder.varint(1);
            self.encoder.piece(flag, frame.out);
        }
        let start = self.encoder.out.len();
        self.encoder.members(Schema::get().message(of), access)?;
        self.encoder.piece(place, start);
        self.encoder.close(&frame, message);
        Ok(true)
    }
}
