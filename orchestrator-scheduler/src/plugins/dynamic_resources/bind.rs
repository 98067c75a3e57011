//! What is done once a pod has a node: its devices are taken at once, and written into its claims before it is bound.
//!
//! A claim is written under the version that was read, and what was chosen for it counts as taken until the cache shows the
//! claim. Whoever dies in between leaves claims with devices or without. A write that nobody waits for any more, or another
//! scheduler, may give a device to a second claim; so each pod is bound only after the cache contains what was written for
//! it, and with that everything that was written before: of two claims the later one is seen to be so, and gives way.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use k8s_openapi::api::{
    core::v1::Pod,
    resource::v1::{AllocationResult, ResourceClaim, ResourceClaimConsumerReference},
};
use kube_core::params::PostParams;
use orchestrator_core::{
    client::Api,
    events::Event,
    meta::{self, object_reference},
    object::{self, ObjectKey},
    scheduler::{DeviceId, PendingAllocation, PodInfo, Rejection, Snapshot},
    status::{ApiError, ApiResult},
    store::Revision,
};
use tokio::sync::Notify;

use super::{Allocating, DynamicResources, NAME, NOT_AVAILABLE, claims, conditions, twice};
use crate::{
    framework::{BindError, Binding, PostBind, PreBind, Reserve},
    limits::STATUS_ATTEMPTS,
};

/// Keeps a claim while it has devices.
const FINALIZER: &str = "resource.kubernetes.io/delete-protection";

/// What is to be written for a pod.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    claims: Vec<Planned>,
    /// Claims, by UID, whose devices were not ready in time.
    overdue: Vec<String>,
}

/// A claim of a pod that has a node.
#[derive(Clone, Debug)]
struct Planned {
    key: ObjectKey,
    uid: String,
    /// What it has, or gets.
    allocation: AllocationResult,
    /// Whether it gets it now.
    is_new: bool,
}

impl Planned {
    /// Whether a claim has what it was planned to have. Parts of devices have IDs only once they are written.
    fn is_in(&self, claim: &ResourceClaim) -> bool {
        let Some(allocation) = claims::allocation(claim) else { return false };
        let (has, planned) = (claims::results(allocation), claims::results(&self.allocation));
        let same = has.iter().zip(planned).all(|(a, b)| (DeviceId::of(a), &a.request) == (DeviceId::of(b), &b.request));
        same && has.len() == planned.len() && allocation.node_selector == self.allocation.node_selector
    }
}

impl DynamicResources {
    /// What the claims of a pod get on a node.
    fn plan(&self, pod: &PodInfo, node: &str, cluster: &Snapshot) -> Result<Vec<Planned>, Rejection> {
        let allocating = Allocating::of(pod, &cluster.devices, self.steps_per_node)?;
        let Some(allocating) = allocating else { return Ok(Vec::new()) };
        let mut allocations = match (&allocating.allocator, cluster.node(node)) {
            (None, _) => Vec::new(),
            (Some(allocator), Some(node)) => allocator.allocate(node.node())?,
            (Some(_), None) => return Err(Rejection::unresolvable(NAME, NOT_AVAILABLE)),
        }
        .into_iter();
        let planned = allocating.claims.iter().filter_map(|claim| {
            let had = claims::allocation(claim).cloned();
            Some(Planned {
                key: ObjectKey::of(&claim.metadata),
                uid: meta::uid(&claim.metadata).to_owned(),
                is_new: had.is_none(),
                allocation: had.or_else(|| allocations.next())?,
            })
        });
        Ok(planned.collect())
    }
}

/// Gives the claims of a pod on a node what they get there, in a cluster that is only imagined.
pub(crate) fn take_devices(pod: &PodInfo, node: &str, cluster: &mut Snapshot) {
    if claims::written(pod).is_empty() {
        return;
    }
    for planned in DynamicResources::default().plan(pod, node, cluster).unwrap_or_default() {
        let Some(mut claim) = cluster.devices.claim(&planned.key).map(|claim| ResourceClaim::clone(claim)) else {
            continue;
        };
        reserve_for(&mut claim, pod, planned.is_new.then_some(&planned.allocation));
        cluster.devices.set_claim(planned.key, Some(Arc::new(claim)));
    }
}

