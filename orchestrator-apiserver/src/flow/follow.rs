//! Keeps the plan true to the objects of the store, and the default objects there.

use std::{
    collections::BTreeSet,
    sync::{Arc, Weak},
};

use futures::{
    FutureExt, StreamExt,
    future::{self, Either},
    stream,
};
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use orchestrator_core::{
    client::{Call, ListOptions, Reply, Request, Resource, WriteOptions},
    env::Env,
    object::Object,
    status::ApiResult,
    store::{KeyRange, WatchItem, WatchOptions},
};
use serde::de::DeserializeOwned;

use super::{
    dangling,
    defaults::{self, Write},
};
use crate::{
    bootstrap::apply_as,
    limits,
    pipeline::{Server, store_error},
};

/// Who writes the default objects; upstream's name.
const MANAGER: &str = "api-priority-and-fairness-config-producer-v1";

/// Who writes the status of schemas; upstream's name.
const CONSUMER: &str = "api-priority-and-fairness-config-consumer-v1";

const LEVELS: &str = "prioritylevelconfigurations";
const SCHEMAS: &str = "flowschemas";

/// Follows for as long as the server lives.
pub(crate) async fn follow(server: Weak<Server>, env: Env) {
    loop {
        let followed = follow_once(&server, &env).await;
        match server.upgrade() {
            Some(server) if !server.closed.is_cancelled() => {}
            _ => return,
        }
        if let Err(error) = followed {
            tracing::warn!(%error, "cannot follow flow schemas and priority levels");
        }
        env.sleep(limits::FOLLOW_AGAIN).await;
    }
}

/// Looks at the objects, and again after each change. Ends when the store cannot go on.
async fn follow_once(weak: &Weak<Server>, env: &Env) -> ApiResult<()> {
    let Some(store) = weak.upgrade().map(|server| server.store.clone()) else { return Ok(()) };
    let after = Some(store.status().await.map_err(store_error)?.revision);
    let watch = async |resource: &str| {
        let options = WatchOptions { after, bookmarks: false };
        store.watch(KeyRange::prefix(format!("/registry/{resource}/")), options).await.map_err(store_error)
    };
    let mut changes = stream::select(watch(LEVELS).await?, watch(SCHEMAS).await?);
    drop(store);
    let mut due = None;
    let mut changed = true;
    loop {
        let Some(server) = weak.upgrade() else { return Ok(()) };
        if std::mem::take(&mut changed) {
            server.refresh_flows().await?;
        }
        let adjustment = due.get_or_insert_with(|| server.flows.due(env).boxed());
        drop(server);
        match future::select(changes.next(), adjustment).await {
            Either::Left((Some(Ok(item)), _)) => changed = matches!(item, WatchItem::Changes { .. }),
            Either::Left((Some(Err(error)), _)) => return Err(store_error(error)),
            Either::Left((None, _)) => return Ok(()),
            Either::Right(_) => {
                due = None;
                let Some(server) = weak.upgrade() else { return Ok(()) };
                server.flows.adjust();
            }
        }
    }
}

impl Server {
    /// Writes the default objects that are missing or spoiled, decides by what there is from now on, and says in each schema
    /// whether its level is there.
    pub(crate) async fn refresh_flows(&self) -> ApiResult<()> {
        let (mut levels, mut schemas) = (self.flow_objects(LEVELS).await?, self.flow_objects(SCHEMAS).await?);
        if self.mend_flows(&levels, &schemas).await? {
            (levels, schemas) = (self.flow_objects(LEVELS).await?, self.flow_objects(SCHEMAS).await?);
        }
        let seats = self.config.requests_in_flight;
        self.flows.load(&self.env, seats, typed::<PriorityLevelConfiguration>(&levels), typed::<FlowSchema>(&schemas));
        self.mark_dangling(&levels, &schemas).await
    }

    async fn mark_dangling(&self, levels: &[Object], schemas: &[Object]) -> ApiResult<()> {
        let level_names: BTreeSet<String> =
            levels.iter().filter_map(|level| level.metadata().ok()?.name.clone()).collect();
        let mut writes = Vec::new();
        for schema in schemas {
            let Some(status) = dangling::status(schema.tree()?, &level_names, &self.now()) else { continue };
            let call = apply_as(CONSUMER, status);
            let name = schema.metadata()?.name.clone();
            let request = Request { subresource: Some("status".to_owned()), ..flow_request(SCHEMAS, name, call) };
            writes.push(self.handle(request));
        }
        for written in future::join_all(writes).await {
            match written {
                Err(error) if !error.is_not_found() && !error.is_conflict() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether anything was written.
    async fn mend_flows(&self, levels: &[Object], schemas: &[Object]) -> ApiResult<bool> {
        let mut written = false;
        for default in defaults::objects() {
            let is_level = default["kind"] == "PriorityLevelConfiguration";
            let (resource, stored) = if is_level { (LEVELS, levels) } else { (SCHEMAS, schemas) };
            let name = Some(defaults::name(&default));
            let is_meant = |object: &&Object| object.metadata().is_ok_and(|found| found.name.as_deref() == name);
            // A tree of our own: the shared one would stay with the object.
            let stored = stored.iter().find(is_meant).map(Object::to_tree).transpose()?;
            let Some(write) = defaults::mend(&default, stored.as_ref()) else { continue };
            let options = WriteOptions { field_manager: Some(MANAGER.to_owned()), ..WriteOptions::default() };
            let (name, call) = match write {
                Write::Create(object) => (None, Call::Create { object: Object::from_tree(object), options }),
                Write::Replace(object) => {
                    let name = Some(defaults::name(&default).to_owned());
                    (name, Call::Replace { object: Object::from_tree(object), options })
                }
            };
            match self.handle(flow_request(resource, name, call)).await {
                // Another server on the same store was faster; its write is seen soon.
                Err(error) if !error.is_already_exists() && !error.is_conflict() => return Err(error),
                _ => written = true,
            }
        }
        Ok(written)
    }

    async fn flow_objects(&self, resource: &'static str) -> ApiResult<Vec<Object>> {
        match self.handle(flow_request(resource, None, Call::List(ListOptions::default()))).await? {
            Reply::List { items, .. } => Ok(items),
            Reply::Object { .. } => Ok(Vec::new()),
        }
    }
}

fn flow_request(resource: &'static str, name: Option<String>, call: Call) -> Request {
    let resource = Resource::new("flowcontrol.apiserver.k8s.io", "v1", resource);
    Request { user: None, resource, namespace: None, name, subresource: None, call }
}

/// Those that can be read.
fn typed<K: DeserializeOwned + Send + Sync + 'static>(objects: &[Object]) -> Vec<Arc<K>> {
    objects.iter().filter_map(|object| object.typed().ok()).collect()
}
