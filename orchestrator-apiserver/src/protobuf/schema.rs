//! The messages of the API: numbers, names and types of their fields, and which of them are always written.

use std::{collections::BTreeMap, sync::LazyLock};

use super::{
    table::{self, Presence, Row},
    wire::{self, BYTES, FIXED, VARINT},
};

const META: &str = "k8s.io.apimachinery.pkg.apis.meta.v1";

/// All messages.
#[derive(Debug)]
pub(super) struct Schema {
    messages: Vec<Message>,
    by_name: BTreeMap<String, MessageId>,
    /// By `apiVersion` and `kind`.
    kinds: BTreeMap<String, BTreeMap<&'static str, MessageId>>,
}

/// Where a message stands in the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MessageId(usize);

/// A message.
#[derive(Debug, Default)]
pub(super) struct Message {
    /// By number.
    pub(super) fields: Vec<Field>,
    /// The members that it has in JSON, sorted by name.
    names: Vec<(&'static str, Place)>,
    /// Its encoding when nothing is said.
    pub(super) zero: Vec<u8>,
}

/// The way to a field: its index, or that of an inlined message and then the index in there. A byte for each, as they are
/// sorted many times; messages are inlined into two others at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(u32);

impl Place {
    const LEVELS: usize = 3;

    fn of(index: usize) -> Self {
        Self((index as u32) << 16)
    }

    /// The same place, seen from the message that the field's message is inlined in.
    fn inside(self, index: usize) -> Self {
        Self((index as u32) << 16 | self.0 >> 8)
    }

    /// The index at a level; the outermost message is at level 0.
    pub(super) fn index(self, level: usize) -> usize {
        (self.0 >> (8 * (Self::LEVELS - 1 - level)) & 0xff) as usize
    }
}

/// A field of a message.
#[derive(Debug)]
pub(super) struct Field {
    number: u32,
    /// Its name in JSON.
    pub(super) json: &'static str,
    pub(super) label: Label,
    pub(super) of: Type,
    /// An encoder leaves it out where nothing is said, so that a zero says something.
    pub(super) nullable: bool,
    /// JSON has it even where it is zero.
    pub(super) shown: bool,
    pub(super) tag: Vec<u8>,
    /// What is written where nothing is said: with its tag, and empty where that is nothing.
    pub(super) zero: Vec<u8>,
}

/// How many values a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Label {
    One,
    List,
    /// From text.
    Map,
    /// A message whose members stand in the parent's JSON.
    Inline,
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    String,
    Bytes,
    Bool,
    Int,
    Double,
    /// Whole seconds.
    Time,
    MicroTime,
    Quantity,
    IntOrString,
    /// A message that holds a list of strings, and is that list in JSON.
    Strings,
    /// A message that holds JSON.
    Json,
    /// A message of two fields: `schema` where JSON has an object, and another one where it has anything else.
    SchemaOr(MessageId),
    Message(MessageId),
}

impl Type {
    pub(super) fn wire(self) -> u32 {
        match self {
            Self::Bool | Self::Int => VARINT,
            Self::Double => FIXED,
            _ => BYTES,
        }
    }

    /// A value of which nothing is said.
    pub(super) fn zero(self, schema: &Schema) -> &[u8] {
        match self {
            Self::Bool | Self::Int => &[0],
            Self::Double => &[0; 8],
            Self::Quantity => b"\x0a\x010",
            Self::IntOrString => b"\x08\0\x10\0\x1a\0",
            Self::Message(id) => &schema.message(id).zero,
            Self::SchemaOr(id) => &schema.message(id).zero,
            Self::String | Self::Bytes | Self::Time | Self::MicroTime | Self::Strings | Self::Json => &[],
        }
    }
}

impl Message {
    /// Where a member's field is.
    pub(super) fn place(&self, member: &str) -> Option<Place> {
        self.place_after(&mut 0, member)
    }

    /// Where a member's field is. Members mostly come sorted: the search begins where the last one ended.
    pub(super) fn place_after(&self, last: &mut usize, member: &str) -> Option<Place> {
        let (before, after) = self.names.split_at_checked(*last)?;
        let position = |names: &[(&str, Place)]| names.iter().position(|(name, _)| *name == member);
        let index = position(after).map(|index| *last + index).or_else(|| position(before))?;
        *last = index;
        self.names.get(index).map(|(_, place)| *place)
    }

    /// The field that an encoding has under this number.
    pub(super) fn numbered(&self, number: u64) -> Option<&Field> {
        let index = self.fields.binary_search_by(|field| u64::from(field.number).cmp(&number)).ok()?;
        self.fields.get(index)
    }
}

static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::load);

