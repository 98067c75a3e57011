//! A controller: what it watches, and the workers that run its reconciler.

use std::{any::Any, fmt, marker::PhantomData, sync::Arc, time::Duration};

use futures::future::{join, join_all};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio_util::sync::CancellationToken;

use super::{
    Cache, Caches, Cause, Change, ControllerMetrics, Kind, Queue, Reconciler, cache::Progress, limits, worker::Worker,
};
use crate::{
    env::{Env, TaskGroup, Watcher},
    meta,
    object::ObjectKey,
};

/// Runs a [`Reconciler`] for every key of a kind, whenever something that the key depends on has changed.
///
/// Writes go through the client of its [`Caches`]: with that of a [`Leadership`](super::leader::Leadership) it works only
/// while its process leads.
///
/// ```text
/// Controller::new("replicaset", &caches).reconciles::<ReplicaSet>().owns::<Pod>().run(reconciler, shutdown).await
/// ```
pub struct Controller<K = ()> {
    name: &'static str,
    caches: Caches,
    queue: Queue<ObjectKey>,
    metrics: Arc<ControllerMetrics>,
    sources: Vec<Source>,
    resync: Option<Duration>,
    concurrency: usize,
    filters: Vec<Filter<K>>,
    kind: PhantomData<fn() -> K>,
}

type Filter<K> = Box<dyn Fn(&Change<K>) -> bool + Send + Sync>;

/// Starts to feed the queue.
type Source = Box<dyn FnOnce() -> Feed + Send>;

/// What feeds the queue, for as long as it is kept.
struct Feed {
    _kept: Box<dyn Any + Send>,
    progress: Watcher<Progress>,
}

impl Feed {
    fn new<W: Kind>(cache: &Cache<W>, kept: impl Any + Send) -> Self {
        Self { _kept: Box::new(kept), progress: cache.core().progress() }
    }
}

impl<K> fmt::Debug for Controller<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Controller").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Controller {
    /// A controller of nothing yet.
    pub fn new(name: &'static str, caches: &Caches) -> Self {
        Controller::of(name, caches)
    }

    /// Its kind: every object's key is reconciled when the object changes.
    pub fn reconciles<K: Kind>(self) -> Controller<K> {
        Controller::of(self.name, &self.caches)
    }
}

impl<K> Controller<K> {
    fn of(name: &'static str, caches: &Caches) -> Self {
        let queue = Queue::new(caches.env());
        Self {
            name,
            caches: caches.clone(),
            metrics: Arc::new(ControllerMetrics::new(name, queue.clone())),
            queue,
            sources: Vec::new(),
            resync: None,
            concurrency: limits::CONCURRENCY_KEYS,
            filters: Vec::new(),
            kind: PhantomData,
        }
    }
}

impl<K: Kind> Controller<K> {
    /// Also when an object changes whose controlling owner is of this kind (and still has the owner reference's UID).
    #[must_use]
    pub fn owns<C: Kind>(self) -> Self {
        let owners = self.caches.cache::<K>();
        self.watches::<C>(move |change| {
            let owner = |child: &Arc<C>| owner_key(child.meta(), &owners);
            let mut keys: Vec<ObjectKey> = change.objects().filter_map(owner).collect();
            keys.dedup();
            keys
        })
    }

    /// Also when an object of another kind changes, for the keys that `map` gives.
    #[must_use]
    pub fn watches<W: Kind>(mut self, map: impl Fn(&Change<W>) -> Vec<ObjectKey> + Send + Sync + 'static) -> Self {
        let (cache, queue) = (self.caches.cache::<W>(), self.queue.clone());
        self.sources.push(Box::new(move || {
            let resource = cache.resource().clone();
            let subscription = cache.on_change(move |change| {
                let cause = || change.cause(&resource, W::meta);
                map(change).into_iter().for_each(|key| queue.add_for(key, cause()));
            });
            Feed::new(&cache, subscription)
        }));
        self
    }

    /// Keeps the cache of a kind at hand, without reconciling when it changes.
    #[must_use]
    pub fn reads<W: Kind>(mut self) -> Self {
        let cache = self.caches.cache::<W>();
        self.sources.push(Box::new(move || Feed::new(&cache, cache.clone())));
        self
    }

