//! The ReplicaSet controller: keeps as many pods as a set asks for.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/>.

mod decide;

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::Pod};
use kube_core::params::PostParams;
use orchestrator_core::{
    client::{Api, Call, WriteOptions},
    controller::{Action, Cache, Context, Controller, Reconciler, generation_changed},
    events::{Event, EventRecorder},
    meta::{controller_of, object_reference, owner_reference},
    object::{Object, ObjectKey},
    status::{ApiError, ApiResult},
};
use tokio_util::sync::CancellationToken;

use self::decide::{Failure, Plan};
use crate::{
    context::ControllerContext,
    pods::{
        candidates, claim_all, controlled_by, index_by_controller, is_active, is_namespace_terminating, only,
        pod_from_template, pod_name_prefix, possible_owners, selects,
    },
};

/// Runs the controller until the shutdown.
pub(crate) async fn run(context: ControllerContext, shutdown: CancellationToken) {
    let sets = context.caches.cache::<ReplicaSet>();
    let pods = context.caches.cache::<Pod>();
    index_by_controller(&pods);
    index_by_controller(&sets);
    let owners = sets.clone();
    Controller::new("replicaset", &context.caches)
        .reconciles::<ReplicaSet>()
        .filter(generation_changed)
        .owns::<Pod>()
        .watches::<Pod>(move |change| {
            possible_owners(&owners, change, |set: &ReplicaSet, pod| {
                selects(set.spec.as_ref().map(|spec| &spec.selector), pod)
            })
        })
        .run(ReplicaSets { sets, pods, recorder: context.recorder }, shutdown)
        .await;
}

struct ReplicaSets {
    sets: Cache<ReplicaSet>,
    pods: Cache<Pod>,
    recorder: EventRecorder,
}

#[async_trait]
impl Reconciler for ReplicaSets {
    type Object = ReplicaSet;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> ApiResult<Action> {
        let Some(set) = self.sets.get(key) else { return Ok(Action::Done) };
        let mut owned = self.claim(&set, context).await?;
        let now = context.env().now();
        let plan = decide::decide(&set, &owned, &self.related(&set), now);
        let mut run = Run { set: &set, recorder: &self.recorder, context, failure: None, created: Vec::new() };
        run.carry_out(plan).await;
        let Run { failure, created, .. } = run;
        owned.extend(created);
        let reason = failure.as_ref().map(|(failure, _)| failure);
        write_status(&set, &owned, reason, context, now).await?;
        match failure {
            Some((_, error)) => Err(error),
            None => Ok(decide::look_again(&set, &owned, now).map_or(Action::Done, Action::RequeueAfter)),
        }
    }
}

impl ReplicaSets {
    /// The set's pods: active ones after adopting and releasing, and those of its own that go away.
    async fn claim(&self, set: &Arc<ReplicaSet>, context: &Context) -> ApiResult<Vec<Arc<Pod>>> {
        let candidates = candidates(&self.pods, &set.metadata);
        let (active, mut others): (Vec<_>, Vec<_>) = candidates.into_iter().partition(|pod| is_active(pod));
        let selector = set.spec.as_ref().map(|spec| &spec.selector);
        let selected = |pod: &Pod| selects(selector, &pod.metadata);
        let mut owned = claim_all(context.client(), &**set, active, selected).await?;
        others.retain(|pod| controller_of(&pod.metadata).map(|owner| &owner.uid) == set.metadata.uid.as_ref());
        owned.extend(others);
        Ok(owned)
    }

    /// The pods of all sets with the same owner, which share nodes with this set's.
    fn related(&self, set: &ReplicaSet) -> Vec<Arc<Pod>> {
        let Some(owner) = controller_of(&set.metadata) else { return controlled_by(&self.pods, &set.metadata) };
        let siblings = self.sets.list_namespace(set.metadata.namespace.as_deref().unwrap_or_default());
        let siblings = siblings
            .iter()
            .filter(|sibling| controller_of(&sibling.metadata).is_some_and(|other| other.uid == owner.uid));
        siblings.flat_map(|sibling| controlled_by(&self.pods, &sibling.metadata)).collect()
    }
}