fn reserve_for(claim: &mut ResourceClaim, pod: &PodInfo, allocation: Option<&AllocationResult>) {
    if claims::is_reserved_for(claim, pod) {
        return;
    }
    let status = claim.status.get_or_insert_default();
    if let Some(allocation) = allocation {
        status.allocation = Some(allocation.clone());
    }
    status.reserved_for.get_or_insert_default().push(ResourceClaimConsumerReference {
        api_group: None,
        resource: "pods".to_owned(),
        name: pod.key().name.clone(),
        uid: pod.uid().to_owned(),
    });
}

impl Reserve for DynamicResources {
    fn reserve(&self, pod: &PodInfo, node: &str, cluster: &mut Snapshot) -> Option<Rejection> {
        if claims::written(pod).is_empty() {
            return None;
        }
        let planned = match self.plan(pod, node, cluster) {
            Ok(planned) => planned,
            Err(rejection) => return Some(rejection),
        };
        for Planned { key, uid, allocation, .. } in planned.iter().filter(|planned| planned.is_new) {
            let (claim, pod, allocation) = (key.clone(), pod.uid().to_owned(), Arc::new(allocation.clone()));
            cluster.devices.choose(uid, PendingAllocation { claim, pod, allocation });
        }
        self.plans().insert(pod.uid().to_owned(), Plan { claims: planned, overdue: Vec::new() });
        None
    }

    fn unreserve(&self, pod: &PodInfo, _node: &str, cluster: &mut Snapshot) {
        if let Some(plan) = self.plans().remove(pod.uid()) {
            cluster.devices.overdue.extend(plan.overdue);
        }
    }
}

#[async_trait]
impl PreBind for DynamicResources {
    async fn pre_bind(&self, binding: &Binding) -> Result<(), BindError> {
        let Some(plan) = self.plans().get(binding.pod.uid()).cloned() else { return Ok(()) };
        let failed = |message| BindError::Failed(NAME, message);
        let claims = binding.caches.cache::<ResourceClaim>();
        for planned in &plan.claims {
            let claim = bind_claim(binding, planned).await.map_err(failed)?;
            let version = claim.metadata.resource_version.as_deref().and_then(|version| version.parse().ok());
            if let Some(version) = version {
                claims.reached(Revision(version)).await;
            }
            if let Some((device, other)) = twice::contested(&claims, &claim) {
                let key = &planned.key;
                return Err(failed(format!("claim {key}: device {device} got allocated to claim {other} as well")));
            }
        }
        self.wait_until_prepared(binding, &plan.claims).await.map_err(failed)
    }

    async fn undo(&self, binding: &Binding) {
        let Some(plan) = self.plans().get(binding.pod.uid()).cloned() else { return };
        if plan.claims.is_empty() || !is_without_node(binding).await {
            return;
        }
        for planned in &plan.claims {
            if let Err(error) = release_claim(binding, planned).await {
                tracing::debug!(pod = %binding.pod.key(), claim = %planned.key, %error, "the claim was not released");
            }
        }
    }
}

#[async_trait]
impl PostBind for DynamicResources {
    async fn post_bind(&self, binding: &Binding) {
        self.plans().remove(binding.pod.uid());
    }
}

/// Whether it is known that the pod has no node. The answer to a binding may have been lost, and a pod that runs keeps its
/// devices.
async fn is_without_node(binding: &Binding) -> bool {
    let key = binding.pod.key();
    match Api::<Pod>::namespaced(binding.caches.client(), &key.namespace).get_opt(&key.name).await {
        Ok(Some(pod)) if meta::uid(&pod.metadata) == binding.pod.uid() => PodInfo::new(pod).node_name().is_none(),
        Ok(_) => true,
        Err(_) => false,
    }
}

