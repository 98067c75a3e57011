//! Carries decisions out: binds, tells users, makes room.

use std::sync::Arc;

use k8s_openapi::{
    api::{
        core::v1::{Binding as ApiBinding, ObjectReference, Pod, PodCondition},
        resource::v1::ResourceClaim,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube_core::params::{DeleteParams, Preconditions};
use orchestrator_core::{
    client::{Api, Call, PatchBody, WriteOptions},
    controller::Caches,
    env::Env,
    events::{Event, EventRecorder},
    meta::{self, condition, object_reference},
    object::{self, ObjectKey},
    scheduler::{PodInfo, Preemption, Rejection, Unschedulable},
    status::{ApiError, ApiResult},
};
use serde_json::{Value, json};

use crate::{
    extender::{Extender, too_late},
    framework::{BindError, Binding, Profile},
    limits::STATUS_ATTEMPTS,
    plugins,
};

/// Calls the API for the scheduler. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Apply {
    caches: Caches,
    env: Env,
    events: EventRecorder,
}

/// How a binding ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The pod is bound.
    Bound(Arc<PodInfo>),
    /// A plugin refused after all.
    Refused(Arc<PodInfo>, String, Rejection),
    /// A call failed.
    Failed(Arc<PodInfo>, String),
}

impl Apply {
    pub(crate) fn new(caches: &Caches, env: &Env, events: EventRecorder) -> Self {
        Self { caches: caches.clone(), env: env.clone(), events }
    }

    /// Waits for permission, prepares and binds.
    pub(crate) async fn bind(&self, profile: &Profile, pod: Arc<PodInfo>, node: String) -> Outcome {
        let (caches, events) = (self.caches.clone(), self.events.clone());
        let binding = Binding { pod: pod.clone(), node: node.clone(), caches, events };
        match self.try_bind(profile, &binding).await {
            Ok(()) => {
                let message = format!("Successfully assigned {} to {node}", pod.key());
                let event = Event { action: "Binding".to_owned(), ..Event::normal("Scheduled", message) };
                self.events.record(&object_reference(pod.pod().as_ref()), event);
                for plugin in &profile.post_bind {
                    plugin.post_bind(&binding).await;
                }
                Outcome::Bound(pod)
            }
            Err(error) => {
                tracing::debug!(pod = %pod.key(), node, %error, "the pod was not bound");
                for plugin in profile.pre_bind.iter().rev() {
                    plugin.undo(&binding).await;
                }
                let message = error.to_string();
                match error {
                    BindError::Refused(rejection) => {
                        self.tell(&pod, "Unschedulable", &message, None).await;
                        Outcome::Refused(pod, node, rejection)
                    }
                    BindError::Failed(..) | BindError::Extender(_) => {
                        self.tell(&pod, "SchedulerError", &message, None).await;
                        Outcome::Failed(pod, node)
                    }
                    BindError::Api(error) => {
                        if !error.is_not_found() {
                            self.tell(&pod, "SchedulerError", &format!("binding rejected: {message}"), None).await;
                        }
                        Outcome::Failed(pod, node)
                    }
                }
            }
        }
    }

    async fn try_bind(&self, profile: &Profile, binding: &Binding) -> Result<(), BindError> {
        for plugin in &profile.permit {
            plugin.permit(binding).await.map_err(BindError::Refused)?;
        }
        for plugin in &profile.pre_bind {
            plugin.pre_bind(binding).await?;
        }
        let pod = &binding.pod;
        let binds = |extender: &&Arc<dyn Extender>| extender.duties().binds && extender.is_interested(pod);
        for extender in profile.extenders.iter().filter(binds) {
            let bound = self.env.timeout(extender.timeout(), extender.bind(pod, &binding.node)).await;
            match bound.unwrap_or_else(|_| Err(too_late(extender.as_ref()))) {
                Err(error) if extender.is_ignorable() => {
                    tracing::debug!(extender = extender.name(), pod = %pod.key(), %error, "the extender did not bind");
                }
                bound => return Ok(bound?),
            }
        }
        for plugin in &profile.bind {
            if plugin.bind(binding).await? {
                return Ok(());
            }
        }
        let error = ApiError::internal("no plugin binds the pod");
        Err(error.into())
    }

