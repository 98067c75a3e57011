//! What a fake API server keeps, and its rules for metadata.

use std::collections::BTreeMap;

use orchestrator_core::{
    client::{DeleteOptions, ListOptions, PatchBody, Propagation, Reply, Resource, WatchEvent},
    env::Env,
    object::{self, Object, ObjectKey},
    status::{ApiError, ApiResult, Reason, Subject},
};
use serde_json::{Map, Value, json};

#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) revision: u64,
    pub(super) objects: BTreeMap<(Resource, ObjectKey), Object>,
    pub(super) history: Vec<Change>,
    /// Rises when all watches are to end.
    pub(super) epoch: u64,
    /// Watches from before this revision are refused.
    pub(super) compacted: u64,
    pub(super) pages: BTreeMap<String, (Vec<Object>, u64)>,
    pub(super) failures: u32,
    pub(super) requests: Vec<String>,
}

#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) revision: u64,
    pub(super) resource: Resource,
    pub(super) event: WatchEvent,
    pub(super) namespace: String,
}

/// A place in the server.
pub(super) struct At {
    pub(super) resource: Resource,
    pub(super) key: ObjectKey,
}

impl At {
    fn subject(&self) -> Subject<'_> {
        Subject { group: &self.resource.group, resource: &self.resource.plural, name: &self.key.name }
    }
}

impl World {
    pub(super) fn get(&self, at: &At) -> ApiResult<Object> {
        let found = self.objects.get(&(at.resource.clone(), at.key.clone()));
        found.cloned().ok_or_else(|| ApiError::not_found(at.subject()))
    }

    pub(super) fn keys(&self, resource: &Resource, namespace: Option<&str>) -> Vec<ObjectKey> {
        let selected = |key: &&(Resource, ObjectKey)| {
            key.0 == *resource && namespace.is_none_or(|namespace| namespace == key.1.namespace)
        };
        self.objects.keys().filter(selected).map(|(_, key)| key.clone()).collect()
    }

    pub(super) fn list(
        &mut self,
        resource: &Resource,
        namespace: Option<&str>,
        options: ListOptions,
    ) -> ApiResult<Reply> {
        let (mut items, revision) = match &options.continue_token {
            Some(token) => self.pages.remove(token).ok_or_else(|| ApiError::expired("the page is gone"))?,
            None => {
                let keys = self.keys(resource, namespace);
                let items = keys.into_iter().filter_map(|key| self.objects.get(&(resource.clone(), key)).cloned());
                (items.collect(), self.revision)
            }
        };
        let rest = options.limit.filter(|limit| *limit < items.len()).map(|limit| items.split_off(limit));
        let continue_token = rest.map(|rest| {
            let token = format!("{revision}-{}", self.pages.len());
            self.pages.insert(token.clone(), (rest, revision));
            token
        });
        Ok(Reply::List { items, resource_version: revision.to_string(), continue_token, remaining: None })
    }

    pub(super) fn create(&mut self, env: &Env, mut at: At, object: &Object) -> ApiResult<Object> {
        let mut tree = object.to_tree()?;
        if !at.key.name.is_empty() {
            // A subresource such as `binding` or `token` changes nothing here.
            return Ok(object.clone());
        }
        let metadata = metadata_of(&mut tree);
        if let Some(prefix) = metadata.get("generateName").and_then(Value::as_str)
            && metadata.get("name").is_none()
        {
            let name = format!("{prefix}{}", env.name_suffix(5));
            metadata.insert("name".to_owned(), name.into());
        }
        at.key.name = metadata.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        if self.objects.contains_key(&(at.resource.clone(), at.key.clone())) {
            return Err(ApiError::already_exists(at.subject()));
        }
        if !at.key.namespace.is_empty() {
            metadata.insert("namespace".to_owned(), at.key.namespace.clone().into());
        }
        metadata.insert("uid".to_owned(), env.uid().into());
        metadata.insert("generation".to_owned(), 1.into());
        metadata.insert("creationTimestamp".to_owned(), time(env));
        if at.resource.plural == "namespaces" {
            tree["spec"] = json!({"finalizers": ["kubernetes"]});
            tree["status"] = json!({"phase": "Active"});
        }
        Ok(self.store(at, tree, WatchEvent::Added))
    }

    pub(super) fn patch(&mut self, at: &At, part: Option<&str>, patch: PatchBody) -> ApiResult<Object> {
        let patch = match patch {
            PatchBody::Merge(patch) | PatchBody::Strategic(patch) | PatchBody::Apply(patch) => patch,
            PatchBody::Json(_) => return Err(ApiError::new(Reason::UnsupportedMediaType, "no JSON patches here")),
        };
        let mut tree = self.get(at)?.to_tree()?;
        merge(&mut tree, patch);
        self.replace(at, part, tree)
    }

