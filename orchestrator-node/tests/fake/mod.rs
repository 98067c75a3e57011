//! The least API server that a node agent can work with: objects as trees, no rules.

mod turns;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use async_trait::async_trait;
use futures::{StreamExt, stream};
use orchestrator_core::{
    client::{Backend, Call, Client, PatchBody, Reply, Request, WatchEvent, WatchRequest, WatchStream},
    env::Env,
    object::{Object, time},
    status::{ApiError, Reason, Subject},
};
use serde_json::{Map, Value, json};
use tokio::sync::broadcast;
pub(crate) use turns::TakingTurns;

/// Plural, namespace and name.
type Key = (String, String, String);

#[derive(Debug)]
pub(crate) struct FakeServer {
    env: Env,
    state: Mutex<State>,
    events: broadcast::Sender<(u64, String, WatchEvent)>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<Key, Value>,
    revision: u64,
}

impl FakeServer {
    pub(crate) fn new(env: &Env) -> Arc<Self> {
        let (events, _) = broadcast::channel(100_000);
        Arc::new(Self { env: env.clone(), state: Mutex::default(), events })
    }

    pub(crate) fn client(self: &Arc<Self>) -> Client {
        Client::new(self.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn object(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        self.lock().objects.get(&(plural.into(), namespace.into(), name.into())).cloned()
    }

    pub(crate) fn list(&self, plural: &str) -> Vec<Value> {
        self.lock().objects.iter().filter(|((of, ..), _)| of == plural).map(|(_, object)| object.clone()).collect()
    }

    /// Writes an object as it is.
    pub(crate) fn put(&self, plural: &str, mut object: Value) {
        let metadata = object["metadata"].as_object_mut().unwrap();
        let uid = self.env.uid();
        metadata.entry("uid").or_insert_with(|| json!(uid));
        metadata.entry("generation").or_insert(json!(1));
        let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
        let key = (plural.to_owned(), text(metadata.get("namespace")), text(metadata.get("name")));
        let mut state = self.lock();
        state.revision += 1;
        object["metadata"]["resourceVersion"] = json!(state.revision.to_string());
        let old = state.objects.insert(key, object.clone());
        let object = Object::from_tree(object);
        let event = if old.is_some() { WatchEvent::Modified(object) } else { WatchEvent::Added(object) };
        let _ = self.events.send((state.revision, plural.to_owned(), event));
    }

    /// Removes an object at once.
    pub(crate) fn remove(&self, key: &Key) -> Option<Value> {
        let mut state = self.lock();
        let mut object = state.objects.remove(key)?;
        state.revision += 1;
        object["metadata"]["resourceVersion"] = json!(state.revision.to_string());
        let event = WatchEvent::Deleted(Object::from_tree(object.clone()));
        let _ = self.events.send((state.revision, key.0.clone(), event));
        Some(object)
    }

    /// Deletes a pod gracefully, as a user does.
    pub(crate) fn delete_pod(&self, name: &str, grace: i64) {
        let mut pod = self.object("pods", "default", name).unwrap();
        let end = self.env.now() + jiff::SignedDuration::from_secs(grace);
        pod["metadata"]["deletionTimestamp"] = serde_json::to_value(time(end)).unwrap();
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        self.put("pods", pod);
    }

    fn patch(&self, key: &Key, patch: &PatchBody, status_only: bool) -> Result<Value, ApiError> {
        let mut object = self.lock().objects.get(key).cloned().ok_or_else(|| not_found(key))?;
        let (PatchBody::Merge(patch) | PatchBody::Strategic(patch)) = patch else {
            return Err(ApiError::bad_request("this kind of patch is not faked"));
        };
        if let Some(uid) = patch.pointer("/metadata/uid")
            && Some(uid) != object.pointer("/metadata/uid")
        {
            return Err(ApiError::new(Reason::Conflict, "the UID is another"));
        }
        if status_only {
            let status = object.as_object_mut().unwrap().entry("status").or_insert(json!({}));
            merge(status, &patch["status"], "status");
        } else {
            merge(&mut object, patch, "");
        }
        self.put(&key.0, object);
        self.lock().objects.get(key).cloned().ok_or_else(|| not_found(key))
    }
}

fn not_found(key: &Key) -> ApiError {
    ApiError::not_found(Subject { group: "", resource: &key.0, name: &key.2 })
}

/// A merge patch, in which conditions merge by type and `$patch: replace` is understood.
fn merge(target: &mut Value, patch: &Value, field: &str) {
    match patch {
        Value::Object(changes) => {
            if !target.is_object() {
                *target = Value::Object(Map::new());
            }
            for (name, change) in changes {
                let object = target.as_object_mut().unwrap();
                if change.is_null() {
                    object.remove(name);
                } else {
                    merge(object.entry(name.clone()).or_insert(Value::Null), change, name);
                }
            }
        }
        Value::Array(items) if field == "conditions" => {
            let mut list = target.as_array().cloned().unwrap_or_default();
            for item in items {
                list.retain(|present| present["type"] != item["type"]);
                list.push(item.clone());
            }
            *target = Value::Array(list);
        }
        Value::Array(items) => {
            *target = items.iter().filter(|item| item.get("$patch").is_none()).cloned().collect();
        }
        other => *target = other.clone(),
    }
}

#[async_trait]
impl Backend for FakeServer {
    async fn request(&self, request: Request) -> Result<Reply, ApiError> {
        let key: Key = (
            request.resource.plural.to_string(),
            request.namespace.clone().unwrap_or_default(),
            request.name.clone().unwrap_or_default(),
        );
        let one = |object: Value| Reply::Object { object: Object::from_tree(object), created: false, warnings: vec![] };
        match request.call {
            Call::Get { .. } => self.lock().objects.get(&key).cloned().map(one).ok_or_else(|| not_found(&key)),
            Call::List(_) => {
                let state = self.lock();
                let matching = state.objects.iter().filter(|((plural, namespace, _), _)| {
                    *plural == key.0 && (key.1.is_empty() || *namespace == key.1)
                });
                Ok(Reply::List {
                    items: matching.map(|(_, object)| Object::from_tree(object.clone())).collect(),
                    resource_version: state.revision.to_string(),
                    continue_token: None,
                    remaining: None,
                })
            }
            Call::Create { object, .. } => {
                let mut object = object.to_tree().map_err(ApiError::internal)?;
                if request.subresource.as_deref() == Some("token") {
                    let end = self.env.now() + jiff::SignedDuration::from_secs(3600);
                    object["status"] = json!({"token": "t0ken", "expirationTimestamp": time(end)});
                    return Ok(one(object));
                }
                if let Some(namespace) = &request.namespace {
                    object["metadata"]["namespace"] = json!(namespace);
                }
                let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                let key = (key.0, key.1, name);
                if self.lock().objects.contains_key(&key) {
                    return Err(ApiError::already_exists(Subject { group: "", resource: &key.0, name: &key.2 }));
                }
                self.put(&key.0, object);
                self.lock().objects.get(&key).cloned().map(one).ok_or_else(|| not_found(&key))
            }
            Call::Replace { object, .. } => {
                self.put(&key.0, object.to_tree().map_err(ApiError::internal)?);
                self.lock().objects.get(&key).cloned().map(one).ok_or_else(|| not_found(&key))
            }
            Call::Patch { patch, .. } => self.patch(&key, &patch, request.subresource.is_some()).map(one),
            Call::Delete(options) => {
                let present = self.lock().objects.get(&key).cloned().ok_or_else(|| not_found(&key))?;
                let uid = options.preconditions.and_then(|preconditions| preconditions.uid);
                if uid.is_some_and(|uid| present["metadata"]["uid"] != json!(uid)) {
                    return Err(ApiError::new(Reason::Conflict, "the UID is another"));
                }
                self.remove(&key).map(one).ok_or_else(|| not_found(&key))
            }
            Call::DeleteCollection(..) => Err(ApiError::bad_request("not faked")),
        }
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, ApiError> {
        let state = self.lock();
        let from: u64 = request.resource_version.as_ref().and_then(|version| version.parse().ok()).unwrap_or(0);
        let plural = request.resource.plural.to_string();
        // Everything that changed since is given as it is now; deletions in between are not kept.
        let mut first: Vec<(u64, WatchEvent)> = state
            .objects
            .iter()
            .filter(|((of, ..), _)| *of == plural)
            .filter_map(|(_, object)| {
                let version: u64 = object["metadata"]["resourceVersion"].as_str()?.parse().ok()?;
                (version > from).then(|| (version, WatchEvent::Added(Object::from_tree(object.clone()))))
            })
            .collect();
        first.sort_by_key(|(version, _)| *version);
        let mut initial: Vec<WatchEvent> = first.into_iter().map(|(_, event)| event).collect();
        if request.send_initial_events {
            let resource_version = state.revision.to_string();
            initial.push(WatchEvent::Bookmark { resource_version, initial_events_end: true });
        }
        let later = stream::unfold((self.events.subscribe(), plural), |(mut receiver, plural)| async move {
            loop {
                let (_, of, event) = receiver.recv().await.ok()?;
                if of == plural {
                    return Some((Ok(event), (receiver, plural)));
                }
            }
        });
        Ok(stream::iter(initial.into_iter().map(Ok)).chain(later).boxed())
    }
}
