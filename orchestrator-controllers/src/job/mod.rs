//! The Job controller: pods until enough of them have succeeded.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/workloads/controllers/job/>. Start at [`decide::decide`].

mod decide;
mod indexes;
mod orphans;
mod pods;
mod policies;
mod tracking;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use futures::future::{join, join_all};
use k8s_openapi::api::{
    batch::v1::{Job, JobStatus},
    core::v1::Pod,
};
use kube_core::params::{Patch, PatchParams, PostParams};
use orchestrator_core::{
    client::Api,
    controller::{Action, Cache, Context, Controller, Reconciler, generation_changed},
    events::{Event, EventRecorder},
    meta,
    object::{Object, ObjectKey},
    status::{ApiError, ApiResult},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use self::{
    decide::{Actions, Observed},
    pods::{Failures, TRACKING, is_tracked},
    tracking::Done,
};
use crate::{
    context::ControllerContext,
    pods::{PodControl, candidates, claim_all_with, index_by_controller, possible_owners, selects},
    writes::settled,
};

pub(crate) use decide::is_finished;

/// What `spec.managedBy` says where this controller is meant.
const MANAGER: &str = "kubernetes.io/job-controller";

/// Runs the controller until the shutdown.
pub(crate) async fn run(context: ControllerContext, shutdown: CancellationToken) {
    let caches = &context.caches;
    let jobs = Jobs {
        jobs: caches.cache(),
        pods: caches.cache(),
        recorder: context.recorder.clone(),
        failures: Mutex::default(),
    };
    index_by_controller(&jobs.pods);
    let owners = jobs.jobs.clone();
    let controller = Controller::new("job", caches)
        .reconciles::<Job>()
        .filter(generation_changed)
        .owns::<Pod>()
        .watches::<Pod>(move |change| possible_owners(&owners, change, is_selected));
    join(controller.run(jobs, shutdown.clone()), orphans::run(&context, shutdown)).await;
}

fn is_selected(job: &Job, pod: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> bool {
    selects(job.spec.as_ref().and_then(|spec| spec.selector.as_ref()), pod)
}

/// Whether somebody else looks after a job.
fn is_foreign(job: &Job) -> bool {
    job.spec.as_ref().and_then(|spec| spec.managed_by.as_deref()).is_some_and(|manager| manager != MANAGER)
}

struct Jobs {
    jobs: Cache<Job>,
    pods: Cache<Pod>,
    recorder: EventRecorder,
    /// Of jobs that have not ended, by UID: failures since the last success.
    failures: Mutex<BTreeMap<ObjectKey, (String, Failures)>>,
}

#[async_trait]
impl Reconciler for Jobs {
    type Object = Job;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> ApiResult<Action> {
        let Some(job) = self.jobs.get(key).filter(|job| !is_foreign(job) && !is_finished(job)) else {
            self.failures().remove(key);
            return Ok(Action::Done);
        };
        let selected = |pod: &Pod| is_selected(&job, &pod.metadata);
        let candidates = candidates(&self.pods, &job.metadata);
        let pods = claim_all_with(context.client(), &*job, candidates, selected, Some(TRACKING)).await?;
        let failures = self.failures_of(key, &job);
        let observed = Observed { job: &job, pods: &pods, failures, now: context.env().now() };
        let decision = decide::decide(observed);
        let (failures, look_again) = (decision.failures, decision.actions.look_again);
        let control = PodControl::new(context, &self.recorder, &*job);
        let (done, outcome) = carry_out(&job, &decision.actions, &control, context).await;
        let tracked = decision.track(&done);
        let written = write_status(&job, tracked.status.clone(), context).await?;
        tracked.events.iter().for_each(|event| control.record(event.clone()));
        self.remember(key, &job, failures);
        let (released, problem) = release_all(context, &tracked.release).await;
        let completions = job.spec.as_ref().and_then(|spec| spec.completions);
        let (status, events) = tracked.finish(&released, completions);
        write_status(&written, status, context).await?;
        events.into_iter().for_each(|event: Event| control.record(event));
        outcome?;
        problem?;
        Ok(look_again.map_or(Action::Done, Action::RequeueAfter))
    }
}

impl Jobs {
    fn failures_of(&self, key: &ObjectKey, job: &Job) -> Failures {
        let failures = self.failures();
        let known = failures.get(key).filter(|(uid, _)| uid == meta::uid(&job.metadata));
        known.map(|(_, failures)| *failures).unwrap_or_default()
    }

    fn remember(&self, key: &ObjectKey, job: &Job, failures: Failures) {
        if failures == Failures::default() {
            self.failures().remove(key);
        } else {
            self.failures().insert(key.clone(), (meta::uid(&job.metadata).to_owned(), failures));
        }
    }

    fn failures(&self) -> MutexGuard<'_, BTreeMap<ObjectKey, (String, Failures)>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn carry_out(job: &Job, actions: &Actions, control: &PodControl<'_>, context: &Context) -> (Done, ApiResult<()>) {
    let pod = |(index, failed): &(Option<i32>, Option<Arc<Pod>>)| {
        Object::from_typed(Arc::new(pods::make(job, *index, failed.as_deref())))
    };
    let (tracked, mut doomed): (Vec<_>, Vec<_>) =
        actions.delete.iter().cloned().partition(|pod| actions.uncounted && is_tracked(pod));
    let (released, problem) = release_all(context, &tracked).await;
    doomed.extend(tracked.into_iter().filter(|pod| released.contains(meta::uid(&pod.metadata))));
    let deleted = control.delete(&doomed).await;
    let created = control.create(&actions.create.iter().map(pod).collect::<Vec<_>>()).await;
    let done = Done { deleted: deleted.done, released, created: created.done.len() };
    (done, problem.and(deleted.error.or(created.error).map_or(Ok(()), Err)))
}

/// Writes a status where it differs. Gives the job as it is then.
async fn write_status(job: &Arc<Job>, status: JobStatus, context: &Context) -> ApiResult<Arc<Job>> {
    if job.status.as_ref() == Some(&status) {
        return Ok(job.clone());
    }
    let job = Job { status: Some(status), ..Job::clone(job) };
    let api = Api::<Job>::namespaced(context.client(), meta::namespace(&job.metadata));
    api.replace_status(meta::name(&job.metadata), &PostParams::default(), &job).await
}

/// Lets pods lose their finalizers. Gives the UIDs of those that have, and the first problem.
async fn release_all(context: &Context, pods: &[Arc<Pod>]) -> (BTreeSet<String>, ApiResult<()>) {
    let results = join_all(pods.iter().map(|pod| release(context, pod))).await;
    let (mut released, mut problem) = (BTreeSet::new(), Ok(()));
    for (pod, result) in pods.iter().zip(results) {
        match result {
            Ok(()) => drop(released.insert(meta::uid(&pod.metadata).to_owned())),
            Err(error) => problem = problem.and(Err(error)),
        }
    }
    (released, problem)
}

/// Takes the finalizer from the very pod that was seen, or does nothing where it is gone.
async fn release(context: &Context, pod: &Pod) -> ApiResult<()> {
    let mut metadata = pod.metadata.clone();
    meta::remove_finalizer(&mut metadata, TRACKING);
    let body = json!({"metadata": {
        "uid": metadata.uid, "resourceVersion": metadata.resource_version, "finalizers": metadata.finalizers,
    }});
    let api = Api::<Pod>::namespaced(context.client(), meta::namespace(&pod.metadata));
    settled(api.patch(meta::name(&pod.metadata), &PatchParams::default(), &Patch::Merge(body)).await)
}
