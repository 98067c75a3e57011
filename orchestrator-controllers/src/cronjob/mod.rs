//! The CronJob controller: a job each time that a schedule says.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/>. Start at [`decide::decide`].

mod decide;
mod times;

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::{
    api::batch::v1::{CronJob, CronJobStatus, Job},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube_core::params::{DeleteParams, PostParams, PropagationPolicy};
use orchestrator_core::{
    client::Api,
    controller::{Action, Cache, Context, Controller, Reconciler, generation_changed},
    events::{Event, EventRecorder},
    meta::{self, is_controlled_by, object_reference},
    object::ObjectKey,
    status::{ApiError, ApiResult},
};
use tokio_util::sync::CancellationToken;

use self::decide::{Decision, Observed};
use crate::{
    context::ControllerContext,
    pods::{controlled_by, index_by_controller, is_namespace_terminating, only},
    writes::settled,
};

/// Runs the controller until the shutdown.
pub(crate) async fn run(context: ControllerContext, shutdown: CancellationToken) {
    let caches = &context.caches;
    let reconciler = CronJobs { crons: caches.cache(), jobs: caches.cache(), recorder: context.recorder.clone() };
    index_by_controller(&reconciler.jobs);
    Controller::new("cronjob", caches)
        .reconciles::<CronJob>()
        .filter(generation_changed)
        .owns::<Job>()
        .run(reconciler, shutdown)
        .await;
}

struct CronJobs {
    crons: Cache<CronJob>,
    jobs: Cache<Job>,
    recorder: EventRecorder,
}

#[async_trait]
impl Reconciler for CronJobs {
    type Object = CronJob;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> ApiResult<Action> {
        let Some(cron) = self.crons.get(key) else { return Ok(Action::Done) };
        let run = Run { cron: &cron, api: Api::namespaced(context.client(), &key.namespace), recorder: &self.recorder };
        let jobs = controlled_by(&self.jobs, &cron.metadata);
        let missing = run.missing(&jobs).await?;
        let observed = Observed { cron: &cron, jobs: &jobs, missing: &missing, now: context.env().now() };
        let mut decision = decide::decide(observed);
        for job in std::mem::take(&mut decision.forget) {
            run.delete(&job.metadata, &mut decision).await;
        }
        std::mem::take(&mut decision.events).into_iter().for_each(|event| run.record(event));
        let started = run.start(&mut decision).await;
        write_status(&cron, decision.status, context).await?;
        started?;
        Ok(decision.look_again.map_or(Action::Done, Action::RequeueAfter))
    }
}

/// The writes of one run.
struct Run<'a> {
    cron: &'a CronJob,
    api: Api<Job>,
    recorder: &'a EventRecorder,
}

impl Run<'_> {
    fn record(&self, event: Event) {
        self.recorder.record(&object_reference(self.cron), event);
    }

    /// UIDs of the active jobs that are really gone: a cache may not know one yet.
    async fn missing(&self, jobs: &[Arc<Job>]) -> ApiResult<BTreeSet<String>> {
        let mut missing = BTreeSet::new();
        let active = self.cron.status.iter().flat_map(|status| status.active.iter().flatten());
        for known in active {
            let uid = known.uid.clone().unwrap_or_default();
            if jobs.iter().any(|job| meta::uid(&job.metadata) == uid) {
                continue;
            }
            let live = self.api.get_opt(known.name.as_deref().unwrap_or_default()).await?;
            if live.is_none_or(|live| meta::uid(&live.metadata) != uid) {
                missing.insert(uid);
            }
        }
        Ok(missing)
    }

    async fn start(&self, decision: &mut Decision) -> ApiResult<()> {
        let Some((due, job)) = decision.start.take() else { return Ok(()) };
        for old in std::mem::take(&mut decision.replace) {
            let metadata = ObjectMeta { name: old.name, uid: old.uid, ..Default::default() };
            if !self.delete(&metadata, decision).await {
                let why = format!("could not replace job {}", meta::name(&metadata));
                return Err(ApiError::internal(why));
            }
        }
        match self.api.create(&PostParams::default(), &job).await {
            Ok(job) => {
                let message = format!("Created job {}", meta::name(&job.metadata));
                self.record(Event::normal("SuccessfulCreate", message));
                decision.started(due, &job);
                Ok(())
            }
            Err(error) if is_namespace_terminating(&error) => Ok(()),
            Err(error) if error.is_already_exists() => self.resume(due, meta::name(&job.metadata), decision).await,
            Err(error) => {
                self.record(Event::warning("FailedCreate", format!("Error creating job: {}", error.message())));
                Err(error)
            }
        }
    }

    /// A job of this name is there: perhaps it was made in a run that could not write that down.
    async fn resume(&self, due: Timestamp, name: &str, decision: &mut Decision) -> ApiResult<()> {
        let job = self.api.get(name).await?;
        if is_controlled_by(&job.metadata, meta::uid(&self.cron.metadata)) {
            decision.started(due, &job);
        }
        Ok(())
    }

    /// Whether the very job is gone, or going.
    async fn delete(&self, job: &ObjectMeta, decision: &mut Decision) -> bool {
        let params = DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..only(job) };
        match self.api.delete(meta::name(job), &params).await {
            Err(error) if !error.is_not_found() => {
                self.record(Event::warning("FailedDelete", format!("Deleted job: {}", error.message())));
                return false;
            }
            _ => self.record(Event::normal("SuccessfulDelete", format!("Deleted job {}", meta::name(job)))),
        }
        decision.deleted(meta::uid(job));
        true
    }
}

async fn write_status(cron: &CronJob, status: CronJobStatus, context: &Context) -> ApiResult<()> {
    if cron.status.clone().unwrap_or_default() == status {
        return Ok(());
    }
    let cron = CronJob { status: Some(status), ..cron.clone() };
    let api = Api::<CronJob>::namespaced(context.client(), meta::namespace(&cron.metadata));
    settled(api.replace_status(meta::name(&cron.metadata), &PostParams::default(), &cron).await)
}
