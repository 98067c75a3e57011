//! The garbage collector: deletes what nobody owns any more, and holds owners that wait for their dependents.

mod absent;
mod decide;
mod graph;
mod kinds;

use std::{
    collections::BTreeSet,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::FutureExt;
use k8s_openapi::{
    api::core::v1::ObjectReference,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Preconditions},
};
use orchestrator_core::{
    client::{Call, DeleteOptions, PatchBody, Propagation, Reply, Request, Resource, WriteOptions},
    controller::Queue,
    env::TaskGroup,
    events::Event,
    meta,
    object::{Object, ObjectKey},
    status::ApiResult,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use self::{
    absent::Absent,
    decide::{Decision, Deleting, FOREGROUND, ORPHAN, OwnerState, decide, decide_deleting, is_waiting},
    graph::{Graph, Node, Work},
};
use crate::{context::ControllerContext, limits, writes::settled};

pub(crate) async fn run(context: ControllerContext, shutdown: CancellationToken) {
    let queue = Queue::new(context.env());
    let graph = Graph::new(&context.caches, context.discovery.clone(), queue.clone());
    let env = context.env().clone();
    let collector = Arc::new(Collector {
        context,
        graph,
        queue: queue.clone(),
        absent: Absent::default(),
        unresolved: Mutex::default(),
    });
    let mut workers = TaskGroup::new(&env);
    let start = async {
        while let Err(error) = collector.graph.refresh().await {
            tracing::warn!(%error, "cannot discover what there is to collect");
            env.sleep(limits::RESTART_FIRST).await;
        }
        collector.graph.synced().await;
    };
    if shutdown.run_until_cancelled(start).await.is_some() {
        for _ in 0..limits::COLLECTOR_WORKERS {
            let collector = collector.clone();
            workers.spawn("garbage-collector", async move { collector.work().await });
        }
        shutdown.run_until_cancelled(collector.follow_kinds()).await;
    }
    queue.close();
    if env.timeout(orchestrator_core::controller::limits::DRAIN_TIME, Box::pin(workers.join())).await.is_err() {
        tracing::warn!("the garbage collector did not end in time and is cancelled");
    }
    workers.stop().await;
}

struct Collector {
    context: ControllerContext,
    graph: Graph,
    queue: Queue<Work>,
    absent: Absent,
    /// Objects with owners of kinds that the server does not have, as it seems.
    unresolved: Mutex<BTreeSet<Work>>,
}

/// An owner reference cannot be followed.
enum Unresolved {
    /// The server has no such kind, for now.
    UnknownKind,
    /// An object of the cluster cannot have an owner in a namespace.
    Namespaced,
}

impl Collector {
    async fn work(&self) {
        while let Some(work) = self.queue.next().await {
            match AssertUnwindSafe(self.process(&work)).catch_unwind().await {
                Ok(Ok(None)) => self.queue.forget(&work),
                Ok(Ok(Some(later))) => self.queue.add_after(work.clone(), later),
                Ok(Err(error)) => {
                    tracing::debug!(?work, %error, "cannot collect");
                    self.queue.retry(work.clone());
                }
                Err(_) => {
                    tracing::error!(?work, "the garbage collector panicked");
                    self.queue.retry(work.clone());
                }
            }
            self.queue.done(&work);
        }
    }

    /// Looks at one thing; gives when to look again.
    async fn process(&self, work: &Work) -> ApiResult<Option<Duration>> {
        match work {
            Work::DependentsOf(uid) => self.add(self.graph.dependents_of(uid)),
            Work::Owner(uid) => self.add(self.graph.by_uid(uid)),
            Work::Object(resource, key) => {
                let Some(node) = self.graph.node(resource, key) else { return Ok(None) };
                if meta::is_deleting(&node.metadata) {
                    return self.process_deleting(&node).await;
                }
                return self.process_living(&node).await;
            }
        }
        Ok(None)
    }

    fn add(&self, nodes: Vec<Node>) {
        for node in nodes {
            self.queue.add(Work::Object(node.info.resource.clone(), node.key));
        }
    }

    async fn process_deleting(&self, node: &Node) -> ApiResult<Option<Duration>> {
        let metadata = &node.metadata;
        if !meta::has_finalizer(metadata, ORPHAN) && !meta::has_finalizer(metadata, FOREGROUND) {
            return Ok(None);
        }
        if !self.graph.is_complete() {
            return Ok(Some(limits::DISCOVERY_DELAY));
        }
        let dependents = self.graph.dependents(node);
        let all: Vec<&ObjectMeta> = dependents.iter().map(|dependent| &*dependent.metadata).collect();
        match decide_deleting(metadata, &all) {
            Deleting::Nothing => {}
            Deleting::Wait => self.add(dependents),
            Deleting::Release => self.remove_finalizer(node, FOREGROUND).await?,
            Deleting::Orphan => {
                for dependent in &dependents {
                    let others = meta::owners(&dependent.metadata).iter();
                    let others: Vec<_> = others.filter(|owner| Some(&owner.uid) != metadata.uid.as_ref()).collect();
                    self.set_owners(dependent, json!(others)).await?;
                }
                self.remove_finalizer(node, ORPHAN).await?;
            }
        }
        Ok(None)
    }

    async fn process_living(&self, node: &Node) -> ApiResult<Option<Duration>> {
        let metadata = &node.metadata;
        let mut states = Vec::new();
        for reference in meta::owners(metadata) {
            match self.owner_state(node, reference).await? {
                Ok(state) => states.push(state),
                Err(Unresolved::UnknownKind) => {
                    // Looked at again when the kinds of the server have been asked for once more.
                    let work = Work::Object(node.info.resource.clone(), node.key.clone());
                    self.lock_unresolved().insert(work);
                    return Ok(None);
                }
                Err(Unresolved::Namespaced) => {
                    self.report_invalid(node, reference);
                    return Ok(None);
                }
            }
        }
        let dependents = self.graph.dependents(node);
        let all: Vec<&ObjectMeta> = dependents.iter().map(|dependent| &*dependent.metadata).collect();
        match decide(metadata, &states, &all) {
            Decision::Keep => {}
            Decision::KeepOwners(owners) => self.set_owners(node, json!(owners)).await?,
            Decision::Delete { propagation, unblock: false } => self.delete(node, propagation).await?,
            Decision::Delete { unblock: true, .. } => {
                // The deletion follows when the cache shows that the references block no more.
                let mut owners = meta::owners(metadata).to_vec();
                let blocking = owners.iter().any(|owner| owner.block_owner_deletion == Some(true));
                if !blocking {
                    return self.delete(node, Propagation::Foreground).await.map(|()| None);
                }
                let blocking = owners.iter_mut().filter(|owner| owner.block_owner_deletion == Some(true));
                blocking.for_each(|owner| owner.block_owner_deletion = Some(false));
                self.set_owners(node, json!(owners)).await?;
            }
        }
        Ok(None)
    }

    /// What has become of an owner. That one is gone is only believed when the server says so.
    async fn owner_state(&self, node: &Node, reference: &OwnerReference) -> ApiResult<Result<OwnerState, Unresolved>> {
        let Some(info) = self.graph.kind(meta::group_of(&reference.api_version), &reference.kind) else {
            return Ok(Err(Unresolved::UnknownKind));
        };
        if info.namespaced && !node.info.namespaced {
            return Ok(Err(Unresolved::Namespaced));
        }
        let namespace = if info.namespaced { node.key.namespace.clone() } else { String::new() };
        let key = ObjectKey::new(namespace, reference.name.clone());
        let meant = |metadata: &ObjectMeta| metadata.uid.as_ref() == Some(&reference.uid);
        if let Some(owner) = self.graph.node(&info.resource, &key)
            && meant(&owner.metadata)
        {
            return Ok(Ok(state_of(&owner.metadata)));
        }
        if self.absent.contains(&reference.uid) {
            return Ok(Ok(OwnerState::Absent));
        }
        match self.get(&info.resource, &key).await {
            Ok(metadata) if meant(&metadata) => return Ok(Ok(state_of(&metadata))),
            Ok(_) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        self.absent.note(&reference.uid);
        if !self.graph.by_uid(&reference.uid).is_empty() {
            self.report_invalid(node, reference);
        }
        Ok(Ok(OwnerState::Absent))
    }

    fn lock_unresolved(&self) -> MutexGuard<'_, BTreeSet<Work>> {
        self.unresolved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says on the object that an owner is not where it is looked for.
    fn report_invalid(&self, node: &Node, owner: &OwnerReference) {
        let namespace = &node.key.namespace;
        let regarding = ObjectReference {
            api_version: Some(node.info.resource.api_version()),
            kind: Some(node.info.kind.clone()),
            namespace: Some(namespace.clone()).filter(|namespace| !namespace.is_empty()),
            name: Some(node.key.name.clone()),
            uid: node.metadata.uid.clone(),
            ..Default::default()
        };
        let OwnerReference { api_version, kind, name, uid, .. } = owner;
        let message = format!(
            "ownerRef [{api_version}/{kind}, namespace: {namespace}, name: {name}, uid: {uid}] does not exist in \
             namespace \"{namespace}\""
        );
        self.context.recorder.record(&regarding, Event::warning("OwnerRefInvalidNamespace", message));
    }

    async fn get(&self, resource: &Resource, key: &ObjectKey) -> ApiResult<ObjectMeta> {
        let reply = self.request(resource, key, Call::Get { resource_version: None }).await?;
        Ok(reply.metadata()?.clone())
    }

    /// Deletes the object if it is still as it was seen.
    async fn delete(&self, node: &Node, propagation: Propagation) -> ApiResult<()> {
        let metadata = &node.metadata;
        let preconditions =
            Preconditions { uid: metadata.uid.clone(), resource_version: metadata.resource_version.clone() };
        let options =
            DeleteOptions { propagation: Some(propagation), preconditions: Some(preconditions), ..Default::default() };
        self.write(node, Call::Delete(options)).await
    }

    async fn set_owners(&self, node: &Node, owners: Value) -> ApiResult<()> {
        let none = owners.as_array().is_some_and(Vec::is_empty);
        self.patch(node, "ownerReferences", if none { Value::Null } else { owners }).await
    }

    async fn remove_finalizer(&self, node: &Node, finalizer: &str) -> ApiResult<()> {
        let mut metadata = ObjectMeta::clone(&node.metadata);
        meta::remove_finalizer(&mut metadata, finalizer);
        self.patch(node, "finalizers", json!(metadata.finalizers)).await
    }

    /// Changes a field of the metadata if the object is still as it was seen.
    async fn patch(&self, node: &Node, field: &str, value: Value) -> ApiResult<()> {
        let metadata = &node.metadata;
        let patch = json!({
            "metadata": { "uid": metadata.uid, "resourceVersion": metadata.resource_version, field: value },
        });
        self.write(node, Call::Patch { patch: PatchBody::Merge(patch), options: WriteOptions::default() }).await
    }

    async fn write(&self, node: &Node, call: Call) -> ApiResult<()> {
        settled(self.request(&node.info.resource, &node.key, call).await)
    }

    async fn request(&self, resource: &Resource, key: &ObjectKey, call: Call) -> ApiResult<Object> {
        let request = Request {
            user: None,
            resource: resource.clone(),
            namespace: Some(key.namespace.clone()).filter(|namespace| !namespace.is_empty()),
            name: Some(key.name.clone()),
            subresource: None,
            call,
        };
        match self.context.client().request(request).await? {
            Reply::Object { object, .. } => Ok(object),
            Reply::List { .. } => Err(orchestrator_core::status::ApiError::internal("a list instead of an object")),
        }
    }
}

fn state_of(metadata: &ObjectMeta) -> OwnerState {
    if is_waiting(metadata) { OwnerState::Waiting } else { OwnerState::Solid }
}
