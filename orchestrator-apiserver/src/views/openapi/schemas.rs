//! JSON schemas, made of the tables of the published API.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use serde_json::{Map, Value, json};

use super::enumerations;
use crate::{
    decode::{FieldSchema, Schema, Shape, Type, definition_name},
    registry::Kind,
    views::descriptions::{description, is_required},
};

const MERGE_KEYS: &str = include_str!("../../../data/merge-keys.tsv");
const META: &str = "k8s.io.apimachinery.pkg.apis.meta.v1";
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
/// The body of PATCH requests.
pub(super) const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should \
     convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: \
     https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const KIND: &str = "Kind is a string value representing the REST resource this object represents. Servers may infer \
     this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: \
     https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";

/// How a list or map is merged: a row of the table of merge keys.
struct Merging {
    /// `list-type=map`, `map-type=atomic`.
    of: &'static str,
    list_map_keys: &'static str,
    patch_strategy: &'static str,
    patch_merge_key: &'static str,
}

static MERGING: LazyLock<BTreeMap<(&'static str, &'static str), Merging>> = LazyLock::new(|| {
    let rows = MERGE_KEYS.lines().filter(|line| !line.starts_with('#'));
    rows.filter_map(|line| {
        let columns: Vec<&'static str> = line.split('\t').collect();
        let [definition, field, of, list_map_keys, patch_strategy, patch_merge_key] = columns[..] else { return None };
        Some(((definition, field), Merging { of, list_map_keys, patch_strategy, patch_merge_key }))
    })
    .collect()
});

/// Messages by their full name, and the definition that each is.
struct Names {
    indices: BTreeMap<&'static str, usize>,
    definitions: BTreeMap<usize, String>,
}

static NAMES: LazyLock<Names> = LazyLock::new(|| {
    let indices: BTreeMap<&'static str, usize> = Schema::get().names().collect();
    let definition = |index: usize| Some((index, Schema::get().message(index)?.definition.clone()));
    let definitions = indices.values().filter_map(|index| definition(*index)).collect();
    Names { indices, definitions }
});

/// Which OpenAPI it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    V2,
    V3,
}

/// The definitions of the bodies of a kind.
pub(super) struct KindNames {
    pub(super) object: String,
    pub(super) list: String,
}

/// The schemas of a document, with all that they refer to.
pub(super) struct Definitions {
    pub(super) dialect: Dialect,
    done: Map<String, Value>,
    /// Messages that are referred to and not yet made.
    wanted: BTreeSet<usize>,
    /// Group, version and kind of messages that are kinds.
    kinds: BTreeMap<usize, Vec<Value>>,
}

impl Definitions {
    pub(super) fn new(dialect: Dialect) -> Self {
        let mut new = Self { dialect, done: Map::new(), wanted: BTreeSet::new(), kinds: BTreeMap::new() };
        for kind in ["Status", "DeleteOptions"] {
            new.want(&format!("{META}.{kind}"), &[("", "v1", kind)]);
        }
        for name in ["ListMeta", "ObjectMeta"] {
            new.want(&format!("{META}.{name}"), &[]);
        }
        new
    }

