//! The ResourceQuota controller: how much of each quota is used.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/policy/resource-quotas/>. That nothing exceeds a quota is for the API server's
//! admission.

mod decide;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, Service},
        resource::v1::ResourceClaim,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube_core::params::PostParams;
use orchestrator_core::{
    client::{Api, Resource, ResourceDiscovery},
    controller::{Action, Cache, Caches, Change, Context, Controller, Kind, Queue, Reconciler, Subscription},
    meta,
    object::ObjectKey,
    quota::amounts,
    status::{ApiError, ApiResult},
};
use tokio_util::sync::CancellationToken;

use self::decide::{Observed, decide};
use crate::{context::ControllerContext, limits::QUOTA_PERIOD, pods::is_deleting, writes::settled};

/// Core resources that quotas also count by their plain names.
const PLAIN_NAMES: [&str; 4] = ["configmaps", "replicationcontrollers", "resourcequotas", "secrets"];

/// Resources whose objects use more than their own number.
const TYPED: [&str; 3] = ["persistentvolumeclaims", "pods", "services"];

/// Runs the controller until the shutdown.
pub(crate) async fn run(context: ControllerContext, shutdown: CancellationToken) {
    let caches = &context.caches;
    let quotas: Cache<ResourceQuota> = caches.cache();
    let pods_quotas = all_of(&quotas);
    let controller = Controller::new("resourcequota", caches)
        .reconciles::<ResourceQuota>()
        .filter(|change| spec_of(&change.old) != spec_of(&change.new))
        .watches::<Pod>(move |change| if uses_otherwise(change) { pods_quotas(change) } else { Vec::new() })
        .watches::<Service>(all_of(&quotas))
        .watches::<PersistentVolumeClaim>(all_of(&quotas))
        .watches::<ResourceClaim>(all_of(&quotas))
        .resync(QUOTA_PERIOD);
    let reconciler = Quotas {
        pods: caches.cache(),
        services: caches.cache(),
        claims: caches.cache(),
        device_claims: caches.cache(),
        discovery: context.discovery.clone(),
        queue: controller.queue(),
        counted: Mutex::default(),
        quotas,
    };
    controller.run(reconciler, shutdown).await;
}

fn spec_of(quota: &Option<Arc<ResourceQuota>>) -> Option<&k8s_openapi::api::core::v1::ResourceQuotaSpec> {
    quota.as_ref()?.spec.as_ref()
}

/// Whether a pod uses something else than before.
fn uses_otherwise(change: &Change<Pod>) -> bool {
    let seen = |pod: &Option<Arc<Pod>>| pod.as_ref().map(|pod| (amounts::pod(pod, Timestamp::MIN), is_deleting(pod)));
    seen(&change.old) != seen(&change.new)
}

/// The quotas of the namespace in which something changed.
fn all_of<K: Kind>(quotas: &Cache<ResourceQuota>) -> impl Fn(&Change<K>) -> Vec<ObjectKey> + use<K> {
    let quotas = quotas.clone();
    move |change| keys(&quotas, &change.key.namespace)
}

fn keys(quotas: &Cache<ResourceQuota>, namespace: &str) -> Vec<ObjectKey> {
    quotas.list_namespace(namespace).iter().map(|quota| ObjectKey::of(&quota.metadata)).collect()
}

struct Quotas {
    quotas: Cache<ResourceQuota>,
    pods: Cache<Pod>,
    services: Cache<Service>,
    claims: Cache<PersistentVolumeClaim>,
    device_claims: Cache<ResourceClaim>,
    discovery: Arc<dyn ResourceDiscovery>,
    queue: Queue<ObjectKey>,
    /// The other resources that quotas count, from the first time that one does.
    counted: Mutex<BTreeMap<Resource, Counted>>,
}

/// A resource of which objects are counted.
struct Counted {
    objects: Cache<ObjectMeta>,
    _changes: Subscription,
}

#[async_trait]
impl Reconciler for Quotas {
    type Object = ResourceQuota;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> ApiResult<Action> {
        let Some(quota) = self.quotas.get(key) else { return Ok(Action::Done) };
        let counts = self.counts(&quota, context.caches()).await?;
        let observed = Observed {
            quota: &quota,
            pods: &self.pods.list_namespace(&key.namespace),
            services: &self.services.list_namespace(&key.namespace),
            claims: &self.claims.list_namespace(&key.namespace),
            device_claims: &self.device_claims.list_namespace(&key.namespace),
            counts: &counts,
            now: context.env().now(),
        };
        if let Some(status) = decide(observed) {
            let quota = ResourceQuota { status: Some(status), ..ResourceQuota::clone(&quota) };
            let api = Api::<ResourceQuota>::namespaced(context.client(), &key.namespace);
            settled(api.replace_status(&key.name, &PostParams::default(), &quota).await)?;
        }
        Ok(Action::Done)
    }
}

impl Quotas {
    /// The numbers of objects that a quota limits, other than those of pods, services and claims.
    async fn counts(&self, quota: &ResourceQuota, caches: &Caches) -> ApiResult<BTreeMap<String, usize>> {
        let hard = quota.spec.as_ref().and_then(|spec| spec.hard.as_ref());
        let names = hard.into_iter().flat_map(|hard| hard.keys());
        let wanted: Vec<(&String, &str)> = names.filter_map(|name| Some((name, counted_resource(name)?))).collect();
        if wanted.is_empty() {
            return Ok(BTreeMap::new());
        }
        let known = self.discovery.resources().await?;
        let mut counts = BTreeMap::new();
        for (name, counted) in wanted {
            let (plural, group) = counted.split_once('.').unwrap_or((counted, ""));
            let is_meant = |resource: &Resource| resource.plural == plural && resource.group == group;
            let countable = known.iter().filter(|known| known.namespaced && known.supports(&["list", "watch"]));
            if let Some(known) = countable.into_iter().find(|known| is_meant(&known.resource)) {
                let objects = self.objects(&known.resource, caches);
                objects.synced().await;
                counts.insert(name.clone(), objects.list_namespace(meta::namespace(&quota.metadata)).len());
            }
        }
        Ok(counts)
    }

    /// The objects of a resource; quotas are looked at again when one comes or goes.
    fn objects(&self, resource: &Resource, caches: &Caches) -> Cache<ObjectMeta> {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = counted.entry(resource.clone()).or_insert_with(|| {
            let objects = caches.metadata(resource);
            let (queue, quotas) = (self.queue.clone(), self.quotas.clone());
            let changes = objects.on_change(move |change| {
                if change.old.is_none() || change.new.is_none() {
                    keys(&quotas, &change.key.namespace).into_iter().for_each(|key| queue.add(key));
                }
            });
            Counted { objects, _changes: changes }
        });
        entry.objects.clone()
    }
}

/// The resource, with its group, whose objects have a number of this name.
fn counted_resource(name: &str) -> Option<&str> {
    if PLAIN_NAMES.contains(&name) {
        return Some(name);
    }
    name.strip_prefix("count/").filter(|counted| !TYPED.contains(counted))
}