/// The writes of one run.
struct Run<'a> {
    set: &'a ReplicaSet,
    recorder: &'a EventRecorder,
    context: &'a Context,
    failure: Option<(Failure, ApiError)>,
    created: Vec<Arc<Pod>>,
}

impl Run<'_> {
    async fn carry_out(&mut self, plan: Plan) {
        for size in decide::batches(plan.create) {
            if !self.create(size).await {
                return;
            }
        }
        self.delete(&plan.delete).await;
    }

    fn api(&self) -> Api<Pod> {
        let namespace = self.set.metadata.namespace.as_deref().unwrap_or_default();
        Api::namespaced(self.context.client(), namespace)
    }

    /// Creates a batch of pods. Whether all of them came into being.
    async fn create(&mut self, size: usize) -> bool {
        let template = self.set.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default();
        let namespace = self.set.metadata.namespace.as_deref().unwrap_or_default();
        let mut pod = pod_from_template(&template, namespace, owner_reference(self.set, true));
        pod.metadata.generate_name = self.set.metadata.name.as_deref().map(pod_name_prefix);
        let (api, pod) = (self.api(), Object::from_typed(Arc::new(pod)));
        let create = || Call::Create { object: pod.clone(), options: WriteOptions::default() };
        let results = join_all((0..size).map(|_| api.send(None, None, create()))).await;
        let mut complete = true;
        for result in results {
            complete &= result.is_ok();
            match result.and_then(|pod| Ok(pod.shared::<Pod>()?)) {
                Ok(pod) => {
                    let name = pod.metadata.name.as_deref().unwrap_or_default();
                    self.record(Event::normal("SuccessfulCreate", format!("Created pod: {name}")));
                    self.created.push(pod);
                }
                Err(error) if is_namespace_terminating(&error) => {}
                Err(error) => {
                    self.record(Event::warning("FailedCreate", format!("Error creating: {}", error.message())));
                    self.fail("FailedCreate", error);
                }
            }
        }
        complete
    }

    async fn delete(&mut self, pods: &[Arc<Pod>]) {
        let api = self.api();
        let delete = |pod: &Arc<Pod>| {
            let (api, pod) = (api.clone(), pod.clone());
            async move { api.delete(pod.metadata.name.as_deref().unwrap_or_default(), &only(&pod.metadata)).await }
        };
        let results = join_all(pods.iter().map(delete)).await;
        for (pod, result) in pods.iter().zip(results) {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            match result {
                Ok(()) => self.record(Event::normal("SuccessfulDelete", format!("Deleted pod: {name}"))),
                Err(error) if error.is_not_found() => {}
                Err(error) => {
                    self.record(Event::warning("FailedDelete", format!("Error deleting: {}", error.message())));
                    self.fail("FailedDelete", error);
                }
            }
        }
    }

    fn record(&self, event: Event) {
        self.recorder.record(&object_reference(self.set), event);
    }

    fn fail(&mut self, reason: &'static str, error: ApiError) {
        let message = error.message().to_owned();
        self.failure.get_or_insert((Failure { reason, message }, error));
    }
}

async fn write_status(
    set: &ReplicaSet,
    owned: &[Arc<Pod>],
    failure: Option<&Failure>,
    context: &Context,
    now: Timestamp,
) -> ApiResult<()> {
    let status = Some(decide::status(set, owned, failure, now));
    if set.status == status {
        return Ok(());
    }
    let set = ReplicaSet { status, ..set.clone() };
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    let name = set.metadata.name.as_deref().unwrap_or_default();
    let api = Api::<ReplicaSet>::namespaced(context.client(), namespace);
    match api.replace_status(name, &PostParams::default(), &set).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}
