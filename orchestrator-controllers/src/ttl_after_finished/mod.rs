//! The TTL-after-finished controller: deletes jobs some time after they have ended.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/workloads/controllers/ttlafterfinished/>.

mod decide;

use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::{api::batch::v1::Job, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube_core::params::{DeleteParams, PropagationPolicy};
use orchestrator_core::{
    client::Api,
    controller::{Action, Cache, Context, Controller, Reconciler},
    meta,
    object::ObjectKey,
    status::ApiError,
};
use tokio_util::sync::CancellationToken;

use self::decide::decide;
use crate::{context::ControllerContext, pods::only, writes::settled};

/// Runs the controller until the shutdown.
pub(crate) async fn run(context: ControllerContext, shutdown: CancellationToken) {
    let reconciler = TimesToLive { jobs: context.caches.cache() };
    Controller::new("ttl-after-finished", &context.caches).reconciles::<Job>().run(reconciler, shutdown).await;
}

/// Deletes the very job that was seen, after its pods.
fn only_foreground(job: &ObjectMeta) -> DeleteParams {
    DeleteParams { propagation_policy: Some(PropagationPolicy::Foreground), ..only(job) }
}

struct TimesToLive {
    jobs: Cache<Job>,
}

#[async_trait]
impl Reconciler for TimesToLive {
    type Object = Job;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> Result<Action, ApiError> {
        let now = context.env().now();
        let Some(job) = self.jobs.get(key) else { return Ok(Action::Done) };
        match decide(&job, now) {
            None => return Ok(Action::Done),
            Some(Duration::ZERO) => {}
            Some(left) => return Ok(Action::RequeueAfter(left)),
        }
        // Somebody may have prolonged it meanwhile.
        let api = Api::<Job>::namespaced(context.client(), &key.namespace);
        let Some(live) = api.get_opt(&key.name).await? else { return Ok(Action::Done) };
        let is_same = meta::uid(&live.metadata) == meta::uid(&job.metadata);
        if is_same && decide(&live, now) == Some(Duration::ZERO) {
            settled(api.delete(&key.name, &only_foreground(&live.metadata)).await)?;
        }
        Ok(Action::Done)
    }
}