    pub(super) fn replace(&mut self, at: &At, part: Option<&str>, mut tree: Value) -> ApiResult<Object> {
        let old = self.get(at)?.to_tree()?;
        let asked = tree["metadata"].get("resourceVersion").filter(|version| **version != json!(""));
        if asked.is_some_and(|version| *version != old["metadata"]["resourceVersion"]) {
            return Err(ApiError::stale(at.subject()));
        }
        if tree["metadata"].get("uid").is_some_and(|uid| *uid != old["metadata"]["uid"]) {
            return Err(ApiError::conflict(at.subject(), "the UID in the precondition does not match"));
        }
        let mut new = old.clone();
        match part {
            Some("status") => {
                new["status"] = tree["status"].take();
                for field in ["annotations", "labels"] {
                    set(metadata_of(&mut new), field, tree["metadata"].get(field).cloned());
                }
            }
            Some("finalize") => new["spec"]["finalizers"] = tree["spec"]["finalizers"].take(),
            _ => {
                let status = old.get("status").cloned();
                new = tree;
                for field in ["uid", "generation", "creationTimestamp", "deletionTimestamp", "resourceVersion"] {
                    set(metadata_of(&mut new), field, old["metadata"].get(field).cloned());
                }
                if let Some(members) = new.as_object_mut() {
                    set(members, "status", status);
                }
            }
        }
        if new.get("spec") != old.get("spec") {
            let generation = old["metadata"]["generation"].as_i64().unwrap_or_default() + 1;
            metadata_of(&mut new).insert("generation".to_owned(), generation.into());
        }
        if new == old {
            return self.get(at);
        }
        let at = At { resource: at.resource.clone(), key: at.key.clone() };
        if is_done(&new) {
            return Ok(self.remove(at, new));
        }
        Ok(self.store(at, new, WatchEvent::Modified))
    }

    pub(super) fn delete(&mut self, env: &Env, at: &At, options: &DeleteOptions) -> ApiResult<Object> {
        let mut tree = self.get(at)?.to_tree()?;
        let wanted = options.preconditions.clone().unwrap_or_default();
        for (field, wanted) in [("uid", wanted.uid), ("resourceVersion", wanted.resource_version)] {
            if wanted.is_some_and(|wanted| tree["metadata"][field] != json!(wanted)) {
                let why = "the precondition does not match";
                return Err(ApiError::conflict(at.subject(), why));
            }
        }
        let metadata = metadata_of(&mut tree);
        let wanted = match options.propagation {
            Some(Propagation::Orphan) => Some("orphan"),
            Some(Propagation::Foreground) => Some("foregroundDeletion"),
            _ => None,
        };
        let mut finalizers = metadata.get("finalizers").and_then(Value::as_array).cloned().unwrap_or_default();
        finalizers.retain(|known| !["orphan", "foregroundDeletion"].contains(&known.as_str().unwrap_or_default()));
        finalizers.extend(wanted.map(Value::from));
        let finalizers =
            Some(Value::from(finalizers)).filter(|list| list.as_array().is_some_and(|list| !list.is_empty()));
        set(metadata, "finalizers", finalizers);
        if !metadata.contains_key("deletionTimestamp") {
            metadata.insert("deletionTimestamp".to_owned(), time(env));
            metadata.insert("deletionGracePeriodSeconds".to_owned(), 0.into());
        }
        if at.resource.plural == "namespaces" {
            tree["status"]["phase"] = "Terminating".into();
        }
        let place = At { resource: at.resource.clone(), key: at.key.clone() };
        if is_done(&tree) {
            return Ok(self.remove(place, tree));
        }
        if self.get(at)?.to_tree()? == tree {
            return self.get(at);
        }
        Ok(self.store(place, tree, WatchEvent::Modified))
    }

    fn store(&mut self, at: At, tree: Value, event: fn(Object) -> WatchEvent) -> Object {
        let object = self.record(&at, tree, event);
        self.objects.insert((at.resource, at.key), object.clone());
        object
    }

    fn remove(&mut self, at: At, tree: Value) -> Object {
        let object = self.record(&at, tree, WatchEvent::Deleted);
        self.objects.remove(&(at.resource, at.key));
        object
    }

    fn record(&mut self, at: &At, mut tree: Value, event: fn(Object) -> WatchEvent) -> Object {
        self.revision += 1;
        let revision = self.revision;
        metadata_of(&mut tree).insert("resourceVersion".to_owned(), revision.to_string().into());
        let object = Object::from_tree(tree);
        let (resource, namespace) = (at.resource.clone(), at.key.namespace.clone());
        self.history.push(Change { revision, resource, event: event(object.clone()), namespace });
        object
    }
}

/// Being deleted, with nothing left to wait for.
fn is_done(tree: &Value) -> bool {
    let none = |list: &Value| list.as_array().is_none_or(Vec::is_empty);
    tree["metadata"].get("deletionTimestamp").is_some_and(|time| !time.is_null())
        && none(&tree["metadata"]["finalizers"])
        && none(&tree["spec"]["finalizers"])
}

fn metadata_of(tree: &mut Value) -> &mut Map<String, Value> {
    if !tree["metadata"].is_object() {
        tree["metadata"] = json!({});
    }
    match &mut tree["metadata"] {
        Value::Object(members) => members,
        _ => unreachable!("it was just made an object"),
    }
}

fn set(members: &mut Map<String, Value>, field: &str, value: Option<Value>) {
    match value {
        Some(value) => members.insert(field.to_owned(), value),
        None => members.remove(field),
    };
}

/// JSON Merge Patch (RFC 7386).
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let Value::Object(members) = target else { return };
    for (name, value) in patch {
        if value.is_null() {
            members.remove(&name);
        } else {
            merge(members.entry(name).or_insert(Value::Null), value);
        }
    }
}

fn time(env: &Env) -> Value {
    serde_json::to_value(object::time(env.now())).unwrap_or_default()
}
