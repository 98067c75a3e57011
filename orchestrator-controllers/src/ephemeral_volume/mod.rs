//! The ephemeral volume controller: makes the claims of volumes that come and go with their pod.

mod decide;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Volume};
use kube_core::params::PostParams;
use orchestrator_core::{
    client::Api,
    controller::{Action, Cache, Change, Context, Controller, Reconciler},
    events::{Event, EventRecorder},
    meta::{self, controller_of, object_reference},
    object::ObjectKey,
    status::{ApiError, Reason},
};
use tokio_util::sync::CancellationToken;

pub(crate) use decide::claim_name;

use crate::context::ControllerContext;

/// Runs the controller until the shutdown.
pub(crate) async fn run(context: ControllerContext, shutdown: CancellationToken) {
    let caches = &context.caches;
    let volumes = EphemeralVolumes { pods: caches.cache(), claims: caches.cache(), recorder: context.recorder.clone() };
    Controller::new("ephemeral_volume", caches)
        .reconciles::<Pod>()
        // What volumes a pod has never changes.
        .filter(|change: &Change<Pod>| change.old.is_none() && change.new.as_ref().is_some_and(|pod| has_some(pod)))
        .watches::<PersistentVolumeClaim>(|change| {
            let gone = change.old.as_ref().filter(|_| change.new.is_none());
            let pod = gone.and_then(|claim| controller_of(&claim.metadata)).filter(|owner| owner.kind == "Pod");
            pod.map(|pod| ObjectKey::new(&*change.key.namespace, &*pod.name)).into_iter().collect()
        })
        .run(volumes, shutdown)
        .await;
}

fn has_some(pod: &Pod) -> bool {
    decide::volumes(pod).next().is_some()
}

struct EphemeralVolumes {
    pods: Cache<Pod>,
    claims: Cache<PersistentVolumeClaim>,
    recorder: EventRecorder,
}

#[async_trait]
impl Reconciler for EphemeralVolumes {
    type Object = Pod;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> Result<Action, ApiError> {
        let pod = self.pods.get(key).filter(|pod| !meta::is_deleting(&pod.metadata));
        let Some(pod) = pod else { return Ok(Action::Done) };
        self.claims.synced().await;
        for volume in decide::volumes(&pod) {
            if let Err(error) = self.provide(&pod, volume, context).await {
                let message = format!("ephemeral volume {}: {error}", volume.name);
                self.recorder.record(&object_reference(&*pod), Event::warning("FailedBinding", &*message));
                return Err(ApiError::new(Reason::Unknown, format!("pod {key}, {message}")));
            }
        }
        Ok(Action::Done)
    }
}

impl EphemeralVolumes {
    async fn provide(&self, pod: &Pod, volume: &Volume, context: &Context) -> Result<(), String> {
        let (name, namespace) = (decide::claim_name(pod, volume), meta::namespace(&pod.metadata));
        let known = self.claims.get(&ObjectKey::new(namespace, &*name));
        let Some(claim) = decide::decide(pod, volume, known.as_deref())? else { return Ok(()) };
        let api = Api::<PersistentVolumeClaim>::namespaced(context.client(), namespace);
        let created = api.create(&PostParams::default(), &claim).await;
        created.map(drop).map_err(|error| format!("create PVC {name}: {}", error.message()))
    }
}