    /// Tells users why a pod has no node, and makes room for it if some can be made.
    pub(crate) async fn refuse(&self, pod: &PodInfo, why: &Unschedulable) {
        let nominated = match &why.preemption {
            Some(preemption) => Some(Some(preemption.node.as_str())),
            None if why.clear_nomination && pod.nominated_node_name().is_some() => Some(None),
            None => None,
        };
        let reason = if why.failure.is_some() { "SchedulerError" } else { "Unschedulable" };
        self.tell(pod, reason, &why.message(), nominated).await;
        if let Some(claim) = &why.give_back {
            self.give_back(claim).await;
        }
        if let Some(preemption) = &why.preemption {
            self.make_room(pod, preemption).await;
        }
    }

    async fn give_back(&self, claim: &ResourceClaim) {
        let api = Api::namespaced(self.caches.client(), meta::namespace(&claim.metadata));
        if let Err(error) = plugins::give_back(&api, claim).await {
            let claim = ObjectKey::of(&claim.metadata);
            tracing::debug!(%claim, %error, "the claim's devices were not given back");
        }
    }

    /// The node that was promised to a pod is promised to another.
    pub(crate) async fn clear_nomination(&self, pod: &PodInfo) {
        let status = [("nominatedNodeName".to_owned(), Value::Null)].into_iter().collect();
        match self.patch_status(pod, status, false).await {
            Err(error) if !error.is_not_found() => {
                tracing::debug!(pod = %pod.key(), %error, "the pod's nomination was not cleared");
            }
            _ => {}
        }
    }

    async fn tell(&self, pod: &PodInfo, reason: &str, message: &str, nominated: Option<Option<&str>>) {
        let event = Event { action: "Scheduling".to_owned(), ..Event::warning("FailedScheduling", message) };
        self.events.record(&object_reference(pod.pod().as_ref()), event);
        self.set_condition(pod, reason, message, nominated).await;
    }

    /// Sets the `PodScheduled` condition, and the nominated node where that changes (`Some(None)` takes it away).
    async fn set_condition(&self, pod: &PodInfo, reason: &str, message: &str, nominated: Option<Option<&str>>) {
        let wanted = PodCondition {
            type_: "PodScheduled".to_owned(),
            status: "False".to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            ..PodCondition::default()
        };
        let mut pod = pod.clone();
        for _ in 0..STATUS_ATTEMPTS {
            let mut status = serde_json::Map::new();
            if let Some(condition) = changed_condition(&pod, wanted.clone(), &self.env) {
                status.insert("conditions".to_owned(), json!([condition]));
            }
            if let Some(node) = nominated.filter(|node| *node != pod.nominated_node_name()) {
                status.insert("nominatedNodeName".to_owned(), node.map_or(Value::Null, Value::from));
            }
            if status.is_empty() {
                return;
            }
            // Written late, it must not stand on a pod that has a node by now.
            let error = match self.patch_status(&pod, status, true).await {
                Err(error) if error.is_conflict() => match self.pods(&pod).get(&pod.key().name).await {
                    Ok(newest) if newest.metadata.uid == pod.metadata.uid && !has_node(&newest) => {
                        pod = PodInfo::new(newest);
                        continue;
                    }
                    _ => return,
                },
                Err(error) => error,
                Ok(()) => return,
            };
            tracing::debug!(pod = %pod.key(), %error, "the pod's status was not written");
            return;
        }
    }

