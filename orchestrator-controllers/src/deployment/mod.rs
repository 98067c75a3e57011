//! The Deployment controller: rollouts by way of replica sets.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/workloads/controllers/deployment/>. Start at [`decide::decide`].

mod decide;
mod rollback;
mod rollout;
mod sets;
mod status;
mod strategy;

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::{
    apps::v1::{Deployment, DeploymentStatus, ReplicaSet},
    core::v1::Pod,
};
use kube_core::params::{Patch, PatchParams, PostParams};
use orchestrator_core::{
    client::Api,
    controller::{Action, Cache, Change, Context, Controller, Reconciler},
    events::{Event, EventRecorder},
    meta::{controller_of, is_controlled_by, object_reference},
    object::ObjectKey,
    status::{ApiError, ApiResult},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use self::decide::{Decision, Observed, Write};
use crate::{
    context::ControllerContext,
    pods::{
        candidates, claim_all, controlled_by, index_by_controller, is_finished, is_namespace_terminating, only,
        possible_owners, selects,
    },
    writes::settled,
};

/// Runs the controller until the shutdown.
pub(crate) async fn run(context: ControllerContext, shutdown: CancellationToken) {
    let deployments = context.caches.cache::<Deployment>();
    let sets = context.caches.cache::<ReplicaSet>();
    let pods = context.caches.cache::<Pod>();
    index_by_controller(&sets);
    index_by_controller(&pods);
    let owners = deployments.clone();
    let recreated = (deployments.clone(), sets.clone());
    Controller::new("deployment", &context.caches)
        .reconciles::<Deployment>()
        .owns::<ReplicaSet>()
        .watches::<ReplicaSet>(move |change| {
            possible_owners(&owners, change, |deployment: &Deployment, set| {
                selects(deployment.spec.as_ref().map(|spec| &spec.selector), set)
            })
        })
        .watches::<Pod>(move |change| waiting_for_end(change, &recreated.0, &recreated.1))
        .run(Deployments { deployments, sets, pods, recorder: context.recorder }, shutdown)
        .await;
}

/// The deployment that recreates its pods and waits for this one to end.
fn waiting_for_end(change: &Change<Pod>, deployments: &Cache<Deployment>, sets: &Cache<ReplicaSet>) -> Vec<ObjectKey> {
    let ended = change.old.as_ref().filter(|_| change.new.as_ref().is_none_or(|pod| is_finished(pod)));
    let key = ended.and_then(|pod| {
        let namespace = pod.metadata.namespace.as_deref()?;
        let set = sets.get(&ObjectKey::new(namespace, &*controller_of(&pod.metadata)?.name))?;
        let key = ObjectKey::new(namespace, &*controller_of(&set.metadata)?.name);
        deployments.get(&key).filter(|deployment| strategy::is_recreate(deployment)).map(|_| key)
    });
    key.into_iter().collect()
}

struct Deployments {
    deployments: Cache<Deployment>,
    sets: Cache<ReplicaSet>,
    pods: Cache<Pod>,
    recorder: EventRecorder,
}

#[async_trait]
impl Reconciler for Deployments {
    type Object = Deployment;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> ApiResult<Action> {
        let Some(deployment) = self.deployments.get(key) else { return Ok(Action::Done) };
        let selector = deployment.spec.as_ref().map(|spec| &spec.selector);
        let selected = |set: &ReplicaSet| selects(selector, &set.metadata);
        let candidates = candidates(&self.sets, &deployment.metadata);
        let sets = claim_all(context.client(), &*deployment, candidates, selected).await?;
        let pods = match strategy::is_recreate(&deployment) {
            true => sets.iter().flat_map(|set| controlled_by(&self.pods, &set.metadata)).collect(),
            false => Vec::new(),
        };
        let now = context.env().now();
        let observed = Observed { deployment: &deployment, sets: &sets, pods: &pods, now };
        let decision = decide::decide(observed);
        Run { deployment: &deployment, context, recorder: &self.recorder }.carry_out(decision).await
    }
}

/// The writes of one run.
struct Run<'a> {
    deployment: &'a Arc<Deployment>,
    context: &'a Context,
    recorder: &'a EventRecorder,
}

