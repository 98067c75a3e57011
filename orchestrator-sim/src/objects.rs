//! What there is in a world at one moment, for properties and assertions to look at.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use orchestrator_core::{client::Resource, controller::Kind, store::Entry};
use serde_json::Value;

use crate::history::Record;

/// Members that differ between two runs of the same meaning.
const INCIDENTAL: [&str; 7] = [
    "uid",
    "resourceVersion",
    "managedFields",
    "generation",
    "observedGeneration",
    "selfLink",
    "endpoints.kubernetes.io/last-change-trigger-time",
];

/// The rest of this name is drawn by the server.
const TOKEN_VOLUME: &str = "kube-api-access-";

/// All objects of a world.
#[derive(Clone, Default)]
pub struct Objects {
    trees: BTreeMap<String, Value>,
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.trees.keys()).finish()
    }
}

impl Objects {
    pub(crate) fn of(entries: &[Entry]) -> Self {
        let tree = |entry: &Entry| Some((entry.key.to_string(), serde_json::from_slice(&entry.value).ok()?));
        Self { trees: entries.iter().filter_map(tree).collect() }
    }

    pub(crate) fn follow(&mut self, record: &Record) {
        let tree = record.value.as_deref().and_then(|value| serde_json::from_slice(value).ok());
        match tree {
            Some(tree) => drop(self.trees.insert(record.key.to_string(), tree)),
            None => drop(self.trees.remove(record.key.as_str())),
        }
    }

    /// All objects of a kind, in order of namespace and name.
    pub fn list<K: Kind>(&self) -> Vec<K> {
        self.of_kind::<K>().filter_map(|tree| K::deserialize(tree).ok()).collect()
    }

    /// One object, if it is there. What belongs to the cluster has no namespace.
    pub fn get<K: Kind>(&self, namespace: &str, name: &str) -> Option<K> {
        let is_meant = |tree: &&Value| {
            let metadata = &tree["metadata"];
            metadata["name"] == name && metadata["namespace"].as_str().unwrap_or_default() == namespace
        };
        self.of_kind::<K>().find(is_meant).and_then(|tree| K::deserialize(tree).ok())
    }

    fn of_kind<K: Kind>(&self) -> impl Iterator<Item = &Value> {
        let kind = K::kind(&());
        let api_version = Resource::of::<K>(&()).api_version();
        self.trees.values().filter(move |tree| tree["kind"] == *kind && tree["apiVersion"] == api_version)
    }

    /// All objects as trees.
    pub fn trees(&self) -> impl Iterator<Item = &Value> {
        self.trees.values()
    }

    /// What is there without what chance has to do with, by kind and name. Two runs that end alike have the same.
    pub(crate) fn meaning(&self) -> Meaning {
        let text = |tree: &Value, name: &str| tree["metadata"][name].as_str().map(str::to_owned);
        let mut drawn = BTreeMap::new();
        for tree in self.trees.values() {
            let (name, base) = (text(tree, "name"), text(tree, "generateName"));
            let shown = base.map(|base| format!("{base}*")).or_else(|| name.clone());
            let (Some(name), Some(shown)) = (name, shown) else { continue };
            drawn.extend(text(tree, "uid").map(|uid| (uid, format!("uid of {shown}"))));
            if shown != name {
                drawn.insert(name, shown);
            }
        }
        let dull = |key: &str| key.starts_with("/registry/events/") || key.starts_with("/registry/leases/");
        let mut meaning = Meaning::new();
        for (_, tree) in self.trees.iter().filter(|(key, _)| !dull(key)) {
            let tree = without_chance(tree, &drawn);
            let namespace = tree["metadata"]["namespace"].as_str().unwrap_or_default();
            let id = format!("{} {namespace}/{}", tree["kind"], tree["metadata"]["name"]).replace('"', "");
            meaning.entry(id).or_default().push(tree);
        }
        for alike in meaning.values_mut() {
            alike.sort_by_cached_key(Value::to_string);
        }
        meaning
    }
}

/// Objects by kind and name; those whose names were drawn stand together.
pub(crate) type Meaning = BTreeMap<String, Vec<Value>>;

