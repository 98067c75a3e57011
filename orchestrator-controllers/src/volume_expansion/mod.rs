//! The volume expander: claims that ask for more get it, where their volumes are directories of this program's own.

mod decide;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube_core::params::PostParams;
use orchestrator_core::{
    client::Api,
    controller::{Action, Cache, Change, Context, Controller, Reconciler},
    events::{Event, EventRecorder},
    meta::{self, object_reference},
    object::ObjectKey,
    status::{ApiError, ApiResult},
};
use tokio_util::sync::CancellationToken;

use self::decide::Decision;
use crate::{context::ControllerContext, writes::settled};

/// Runs the controller until the shutdown.
pub(crate) async fn run(context: ControllerContext, shutdown: CancellationToken) {
    let caches = &context.caches;
    let reconciler = Expansion { claims: caches.cache(), volumes: caches.cache(), recorder: context.recorder.clone() };
    Controller::new("volume_expand", caches)
        .reconciles::<PersistentVolumeClaim>()
        .filter(asks_otherwise)
        .watches::<PersistentVolume>(|change| {
            let reference = change.object().and_then(|volume| volume.spec.as_ref()?.claim_ref.clone());
            let key = reference.and_then(|it| Some(ObjectKey::new(it.namespace?, it.name?)));
            key.into_iter().collect()
        })
        .run(reconciler, shutdown)
        .await;
}

/// Whether a claim asks for something else than before, or has something else.
fn asks_otherwise(change: &Change<PersistentVolumeClaim>) -> bool {
    let facts = |claim: &Option<std::sync::Arc<PersistentVolumeClaim>>| {
        let claim = claim.as_ref()?;
        let requests = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.clone());
        let status = claim.status.as_ref();
        Some((requests, status.and_then(|it| it.phase.clone()), status.and_then(|it| it.capacity.clone())))
    };
    change.new.is_some() && facts(&change.old) != facts(&change.new)
}

struct Expansion {
    claims: Cache<PersistentVolumeClaim>,
    volumes: Cache<PersistentVolume>,
    recorder: EventRecorder,
}

#[async_trait]
impl Reconciler for Expansion {
    type Object = PersistentVolumeClaim;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> ApiResult<Action> {
        let Some(claim) = self.claims.get(key) else { return Ok(Action::Done) };
        let name = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default();
        let volume = self.volumes.get(&ObjectKey::new("", name));
        let tell = |event| self.recorder.record(&object_reference(&*claim), event);
        match decide::decide(&claim, volume.as_deref()) {
            Decision::Nothing => {}
            Decision::LeaveToOthers => {
                tell(Event::normal("ExternalExpanding", "waiting for an external controller to expand this PVC"));
            }
            Decision::GrowVolume(size) => {
                let Some(volume) = volume else { return Ok(Action::Done) };
                tell(Event::normal("Resizing", format!("External resizer is resizing volume {name}")));
                let volume = decide::with_size(&volume, size);
                let api = Api::<PersistentVolume>::all(context.client());
                settled(api.replace(meta::name(&volume.metadata), &PostParams::default(), &volume).await)?;
            }
            Decision::GrowClaim(size) => {
                let claim = decide::with_capacity(&claim, size);
                let api = Api::<PersistentVolumeClaim>::namespaced(context.client(), &key.namespace);
                settled(api.replace_status(&key.name, &PostParams::default(), &claim).await)?;
                tell(Event::normal("VolumeResizeSuccessful", "Resize volume succeeded"));
            }
        }
        Ok(Action::Done)
    }
}
