//! A controller: what it watches, and the workers that run its reconciler.

use std::{
    collections::BTreeMap,
    fmt,
    marker::PhantomData,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio_util::sync::CancellationToken;

use super::{
    Action, Cache, Caches, Change, Context, ControllerMetrics, Kind, Outcome, Queue, Reconciler, RunTrace,
    Subscription, context::Writes, limits,
};
use crate::{
    env::{Env, TaskGroup, panic_message},
    meta,
    object::ObjectKey,
};

/// Runs a [`Reconciler`] for every key of a kind, whenever something that the key depends on has changed.
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

/// Starts to feed the queue; the future resolves once the cache behind it is synced.
type Source = Box<dyn FnOnce() -> (Option<Subscription>, BoxFuture<'static, ()>) + Send>;

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
            let subscription = cache.on_change(move |change| map(change).into_iter().for_each(|key| queue.add(key)));
            (Some(subscription), async move { cache.synced().await }.boxed())
        }));
        self
    }

    /// Keeps the cache of a kind at hand, without reconciling when it changes.
    #[must_use]
    pub fn reads<W: Kind>(mut self) -> Self {
        let cache = self.caches.cache::<W>();
        self.sources.push(Box::new(move || (None, async move { cache.synced().await }.boxed())));
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
        let own = caches.cache::<K>();
        let mut subscriptions = vec![own.on_change({
            let queue = queue.clone();
            move |change| {
                if filters.iter().all(|passes| passes(change)) {
                    queue.add(change.key.clone());
                }
            }
        })];
        let mut synced = vec![{
            let own = own.clone();
            async move { own.synced().await }.boxed()
        }];
        for source in sources {
            let (subscription, ready) = source();
            subscriptions.extend(subscription);
            synced.push(ready);
        }
        let worker = Arc::new(Worker {
            name,
            caches: caches.clone(),
            queue: queue.clone(),
            metrics,
            writes: Mutex::default(),
            reconciler,
        });
        let mut workers = TaskGroup::new(caches.env());
        if shutdown.run_until_cancelled(join_all(synced)).await.is_some() {
            for _ in 0..concurrency {
                let (worker, shutdown) = (worker.clone(), shutdown.clone());
                workers.spawn(name, async move { worker.work(&shutdown).await });
            }
            shutdown.run_until_cancelled(resync_all(caches.env(), &own, &queue, resync)).await;
        }
        drop(subscriptions);
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
        own.keys().into_iter().for_each(|key| queue.add(key));
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

struct Worker<R> {
    name: &'static str,
    caches: Caches,
    queue: Queue<ObjectKey>,
    metrics: Arc<ControllerMetrics>,
    /// Writes of a key's last run that the caches did not contain yet when it ended.
    writes: Mutex<BTreeMap<ObjectKey, Arc<Writes>>>,
    reconciler: R,
}

impl<R: Reconciler> Worker<R> {
    async fn work(&self, shutdown: &CancellationToken) {
        while let Some(key) = self.queue.next().await {
            match shutdown.run_until_cancelled(self.sees_own_writes(&key)).await {
                Some(true) => self.run_once(&key).await,
                Some(false) => {
                    tracing::warn!(controller = self.name, %key, "the caches do not show the last writes yet");
                    self.queue.retry(key.clone());
                }
                None => {}
            }
            self.queue.done(&key);
        }
    }

    /// Waits, for a bounded time, until the caches contain what the last run of the key wrote.
    async fn sees_own_writes(&self, key: &ObjectKey) -> bool {
        let Some(writes) = self.lock_writes().get(key).cloned() else { return true };
        let contained = writes.contained(&self.caches).boxed();
        if !writes.is_contained(&self.caches)
            && self.caches.env().timeout(limits::OWN_WRITES_TIME, contained).await.is_err()
        {
            return false;
        }
        self.lock_writes().remove(key);
        true
    }

    async fn run_once(&self, key: &ObjectKey) {
        self.metrics.begin();
        let started = self.caches.env().monotonic();
        let writes = Arc::new(Writes::default());
        let context = Context::new(&self.caches, writes.clone());
        let result = AssertUnwindSafe(self.reconciler.reconcile(key, &context)).catch_unwind().await;
        let outcome = match result {
            Ok(Ok(Action::Done)) => Outcome::Done,
            Ok(Ok(Action::RequeueAfter(delay))) => Outcome::RequeueAfter(delay),
            Ok(Err(error)) => Outcome::Failed(describe(&error)),
            Err(panic) => Outcome::Panicked(panic_message(&*panic)),
        };
        if !writes.is_empty() {
            self.remember(key, writes.clone());
        }
        self.follow_up(key, &outcome);
        let duration = self.caches.env().monotonic().saturating_sub(started);
        self.metrics.end(RunTrace { key: key.clone(), outcome, duration, writes: writes.count() });
    }

    fn remember(&self, key: &ObjectKey, writes: Arc<Writes>) {
        let mut known = self.lock_writes();
        if known.len() >= limits::REMEMBERED_KEYS {
            known.retain(|_, writes| !writes.is_contained(&self.caches));
        }
        known.insert(key.clone(), writes);
    }

    fn follow_up(&self, key: &ObjectKey, outcome: &Outcome) {
        match outcome {
            Outcome::Done => self.queue.forget(key),
            Outcome::RequeueAfter(delay) => {
                self.queue.forget(key);
                self.queue.add_after(key.clone(), *delay);
            }
            Outcome::Failed(error) => {
                let pause = self.queue.retry(key.clone());
                tracing::warn!(controller = self.name, %key, error, ?pause, "reconcile failed");
            }
            Outcome::Panicked(message) => {
                let pause = self.queue.retry(key.clone());
                tracing::error!(controller = self.name, %key, message, ?pause, "reconcile panicked");
            }
        }
    }

    fn lock_writes(&self) -> std::sync::MutexGuard<'_, BTreeMap<ObjectKey, Arc<Writes>>> {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An error with its sources.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
