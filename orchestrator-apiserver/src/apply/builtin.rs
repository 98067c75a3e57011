//! The types of the built-in kinds, from the tables of the published API.

use std::{collections::BTreeMap, sync::LazyLock};

use serde_json::{Map, Value};

use super::{
    path::Scalar,
    types::{Atom, ListKey, MapType, Relation, TypeId, TypeRef, Types},
};
use crate::decode::{FieldSchema, Message, Parts, Schema, Shape, Type};

/// Structures that are there even when nothing is in them, because upstream does not keep them behind a pointer: type and
/// member. `spec`, `status` and `metadata` of every kind are, too.
const IN_PLACE: [(&str, &str); 34] = [
    ("v1.Event", "involvedObject"),
    ("v1.Event", "source"),
    ("v1.Event", "regarding"),
    ("v1.Event", "deprecatedSource"),
    ("v1.NodeStatus", "daemonEndpoints"),
    ("v1.NodeStatus", "nodeInfo"),
    ("v1.NodeDaemonEndpoints", "kubeletEndpoint"),
    ("v1.PersistentVolumeClaimSpec", "resources"),
    ("v1.PodTemplate", "template"),
    ("v1.ServiceStatus", "loadBalancer"),
    ("v1.DaemonSetSpec", "template"),
    ("v1.DaemonSetSpec", "updateStrategy"),
    ("v1.DeploymentSpec", "template"),
    ("v1.DeploymentSpec", "strategy"),
    ("v1.ReplicaSetSpec", "template"),
    ("v1.StatefulSetSpec", "template"),
    ("v1.StatefulSetSpec", "updateStrategy"),
    ("v1.HorizontalPodAutoscalerSpec", "scaleTargetRef"),
    ("v2.HorizontalPodAutoscalerSpec", "scaleTargetRef"),
    ("v1.CronJobSpec", "jobTemplate"),
    ("v1.JobSpec", "template"),
    ("v1.FlowSchemaSpec", "priorityLevelConfiguration"),
    ("v1.LimitedPriorityLevelConfiguration", "limitResponse"),
    ("v1.IngressStatus", "loadBalancer"),
    ("v1.NetworkPolicySpec", "podSelector"),
    ("v1.RoleBinding", "roleRef"),
    ("v1.ClusterRoleBinding", "roleRef"),
    ("v1.ResourceClaimSpec", "devices"),
    ("v1.AllocationResult", "devices"),
    ("v1.ResourceSliceSpec", "pool"),
    ("v1.VolumeAttachmentSpec", "source"),
    ("v1.CustomResourceDefinitionSpec", "names"),
    ("v1.CustomResourceDefinitionStatus", "acceptedNames"),
    ("v1.Binding", "target"),
];

static BUILTIN: LazyLock<Builtin> = LazyLock::new(Builtin::load);

/// The type of the objects of a built-in kind.
pub(crate) fn builtin(group: &str, version: &str, kind: &str) -> Option<TypeRef<'static>> {
    let schema = Schema::get();
    let index = schema.kind_index(group, version, kind)?;
    BUILTIN.by_message.get(&index).map(|id| BUILTIN.types.get(*id))
}

/// An empty object of a kind, as upstream shows it: with the structures that are always there, and with the fields that
/// are never left out. Without a structure it is only a kind.
pub(crate) fn empty(api_version: &str, kind: &str, schema: Option<&Message>) -> Value {
    let mut object = schema.map(empty_members).unwrap_or_default();
    object.insert("apiVersion".to_owned(), api_version.into());
    object.insert("kind".to_owned(), kind.into());
    object.insert("metadata".to_owned(), Map::new().into());
    object.into()
}

fn empty_members(message: &Message) -> Map<String, Value> {
    let mut members = Map::new();
    for (name, field) in &message.fields {
        match (field.of, field.shape) {
            (Type::Message(index), Shape::One) if is_in_place(message, name) => {
                let below = Schema::get().message(index).map(empty_members).unwrap_or_default();
                members.insert((*name).to_owned(), below.into());
            }
            _ if !message.always_has(name) => {}
            (of, shape) => drop(members.insert((*name).to_owned(), zero(of, shape))),
        }
    }
    members
}

fn is_in_place(message: &Message, name: &str) -> bool {
    matches!(name, "metadata" | "spec" | "status") || IN_PLACE.contains(&(message.go_name.as_str(), name))
}

