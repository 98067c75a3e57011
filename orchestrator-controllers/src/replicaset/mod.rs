//! The ReplicaSet controller, and that of replication controllers: keeps as many pods as a set asks for.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/>.

mod decide;
mod kinds;

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::{
    api::{
        apps::v1::ReplicaSet,
        core::v1::{Pod, ReplicationController},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
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

use self::{
    decide::{Failure, Plan},
    kinds::Replicated,
};
use crate::{
    context::ControllerContext,
    pods::{
        PodControl, candidates, claim_all, controlled_by, index_by_controller, is_active, pod_from_template,
        pod_name_prefix, possible_owners,
    },
    writes::settled,
};

/// Runs the controller of replica sets until the shutdown.
pub(crate) async fn run(context: ControllerContext, shutdown: CancellationToken) {
    run_for::<ReplicaSet>("replicaset", context, shutdown).await;
}

/// Runs that of replication controllers until the shutdown.
pub(crate) async fn run_replication(context: ControllerContext, shutdown: CancellationToken) {
    run_for::<ReplicationController>("replicationmanager", context, shutdown).await;
}

async fn run_for<K: Replicated>(name: &'static str, context: ControllerContext, shutdown: CancellationToken) {
    let sets = context.caches.cache::<K>();
    let pods = context.caches.cache::<Pod>();
    index_by_controller(&pods);
    index_by_controller(&sets);
    let owners = sets.clone();
    Controller::new(name, &context.caches)
        .reconciles::<K>()
        .filter(generation_changed)
        .owns::<Pod>()
        .watches::<Pod>(move |change| possible_owners(&owners, change, K::selects))
        .run(Sets { sets, pods, recorder: context.recorder }, shutdown)
        .await;
}

struct Sets<K> {
    sets: Cache<K>,
    pods: Cache<Pod>,
    recorder: EventRecorder,
}

#[async_trait]
impl<K: Replicated> Reconciler for Sets<K> {
    type Object = K;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> ApiResult<Action> {
        let Some(object) = self.sets.get(key) else { return Ok(Action::Done) };
        let set = object.as_set();
        let mut owned = self.claim(&object, context).await?;
        let now = context.env().now();
        let plan = decide::decide(&set, &owned, &self.related(object.meta()), now);
        let control = PodControl::new(context, &self.recorder, &*object);
        let (created, failure) = carry_out(&set, owner_reference(&*object, true), &plan, &control).await;
        owned.extend(created);
        let reason = failure.as_ref().map(|(failure, _)| failure);
        if let Some(object) = object.with_status(decide::status(&set, &owned, reason, now)) {
            write_status(&object, context).await?;
        }
        match failure {
            Some((_, error)) => Err(error),
            None => Ok(decide::look_again(&set, &owned, now).map_or(Action::Done, Action::RequeueAfter)),
        }
    }
}

impl<K: Replicated> Sets<K> {
    /// The set's pods: active ones after adopting and releasing, and those of its own that go away.
    async fn claim(&self, set: &Arc<K>, context: &Context) -> ApiResult<Vec<Arc<Pod>>> {
        let candidates = candidates(&self.pods, set.meta());
        let (active, mut others): (Vec<_>, Vec<_>) = candidates.into_iter().partition(|pod| is_active(pod));
        let selected = |pod: &Pod| set.selects(&pod.metadata);
        let mut owned = claim_all(context.client(), &**set, active, selected).await?;
        let is_own = |pod: &Pod| controller_of(&pod.metadata).map(|owner| &owner.uid) == set.meta().uid.as_ref();
        others.retain(|pod| is_own(pod) && selected(pod));
        owned.extend(others);
        Ok(owned)
    }

    /// The pods of all sets with the same owner, which share nodes with this set's. A set without an owner shares with none,
    /// not even with itself: as upstream.
    fn related(&self, set: &ObjectMeta) -> Vec<Arc<Pod>> {
        let Some(owner) = controller_of(set) else { return Vec::new() };
        let siblings = self.sets.list_namespace(meta::namespace(set));
        let siblings = siblings.iter().filter(|sibling| meta::is_controlled_by(sibling.meta(), &owner.uid));
        siblings.flat_map(|sibling| controlled_by(&self.pods, sibling.meta())).collect()
    }
}

/// The writes of one run: what was made, and what failed first.
async fn carry_out(
    set: &ReplicaSet,
    owner: OwnerReference,
    plan: &Plan,
    control: &PodControl<'_>,
) -> (Vec<Arc<Pod>>, Option<(Failure, ApiError)>) {
    let template = set.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default();
    let mut pod = pod_from_template(&template, meta::namespace(&set.metadata), owner);
    pod.metadata.generate_name = set.metadata.name.as_deref().map(pod_name_prefix);
    let created = control.create(&vec![Object::from_typed(Arc::new(pod)); plan.create]).await;
    let deleted = control.delete(&plan.delete).await;
    let not_created = created.error.map(|error| (Failure::to_create(&error), error));
    let not_deleted = deleted.error.map(|error| (Failure::to_delete(&error), error));
    (created.done, not_created.or(not_deleted))
}

async fn write_status<K: Replicated>(set: &K, context: &Context) -> ApiResult<()> {
    let api = Api::<K>::namespaced(context.client(), meta::namespace(set.meta()));
    settled(api.replace_status(meta::name(set.meta()), &PostParams::default(), set).await)
}
