//! Tests of server-side apply: laws, upstream's documented behaviour, and the kinds of the API.

mod documented;
mod kinds;
mod laws;
mod sets;

use std::borrow::Cow;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    FieldSet, TypeId, TypeRef, Types, Updater, Versions, custom,
    tracker::{ApplyError, Tracker},
};

/// A kind of one version, and what a test needs to write its objects.
struct Kind {
    types: Types,
    root: TypeId,
    api_version: &'static str,
    name: String,
    ignored: FieldSet,
    schema_is_fixed: bool,
    empty: Value,
}

impl Kind {
    fn custom(schema: Option<&Value>) -> Self {
        let (types, root) = custom(schema);
        let empty = json!({"apiVersion": "a.example/v1", "kind": "Thing", "metadata": {}});
        let ignored = FieldSet::of_fields(&["status"]);
        Self {
            types,
            root,
            api_version: "a.example/v1",
            name: "a.example/v1, Kind=Thing".to_owned(),
            ignored,
            schema_is_fixed: true,
            empty,
        }
    }

    /// A kind with a list of each sort.
    fn thing() -> Self {
        Self::custom(Some(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "count": {"type": "integer"},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "items": {
                    "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name", "side"],
                    "items": {"type": "object", "properties": {
                        "name": {"type": "string"}, "side": {"type": "string", "default": "left"},
                        "value": {"type": "integer"}, "tags": {"type": "array", "items": {"type": "string"}},
                    }},
                },
                "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "properties": {
                    "a": {"type": "string"}, "b": {"type": "string"},
                }},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            }},
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }})))
    }

    fn of(&self) -> TypeRef<'_> {
        self.types.get(self.root)
    }

    fn tracked<T>(&self, now: &str, write: impl FnOnce(&Tracker<'_>) -> T) -> T {
        let updater = Updater { versions: self, api_version: self.api_version, of: self.of(), ignored: &self.ignored };
        write(&Tracker {
            updater,
            kind: &self.name,
            subresource: "",
            now: Some(now),
            schema_is_fixed: self.schema_is_fixed,
            empty: &self.empty,
        })
    }

    fn apply(&self, live: Option<&Value>, applied: &Value, manager: &str, force: bool) -> Result<Value, ApplyError> {
        self.tracked("2026-01-01T00:00:00Z", |tracker| tracker.apply(live, applied, manager, force))
    }

    fn update(&self, live: Option<&Value>, new: &Value, manager: &str) -> Value {
        let mut new = new.clone();
        self.tracked("2026-01-02T00:00:00Z", |tracker| tracker.update(live, &mut new, manager));
        new
    }

    /// An object of the kind with a `spec`.
    fn object(&self, spec: &Value) -> Value {
        let mut object = self.empty.clone();
        object["metadata"]["name"] = "x".into();
        object["spec"] = spec.clone();
        object
    }
}

impl Versions for Kind {
    fn type_of(&self, api_version: &str) -> Option<TypeRef<'_>> {
        (api_version == self.api_version).then(|| self.of())
    }

    fn convert<'v>(&self, object: &'v Value, _api_version: &str) -> Cow<'v, Value> {
        Cow::Borrowed(object)
    }
}

/// The entry of a manager.
fn entry<'v>(object: &'v Value, manager: &str) -> Option<&'v Value> {
    let entries = object["metadata"]["managedFields"].as_array()?;
    entries.iter().find(|entry| entry["manager"] == manager)
}

/// The fields of a manager.
fn fields(object: &Value, manager: &str) -> Value {
    entry(object, manager).map(|entry| entry["fieldsV1"].clone()).unwrap_or_default()
}

/// Valid values of [`Kind::thing`].
fn specs() -> impl Strategy<Value = Value> {
    let text = || prop::sample::select(vec!["a", "b", "c", "d"]);
    let labels = prop::collection::btree_map(text(), text(), 0..3).prop_map(|map| json!(map));
    let item = (text(), prop::option::of(prop::sample::select(vec!["left", "right"])), 0..3_i64, 0..3_usize);
    let item = item.prop_map(|(name, side, value, tags)| {
        let mut item = json!({"name": name, "value": value, "tags": vec!["t"; tags]});
        if let Some(side) = side {
            item["side"] = side.into();
        }
        item
    });
    let items = prop::collection::vec(item, 0..4).prop_map(|mut items| {
        let key = |item: &Value| (item["name"].clone().to_string(), item["side"].as_str().unwrap_or("left").to_owned());
        let mut seen = std::collections::BTreeSet::new();
        items.retain(|item| seen.insert(key(item)));
        json!(items)
    });
    let set = prop::sample::subsequence(vec!["a", "b", "c", "d"], 0..4).prop_shuffle().prop_map(|set| json!(set));
    let whole = (prop::option::of(text()), text()).prop_map(|(a, b)| match a {
        Some(a) => json!({"a": a, "b": b}),
        None => json!({ "b": b }),
    });
    let free = (prop::option::of(text()), prop::option::of(labels.clone())).prop_map(|(plain, map)| {
        let members = [("plain", plain.map(Value::from)), ("map", map)];
        let members = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Value::Object(members.collect())
    });
    let members = (0..3_i64).prop_map(Value::from);
    let member = |value: BoxedStrategy<Value>| prop::option::of(value);
    (
        member(members.boxed()),
        member(labels.boxed()),
        member(items.boxed()),
        member(set.boxed()),
        member(whole.boxed()),
        member(free.boxed()),
    )
        .prop_map(|(count, labels, items, set, whole, free)| {
            let names = ["count", "labels", "items", "set", "whole", "free"];
            let values = [count, labels, items, set, whole, free];
            let members = names.into_iter().zip(values).filter_map(|(name, value)| Some((name.to_owned(), value?)));
            Value::Object(members.collect())
        })
}

/// Any JSON, with members that mean something to the types in these tests.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-c.:\"]{0,3}".prop_map(Value::from),
    ];
    let name = prop_oneof![
        prop::sample::select(vec![
            "spec",
            "metadata",
            "managedFields",
            "items",
            "set",
            "name",
            "labels",
            "free",
            "whole",
            "containers",
            "ports",
            "template",
            "fieldsV1",
            "f:spec",
            "k:{\"name\":\"a\"}",
            ".",
        ])
        .prop_map(str::to_owned),
        "[a-c]{0,2}",
    ];
    leaf.prop_recursive(6, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(name.clone(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}
