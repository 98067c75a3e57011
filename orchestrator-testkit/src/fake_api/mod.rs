//! An API server in a few hundred lines: enough to test caches and controllers, and easy to break on purpose.
//!
//! It keeps metadata right (UIDs, revisions, generations, finalizers, deletion) and knows no kinds: nothing is
//! defaulted, validated or admitted, and every patch is a JSON merge patch. For the truth, test against the pipeline.

mod world;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures::StreamExt;
use orchestrator_core::{
    client::{Backend, Call, Client, Reply, Request, Resource, WatchEvent, WatchRequest, WatchStream},
    env::Env,
    object::{Object, ObjectKey},
    status::{ApiError, ApiResult},
};
use serde_json::{Value, json};
use tokio::sync::Notify;

use self::world::{At, World};

/// A fake API server. Clones are the same server.
#[derive(Clone, Debug)]
pub struct FakeApi {
    env: Env,
    world: Arc<Mutex<World>>,
    moved: Arc<Notify>,
}

impl FakeApi {
    /// An empty server.
    pub fn new(env: &Env) -> Self {
        Self { env: env.clone(), world: Arc::default(), moved: Arc::default() }
    }

    /// A client of it.
    pub fn client(&self) -> Client {
        Client::new(Arc::new(self.clone()))
    }

    /// Ends all watches, as a server that goes away does.
    pub fn close_watches(&self) {
        self.lock().epoch += 1;
        self.moved.notify_waiters();
    }

    /// Ends all watches and forgets the history, so that clients have to list again.
    pub fn expire_watches(&self) {
        let mut world = self.lock();
        world.epoch += 1;
        world.compacted = world.revision;
        world.revision += 1;
        world.history.clear();
        world.pages.clear();
        drop(world);
        self.moved.notify_waiters();
    }

    /// Lets the next requests fail.
    pub fn fail_requests(&self, count: u32) {
        self.lock().failures = count;
    }

    /// What was asked for so far, writes only, such as `create pods default/web`.
    pub fn writes(&self) -> Vec<String> {
        self.lock().requests.clone()
    }

    /// The newest revision.
    pub fn revision(&self) -> u64 {
        self.lock().revision
    }

    /// An object's tree, as it is now.
    pub fn tree(&self, resource: &Resource, namespace: &str, name: &str) -> Option<Value> {
        let world = self.lock();
        world.objects.get(&(resource.clone(), ObjectKey::new(namespace, name)))?.to_tree().ok()
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, request: Request) -> ApiResult<Reply> {
        let mut world = self.lock();
        if world.failures > 0 {
            world.failures -= 1;
            return Err(ApiError::unavailable("failing on purpose"));
        }
        let at = At {
            resource: request.resource.clone(),
            key: ObjectKey::new(
                request.namespace.clone().unwrap_or_default(),
                request.name.clone().unwrap_or_default(),
            ),
        };
        if let Some(verb) = verb(&request.call) {
            let part = request.subresource.as_ref().map(|part| format!("/{part}")).unwrap_or_default();
            world.requests.push(format!("{verb} {}{part} {}", at.resource, at.key));
        }
        let (reply, created) = match request.call {
            Call::List(options) => return world.list(&at.resource, request.namespace.as_deref(), options),
            Call::Get { .. } => (world.get(&at)?, false),
            Call::Create { object, .. } => (world.create(&self.env, at, &object)?, true),
            Call::Replace { object, .. } => {
                let tree = object.to_tree()?;
                (world.replace(&at, request.subresource.as_deref(), tree)?, false)
            }
            Call::Patch { patch, .. } => (world.patch(&at, request.subresource.as_deref(), patch)?, false),
            Call::Delete(options) => (world.delete(&self.env, &at, &options)?, false),
            Call::DeleteCollection(options, _) => {
                for key in world.keys(&at.resource, request.namespace.as_deref()) {
                    world.delete(&self.env, &At { resource: at.resource.clone(), key }, &options)?;
                }
                (Object::from_tree(json!({"kind": "Status", "metadata": {}})), false)
            }
        };
        drop(world);
        self.moved.notify_waiters();
        Ok(Reply::Object { object: reply, created, warnings: Vec::new() })
    }
}

fn verb(call: &Call) -> Option<&'static str> {
    match call {
        Call::Get { .. } | Call::List(_) => None,
        Call::Create { .. } => Some("create"),
        Call::Replace { .. } => Some("replace"),
        Call::Patch { .. } => Some("patch"),
        Call::Delete(_) => Some("delete"),
        Call::DeleteCollection(..) => Some("deletecollection"),
    }
}

#[async_trait]
impl Backend for FakeApi {
    async fn request(&self, request: Request) -> ApiResult<Reply> {
        self.answer(request)
    }

    async fn watch(&self, request: WatchRequest) -> ApiResult<WatchStream> {
        let after = request.resource_version.as_deref().unwrap_or_default().parse::<u64>().unwrap_or_default();
        let epoch = {
            let world = self.lock();
            if after < world.compacted {
                return Err(ApiError::expired("too old resource version"));
            }
            world.epoch
        };
        let watcher = Watcher { api: self.clone(), moved: self.moved.clone(), request, after, epoch };
        Ok(futures::stream::unfold(watcher, Watcher::next).boxed())
    }
}

struct Watcher {
    api: FakeApi,
    moved: Arc<Notify>,
    request: WatchRequest,
    after: u64,
    epoch: u64,
}

impl Watcher {
    async fn next(mut self) -> Option<(ApiResult<WatchEvent>, Self)> {
        let moved = self.moved.clone();
        loop {
            let changed = moved.notified();
            if let Some(found) = self.look()? {
                return Some((Ok(found), self));
            }
            changed.await;
        }
    }

    /// `None` when the watch is over.
    fn look(&mut self) -> Option<Option<WatchEvent>> {
        let world = self.api.lock();
        if world.epoch != self.epoch {
            return None;
        }
        let start = world.history.partition_point(|change| change.revision <= self.after);
        let namespace = self.request.namespace.as_deref();
        let found = world.history.get(start..)?.iter().find(|change| {
            change.resource == self.request.resource && namespace.is_none_or(|namespace| namespace == change.namespace)
        });
        self.after = found.map_or(world.revision.max(self.after), |change| change.revision);
        Some(found.map(|change| change.event.clone()))
    }
}
