//! Pods that were of a job and that no job counts any more: they lose the finalizer that keeps them.

use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use orchestrator_core::{
    client::Api,
    controller::{Action, Cache, Change, Context, Controller, Reconciler},
    meta::{self, controller_of},
    object::ObjectKey,
    status::{ApiError, ApiResult},
};
use tokio_util::sync::CancellationToken;

use super::{decide::is_finished, is_foreign, pods::is_tracked, release};
use crate::{
    context::ControllerContext,
    pods::{controlled_by, is_deleting},
};

/// Runs the controller until the shutdown.
pub(super) async fn run(context: &ControllerContext, shutdown: CancellationToken) {
    let caches = &context.caches;
    let orphans = Orphans { pods: caches.cache(), jobs: caches.cache() };
    let (pods, jobs) = (orphans.pods.clone(), orphans.jobs.clone());
    let controller = Controller::new("job-orphans", caches)
        .reconciles::<Pod>()
        .filter(move |change: &Change<Pod>| {
            let may_go = |pod: &Arc<Pod>| is_tracked(pod) && (is_deleting(pod) || !is_wanted(pod, &jobs));
            change.new.as_ref().is_some_and(may_go)
        })
        .watches::<Job>(move |change| {
            let ended = change.new.as_ref().is_none_or(|job| is_finished(job));
            let Some(job) = change.object().filter(|_| ended) else { return Vec::new() };
            let pods = controlled_by(&pods, &job.metadata);
            pods.iter().filter(|pod| is_tracked(pod)).map(|pod| ObjectKey::of(&pod.metadata)).collect()
        });
    controller.run(orphans, shutdown).boxed().await;
}

/// Whether a pod has an owner that has not ended, as far as is known. A pod may be heard of after the end of its job.
fn is_wanted(pod: &Pod, jobs: &Cache<Job>) -> bool {
    let Some(owner) = controller_of(&pod.metadata) else { return false };
    let job = jobs.get(&ObjectKey::new(meta::namespace(&pod.metadata), &*owner.name));
    job.is_none_or(|job| meta::uid(&job.metadata) != owner.uid || !is_finished(&job))
}

struct Orphans {
    pods: Cache<Pod>,
    jobs: Cache<Job>,
}

#[async_trait]
impl Reconciler for Orphans {
    type Object = Pod;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> ApiResult<Action> {
        if let Some(pod) = self.pods.get(key).filter(|pod| is_tracked(pod))
            && self.is_orphan(&pod, context).await?
        {
            release(context, &pod).await?;
        }
        Ok(Action::Done)
    }
}

impl Orphans {
    async fn is_orphan(&self, pod: &Arc<Pod>, context: &Context) -> ApiResult<bool> {
        let Some(owner) = controller_of(&pod.metadata) else { return Ok(true) };
        if owner.kind != "Job" || meta::group_of(&owner.api_version) != "batch" {
            return Ok(false);
        }
        let key = ObjectKey::new(meta::namespace(&pod.metadata), &*owner.name);
        let is_owner = |job: &Arc<Job>| meta::uid(&job.metadata) == owner.uid;
        let counts = |job: &Arc<Job>| is_foreign(job) || !is_finished(job);
        if let Some(job) = self.jobs.get(&key).filter(is_owner) {
            return Ok(!counts(&job));
        }
        // A pod may be known sooner than its job.
        let api = Api::<Job>::namespaced(context.client(), &key.namespace);
        let job = api.get_opt(&key.name).await?.filter(is_owner);
        Ok(job.is_none_or(|job| !counts(&job)))
    }
}
