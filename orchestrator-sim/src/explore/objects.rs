//! What there is in a world at one moment, for properties to look at.

use std::{collections::BTreeMap, fmt};

use orchestrator_core::{client::Resource, controller::Kind, store::Entry};
use serde_json::Value;

use crate::history::Record;

/// Members that differ between two runs of the same meaning.
const INCIDENTAL: [&str; 6] =
    ["uid", "resourceVersion", "managedFields", "generation", "observedGeneration", "selfLink"];

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
    pub(super) fn of(entries: &[Entry]) -> Self {
        let tree = |entry: &Entry| Some((entry.key.to_string(), serde_json::from_slice(&entry.value).ok()?));
        Self { trees: entries.iter().filter_map(tree).collect() }
    }

    pub(super) fn follow(&mut self, record: &Record) {
        let tree = record.value.as_deref().and_then(|value| serde_json::from_slice(value).ok());
        match tree {
            Some(tree) => drop(self.trees.insert(record.key.to_string(), tree)),
            None => drop(self.trees.remove(record.key.as_str())),
        }
    }

    /// All objects of a kind, in order of namespace and name.
    pub fn list<K: Kind>(&self) -> Vec<K> {
        let kind = K::kind(&());
        let api_version = Resource::of::<K>(&()).api_version();
        let trees = self.trees.values().filter(|tree| tree["kind"] == *kind && tree["apiVersion"] == api_version);
        trees.filter_map(|tree| serde_json::from_value(tree.clone()).ok()).collect()
    }

    /// One object, if it is there. What belongs to the cluster has no namespace.
    pub fn get<K: Kind>(&self, namespace: &str, name: &str) -> Option<K> {
        let is_meant = |object: &K| {
            let metadata = object.meta();
            metadata.name.as_deref() == Some(name) && metadata.namespace.as_deref().unwrap_or_default() == namespace
        };
        self.list::<K>().into_iter().find(is_meant)
    }

    /// All objects as trees.
    pub fn trees(&self) -> impl Iterator<Item = &Value> {
        self.trees.values()
    }

    /// What is there without what chance has to do with: drawn names, identities, versions, times. Two runs that end alike
    /// have the same.
    pub(super) fn meaning(&self) -> Vec<String> {
        let names: BTreeMap<String, String> = self
            .trees
            .values()
            .filter_map(|tree| {
                let (drawn, base) = (tree["metadata"]["name"].as_str()?, tree["metadata"]["generateName"].as_str()?);
                Some((drawn.to_owned(), format!("{base}*")))
            })
            .collect();
        let dull = |key: &str| key.starts_with("/registry/events/") || key.starts_with("/registry/leases/");
        let trees = self.trees.iter().filter(|(key, _)| !dull(key));
        let mut meaning: Vec<String> = trees.map(|(_, tree)| without_chance(tree, &names).to_string()).collect();
        meaning.sort_unstable();
        meaning
    }
}

fn without_chance(tree: &Value, names: &BTreeMap<String, String>) -> Value {
    match tree {
        Value::Object(members) => {
            let is_incidental = |name: &str| {
                INCIDENTAL.contains(&name) || name.ends_with("Time") || name.ends_with("Timestamp") || name == "time"
            };
            let kept = members.iter().filter(|(name, _)| !is_incidental(name));
            Value::Object(kept.map(|(name, value)| (name.clone(), without_chance(value, names))).collect())
        }
        Value::Array(items) => items.iter().map(|item| without_chance(item, names)).collect(),
        Value::String(text) => names.get(text).map_or_else(|| tree.clone(), |base| Value::from(base.as_str())),
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
        assert_eq!(meaning("web-1", "a", "x"), meaning("web-2", "b", "x"));
        assert_ne!(meaning("web-1", "a", "x"), meaning("web-1", "a", "y"));
    }
}
