//! Keeps the phases of volumes, and reclaims those whose claims are gone.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube_core::params::PostParams;
use orchestrator_core::{
    client::Api,
    controller::{Action, Cache, Context, Controller, Reconciler},
    events::{Event, EventRecorder},
    meta::{name, object_reference},
    object::{ObjectKey, time},
    status::{ApiError, ApiResult},
};
use tokio_util::sync::CancellationToken;

use super::{
    Directories,
    decide::{self, Note, Reclaim, VolumeDecision},
    matching::{BOUND_BY_CONTROLLER, claim_reference, volume_name},
    provision::directory_of,
};
use crate::{context::ControllerContext, pods::only, writes::settled};

/// Reconciles volumes.
pub(super) struct Volumes {
    volumes: Cache<PersistentVolume>,
    claims: Cache<PersistentVolumeClaim>,
    directories: Directories,
    recorder: EventRecorder,
}

const BY_CLAIM: &str = "reserved for";

impl Volumes {
    pub(super) async fn run(controller: Controller, context: ControllerContext, shutdown: CancellationToken) {
        let volumes = context.caches.cache::<PersistentVolume>();
        volumes.add_index(BY_CLAIM, |volume| claim_key(volume).map(|key| key.to_string()).into_iter().collect());
        let reconciler = Self {
            volumes: volumes.clone(),
            claims: context.caches.cache(),
            directories: Directories::of(&context),
            recorder: context.recorder.clone(),
        };
        controller
            .reconciles::<PersistentVolume>()
            .watches::<PersistentVolumeClaim>(move |change| {
                let reserved = volumes.by_index(BY_CLAIM, &change.key.to_string());
                let mut keys: Vec<ObjectKey> = reserved.iter().map(|volume| ObjectKey::of(&volume.metadata)).collect();
                let named = change.objects().filter_map(|claim| volume_name(claim));
                keys.extend(named.map(|name| ObjectKey::new("", name)));
                keys
            })
            .run(reconciler, shutdown)
            .await;
    }
}

fn claim_key(volume: &PersistentVolume) -> Option<ObjectKey> {
    let reference = claim_reference(volume)?;
    Some(ObjectKey::new(reference.namespace.clone().unwrap_or_default(), reference.name.clone()?))
}

#[async_trait]
impl Reconciler for Volumes {
    type Object = PersistentVolume;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> ApiResult<Action> {
        let Some(volume) = self.volumes.get(key) else { return Ok(Action::Done) };
        let claim_key = claim_key(&volume);
        let mut claim = claim_key.as_ref().and_then(|key| self.claims.get(key));
        let mut decision = decide::volume(&volume, claim.as_deref());
        if let (VolumeDecision::Release(_), Some(key)) = (&decision, &claim_key) {
            // What is released may be deleted with its data, so no cache is trusted here.
            let api = Api::<PersistentVolumeClaim>::namespaced(context.client(), &key.namespace);
            claim = api.get_opt(&key.name).await?;
            decision = decide::volume(&volume, claim.as_deref());
        }
        self.carry_out(&volume, decision, context).await?;
        Ok(Action::Done)
    }
}

impl Volumes {
    async fn carry_out(
        &self,
        volume: &Arc<PersistentVolume>,
        decision: VolumeDecision,
        context: &Context,
    ) -> ApiResult<()> {
        let api = Api::<PersistentVolume>::all(context.client());
        let now = context.env().now();
        match decision {
            VolumeDecision::Nothing => Ok(()),
            VolumeDecision::Phase(phase) => set_phase(&api, volume, phase, None, now).await.map(drop),
            VolumeDecision::Unbind { entirely } => {
                let freed = unbound(volume, entirely);
                settled(api.replace(name(&freed.metadata), &PostParams::default(), &freed).await)
            }
            VolumeDecision::Release(reclaim) => self.release(&api, volume, reclaim, now).await,
        }
    }

    async fn release(
        &self,
        api: &Api<PersistentVolume>,
        volume: &Arc<PersistentVolume>,
        reclaim: Reclaim,
        now: Timestamp,
    ) -> ApiResult<()> {
        let volume = set_phase(api, volume, "Released", None, now).await?;
        match reclaim {
            Reclaim::Retain | Reclaim::Elsewhere => Ok(()),
            Reclaim::Delete => self.delete(api, &volume, now).await,
            Reclaim::Fail(note) => self.fail(api, &volume, note, now).await,
        }
    }

    /// Removes the data, then the volume: what is left when this is interrupted is tried again.
    async fn delete(
        &self,
        api: &Api<PersistentVolume>,
        volume: &Arc<PersistentVolume>,
        now: Timestamp,
    ) -> ApiResult<()> {
        let Directories { base, provisioner } = &self.directories;
        let directory = base.as_ref().and_then(|base| Some((base, directory_of(volume, base)?)));
        let failed = |message| Note { warning: true, reason: "VolumeFailedDelete", message };
        let Some((base, directory)) = directory else {
            let message = "the volume is not a directory of this provisioner".to_owned();
            return self.fail(api, volume, failed(message), now).await;
        };
        if let Err(error) = provisioner.remove(base, &directory).await {
            self.fail(api, volume, failed(error.to_string()), now).await?;
            return Err(ApiError::internal(error));
        }
        if volume.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        settled(api.delete(name(&volume.metadata), &only(&volume.metadata)).await)
    }

    async fn fail(
        &self,
        api: &Api<PersistentVolume>,
        volume: &Arc<PersistentVolume>,
        note: Note,
        now: Timestamp,
    ) -> ApiResult<()> {
        self.recorder.record(&object_reference(&**volume), Event::warning(note.reason, note.message.clone()));
        set_phase(api, volume, "Failed", Some(note.message), now).await.map(drop)
    }
}

/// The volume without its reservation, or without the UID in it.
fn unbound(volume: &PersistentVolume, entirely: bool) -> PersistentVolume {
    let mut freed = volume.clone();
    let spec = freed.spec.get_or_insert_default();
    if entirely {
        spec.claim_ref = None;
        if let Some(annotations) = &mut freed.metadata.annotations {
            annotations.remove(BOUND_BY_CONTROLLER);
        }
    } else if let Some(reference) = &mut spec.claim_ref {
        reference.uid = None;
        reference.resource_version = None;
    }
    freed
}

/// Writes a volume's phase, where it is another.
pub(super) async fn set_phase(
    api: &Api<PersistentVolume>,
    volume: &Arc<PersistentVolume>,
    phase: &str,
    message: Option<String>,
    now: Timestamp,
) -> ApiResult<Arc<PersistentVolume>> {
    if !decide::needs_phase(volume, phase) {
        return Ok(volume.clone());
    }
    let mut changed = PersistentVolume::clone(volume);
    let status = changed.status.get_or_insert_default();
    status.phase = Some(phase.to_owned());
    status.message = message;
    status.last_phase_transition_time = Some(time(now));
    api.replace_status(name(&changed.metadata), &PostParams::default(), &changed).await
}
