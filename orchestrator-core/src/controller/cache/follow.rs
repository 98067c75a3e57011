//! Keeps a cache up to date: list, then watch, for as long as somebody holds it.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;

use super::{Core, state::Step};
use crate::{
    client::{Call, Client, ListOptions, Reply, Request, Resource, WatchEvent, WatchRequest, WatchStream},
    controller::limits,
    env::Env,
    object::{Object, ObjectKey},
    status::{ApiError, ApiResult},
    store::Revision,
};

/// Follows a resource until the future is dropped.
pub(in crate::controller) async fn follow<K>(core: Arc<Core<K>>, client: Client, env: Env, resource: Resource) {
    let mut backoff = Backoff::new(&env);
    loop {
        match list(&client, &resource).await {
            Ok((items, version)) => {
                let objects = items.iter().filter_map(|item| decode(&core, &resource, item)).collect();
                core.apply(vec![Step::Listed(objects, parse(&version))]);
                watch_until_expired(&core, &client, &env, &resource, version, &mut backoff).await;
            }
            Err(error) if error.is_not_found() => {
                tracing::debug!(%resource, %error, "the server has no such resource");
                core.set_not_served();
            }
            Err(error) => tracing::warn!(%resource, %error, "cannot list"),
        }
        backoff.pause().await;
    }
}

/// Reads the whole collection in pages. When the pages' snapshot expires on the way, in one piece.
async fn list(client: &Client, resource: &Resource) -> ApiResult<(Vec<Object>, String)> {
    match list_pages(client, resource, Some(limits::LIST_PAGE_OBJECTS)).await {
        Err(error) if error.is_expired() => list_pages(client, resource, None).await,
        result => result,
    }
}

async fn list_pages(client: &Client, resource: &Resource, limit: Option<usize>) -> ApiResult<(Vec<Object>, String)> {
    let mut objects = Vec::new();
    let mut token = None;
    loop {
        let options = ListOptions { limit, continue_token: token, ..Default::default() };
        let request = Request {
            user: None,
            resource: resource.clone(),
            namespace: None,
            name: None,
            subresource: None,
            call: Call::List(options),
        };
        let Reply::List { items, resource_version, continue_token, .. } = client.request(request).await? else {
            return Err(ApiError::internal("an object came where a list was expected"));
        };
        objects.extend(items);
        token = continue_token.filter(|token| !token.is_empty());
        if token.is_none() {
            return Ok((objects, resource_version));
        }
    }
}

/// Watches from a version on, again and again, until the server no longer has that version.
async fn watch_until_expired<K>(
    core: &Core<K>,
    client: &Client,
    env: &Env,
    resource: &Resource,
    mut version: String,
    backoff: &mut Backoff<'_>,
) {
    loop {
        let time = limits::WATCH_TIME + random_part(env, limits::WATCH_TIME);
        let mut request = WatchRequest::new(resource.clone(), Some(version.clone()));
        request.timeout = Some(time);
        let ended = match client.watch(request).await {
            Ok(stream) => {
                let stream = stream.take_until(env.sleep(time + limits::WATCH_OVERTIME)).boxed();
                take(core, resource, stream, &mut version).await
            }
            Err(error) => Err(error),
        };
        match ended {
            Ok(0) => backoff.pause().await,
            Ok(_) => backoff.reset(),
            Err(error) if error.is_expired() => {
                tracing::debug!(%resource, version, "the watch expired, listing again");
                return;
            }
            Err(error) => {
                tracing::debug!(%resource, %error, "the watch broke");
                backoff.pause().await;
            }
        }
    }
}

/// Takes in a watch until it ends; gives how many events came. `version` is moved along with them.
async fn take<K>(core: &Core<K>, resource: &Resource, stream: WatchStream, version: &mut String) -> ApiResult<usize> {
    let mut batches = stream.ready_chunks(limits::WATCH_BATCH_CHANGES);
    let mut count = 0;
    while let Some(batch) = batches.next().await {
        let mut steps = Vec::with_capacity(batch.len());
        let mut failure = None;
        for event in batch {
            match event {
                Ok(event) => {
                    count += 1;
                    steps.extend(step(core, resource, &event, version));
                }
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        if !core.apply(steps) {
            return Err(ApiError::expired("changes came out of order"));
        }
        if let Some(error) = failure {
            return Err(error);
        }
    }
    Ok(count)
}

fn step<K>(core: &Core<K>, resource: &Resource, event: &WatchEvent, version: &mut String) -> Option<Step<K>> {
    let (object, removed) = match event {
        WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, false),
        WatchEvent::Deleted(object) => (object, true),
        WatchEvent::Bookmark { resource_version, .. } => {
            version.clone_from(resource_version);
            return Some(Step::Bookmark(parse(resource_version)));
        }
    };
    let metadata = object.metadata().inspect_err(|error| report(resource, error)).ok()?;
    if let Some(at) = &metadata.resource_version {
        version.clone_from(at);
    }
    let (key, revision) = (ObjectKey::of(metadata), object.revision());
    if removed {
        return Some(Step::Removed(key, revision));
    }
    match (core.decode)(object) {
        Ok(object) => Some(Step::Put(key, object, revision)),
        Err(error) => {
            report(resource, &error);
            Some(Step::Removed(key, revision))
        }
    }
}

/// An object that its own type cannot read is as good as absent; the others must not suffer from it.
fn decode<K>(core: &Core<K>, resource: &Resource, object: &Object) -> Option<(ObjectKey, Arc<K>)> {
    let metadata = object.metadata().inspect_err(|error| report(resource, error)).ok()?;
    let decoded = (core.decode)(object).inspect_err(|error| report(resource, error)).ok()?;
    Some((ObjectKey::of(metadata), decoded))
}

fn report(resource: &Resource, error: &dyn std::error::Error) {
    tracing::error!(%resource, %error, "an object is left out of the cache");
}

fn parse(version: &str) -> Option<Revision> {
    version.parse().ok().map(Revision)
}

/// A random time below this one.
pub(in crate::controller) fn random_part(env: &Env, time: Duration) -> Duration {
    Duration::from_nanos(env.random_below(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)))
}

/// Pauses that double, with as much again by chance.
struct Backoff<'a> {
    env: &'a Env,
    next: Duration,
}

impl<'a> Backoff<'a> {
    fn new(env: &'a Env) -> Self {
        Self { env, next: limits::RELIST_BACKOFF_FIRST }
    }

    fn reset(&mut self) {
        self.next = limits::RELIST_BACKOFF_FIRST;
    }

    async fn pause(&mut self) {
        let pause = self.next + random_part(self.env, self.next);
        self.next = (self.next * 2).min(limits::RELIST_BACKOFF_LONGEST);
        self.env.sleep(pause).await;
    }
}
