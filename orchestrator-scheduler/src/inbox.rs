//! What has changed in the caches and was not looked at yet.
//!
//! Bounded by what exists: of each object only its newest state waits, and the state that was looked at last.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use k8s_openapi::api::{
    apps::v1::{ReplicaSet, StatefulSet},
    core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, ReplicationController, Service},
    policy::v1::PodDisruptionBudget,
    resource::v1::{DeviceClass, ResourceClaim, ResourceSlice},
    storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment},
};
use orchestrator_core::{
    controller::{Cache, Caches, Change, Kind, Subscription},
    object::ObjectKey,
};
use tokio::sync::Notify;

/// Changes of one kind: the state that was looked at last, and the newest.
pub(crate) type Changes<K> = BTreeMap<ObjectKey, (Option<Arc<K>>, Option<Arc<K>>)>;

/// Changes of all kinds.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    pub(crate) nodes: Changes<Node>,
    pub(crate) pods: Changes<Pod>,
    pub(crate) namespaces: Changes<Namespace>,
    pub(crate) claims: Changes<PersistentVolumeClaim>,
    pub(crate) volumes: Changes<PersistentVolume>,
    pub(crate) classes: Changes<StorageClass>,
    pub(crate) csi_nodes: Changes<CSINode>,
    pub(crate) csi_drivers: Changes<CSIDriver>,
    pub(crate) capacities: Changes<CSIStorageCapacity>,
    pub(crate) attachments: Changes<VolumeAttachment>,
    pub(crate) resource_claims: Changes<ResourceClaim>,
    pub(crate) device_classes: Changes<DeviceClass>,
    pub(crate) resource_slices: Changes<ResourceSlice>,
    pub(crate) budgets: Changes<PodDisruptionBudget>,
    pub(crate) services: Changes<Service>,
    pub(crate) replication_controllers: Changes<ReplicationController>,
    pub(crate) replica_sets: Changes<ReplicaSet>,
    pub(crate) stateful_sets: Changes<StatefulSet>,
}

#[derive(Default)]
struct Shared {
    pending: Mutex<Pending>,
    changed: Notify,
}

/// Follows the caches that scheduling needs.
pub(crate) struct Inbox {
    shared: Arc<Shared>,
    pods: Cache<Pod>,
    _subscriptions: Vec<Subscription>,
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inbox")
    }
}

impl Inbox {
    /// Follows the caches. The second part resolves once the first lists are complete.
    pub(crate) fn new(caches: &Caches) -> (Self, BoxFuture<'static, ()>) {
        let shared = Arc::<Shared>::default();
        let (subscriptions, synced): (Vec<_>, Vec<_>) = [
            follow::<Node>(caches, &shared, |pending| &mut pending.nodes),
            follow::<Pod>(caches, &shared, |pending| &mut pending.pods),
            follow::<Namespace>(caches, &shared, |pending| &mut pending.namespaces),
            follow::<PersistentVolumeClaim>(caches, &shared, |pending| &mut pending.claims),
            follow::<PersistentVolume>(caches, &shared, |pending| &mut pending.volumes),
            follow::<StorageClass>(caches, &shared, |pending| &mut pending.classes),
            follow::<CSINode>(caches, &shared, |pending| &mut pending.csi_nodes),
            follow::<CSIDriver>(caches, &shared, |pending| &mut pending.csi_drivers),
            follow::<CSIStorageCapacity>(caches, &shared, |pending| &mut pending.capacities),
            follow::<VolumeAttachment>(caches, &shared, |pending| &mut pending.attachments),
            follow_if_served::<ResourceClaim>(caches, &shared, |pending| &mut pending.resource_claims),
            follow_if_served::<DeviceClass>(caches, &shared, |pending| &mut pending.device_classes),
            follow_if_served::<ResourceSlice>(caches, &shared, |pending| &mut pending.resource_slices),
            follow::<PodDisruptionBudget>(caches, &shared, |pending| &mut pending.budgets),
            follow::<Service>(caches, &shared, |pending| &mut pending.services),
            follow::<ReplicationController>(caches, &shared, |pending| &mut pending.replication_controllers),
            follow::<ReplicaSet>(caches, &shared, |pending| &mut pending.replica_sets),
            follow::<StatefulSet>(caches, &shared, |pending| &mut pending.stateful_sets),
        ]
        .into_iter()
        .unzip();
        let inbox = Self { shared, pods: caches.cache::<Pod>(), _subscriptions: subscriptions };
        (inbox, Box::pin(join_all(synced).map(drop)))
    }

    /// Takes all changes.
    pub(crate) fn take(&self) -> Pending {
        std::mem::take(&mut *lock(&self.shared.pending))
    }

    /// Resolves when something has changed.
    pub(crate) async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    /// The newest state of a pod.
    pub(crate) fn pod(&self, key: &ObjectKey) -> Option<Arc<Pod>> {
        self.pods.get(key)
    }
}

type Of<K> = fn(&mut Pending) -> &mut Changes<K>;

fn follow<K: Kind>(caches: &Caches, shared: &Arc<Shared>, of: Of<K>) -> (Subscription, BoxFuture<'static, ()>) {
    let (subscription, cache) = subscribe(caches, shared, of);
    (subscription, Box::pin(async move { cache.synced().await }))
}

/// Servers without the kind do not hold scheduling up.
fn follow_if_served<K: Kind>(
    caches: &Caches,
    shared: &Arc<Shared>,
    of: Of<K>,
) -> (Subscription, BoxFuture<'static, ()>) {
    let (subscription, cache) = subscribe(caches, shared, of);
    (subscription, Box::pin(async move { cache.synced_or_not_served().await }))
}

fn subscribe<K: Kind>(caches: &Caches, shared: &Arc<Shared>, of: Of<K>) -> (Subscription, Cache<K>) {
    let (cache, shared) = (caches.cache::<K>(), shared.clone());
    let subscription = cache.on_change(move |change: &Change<K>| {
        let mut pending = lock(&shared.pending);
        let entry = of(&mut pending).entry(change.key.clone()).or_insert_with(|| (change.old.clone(), None));
        entry.1.clone_from(&change.new);
        drop(pending);
        shared.changed.notify_one();
    });
    (subscription, cache)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
