//! All caches of a process: one watch per kind, started at first use, ended with the last user.

use std::{
    any::{Any, TypeId},
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio_util::sync::CancellationToken;

use super::{
    Kind, WorkQueues,
    cache::{Cache, Core, Progress, follow},
};
use crate::{
    client::{Client, Resource},
    env::{Env, TaskHandle, Watcher},
    object::{DecodeError, Object, ObjectKey},
};

/// Shared caches. Cheap to clone.
#[derive(Clone)]
pub struct Caches {
    inner: Arc<Inner>,
    client: Client,
}

struct Inner {
    client: Client,
    env: Env,
    shutdown: CancellationToken,
    leases: Mutex<BTreeMap<(Resource, TypeId), Weak<dyn AnyLease>>>,
    tasks: Mutex<Vec<TaskHandle>>,
    work_queues: WorkQueues,
}

impl fmt::Debug for Caches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let resources: Vec<String> =
            lock(&self.inner.leases).keys().map(|(resource, _)| resource.to_string()).collect();
        f.debug_struct("Caches").field("resources", &resources).finish()
    }
}

impl Caches {
    /// No caches yet; they start when they are asked for.
    pub fn new(client: &Client, env: &Env) -> Self {
        let inner = Inner {
            client: client.clone(),
            env: env.clone(),
            shutdown: CancellationToken::new(),
            leases: Mutex::default(),
            tasks: Mutex::default(),
            work_queues: WorkQueues::default(),
        };
        Self { inner: Arc::new(inner), client: client.clone() }
    }

    /// The same caches, for one whose writes are those of a field manager of this name: see
    /// [`Client::with_field_manager`].
    #[must_use]
    pub fn with_field_manager(&self, name: &str) -> Self {
        Self { client: self.client.with_field_manager(name), ..self.clone() }
    }

    /// The client that the caches follow. Reconcilers write through [`super::Context::client`] instead, which
    /// remembers what they wrote.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The environment that the caches run in.
    pub fn env(&self) -> &Env {
        &self.inner.env
    }

    /// What the controllers on these caches count. It keeps no cache alive.
    pub fn work_queues(&self) -> &WorkQueues {
        &self.inner.work_queues
    }

    /// The cache of a kind, in all namespaces. In process its objects are the ones that everybody else holds.
    pub fn cache<K: Kind>(&self) -> Cache<K> {
        self.lease(Resource::of::<K>(&()), K::meta, Object::shared::<K>)
    }

    /// The metadata of any resource, custom ones included.
    pub fn metadata(&self, resource: &Resource) -> Cache<ObjectMeta> {
        self.lease(resource.clone(), |metadata| metadata, |object| object.shared_metadata().cloned())
    }

    /// Ends all caches and waits until their tasks are gone. What they contain stays as it was.
    pub async fn shutdown(&self) {
        self.inner.shutdown.cancel();
        let tasks = std::mem::take(&mut *lock(&self.inner.tasks));
        for task in tasks {
            task.join().await;
        }
    }

    fn lease<K: Send + Sync + 'static>(
        &self,
        resource: Resource,
        metadata: fn(&K) -> &ObjectMeta,
        decode: fn(&Object) -> Result<Arc<K>, DecodeError>,
    ) -> Cache<K> {
        let mut leases = lock(&self.inner.leases);
        let id = (resource.clone(), TypeId::of::<K>());
        if let Some(lease) = leases.get(&id).and_then(Weak::upgrade)
            && let Ok(lease) = Arc::downcast::<Lease<K>>(lease)
        {
            return Cache { lease };
        }
        let end = self.inner.shutdown.child_token();
        let core = Arc::new(Core::new(metadata, decode));
        self.inner.start(core.clone(), resource, end.clone());
        let shared = Arc::new(id.0.clone());
        let lease = Arc::new(Lease { core, resource: shared, end, _caches: self.inner.clone() });
        leases.retain(|_, lease| lease.strong_count() > 0);
        let any: Arc<dyn AnyLease> = lease.clone();
        leases.insert(id, Arc::downgrade(&any));
        Cache { lease }
    }

    /// The running caches of a resource, whatever their type.
    pub(super) fn of_resource(&self, resource: &Resource) -> Vec<Arc<dyn AnyLease>> {
        let leases = lock(&self.inner.leases);
        leases.iter().filter(|((of, _), _)| of == resource).filter_map(|(_, lease)| lease.upgrade()).collect()
    }
}

impl Inner {
    fn start<K: Send + Sync + 'static>(&self, core: Arc<Core<K>>, resource: Resource, end: CancellationToken) {
        let (client, env) = (self.client.clone(), self.env.clone());
        let task = self.env.spawn("cache", async move {
            end.run_until_cancelled(follow(core, client, env, resource)).await;
        });
        let mut tasks = lock(&self.tasks);
        tasks.retain(|task| !task.is_finished());
        tasks.push(task);
    }
}

/// What all users of a cache hold together; its end is the cache's end.
pub(super) struct Lease<K> {
    pub(super) core: Arc<Core<K>>,
    pub(super) resource: Arc<Resource>,
    end: CancellationToken,
    /// The tasks live as long as somebody needs one of them.
    _caches: Arc<Inner>,
}

impl<K> Drop for Lease<K> {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

/// A cache of a type that is not known here.
pub(super) trait AnyLease: Any + Send + Sync {
    fn progress(&self) -> Watcher<Progress>;
    fn contains(&self, key: &ObjectKey) -> bool;
    /// UID of an object, unless it is gone or going.
    fn living(&self, key: &ObjectKey) -> Option<String>;
}

impl<K: Send + Sync + 'static> AnyLease for Lease<K> {
    fn progress(&self) -> Watcher<Progress> {
        self.core.progress()
    }

    fn contains(&self, key: &ObjectKey) -> bool {
        self.core.read(|state| state.get(key).is_some())
    }

    fn living(&self, key: &ObjectKey) -> Option<String> {
        self.core.read(|state| {
            let metadata = state.metadata(key).filter(|metadata| metadata.deletion_timestamp.is_none())?;
            Some(metadata.uid.clone().unwrap_or_default())
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