/// What Go writes for a field that nobody set.
fn zero(of: Type, shape: Shape) -> Value {
    match (of, shape) {
        (Type::String, Shape::One) => "".into(),
        (Type::Bool, Shape::One) => false.into(),
        (Type::Int32 | Type::Int64 | Type::Double | Type::IntOrString, Shape::One) => 0.into(),
        _ => Value::Null,
    }
}

struct Builtin {
    types: Types,
    by_message: BTreeMap<usize, TypeId>,
}

impl Builtin {
    fn load() -> Self {
        let mut builder = Builder { types: Types::new(), by_message: BTreeMap::new() };
        for (_, index) in Schema::get().names() {
            builder.message(index);
        }
        Self { types: builder.types, by_message: builder.by_message }
    }
}

/// Makes types of the messages of the published API, each once.
#[derive(Debug)]
pub(super) struct Builder {
    pub(super) types: Types,
    by_message: BTreeMap<usize, TypeId>,
}

impl Builder {
    /// The type of all objects' metadata.
    pub(super) fn metadata(types: Types) -> (Types, TypeId) {
        let mut builder = Self { types, by_message: BTreeMap::new() };
        let name = "k8s.io.apimachinery.pkg.apis.meta.v1.ObjectMeta";
        let index = Schema::get().names().find(|(known, _)| *known == name).map(|(_, index)| index);
        let id = index.map_or(Types::UNTYPED, |index| builder.message(index));
        (builder.types, id)
    }

    fn message(&mut self, index: usize) -> TypeId {
        if let Some(id) = self.by_message.get(&index) {
            return *id;
        }
        let id = self.types.add(Atom::default());
        self.by_message.insert(index, id);
        if let Some(message) = Schema::get().message(index) {
            let atom = self.structure(message, message.atomic);
            self.types.replace(id, atom);
        }
        id
    }

    fn structure(&mut self, message: &Message, atomic: bool) -> Atom {
        let mut fields = BTreeMap::new();
        for (name, field) in &message.fields {
            fields.insert((*name).to_owned(), self.field(field));
        }
        // What the tables know nothing of may be anything.
        let others = fields.is_empty().then_some(Types::UNTYPED);
        Atom { map: Some(MapType { atomic, fields, others }), ..Atom::default() }
    }

    fn field(&mut self, field: &FieldSchema) -> TypeId {
        match field.shape {
            Shape::One => match (field.of, &field.parts) {
                (Type::Message(index), Parts::Atomic | Parts::Granular) => {
                    let atomic = field.parts == Parts::Atomic;
                    let atom = Schema::get().message(index).map(|message| self.structure(message, atomic));
                    self.types.add(atom.unwrap_or_default())
                }
                (of, _) => self.one(of),
            },
            Shape::Map => {
                let others = Some(self.one(field.of));
                let atomic = field.parts == Parts::Atomic;
                self.types.add_map(MapType { atomic, fields: BTreeMap::new(), others })
            }
            Shape::List => {
                let items = self.one(field.of);
                let relation = match &field.parts {
                    Parts::Set => Relation::Set,
                    Parts::Keyed(names) => Relation::Keyed(names.iter().map(|name| key(field.of, name)).collect()),
                    Parts::OfType | Parts::Atomic | Parts::Granular => Relation::Atomic,
                };
                self.types.add_list(items, relation)
            }
        }
    }

    fn one(&mut self, of: Type) -> TypeId {
        match of {
            Type::String | Type::Bytes | Type::Time(_) => Types::TEXT,
            Type::Int32 | Type::Int64 | Type::Double => Types::NUMBER,
            Type::Bool => Types::FLAG,
            Type::Quantity | Type::IntOrString => Types::ANY,
            Type::Free => Types::UNTYPED,
            Type::Strings => self.types.add_list(Types::TEXT, Relation::Atomic),
            Type::Message(index) => self.message(index),
        }
    }
}

/// A key with its default: protocols are TCP, and what is never left out is zero.
fn key(of: Type, name: &str) -> ListKey {
    let message = if let Type::Message(index) = of { Schema::get().message(index) } else { None };
    let default = message.and_then(|message| match message.fields.get(name)? {
        _ if name == "protocol" => Some("TCP".into()),
        field if message.always_has(name) => Some(zero(field.of, field.shape)),
        _ => None,
    });
    ListKey { name: name.to_owned(), default: default.and_then(|default: Value| Scalar::of(&default)) }
}
