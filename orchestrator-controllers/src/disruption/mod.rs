//! The disruption controller: how many pods of each budget may be evicted now.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/workloads/pods/disruptions/>. Evictions themselves are the API server's.

mod decide;
mod scale;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::future::join;
use k8s_openapi::api::{
    core::v1::Pod,
    policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus},
};
use kube_core::params::PostParams;
use orchestrator_core::{
    client::Api,
    controller::{Action, Cache, Change, Context, Controller, Reconciler},
    events::{Event, EventRecorder},
    meta::{self, object_reference},
    object::ObjectKey,
    selector::LabelSelector,
    status::{ApiError, ApiResult},
};
use tokio_util::sync::CancellationToken;

use self::{
    decide::{Observed, until_spared},
    scale::{Owners, Wanted},
};
use crate::{context::ControllerContext, go, writes::settled};

/// Runs the controller until the shutdown.
pub(crate) async fn run(context: ControllerContext, shutdown: CancellationToken) {
    let caches = &context.caches;
    let budgets = Budgets {
        budgets: caches.cache(),
        pods: caches.cache(),
        owners: Owners::new(caches, context.discovery.clone()),
        recorder: context.recorder.clone(),
    };
    let (selecting, recorder) = (budgets.budgets.clone(), context.recorder.clone());
    let controller =
        Controller::new("disruption", caches).reconciles::<PodDisruptionBudget>().watches::<Pod>(move |change| {
            tell_ambiguity(change, &selecting, &recorder);
            affected(change, &selecting)
        });
    let spare = Controller::new("disruption-spared", caches)
        .reconciles::<Pod>()
        .filter(|change: &Change<Pod>| change.new.as_ref().is_some_and(|pod| is_target(pod)));
    let spared = Spared { pods: caches.cache() };
    join(controller.run(budgets, shutdown.clone()), spare.run(spared, shutdown)).await;
}

/// The budgets that select a pod, or did.
fn affected(change: &Change<Pod>, budgets: &Cache<PodDisruptionBudget>) -> Vec<ObjectKey> {
    let budgets = budgets.list_namespace(&change.key.namespace);
    let selected = |budget: &&Arc<PodDisruptionBudget>| change.objects().any(|pod| selects(budget, pod));
    budgets.iter().filter(selected).map(|budget| ObjectKey::of(&budget.metadata)).collect()
}

/// Tells that several budgets select a pod, which can then not be evicted.
fn tell_ambiguity(change: &Change<Pod>, budgets: &Cache<PodDisruptionBudget>, recorder: &EventRecorder) {
    let Some(pod) = change.object() else { return };
    let mut selecting = budgets.list_namespace(&change.key.namespace);
    selecting.retain(|budget| selects(budget, pod));
    if let [first, _, ..] = &selecting[..] {
        recorder.record(&object_reference(&**pod), decide::ambiguity(pod, first));
    }
}

/// Whether a budget selects a pod. An empty selector selects all, none selects nothing.
fn selects(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let selector = selector.and_then(|selector| LabelSelector::from_meta(selector).ok());
    let empty = Default::default();
    selector.is_some_and(|selector| selector.matches(pod.metadata.labels.as_ref().unwrap_or(&empty)))
}

struct Budgets {
    budgets: Cache<PodDisruptionBudget>,
    pods: Cache<Pod>,
    owners: Owners,
    recorder: EventRecorder,
}

#[async_trait]
impl Reconciler for Budgets {
    type Object = PodDisruptionBudget;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> ApiResult<Action> {
        let Some(budget) = self.budgets.get(key) else { return Ok(Action::Done) };
        let now = context.env().now();
        let wanted = match self.wanted(&budget, context).await {
            Ok(wanted) => wanted,
            Err(error) => {
                let message = format!("Failed to calculate the number of expected pods: {}", error.message());
                self.record(&budget, Event::warning("CalculateExpectedPodCountFailed", message));
                write_status(&budget, decide::unknown(&budget, error.message(), now), context).await?;
                return Err(error);
            }
        };
        let pods = self.selected(&budget);
        let decision = decide::decide(Observed { budget: &budget, pods: &pods, scale: wanted.pods, now });
        for pod in &decision.not_deleted {
            let message = format!("Pod was expected by PDB {}/{} to be deleted but it wasn't", key.namespace, key.name);
            self.recorder.record(&object_reference(&**pod), Event::warning("NotDeleted", message));
        }
        if pods.is_empty() && budget.status.as_ref() != Some(&decision.status) {
            self.record(&budget, Event::normal("NoPods", "No matching pods found"));
        }
        write_status(&budget, decision.status, context).await?;
        Ok(decision.look_again.map_or(Action::Done, Action::RequeueAfter))
    }
}

impl Budgets {
    fn record(&self, budget: &PodDisruptionBudget, event: Event) {
        self.recorder.record(&object_reference(budget), event);
    }

    fn selected(&self, budget: &PodDisruptionBudget) -> Vec<Arc<Pod>> {
        let mut pods = self.pods.list_namespace(meta::namespace(&budget.metadata));
        pods.retain(|pod| selects(budget, pod));
        pods
    }

    /// What the owners of the pods want, where the budget depends on it.
    async fn wanted(&self, budget: &PodDisruptionBudget, context: &Context) -> ApiResult<Wanted> {
        if !budget.spec.as_ref().is_some_and(decide::needs_scale) {
            return Ok(Wanted::default());
        }
        let wanted = self.owners.wanted(&self.selected(budget), context).await?;
        if wanted.has_unmanaged {
            let message = format!(
                "Pods selected by this PodDisruptionBudget (selector: {}) were found to be unmanaged. As a result, the status of \
                 the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods \
                 please set \".spec.minAvailable\" field of the PDB to an integer value.",
                go::label_selector(budget.spec.as_ref().and_then(|spec| spec.selector.as_ref()))
            );
            self.record(budget, Event::warning("UnmanagedPods", message));
        }
        Ok(wanted)
    }
}

async fn write_status(
    budget: &PodDisruptionBudget,
    status: PodDisruptionBudgetStatus,
    context: &Context,
) -> ApiResult<()> {
    if budget.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let budget = PodDisruptionBudget { status: Some(status), ..budget.clone() };
    let api = Api::<PodDisruptionBudget>::namespaced(context.client(), meta::namespace(&budget.metadata));
    settled(api.replace_status(meta::name(&budget.metadata), &PostParams::default(), &budget).await)
}

fn is_target(pod: &Pod) -> bool {
    until_spared(pod, jiff::Timestamp::UNIX_EPOCH).is_some()
}

/// Takes back that a pod is to be disrupted when nobody has deleted it for long.
struct Spared {
    pods: Cache<Pod>,
}

#[async_trait]
impl Reconciler for Spared {
    type Object = Pod;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> ApiResult<Action> {
        let now = context.env().now();
        let Some(pod) = self.pods.get(key) else { return Ok(Action::Done) };
        match until_spared(&pod, now) {
            None => Ok(Action::Done),
            Some(Duration::ZERO) => {
                let api = Api::<Pod>::namespaced(context.client(), &key.namespace);
                let spared = decide::spared(&pod, now);
                settled(api.replace_status(&key.name, &PostParams::default(), &spared).await).map(|()| Action::Done)
            }
            Some(left) => Ok(Action::RequeueAfter(left)),
        }
    }
}
