//! The types of custom kinds, from their OpenAPI schemas.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    builtin::Builder,
    path::Scalar,
    types::{ListKey, MapType, Relation, TypeId, Types},
};

/// The types of a custom kind, and which is that of its objects. Without a schema objects are taken as they look.
pub(crate) fn custom(schema: Option<&Value>) -> (Types, TypeId) {
    let (types, metadata) = Builder::metadata(Types::new());
    let mut reader = Reader { types, metadata };
    let object = match schema {
        Some(schema) => reader.object(schema),
        None => MapType { others: Some(Types::DEDUCED), ..MapType::default() },
    };
    let root = reader.root(object);
    (reader.types, root)
}

struct Reader {
    types: Types,
    metadata: TypeId,
}

impl Reader {
    /// Every object has a kind and metadata, whatever its schema says.
    fn root(&mut self, mut object: MapType) -> TypeId {
        object.atomic = false;
        for (name, id) in [("apiVersion", Types::TEXT), ("kind", Types::TEXT), ("metadata", self.metadata)] {
            object.fields.insert(name.to_owned(), id);
        }
        self.types.add_map(object)
    }

    fn value(&mut self, schema: &Value) -> TypeId {
        if flag(schema, "x-kubernetes-int-or-string") {
            return Types::ANY;
        }
        match schema["type"].as_str() {
            Some("string") => Types::TEXT,
            Some("integer" | "number") => Types::NUMBER,
            Some("boolean") => Types::FLAG,
            Some("array") => self.list(schema),
            Some("object") if flag(schema, "x-kubernetes-embedded-resource") => {
                let object = self.object(schema);
                self.root(object)
            }
            Some("object") => {
                let object = self.object(schema);
                if object.fields.is_empty() && object.others.is_none() {
                    return Types::UNTYPED;
                }
                if object.fields.is_empty() && object.others == Some(Types::DEDUCED) && !object.atomic {
                    return Types::DEDUCED;
                }
                self.types.add_map(object)
            }
            _ if flag(schema, "x-kubernetes-preserve-unknown-fields") => Types::DEDUCED,
            _ => Types::UNTYPED,
        }
    }

    fn object(&mut self, schema: &Value) -> MapType {
        let mut fields = BTreeMap::new();
        for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
            fields.insert(name.clone(), self.value(schema));
        }
        let others = match &schema["additionalProperties"] {
            additional @ Value::Object(_) => Some(self.value(additional)),
            Value::Bool(true) => Some(Types::DEDUCED),
            _ if flag(schema, "x-kubernetes-preserve-unknown-fields") => Some(Types::DEDUCED),
            _ => None,
        };
        MapType { atomic: schema["x-kubernetes-map-type"] == "atomic", fields, others }
    }

    fn list(&mut self, schema: &Value) -> TypeId {
        let item_schema = &schema["items"];
        let items = self.value(item_schema);
        let relation = match schema["x-kubernetes-list-type"].as_str() {
            Some("set") => Relation::Set,
            Some("map") => {
                let names = schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
                let key = |name: &str| ListKey {
                    name: name.to_owned(),
                    default: Scalar::of(&item_schema["properties"][name]["default"]),
                };
                Relation::Keyed(names.filter_map(Value::as_str).map(key).collect())
            }
            _ => Relation::Atomic,
        };
        self.types.add_list(items, relation)
    }
}

fn flag(schema: &Value, name: &str) -> bool {
    schema[name].as_bool() == Some(true)
}