impl Schema {
    /// The one schema; it is made of constants.
    pub(super) fn get() -> &'static Self {
        &SCHEMA
    }

    /// The message of a built-in kind. The kinds of `meta` are known in every group.
    pub(super) fn kind(&self, api_version: &str, kind: &str) -> Option<&Message> {
        let of_group = self.kinds.get(api_version).and_then(|kinds| kinds.get(kind)).copied();
        let found = of_group.or_else(|| self.by_name.get(&format!("{META}.{kind}")).copied());
        found.map(|id| self.message(id))
    }

    pub(super) fn message(&self, id: MessageId) -> &Message {
        &self.messages[id.0]
    }

    /// The field at a place of a message.
    pub(super) fn field<'a>(&'a self, message: &'a Message, place: Place) -> Option<&'a Field> {
        let mut field = message.fields.get(place.index(0))?;
        for level in 1..Place::LEVELS {
            let (Label::Inline, Type::Message(id)) = (field.label, field.of) else { break };
            field = self.messages.get(id.0)?.fields.get(place.index(level))?;
        }
        Some(field)
    }

    fn load() -> Self {
        let rows = table::rows();
        let mut schema = Self { messages: Vec::new(), by_name: BTreeMap::new(), kinds: BTreeMap::new() };
        for row in &rows {
            schema.intern(row.message());
        }
        let presence = Presence::load();
        for row in &rows {
            let field = schema.field_of(row, &presence);
            let owner = schema.intern(row.message());
            schema.messages[owner.0].fields.push(field);
        }
        for message in &mut schema.messages {
            message.fields.sort_by_key(|field| field.number);
        }
        for index in 0..schema.messages.len() {
            let (names, zero) = (schema.names(MessageId(index)), schema.zero(MessageId(index)));
            schema.messages[index].names = names;
            schema.messages[index].zero = zero;
        }
        for index in 0..schema.messages.len() {
            for field in 0..schema.messages[index].fields.len() {
                let zero = schema.field_zero(&schema.messages[index].fields[field]);
                schema.messages[index].fields[field].zero = zero;
            }
        }
        schema.load_kinds(&rows);
        schema
    }

    fn intern(&mut self, name: String) -> MessageId {
        if let Some(id) = self.by_name.get(&name) {
            return *id;
        }
        let id = MessageId(self.messages.len());
        self.messages.push(Message::default());
        self.by_name.insert(name, id);
        id
    }

    fn field_of(&mut self, row: &Row, presence: &Presence) -> Field {
        let (label, of) = match row.label {
            _ if row.json == "inline" => (Label::Inline, row.of),
            "repeated" => (Label::List, row.of),
            "map" => (Label::Map, row.of.split_once(',').map_or(row.of, |(_, of)| of)),
            _ => (Label::One, row.of),
        };
        let of = self.type_of(row, of);
        let wire = if matches!(label, Label::Map) { BYTES } else { of.wire() };
        Field {
            number: row.number,
            json: if row.json.is_empty() { row.name } else { row.json },
            label,
            of,
            nullable: presence.nullable.contains(&row.key()),
            shown: presence.shown.contains(&row.key()),
            tag: wire::tag(row.number, wire),
            zero: Vec::new(),
        }
    }

    fn type_of(&mut self, row: &Row, of: &str) -> Type {
        match of {
            "string" => return Type::String,
            "bytes" => return Type::Bytes,
            "bool" => return Type::Bool,
            "int32" | "int64" | "uint32" | "uint64" => return Type::Int,
            "double" => return Type::Double,
            _ => {}
        }
        let id = self.intern(if of.contains('.') { of.to_owned() } else { format!("{}.{of}", row.package) });
        match of.rsplit('.').next().unwrap_or(of) {
            "Time" => Type::Time,
            "MicroTime" => Type::MicroTime,
            "Quantity" => Type::Quantity,
            "IntOrString" => Type::IntOrString,
            "ExtraValue" | "Verbs" => Type::Strings,
            "RawExtension" | "FieldsV1" | "JSON" => Type::Json,
            "JSONSchemaPropsOrBool" | "JSONSchemaPropsOrArray" | "JSONSchemaPropsOrStringArray" => Type::SchemaOr(id),
            _ => Type::Message(id),
        }
    }

    /// The members that a message has in JSON, those of inlined messages included.
    fn names(&self, id: MessageId) -> Vec<(&'static str, Place)> {
        let mut names = Vec::new();
        for (index, field) in self.message(id).fields.iter().enumerate() {
            match (field.label, field.of) {
                (Label::Inline, Type::Message(inlined)) => {
                    let inner = self.names(inlined).into_iter();
                    names.extend(inner.map(|(name, place)| (name, place.inside(index))));
                }
                _ => names.push((field.json, Place::of(index))),
            }
        }
        names.sort_unstable();
        names
    }

    fn zero(&self, id: MessageId) -> Vec<u8> {
        self.message(id).fields.iter().flat_map(|field| self.field_zero(field)).collect()
    }

    fn field_zero(&self, field: &Field) -> Vec<u8> {
        if field.nullable || !matches!(field.label, Label::One | Label::Inline) {
            return Vec::new();
        }
        let value = match field.of {
            // That of the message may not be known yet.
            Type::Message(id) | Type::SchemaOr(id) => self.zero(id),
            of => of.zero(self).to_vec(),
        };
        let mut out = field.tag.clone();
        if field.of.wire() == BYTES {
            wire::varint(&mut out, value.len() as u64);
        }
        out.extend(value);
        out
    }

    /// Packages carry the first word of a group only; the groups themselves are those of the resources.
    fn load_kinds(&mut self, rows: &[Row]) {
        for api_version in table::versions() {
            let (group, version) = api_version.split_once('/').unwrap_or(("core", api_version));
            let package_end = format!(".{}.{version}", group.split('.').next().unwrap_or_default());
            let of_package = rows.iter().filter(|row| row.package.ends_with(&package_end));
            let kinds = of_package.filter_map(|row| Some((row.owner, *self.by_name.get(&row.message())?))).collect();
            self.kinds.insert(api_version.to_owned(), kinds);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_has_a_field() {
        let schema = Schema::get();
        for message in &schema.messages {
            for (name, place) in &message.names {
                assert_eq!(schema.field(message, *place).unwrap().json, *name);
            }
        }
    }

    #[test]
    fn a_group_is_known_by_its_whole_name() {
        let schema = Schema::get();
        assert!(schema.kind("apps/v1", "Deployment").is_some());
        assert!(schema.kind("rbac.authorization.k8s.io/v1", "RoleList").is_some());
        assert!(schema.kind("apiextensions.k8s.io/v1", "CustomResourceDefinition").is_some());
        assert!(schema.kind("apps.example.com/v1", "Deployment").is_none());
        assert!(schema.kind("apps.example.com/v1", "DeleteOptions").is_some());
    }
}