    /// The schemas, those included that others refer to.
    pub(super) fn finish(mut self) -> Value {
        while let Some(index) = self.wanted.pop_first() {
            let Some(name) = NAMES.definitions.get(&index) else { continue };
            if !self.done.contains_key(name) {
                let schema = self.message(index, name);
                self.done.insert(name.clone(), schema);
            }
        }
        let (quantity, int_or_string) = match self.dialect {
            Dialect::V2 => (json!({"type": "string"}), json!({"type": "string", "format": "int-or-string"})),
            Dialect::V3 => (
                json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
                json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]}),
            ),
        };
        let patch = json!({"type": "object", "description": "What a patch is depends on its media type."});
        self.done.insert(PATCH.to_owned(), patch);
        self.done.insert(QUANTITY.to_owned(), quantity);
        self.done.insert(INT_OR_STRING.to_owned(), int_or_string);
        Value::Object(self.done)
    }

    /// Wants the schemas of a built-in kind, its list and the bodies of its subresources.
    pub(super) fn add_built_in(&mut self, kind: &Kind) -> KindNames {
        let (group, version) = (&*kind.resource.group, &*kind.resource.version);
        for subresource in &kind.subresources {
            let own = subresource.group_version.as_ref().map(|(group, version)| (group.as_str(), version.as_str()));
            let (group, version) = own.unwrap_or((group, version));
            self.kind(group, version, &subresource.kind);
        }
        let list = format!("{}List", kind.kind);
        let (object, list) = (self.kind(group, version, &kind.kind), self.kind(group, version, &list));
        let status = definition_name(&format!("{META}.Status"));
        KindNames { object: object.unwrap_or_else(|| status.clone()), list: list.unwrap_or(status) }
    }

    /// Wants the schema of a kind and gives its name. `None` when there is none.
    pub(super) fn kind(&mut self, group: &str, version: &str, kind: &str) -> Option<String> {
        let short = group.split('.').next().filter(|group| !group.is_empty()).unwrap_or("core");
        let suffix = format!(".{short}.{version}.{kind}");
        let name = NAMES.indices.keys().find(|name| name.ends_with(&suffix))?;
        self.want(name, &[(group, version, kind)]);
        Some(definition_name(name))
    }

    fn want(&mut self, message: &str, kinds: &[(&str, &str, &str)]) {
        let Some(index) = NAMES.indices.get(message) else { return };
        self.wanted.insert(*index);
        for (group, version, kind) in kinds {
            let known = self.kinds.entry(*index).or_default();
            let kind = json!({"group": group, "version": version, "kind": kind});
            if !known.contains(&kind) {
                known.push(kind);
            }
        }
    }

    /// Adds the schemas of a custom kind and its list. Without a schema of its own, it may hold anything.
    pub(super) fn add_custom(&mut self, kind: &Kind) -> KindNames {
        if let Some((group, version)) = kind.subresource("scale").and_then(|scale| scale.group_version.as_ref()) {
            self.kind(group, version, "Scale");
        }
        let reversed = kind.resource.group.split('.').rev().collect::<Vec<_>>().join(".");
        let object = format!("{reversed}.{}.{}", kind.resource.version, kind.kind);
        let list = format!("{object}List");
        let mut schema = kind.open_api.clone().unwrap_or_else(|| json!({"x-kubernetes-preserve-unknown-fields": true}));
        self.add_members_of_kinds(&mut schema, "ObjectMeta", &kind.kind, kind);
        let mut list_schema = json!({
            "description": format!("{}List is a list of {}", kind.kind, kind.kind),
            "required": ["items"],
            "properties": {"items": {
                "description": "List of objects.",
                "type": "array",
                "items": self.reference(&object, None),
            }},
        });
        self.add_members_of_kinds(&mut list_schema, "ListMeta", &format!("{}List", kind.kind), kind);
        self.done.insert(object.clone(), schema);
        self.done.insert(list.clone(), list_schema);
        KindNames { object, list }
    }

    /// Members that every kind has.
    fn add_members_of_kinds(&self, schema: &mut Value, metadata: &str, kind: &str, of: &Kind) {
        let Some(schema) = schema.as_object_mut() else { return };
        schema.insert("type".to_owned(), "object".into());
        let (group, version) = (&of.resource.group, &of.resource.version);
        let kinds = json!([{"group": group, "version": version, "kind": kind}]);
        schema.insert("x-kubernetes-group-version-kind".to_owned(), kinds);
        let Some(properties) = schema.entry("properties").or_insert_with(|| json!({})).as_object_mut() else { return };
        properties.insert("apiVersion".to_owned(), json!({"type": "string", "description": API_VERSION}));
        properties.insert("kind".to_owned(), json!({"type": "string", "description": KIND}));
        let reference = self.reference(&definition_name(&format!("{META}.{metadata}")), None);
        properties.insert("metadata".to_owned(), reference);
    }

    fn message(&mut self, index: usize, name: &str) -> Value {
        let mut schema = Map::new();
        if let Some(text) = description(name, "") {
            schema.insert("description".to_owned(), text.into());
        }
        schema.insert("type".to_owned(), "object".into());
        let (mut properties, mut required) = (Map::new(), Vec::new());
        for (field_name, field) in Schema::get().message(index).into_iter().flat_map(|message| &message.fields) {
            properties.insert((*field_name).to_owned(), self.field(name, field_name, field));
            if is_required(name, field_name) {
                required.push(Value::from(*field_name));
            }
        }
        if !properties.is_empty() {
            schema.insert("properties".to_owned(), properties.into());
        }
        if !required.is_empty() {
            schema.insert("required".to_owned(), required.into());
        }
        if let Some(kinds) = self.kinds.get(&index) {
            schema.insert("x-kubernetes-group-version-kind".to_owned(), kinds.as_slice().into());
        }
        add_merging(&mut schema, name, "(type)");
        Value::Object(schema)
    }

    fn field(&mut self, definition: &str, name: &str, field: &FieldSchema) -> Value {
        let text = description(definition, name).or_else(|| match name {
            "apiVersion" => Some(API_VERSION.to_owned()),
            "kind" => Some(KIND.to_owned()),
            _ => None,
        });
        let values = enumerations::values(definition, name);
        let text = if field.shape == Shape::One { enumerations::described(text, values) } else { text };
        let mut schema = match field.shape {
            Shape::One => match self.value(field.of, text.as_deref()) {
                Value::Object(schema) => schema,
                _ => Map::new(),
            },
            Shape::List => members(json!({"type": "array", "items": self.value(field.of, None)})),
            Shape::Map => members(json!({"type": "object", "additionalProperties": self.value(field.of, None)})),
        };
        if let Some(text) = text {
            schema.insert("description".to_owned(), text.into());
        }
        enumerations::add(&mut schema, field.shape, values);
        add_merging(&mut schema, definition, name);
        Value::Object(schema)
    }

    fn value(&mut self, of: Type, text: Option<&str>) -> Value {
        match of {
            Type::String => json!({"type": "string"}),
            Type::Int32 => json!({"type": "integer", "format": "int32"}),
            Type::Int64 => json!({"type": "integer", "format": "int64"}),
            Type::Bool => json!({"type": "boolean"}),
            Type::Double => json!({"type": "number", "format": "double"}),
            Type::Bytes => json!({"type": "string", "format": "byte"}),
            Type::Time(_) => json!({"type": "string", "format": "date-time"}),
            Type::Strings => json!({"type": "array", "items": {"type": "string"}}),
            Type::Free => json!({"x-kubernetes-preserve-unknown-fields": true}),
            Type::Quantity => self.reference(QUANTITY, text),
            Type::IntOrString => self.reference(INT_OR_STRING, text),
            Type::Message(index) => {
                self.wanted.insert(index);
                NAMES
                    .definitions
                    .get(&index)
                    .map_or_else(|| json!({"type": "object"}), |name| self.reference(name, text))
            }
        }
    }

    /// A reference. In version 3 nothing may stand beside one: with a description it is wrapped.
    pub(super) fn reference(&self, definition: &str, text: Option<&str>) -> Value {
        match self.dialect {
            Dialect::V2 => json!({"$ref": format!("#/definitions/{definition}")}),
            Dialect::V3 => {
                let reference = json!({"$ref": format!("#/components/schemas/{definition}")});
                if text.is_some() { json!({"allOf": [reference]}) } else { reference }
            }
        }
    }
}

fn members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

fn add_merging(schema: &mut Map<String, Value>, definition: &str, field: &str) {
    let Some(merging) = MERGING.get(&(definition, field)) else { return };
    if let Some((what, of)) = merging.of.split_once('=') {
        schema.insert(format!("x-kubernetes-{what}"), of.into());
    }
    let mut insert = |name: &str, value: Value| schema.insert(format!("x-kubernetes-{name}"), value);
    if !merging.list_map_keys.is_empty() {
        insert("list-map-keys", merging.list_map_keys.split(',').collect());
    }
    if !merging.patch_strategy.is_empty() {
        insert("patch-strategy", merging.patch_strategy.into());
    }
    if !merging.patch_merge_key.is_empty() {
        insert("patch-merge-key", merging.patch_merge_key.into());
    }
}

/// The message that a definition is of.
#[cfg(test)]
pub(super) fn message_of(definition: &str) -> Option<usize> {
    NAMES.definitions.iter().find(|(_, name)| *name == definition).map(|(index, _)| *index)
}
