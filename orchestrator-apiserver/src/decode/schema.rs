//! The schema of the built-in kinds, read from tables of the published API.

use std::{collections::BTreeMap, sync::LazyLock};

use super::TimeForm;
use crate::views::descriptions::is_required;

const FIELDS: &str = include_str!("../../data/protobuf-fields.tsv");
const MERGE_KEYS: &str = include_str!("../../data/merge-keys.tsv");

/// All messages of the API.
#[derive(Debug)]
pub(crate) struct Schema {
    messages: Vec<Message>,
    by_name: BTreeMap<&'static str, usize>,
}

/// One structure.
#[derive(Debug, Default)]
pub(crate) struct Message {
    /// As Go names it: `v1.PodSpec`.
    pub(crate) go_name: String,
    /// As OpenAPI names it: `io.k8s.api.core.v1.PodSpec`.
    pub(crate) definition: String,
    /// By JSON name.
    pub(crate) fields: BTreeMap<&'static str, FieldSchema>,
    /// Server-side apply takes it as one piece.
    pub(crate) atomic: bool,
}

/// One member of a structure.
#[derive(Clone, Debug)]
pub(crate) struct FieldSchema {
    pub(crate) shape: Shape,
    pub(crate) of: Type,
    pub(crate) merge: MergeStrategy,
    pub(crate) parts: Parts,
}

/// What the parts of a member are to server-side apply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Parts {
    /// What the type says; lists are one piece, maps and structures are not.
    #[default]
    OfType,
    /// The member is one piece.
    Atomic,
    /// Each part is for itself, whatever the type says.
    Granular,
    /// Items are for themselves; they are told apart by their value.
    Set,
    /// Items are for themselves; they are told apart by these members.
    Keyed(Vec<&'static str>),
}

/// How many values a member holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    One,
    List,
    Map,
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    String,
    Int32,
    Int64,
    Bool,
    Double,
    Bytes,
    Time(TimeForm),
    Quantity,
    IntOrString,
    /// A list of strings that has a message of its own.
    Strings,
    /// Any JSON.
    Free,
    /// Index of a message.
    Message(usize),
}

/// What a strategic merge patch does with a member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MergeStrategy {
    /// Lists are merged, not replaced.
    pub(crate) merge: bool,
    /// Members that the patch does not name go away: `retainKeys`.
    pub(crate) retain_keys: bool,
    /// What identifies an item; empty for lists of plain values.
    pub(crate) key: &'static str,
}

/// Fields that are optional and yet never left out.
const ALWAYS: [(&str, &str); 10] = [
    ("v1.PriorityClass", "value"),
    ("v1.Event", "reportingComponent"),
    ("v1.Event", "reportingInstance"),
    ("v1.Role", "rules"),
    ("v1.ClusterRole", "rules"),
    ("v1.EndpointSlice", "endpoints"),
    ("v1.EndpointSlice", "ports"),
    ("v1.ProjectedVolumeSource", "sources"),
    ("v1.DeviceClaim", "requests"),
    ("v2.HorizontalPodAutoscalerStatus", "currentMetrics"),
];

impl Message {
    /// Whether upstream writes a member even when there is nothing in it.
    pub(crate) fn always_has(&self, member: &str) -> bool {
        is_required(&self.definition, member) || ALWAYS.contains(&(self.go_name.as_str(), member))
    }
}

static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::load);

