//! Who owns whom: the metadata of all objects of all kinds, found by UID and by owner.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::future::join_all;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use orchestrator_core::{
    client::{Resource, ResourceDiscovery, ResourceInfo},
    controller::{Cache, Caches, Queue, Subscription},
    meta,
    object::ObjectKey,
    status::ApiResult,
};

use super::decide::concerns;
use crate::limits;

/// What has to be looked at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Work {
    /// An object.
    Object(Resource, ObjectKey),
    /// All that refer to a UID.
    DependentsOf(String),
    /// The object of a UID, which may wait for dependents.
    Owner(String),
}

/// An object of the graph.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) info: Arc<ResourceInfo>,
    pub(super) key: ObjectKey,
    pub(super) metadata: Arc<ObjectMeta>,
}

/// One cache of metadata per kind that can be listed, watched and deleted.
#[derive(Debug)]
pub(super) struct Graph {
    caches: Caches,
    discovery: Arc<dyn ResourceDiscovery>,
    queue: Queue<Work>,
    monitors: Mutex<BTreeMap<Resource, Arc<Monitor>>>,
}

#[derive(Debug)]
struct Monitor {
    info: Arc<ResourceInfo>,
    cache: Cache<ObjectMeta>,
    since: Duration,
    _subscription: Subscription,
}

const BY_OWNER: &str = "owner";
const BY_UID: &str = "uid";

impl Graph {
    pub(super) fn new(caches: &Caches, discovery: Arc<dyn ResourceDiscovery>, queue: Queue<Work>) -> Self {
        Self { caches: caches.clone(), discovery, queue, monitors: Mutex::default() }
    }

    /// Follows the kinds that the server has by now, and no others.
    pub(super) async fn refresh(&self) -> ApiResult<()> {
        let collected = |info: &ResourceInfo| {
            // Events say what happened; nobody owns them. As upstream.
            info.resource.plural != "events" && info.supports(&["delete", "list", "watch"])
        };
        let resources = self.discovery.resources().await?;
        let wanted: BTreeMap<Resource, ResourceInfo> =
            resources.into_iter().filter(collected).map(|info| (info.resource.clone(), info)).collect();
        let unwanted: Vec<Resource> = self.lock().keys().filter(|known| !wanted.contains_key(known)).cloned().collect();
        for resource in unwanted {
            let monitor = self.lock().remove(&resource);
            drop(monitor);
        }
        for (resource, info) in wanted {
            if !self.lock().contains_key(&resource) {
                let monitor = Arc::new(self.monitor(info));
                self.lock().insert(resource, monitor);
            }
        }
        Ok(())
    }

    fn monitor(&self, info: ResourceInfo) -> Monitor {
        let cache = self.caches.metadata(&info.resource);
        cache.add_index(BY_OWNER, |metadata| {
            let mut uids: Vec<String> = meta::owners(metadata).iter().map(|owner| owner.uid.clone()).collect();
            uids.dedup();
            uids
        });
        cache.add_index(BY_UID, |metadata| metadata.uid.iter().cloned().collect());
        let (queue, resource) = (self.queue.clone(), info.resource.clone());
        let subscription = cache.on_change(move |change| {
            let concerned = concerns(change.old.as_deref(), change.new.as_deref());
            if concerned.itself {
                queue.add(Work::Object(resource.clone(), change.key.clone()));
            }
            concerned.dependents_of.into_iter().for_each(|uid| queue.add(Work::DependentsOf(uid)));
            concerned.owners.into_iter().for_each(|uid| queue.add(Work::Owner(uid)));
        });
        let since = self.caches.env().monotonic();
        Monitor { info: Arc::new(info), cache, since, _subscription: subscription }
    }

    /// Waits for the caches of all kinds, but not longer than a while: one broken kind must not stop all others.
    pub(super) async fn synced(&self) {
        let monitors = self.all();
        let all = Box::pin(join_all(monitors.iter().map(|monitor| monitor.cache.synced())));
        if self.caches.env().timeout(limits::SYNC_TIME, all).await.is_err() {
            tracing::warn!("some kinds cannot be listed; garbage is collected without them");
        }
    }

    /// Whether all kinds are known that can be: a kind that came lately is waited for.
    pub(super) fn is_complete(&self) -> bool {
        let now = self.caches.env().monotonic();
        let settled = |monitor: &Arc<Monitor>| monitor.cache.is_synced() || now - monitor.since > limits::SYNC_TIME;
        self.all().iter().all(settled)
    }

    pub(super) fn node(&self, resource: &Resource, key: &ObjectKey) -> Option<Node> {
        let monitor = self.lock().get(resource)?.clone();
        let metadata = monitor.cache.get(key)?;
        Some(Node { info: monitor.info.clone(), key: key.clone(), metadata })
    }

    /// A kind of the server, whatever its version.
    pub(super) fn kind(&self, group: &str, kind: &str) -> Option<Arc<ResourceInfo>> {
        let monitors = self.lock();
        let named = monitors.values().find(|monitor| monitor.info.kind == kind && monitor.info.resource.group == group);
        named.map(|monitor| monitor.info.clone())
    }

    /// The objects of a UID: one, or none.
    pub(super) fn by_uid(&self, uid: &str) -> Vec<Node> {
        self.find(BY_UID, uid)
    }

    /// The objects that refer to an owner from where they may.
    pub(super) fn dependents(&self, owner: &Node) -> Vec<Node> {
        let mut nodes = self.dependents_of(meta::uid(&owner.metadata));
        if owner.info.namespaced {
            nodes.retain(|node| node.key.namespace == owner.key.namespace);
        }
        nodes
    }

    /// The objects that refer to a UID.
    pub(super) fn dependents_of(&self, uid: &str) -> Vec<Node> {
        self.find(BY_OWNER, uid)
    }

    fn find(&self, index: &'static str, value: &str) -> Vec<Node> {
        let of = |monitor: &Arc<Monitor>| -> Vec<Node> {
            let node = |metadata: Arc<ObjectMeta>| Node {
                info: monitor.info.clone(),
                key: ObjectKey::of(&metadata),
                metadata,
            };
            monitor.cache.by_index(index, value).into_iter().map(node).collect()
        };
        self.all().iter().flat_map(of).collect()
    }

    fn all(&self) -> Vec<Arc<Monitor>> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Resource, Arc<Monitor>>> {
        self.monitors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
