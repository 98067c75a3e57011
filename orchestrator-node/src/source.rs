//! The pods of many nodes from one cache.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use k8s_openapi::api::core::v1::Pod;
use orchestrator_core::controller::{Cache, Caches, Change, Subscription};
use tokio::sync::Notify;

use crate::pod;

/// The index of pods by the node that they are bound to.
const BY_NODE: &str = "spec.nodeName";

/// Gives each node of a process its pods, from one shared cache. Cheap to clone.
#[derive(Clone)]
pub struct PodSource {
    caches: Caches,
    cache: Cache<Pod>,
    sinks: Arc<Mutex<BTreeMap<String, Weak<Sink>>>>,
    _subscription: Arc<Subscription>,
}

impl fmt::Debug for PodSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PodSource").field("nodes", &lock(&self.sinks).len()).finish()
    }
}

/// What happened to the pods of one node since somebody looked: the newest state, or that the pod is gone, by UID.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    changes: Mutex<BTreeMap<String, Option<Arc<Pod>>>>,
    pub(crate) changed: Notify,
}

impl Sink {
    fn put(&self, uid: &str, pod: Option<Arc<Pod>>) {
        lock(&self.changes).insert(uid.to_owned(), pod);
        self.changed.notify_one();
    }

    pub(crate) fn take(&self) -> BTreeMap<String, Option<Arc<Pod>>> {
        std::mem::take(&mut lock(&self.changes))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn node_name(pod: &Pod) -> Option<&str> {
    pod::spec(pod).node_name.as_deref().filter(|name| !name.is_empty())
}

impl PodSource {
    /// The pods of these caches.
    pub fn new(caches: &Caches) -> Self {
        let cache = caches.cache::<Pod>();
        cache.add_index(BY_NODE, |pod| node_name(pod).map(str::to_owned).into_iter().collect());
        let sinks: Arc<Mutex<BTreeMap<String, Weak<Sink>>>> = Arc::default();
        let targets = sinks.clone();
        let subscription = cache.on_change(move |change| route(&targets, change));
        Self { caches: caches.clone(), cache, sinks, _subscription: Arc::new(subscription) }
    }

    /// The caches that the pods come from.
    pub fn caches(&self) -> &Caches {
        &self.caches
    }

    /// From now on the node's changes; everything that is there comes first.
    pub(crate) async fn subscribe(&self, node: &str) -> Arc<Sink> {
        self.cache.synced().await;
        let sink = Arc::new(Sink::default());
        lock(&self.sinks).insert(node.to_owned(), Arc::downgrade(&sink));
        for pod in self.cache.by_index(BY_NODE, node) {
            sink.put(pod::uid(&pod), Some(pod.clone()));
        }
        sink
    }

    /// The pod of this name on this node, if it is there.
    pub(crate) fn find(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        self.cache.get(&orchestrator_core::object::ObjectKey::new(namespace, name))
    }
}

/// Tells the nodes that a change is about.
fn route(sinks: &Mutex<BTreeMap<String, Weak<Sink>>>, change: &Change<Pod>) {
    let sink = |pod: &Pod| lock(sinks).get(node_name(pod)?)?.upgrade();
    let new_uid = change.new.as_deref().map(pod::uid);
    if let Some(old) = &change.old
        && new_uid != Some(pod::uid(old))
        && let Some(sink) = sink(old)
    {
        sink.put(pod::uid(old), None);
    }
    if let Some(new) = &change.new
        && let Some(sink) = sink(new)
    {
        sink.put(pod::uid(new), Some(new.clone()));
    }
}