impl Schema {
    /// The one schema; it is made of constants.
    pub(crate) fn get() -> &'static Self {
        &SCHEMA
    }

    /// The message of a built-in kind.
    pub(crate) fn kind(&self, group: &str, version: &str, kind: &str) -> Option<&Message> {
        self.messages.get(self.kind_index(group, version, kind)?)
    }

    /// The index of the message of a built-in kind.
    pub(crate) fn kind_index(&self, group: &str, version: &str, kind: &str) -> Option<usize> {
        let short = group.split('.').next().filter(|group| !group.is_empty()).unwrap_or("core");
        let suffix = format!(".{short}.{version}.{kind}");
        self.by_name.iter().find(|(name, _)| name.ends_with(&suffix)).map(|(_, index)| *index)
    }

    /// All messages by their full name, such as `k8s.io.api.core.v1.Pod`, with their index.
    pub(crate) fn names(&self) -> impl Iterator<Item = (&'static str, usize)> {
        self.by_name.iter().map(|(name, index)| (*name, *index))
    }

    pub(crate) fn message(&self, index: usize) -> Option<&Message> {
        self.messages.get(index)
    }

    fn load() -> Self {
        let mut schema = Self { messages: Vec::new(), by_name: BTreeMap::new() };
        let rows: Vec<Row> = FIELDS.lines().filter_map(Row::parse).collect();
        for row in &rows {
            schema.intern(row.message());
        }
        let mut inline = Vec::new();
        for row in &rows {
            let owner = schema.intern(row.message());
            if row.json == "inline" {
                inline.push((owner, schema.intern(row.qualified(row.of))));
                continue;
            }
            let field = schema.field(row);
            if let Some(message) = schema.messages.get_mut(owner) {
                message.fields.insert(row.json_name(), field);
            }
        }
        // The innermost come last in the table.
        for (owner, embedded) in inline.into_iter().rev() {
            let fields = schema.messages.get(embedded).map(|message| message.fields.clone()).unwrap_or_default();
            if let Some(message) = schema.messages.get_mut(owner) {
                message.fields.extend(fields);
            }
        }
        schema.load_merge_strategies();
        // `apiVersion` and `kind` are in no message, but on every object.
        for message in &mut schema.messages {
            if message.fields.contains_key("metadata") {
                for name in ["apiVersion", "kind"] {
                    let field = FieldSchema {
                        shape: Shape::One,
                        of: Type::String,
                        merge: MergeStrategy::default(),
                        parts: Parts::default(),
                    };
                    message.fields.insert(name, field);
                }
            }
        }
        schema
    }

    fn intern(&mut self, name: String) -> usize {
        if let Some(index) = self.by_name.get(name.as_str()) {
            return *index;
        }
        let index = self.messages.len();
        let go_name = name.rsplitn(3, '.').take(2).collect::<Vec<_>>();
        let go_name = go_name.iter().rev().copied().collect::<Vec<_>>().join(".");
        let definition = definition_name(&name);
        self.messages.push(Message { go_name, definition, ..Message::default() });
        self.by_name.insert(Box::leak(name.into_boxed_str()), index);
        index
    }

    fn field(&mut self, row: &Row) -> FieldSchema {
        let (shape, of) = match row.label {
            "repeated" => (Shape::List, row.of),
            "map" => (Shape::Map, row.of.split_once(',').map_or(row.of, |(_, of)| of)),
            _ => (Shape::One, row.of),
        };
        FieldSchema { shape, of: self.type_of(row, of), merge: MergeStrategy::default(), parts: Parts::default() }
    }

    fn type_of(&mut self, row: &Row, of: &str) -> Type {
        match of {
            "string" => return Type::String,
            "int32" => return Type::Int32,
            "int64" | "uint32" | "uint64" => return Type::Int64,
            "bool" => return Type::Bool,
            "double" | "float" => return Type::Double,
            "bytes" => return Type::Bytes,
            _ => {}
        }
        match of.rsplit('.').next().unwrap_or(of) {
            "Time" => Type::Time(TimeForm::Seconds),
            "MicroTime" => Type::Time(TimeForm::Micros),
            "Quantity" => Type::Quantity,
            "IntOrString" => Type::IntOrString,
            "ExtraValue" | "Verbs" => Type::Strings,
            "RawExtension" | "FieldsV1" | "JSON" | "Duration" => Type::Free,
            "JSONSchemaPropsOrBool" | "JSONSchemaPropsOrArray" | "JSONSchemaPropsOrStringArray" => Type::Free,
            _ => Type::Message(self.intern(row.qualified(of))),
        }
    }

    fn load_merge_strategies(&mut self) {
        for line in MERGE_KEYS.lines().filter(|line| !line.starts_with('#')) {
            let columns: Vec<&'static str> = line.split('\t').collect();
            let [definition, field, of, keys, strategy, key] = columns[..] else { continue };
            let name = definition.strip_prefix("io.k8s.").unwrap_or(definition).replace('-', "_");
            let Some(index) = self.by_name.get(format!("k8s.io.{name}").as_str()) else { continue };
            let Some(message) = self.messages.get_mut(*index) else { continue };
            if field == "(type)" {
                message.atomic = of == "map-type=atomic";
            } else if let Some(field) = message.fields.get_mut(field) {
                field.merge = MergeStrategy {
                    merge: strategy.split(',').any(|part| part == "merge"),
                    retain_keys: strategy.split(',').any(|part| part == "retainKeys"),
                    key,
                };
                field.parts = parts(of, keys, &field.merge);
            }
        }
    }
}