/// The first difference between two ends, in words.
pub(crate) fn difference(expected: &Meaning, found: &Meaning) -> Option<String> {
    for (id, trees) in expected {
        let others = found.get(id).map(Vec::as_slice).unwrap_or_default();
        if trees.len() != others.len() {
            return Some(format!("{id} is there {} times, not {}", others.len(), trees.len()));
        }
        let parts = trees.iter().zip(others).find_map(|(tree, other)| part(tree, other, String::new()));
        if let Some(part) = parts {
            return Some(format!("{id} {part}"));
        }
    }
    found.keys().find(|id| !expected.contains_key(*id)).map(|id| format!("{id} is there"))
}

/// Where two trees part, and what each has there.
fn part(expected: &Value, found: &Value, place: String) -> Option<String> {
    match (expected, found) {
        (Value::Object(one), Value::Object(other)) => {
            let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            let member = |members: &serde_json::Map<String, Value>, name: &String| members.get(name).cloned();
            names.into_iter().find_map(|name| {
                let (one, other) = (member(one, name).unwrap_or_default(), member(other, name).unwrap_or_default());
                part(&one, &other, format!("{place}.{name}"))
            })
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            let pairs = one.iter().zip(other).enumerate();
            pairs.into_iter().find_map(|(index, (one, other))| part(one, other, format!("{place}[{index}]")))
        }
        _ => (expected != found).then(|| format!("has {found} at {place}, not {expected}")),
    }
}

fn without_chance(tree: &Value, drawn: &BTreeMap<String, String>) -> Value {
    match tree {
        Value::Object(members) => {
            let is_incidental = |name: &str| {
                INCIDENTAL.contains(&name) || name.ends_with("Time") || name.ends_with("Timestamp") || name == "time"
            };
            // Annotations that are no more than times are as good as none.
            let is_dull = |name: &str, value: &Value| {
                let annotations = value.as_object().filter(|_| name == "annotations");
                annotations.is_some_and(|annotations| annotations.keys().all(|name| is_incidental(name)))
            };
            let kept = members.iter().filter(|(name, value)| !is_incidental(name) && !is_dull(name, value));
            let cleaned = kept.map(|(name, value)| {
                let mut value = without_chance(value, drawn);
                // They come in the order in which they first held.
                if let (true, Value::Array(conditions)) = (name == "conditions", &mut value) {
                    conditions.sort_by_cached_key(Value::to_string);
                }
                (name.clone(), value)
            });
            Value::Object(cleaned.collect())
        }
        Value::Array(items) => items.iter().map(|item| without_chance(item, drawn)).collect(),
        Value::String(text) if text.starts_with(TOKEN_VOLUME) => format!("{TOKEN_VOLUME}*").into(),
        Value::String(text) => drawn.get(text).map_or_else(|| tree.clone(), |shown| Value::from(shown.as_str())),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    use super::*;

    fn objects(trees: &[Value]) -> Objects {
        let keyed = trees.iter().enumerate().map(|(index, tree)| (format!("/registry/{index}"), tree.clone()));
        Objects { trees: keyed.collect() }
    }

    #[test]
    fn objects_are_found_by_kind_and_name() {
        let map =
            |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "n"}});
        let objects =
            objects(&[map("a"), map("b"), json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}})]);
        assert_eq!(objects.list::<ConfigMap>().len(), 2);
        assert!(objects.get::<ConfigMap>("n", "b").is_some());
        assert!(objects.get::<ConfigMap>("m", "b").is_none());
    }

    #[test]
    fn chance_has_no_meaning() {
        let pod = |name: &str, uid: &str, image: &str| {
            json!({
                "metadata": {"name": name, "generateName": "web-", "uid": uid, "creationTimestamp": uid},
                "spec": {"hostname": name, "image": image},
            })
        };
        let meaning = |name, uid, image| objects(&[pod(name, uid, image)]).meaning();
        assert_eq!(difference(&meaning("web-1", "a", "x"), &meaning("web-2", "b", "x")), None);
        let changed = difference(&meaning("web-1", "a", "x"), &meaning("web-1", "a", "y")).unwrap();
        assert_eq!(changed, "null /web-* has \"y\" at .spec.image, not \"x\"");
        let gone = difference(&meaning("web-1", "a", "x"), &Meaning::new()).unwrap();
        assert_eq!(gone, "null /web-* is there 0 times, not 1");
    }
}