    /// Only for changes of its own kind that pass; several filters must all pass. See [`generation_changed`].
    #[must_use]
    pub fn filter(mut self, predicate: impl Fn(&Change<K>) -> bool + Send + Sync + 'static) -> Self {
        self.filters.push(Box::new(predicate));
        self
    }

    /// Also each time this long has passed, for all keys.
    #[must_use]
    pub fn resync(mut self, period: Duration) -> Self {
        self.resync = Some(period);
        self
    }

    /// At most so many keys at the same time; at least one.
    #[must_use]
    pub fn concurrency(mut self, keys: usize) -> Self {
        self.concurrency = keys.max(1);
        self
    }

    /// The queue, for those who have further reasons to reconcile a key.
    pub fn queue(&self) -> Queue<ObjectKey> {
        self.queue.clone()
    }

    /// The counters; they stay readable while it runs and afterwards.
    pub fn metrics(&self) -> Arc<ControllerMetrics> {
        self.metrics.clone()
    }

    /// Runs until the shutdown. Runs that are under way then get [`limits::DRAIN_TIME`] to end; everything is joined
    /// when this returns.
    pub async fn run<R: Reconciler<Object = K>>(self, reconciler: R, shutdown: CancellationToken) {
        let Self { name, caches, queue, metrics, sources, resync, concurrency, filters, .. } = self;
        caches.work_queues().insert(metrics.clone());
        let own = caches.cache::<K>();
        let subscription = own.on_change({
            let (queue, resource) = (queue.clone(), own.resource().clone());
            move |change| {
                if filters.iter().all(|passes| passes(change)) {
                    queue.add_for(change.key.clone(), change.cause(&resource, K::meta));
                }
            }
        });
        let first = std::iter::once(Feed::new(&own, subscription));
        let feeds: Vec<Feed> = first.chain(sources.into_iter().map(|source| source())).collect();
        let worker = Arc::new(Worker::new(name, &caches, &queue, metrics, reconciler));
        let mut workers = TaskGroup::new(caches.env());
        let synced = feeds.iter().map(|feed| feed.progress.wait_for(|progress| progress.synced));
        if shutdown.run_until_cancelled(join_all(synced)).await.is_some() {
            for _ in 0..concurrency {
                let (worker, shutdown) = (worker.clone(), shutdown.clone());
                workers.spawn(name, async move { worker.work(&shutdown).await });
            }
            let lists = join_all(feeds.iter().map(|feed| worker.follow_lists(&feed.progress)));
            shutdown.run_until_cancelled(join(lists, resync_all(caches.env(), &own, &queue, resync))).await;
        }
        drop(feeds);
        queue.close();
        if caches.env().timeout(limits::DRAIN_TIME, workers.join()).await.is_err() {
            tracing::warn!(controller = name, "reconciles did not end in time and are cancelled");
        }
        workers.stop().await;
    }
}

/// A filter: the object came, went, began to be deleted, or its desired state changed. Without it a controller that
/// writes its object's status runs once more for each such write.
pub fn generation_changed<K: Kind>(change: &Change<K>) -> bool {
    match (&change.old, &change.new) {
        (Some(old), Some(new)) => {
            let (old, new) = (old.meta(), new.meta());
            old.generation != new.generation
                || old.deletion_timestamp != new.deletion_timestamp
                || old.finalizers != new.finalizers
        }
        _ => true,
    }
}

async fn resync_all<K: Kind>(env: &Env, own: &Cache<K>, queue: &Queue<ObjectKey>, period: Option<Duration>) {
    let Some(period) = period else { return std::future::pending().await };
    loop {
        env.sleep(period).await;
        own.keys().into_iter().for_each(|key| queue.add_for(key, Cause::Resync));
    }
}

/// The key of an object's controlling owner, if the owner is of this kind and the one that is meant.
fn owner_key<K: Kind>(child: &ObjectMeta, owners: &Cache<K>) -> Option<ObjectKey> {
    let reference = meta::controller_of(child)?;
    if reference.kind != K::kind(&()) || meta::group_of(&reference.api_version) != K::group(&()) {
        return None;
    }
    let namespace = child.namespace.clone().unwrap_or_default();
    let find = |namespace: String| {
        let key = ObjectKey::new(namespace, reference.name.clone());
        let owner = owners.get(&key)?;
        (owner.meta().uid.as_deref() == Some(&reference.uid)).then_some(key)
    };
    // The owner is in the child's namespace, or of the cluster.
    find(namespace).or_else(|| find(String::new()))
}