impl Run<'_> {
    async fn carry_out(&self, decision: Decision) -> ApiResult<Action> {
        if let Some(create) = decision.create {
            self.create(create).await?;
        }
        for Write { set, scaled } in decision.update {
            let name = set.metadata.name.as_deref().unwrap_or_default();
            self.sets().replace(name, &PostParams::default(), &set).await?;
            self.record_scaling(&set, scaled);
        }
        for set in decision.delete {
            let name = set.metadata.name.as_deref().unwrap_or_default();
            settled(self.sets().delete(name, &only(&set.metadata)).await)?;
        }
        let mut newest = self.deployment.clone();
        if let Some(revision) = decision.revision {
            newest = self.note_revision(&revision).await?;
        }
        newest = self.write_status(&newest, decision.status).await?;
        if let Some(rollback) = decision.rollback {
            let deployment = rollback.applied_to(&newest);
            self.deployments().replace(self.name(), &PostParams::default(), &deployment).await?;
            self.record(rollback.event);
        }
        Ok(decision.look_again.map_or(Action::Done, Action::RequeueAfter))
    }

    fn namespace(&self) -> &str {
        self.deployment.metadata.namespace.as_deref().unwrap_or_default()
    }

    fn name(&self) -> &str {
        self.deployment.metadata.name.as_deref().unwrap_or_default()
    }

    fn sets(&self) -> Api<ReplicaSet> {
        Api::namespaced(self.context.client(), self.namespace())
    }

    fn deployments(&self) -> Api<Deployment> {
        Api::namespaced(self.context.client(), self.namespace())
    }

    /// Makes the new set. Its name is taken either by itself, made by an earlier run, or by another template with the
    /// same hash; then the next run tries another name.
    async fn create(&self, Write { set, scaled }: Write) -> ApiResult<()> {
        let name = set.metadata.name.as_deref().unwrap_or_default();
        match self.sets().create(&PostParams::default(), &set).await {
            Ok(_) => {
                self.record_scaling(&set, scaled);
                Ok(())
            }
            Err(error) if error.is_already_exists() => {
                let live = self.sets().get(name).await?;
                let uid = self.deployment.metadata.uid.as_deref().unwrap_or_default();
                if is_controlled_by(&live.metadata, uid) && sets::has_template_of(self.deployment, &live) {
                    return Ok(());
                }
                let mut status = self.deployment.status.clone().unwrap_or_default();
                status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
                self.write_status(self.deployment, status).await?;
                Err(error)
            }
            Err(error) if is_namespace_terminating(&error) => Err(error),
            Err(error) => {
                let message = format!("Failed to create new replica set \"{name}\": {}", error.message());
                self.record(Event::warning("ReplicaSetCreateError", message.clone()));
                let now = self.context.env().now();
                if let Some(status) = status::note_create_failure(self.deployment, message, now) {
                    self.write_status(self.deployment, status).await?;
                }
                Err(error)
            }
        }
    }

    fn record_scaling(&self, set: &ReplicaSet, scaled: Option<(i32, i32)>) {
        let Some((from, to)) = scaled else { return };
        let direction = if from < to { "up" } else { "down" };
        let name = set.metadata.name.as_deref().unwrap_or_default();
        let message = format!("Scaled {direction} replica set {name} from {from} to {to}");
        self.record(Event::normal("ScalingReplicaSet", message));
    }

    fn record(&self, event: Event) {
        self.recorder.record(&object_reference(&**self.deployment), event);
    }

    /// Through the status, as upstream does: annotations that are written otherwise count as a new generation.
    async fn note_revision(&self, revision: &str) -> ApiResult<Arc<Deployment>> {
        let metadata = &self.deployment.metadata;
        let patch = json!({"metadata": {
            "uid": metadata.uid,
            "resourceVersion": metadata.resource_version,
            "annotations": {sets::REVISION: revision},
        }});
        self.deployments().patch_status(self.name(), &PatchParams::default(), &Patch::Merge(patch)).await
    }

    /// Writes the status where it differs. Gives the deployment as it is then.
    async fn write_status(&self, newest: &Arc<Deployment>, status: DeploymentStatus) -> ApiResult<Arc<Deployment>> {
        if newest.status.as_ref() == Some(&status) {
            return Ok(newest.clone());
        }
        let deployment = Deployment { status: Some(status), ..Deployment::clone(newest) };
        self.deployments().replace_status(self.name(), &PostParams::default(), &deployment).await
    }
}