/// Writes what a claim gets, and that the pod uses it. Gives the claim as it is then.
async fn bind_claim(binding: &Binding, planned: &Planned) -> Result<Arc<ResourceClaim>, String> {
    let Planned { key, uid, .. } = planned;
    let api = Api::<ResourceClaim>::namespaced(binding.caches.client(), &key.namespace);
    let allocation = planned.is_new.then(|| {
        let mut allocation = planned.allocation.clone();
        let results = allocation.devices.as_mut().and_then(|devices| devices.results.as_mut());
        let ids = results.into_iter().flatten().filter_map(|result| result.share_id.as_mut());
        ids.for_each(|id| *id = binding.caches.env().uid());
        allocation
    });
    let is_done = |claim: &ResourceClaim| claims::is_reserved_for(claim, &binding.pod) && planned.is_in(claim);
    let mut claim = binding.caches.cache::<ResourceClaim>().get(key);
    for attempt in 0..STATUS_ATTEMPTS {
        let newest = match claim.take().filter(|_| attempt == 0) {
            Some(claim) => claim,
            None => {
                let newest = api.get(&key.name).await;
                newest.map_err(|error| format!("get updated claim {key} after conflict: {error}"))?
            }
        };
        if meta::uid(&newest.metadata) == uid && is_done(&newest) {
            return Ok(newest);
        }
        if meta::is_deleting(&newest.metadata) || meta::uid(&newest.metadata) != uid {
            return Err(format!("claim {key} got deleted in the meantime"));
        }
        let is_elsewhere = if planned.is_new { claims::allocation(&newest).is_some() } else { !planned.is_in(&newest) };
        if is_elsewhere {
            return Err(format!("claim {key} got allocated elsewhere in the meantime"));
        }
        match write(&api, binding, &newest, allocation.as_ref()).await {
            Ok(written) => return Ok(written),
            Err((_, error)) if error.is_conflict() => {}
            Err((what, error)) => {
                // Nobody knows whether an answer that was lost was a success.
                let now = api.get(&key.name).await.ok().filter(|now| is_done(now));
                return now.ok_or_else(|| format!("{what} to claim {key}: {error}"));
            }
        }
    }
    Err(format!("add allocation and reservation to claim {key}: too many conflicts"))
}

/// Two writes, because the finalizer is no part of the status.
async fn write(
    api: &Api<ResourceClaim>,
    binding: &Binding,
    claim: &Arc<ResourceClaim>,
    allocation: Option<&AllocationResult>,
) -> Result<Arc<ResourceClaim>, (&'static str, ApiError)> {
    let name = meta::name(&claim.metadata);
    let mut new = ResourceClaim::clone(claim);
    if allocation.is_some() && meta::add_finalizer(&mut new.metadata, FINALIZER) {
        let with_finalizer = api.replace(name, &PostParams::default(), &new).await;
        new = ResourceClaim::clone(&*with_finalizer.map_err(|error| ("add finalizer", error))?);
    }
    reserve_for(&mut new, &binding.pod, allocation);
    if let Some(allocation) = new.status.as_mut().and_then(|status| status.allocation.as_mut()) {
        let now = || object::time(binding.caches.env().now());
        allocation.allocation_timestamp.get_or_insert_with(now);
    }
    let what = if allocation.is_some() { "add allocation and reservation" } else { "add reservation" };
    api.replace_status(name, &PostParams::default(), &new).await.map_err(|error| (what, error))
}

