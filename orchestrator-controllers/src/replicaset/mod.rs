//! The ReplicaSet controller: keeps as many pods as a set asks for.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/>.

mod decide;

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::Pod};
use kube_core::params::PostParams;
use orchestrator_core::{
    client::Api,
    controller::{Action, Cache, Context, Controller, Reconciler, generation_changed},
    events::EventRecorder,
    meta::{self, controller_of, owner_reference},
    object::{Object, ObjectKey},
    status::{ApiError, ApiResult},
};
use tokio_util::sync::CancellationToken;

use self::decide::{Failure, Plan};
use crate::{
    context::ControllerContext,
    pods::{
        PodControl, candidates, claim_all, controlled_by, index_by_controller, is_active, pod_from_template,
        pod_name_prefix, possible_owners, selects,
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
        let control = PodControl::new(context, &self.recorder, &*set);
        let (created, failure) = carry_out(&set, &plan, &control).await;
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

/// The writes of one run: what was made, and what failed first.
async fn carry_out(
    set: &ReplicaSet,
    plan: &Plan,
    control: &PodControl<'_>,
) -> (Vec<Arc<Pod>>, Option<(Failure, ApiError)>) {
    let template = set.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default();
    let mut pod = pod_from_template(&template, meta::namespace(&set.metadata), owner_reference(set, true));
    pod.metadata.generate_name = set.metadata.name.as_deref().map(pod_name_prefix);
    let created = control.create(&vec![Object::from_typed(Arc::new(pod)); plan.create]).await;
    let deleted = control.delete(&plan.delete).await;
    let failure =
        |reason: &'static str| move |error: ApiError| (Failure { reason, message: error.message().to_owned() }, error);
    let failed = created.error.map(failure("FailedCreate")).or(deleted.error.map(failure("FailedDelete")));
    (created.done, failed)
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
