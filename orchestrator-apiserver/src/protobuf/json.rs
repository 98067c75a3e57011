//! JSON as it comes, laid down as pieces of protobuf.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

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
            while let Some(text) = access.next_element::<Cow<'de, str>>()? {
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