/// The pod uses the claim no longer: it was not bound. Devices that another claim has as well are given back. What others have
/// written for the pod stays.
async fn release_claim(binding: &Binding, planned: &Planned) -> ApiResult<()> {
    let Planned { key, uid, .. } = planned;
    let api = Api::<ResourceClaim>::namespaced(binding.caches.client(), &key.namespace);
    let claims = binding.caches.cache::<ResourceClaim>();
    for _ in 0..STATUS_ATTEMPTS {
        let Some(claim) = api.get_opt(&key.name).await? else { return Ok(()) };
        let is_ours = meta::uid(&claim.metadata) == uid && planned.is_in(&claim);
        if !is_ours || !claims::is_reserved_for(&claim, &binding.pod) {
            return Ok(());
        }
        let mut new = ResourceClaim::clone(&claim);
        let status = new.status.get_or_insert_default();
        if let Some(users) = &mut status.reserved_for {
            users.retain(|user| user.uid != binding.pod.uid());
        }
        status.reserved_for.take_if(|users| users.is_empty());
        if status.reserved_for.is_none() && twice::contested(&claims, &claim).is_some() {
            (status.allocation, status.devices) = (None, None);
        }
        match api.replace_status(&key.name, &PostParams::default(), &new).await {
            Err(error) if error.is_conflict() => {}
            result => return result.map(drop),
        }
    }
    Ok(())
}

/// Gives back the devices of a claim that nobody uses, if it is still as it was.
pub(crate) async fn give_back(api: &Api<ResourceClaim>, claim: &ResourceClaim) -> ApiResult<()> {
    let mut new = claim.clone();
    if let Some(status) = &mut new.status {
        (status.allocation, status.reserved_for, status.devices) = (None, None, None);
    }
    api.replace_status(meta::name(&claim.metadata), &PostParams::default(), &new).await.map(drop)
}

impl DynamicResources {
    /// Waits until all devices that must be prepared are.
    async fn wait_until_prepared(&self, binding: &Binding, planned: &[Planned]) -> Result<(), String> {
        let cache = binding.caches.cache::<ResourceClaim>();
        let claims =
            || planned.iter().filter_map(|planned| cache.get(&planned.key)).filter(|claim| conditions::any(claim));
        let env = binding.caches.env();
        let times = claims().map(|claim| (conditions::time_left(&claim, env.now(), self.binding_timeout), claim));
        let Some((left, first)) = times.min_by_key(|(left, _)| *left) else { return Ok(()) };
        let message = format!("waiting for binding conditions for device on node {}", binding.node);
        let event = Event { action: "Scheduling".to_owned(), ..Event::normal("BindingConditionsPending", message) };
        binding.events.record(&object_reference(binding.pod.pod().as_ref()), event);
        match env.timeout(left, prepared(binding, planned)).await {
            Ok(prepared) => prepared,
            Err(_) => {
                let unmet = claims().filter(|claim| conditions::are_met(claim) != Ok(true));
                let unmet: Vec<String> = unmet.map(|claim| meta::uid(&claim.metadata).to_owned()).collect();
                if let Some(plan) = self.plans().get_mut(binding.pod.uid()) {
                    plan.overdue = unmet;
                }
                // Not those that were allocated for this attempt.
                let is_older = left + Duration::from_secs(1) < self.binding_timeout;
                let name = meta::name(&first.metadata);
                Err(if is_older {
                    format!("claim {name} binding timeout")
                } else {
                    "device binding timeout".to_owned()
                })
            }
        }
    }
}

/// Resolves when all devices are prepared, or that has failed, or the pod is gone.
async fn prepared(binding: &Binding, planned: &[Planned]) -> Result<(), String> {
    let (claims, pods) = (binding.caches.cache::<ResourceClaim>(), binding.caches.cache::<Pod>());
    let changed = Arc::new(Notify::new());
    let (of_claims, of_pods) = (changed.clone(), changed.clone());
    let _of_claims = claims.on_change(move |_| of_claims.notify_one());
    let _of_pods = pods.on_change(move |_| of_pods.notify_one());
    loop {
        let mut all = true;
        for planned in planned {
            let Some(claim) = claims.get(&planned.key) else {
                return Err(format!("could not find ResourceClaim \"{}\"", planned.key));
            };
            all &= !conditions::any(&claim) || conditions::are_met(&claim)?;
        }
        if all {
            return Ok(());
        }
        if pods.get(binding.pod.key()).is_none_or(|pod| pod.metadata.uid != binding.pod.metadata.uid) {
            return Err("pod does not exist any more".to_owned());
        }
        changed.notified().await;
    }
}