    /// Changes parts of a pod's status, if it is still the same pod, or the same version of it.
    async fn patch_status(
        &self,
        pod: &PodInfo,
        status: serde_json::Map<String, Value>,
        same_version: bool,
    ) -> ApiResult<()> {
        let version = pod.metadata.resource_version.as_ref().filter(|_| same_version);
        let mut patch = json!({ "metadata": {}, "status": status });
        for (name, value) in [("uid", pod.metadata.uid.as_ref()), ("resourceVersion", version)] {
            if let Some(value) = value {
                patch["metadata"][name] = value.as_str().into();
            }
        }
        let options = WriteOptions { field_manager: Some("kube-scheduler".to_owned()), ..WriteOptions::default() };
        let call = Call::Patch { patch: PatchBody::Strategic(patch), options };
        self.pods(pod).send(Some(&pod.key().name), Some("status"), call).await.map(drop)
    }

    /// Asks for the victims' deletion.
    async fn make_room(&self, pod: &PodInfo, preemption: &Preemption) {
        for victim in preemption.victims.iter().filter(|victim| !victim.is_terminating()) {
            match self.evict(pod, victim).await {
                Ok(()) => {
                    let message = format!("Preempted by pod {} on node {}", pod.uid(), preemption.node);
                    let event = Event {
                        action: "Preempting".to_owned(),
                        related: Some(object_reference(pod.pod().as_ref())),
                        ..Event::normal("Preempted", message)
                    };
                    self.events.record(&object_reference(victim.pod().as_ref()), event);
                }
                Err(error) if error.is_not_found() => {}
                Err(error) => {
                    tracing::debug!(pod = %pod.key(), victim = %victim.key(), %error, "the victim was not removed");
                }
            }
        }
    }

    async fn evict(&self, pod: &PodInfo, victim: &PodInfo) -> ApiResult<()> {
        let scheduler = pod.spec.as_ref().and_then(|spec| spec.scheduler_name.as_deref()).unwrap_or_default();
        let wanted = PodCondition {
            type_: "DisruptionTarget".to_owned(),
            status: "True".to_owned(),
            reason: Some("PreemptionByScheduler".to_owned()),
            message: Some(format!("{scheduler}: preempting to accommodate a higher priority pod")),
            ..PodCondition::default()
        };
        if let Some(condition) = changed_condition(victim, wanted, &self.env) {
            let status = [("conditions".to_owned(), json!([condition]))];
            self.patch_status(victim, status.into_iter().collect(), false).await?;
        }
        let uid = Some(victim.uid().to_owned()).filter(|uid| !uid.is_empty());
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid, resource_version: None }),
            ..DeleteParams::default()
        };
        self.pods(victim).delete(&victim.key().name, &params).await
    }

    fn pods(&self, pod: &PodInfo) -> Api<Pod> {
        Api::namespaced(self.caches.client(), &pod.key().namespace)
    }
}

fn has_node(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()).is_some_and(|name| !name.is_empty())
}

/// The condition to write so that a pod has this one; `None` if it has it.
fn changed_condition(pod: &PodInfo, mut wanted: PodCondition, env: &Env) -> Option<PodCondition> {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let old = condition(conditions, &wanted.type_);
    wanted.observed_generation = pod.metadata.generation;
    wanted.last_transition_time = match old {
        Some(old) if old.status == wanted.status => old.last_transition_time.clone(),
        _ => Some(object::time(env.now())),
    };
    (old != Some(&wanted)).then_some(wanted)
}

/// Binds a pod through its `binding` subresource.
pub(crate) async fn bind_through_api(binding: &Binding) -> Result<(), BindError> {
    let pod = &binding.pod;
    let uid = Some(pod.uid().to_owned()).filter(|uid| !uid.is_empty());
    let body = ApiBinding {
        metadata: ObjectMeta {
            name: Some(pod.key().name.clone()),
            namespace: Some(pod.key().namespace.clone()),
            uid,
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(binding.node.clone()),
            ..ObjectReference::default()
        },
    };
    // The answer is a `Status`, so what travels is a tree.
    let body = serde_json::to_value(body).map_err(ApiError::internal)?;
    let api = Api::<Pod>::namespaced(binding.caches.client(), &pod.key().namespace);
    api.create_subresource("binding", &pod.key().name, &body).await.map(drop).map_err(BindError::from)
}