/// What says nothing for server-side apply goes by what it says for strategic merges.
fn parts(of: &str, keys: &'static str, merge: &MergeStrategy) -> Parts {
    match of {
        "list-type=atomic" | "map-type=atomic" => Parts::Atomic,
        "map-type=granular" => Parts::Granular,
        "list-type=set" => Parts::Set,
        "list-type=map" => Parts::Keyed(keys.split(',').collect()),
        _ if merge.merge && merge.key.is_empty() => Parts::Set,
        _ if merge.merge => Parts::Keyed(vec![merge.key]),
        _ => Parts::OfType,
    }
}

/// `k8s.io.api.core.v1.Pod` to `io.k8s.api.core.v1.Pod`.
pub(crate) fn definition_name(message: &str) -> String {
    let name = message.strip_prefix("k8s.io.").unwrap_or(message);
    // Two packages have a dash that their messages cannot have.
    let name = name.replace("kube_aggregator", "kube-aggregator").replace("apiextensions_api", "apiextensions-api");
    format!("io.k8s.{name}")
}

struct Row {
    package: &'static str,
    name: &'static str,
    field: &'static str,
    label: &'static str,
    of: &'static str,
    json: &'static str,
}

impl Row {
    fn parse(line: &'static str) -> Option<Self> {
        if line.starts_with('#') {
            return None;
        }
        let mut columns = line.split('\t');
        let (package, name) = (columns.next()?, columns.next()?);
        let (field, label, of) = (columns.nth(1)?, columns.next()?, columns.next()?);
        Some(Self { package, name, field, label, of, json: columns.next().unwrap_or_default() })
    }

    fn message(&self) -> String {
        format!("{}.{}", self.package, self.name)
    }

    fn json_name(&self) -> &'static str {
        if self.json.is_empty() { self.field } else { self.json }
    }

    fn qualified(&self, of: &str) -> String {
        if of.contains('.') { of.to_owned() } else { format!("{}.{of}", self.package) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pod_is_known_to_the_last_field() {
        let schema = Schema::get();
        let pod = schema.kind("", "v1", "Pod").unwrap();
        let Type::Message(spec) = pod.fields["spec"].of else { panic!("not a message") };
        let containers = &schema.message(spec).unwrap().fields["containers"];
        assert_eq!(containers.shape, Shape::List);
        assert_eq!(containers.merge, MergeStrategy { merge: true, retain_keys: false, key: "name" });
        assert!(schema.message(spec).unwrap().fields["volumes"].merge.retain_keys);
    }

    #[test]
    fn inlined_members_stand_in_their_parent() {
        let schema = Schema::get();
        let pod = schema.kind("", "v1", "Pod").unwrap();
        let Type::Message(spec) = pod.fields["spec"].of else { panic!("not a message") };
        let Type::Message(volume) = schema.message(spec).unwrap().fields["volumes"].of else { panic!("not a message") };
        assert!(schema.message(volume).unwrap().fields.contains_key("emptyDir"));
    }
}
