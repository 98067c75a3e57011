//! The controllers of persistent volumes: binding, provisioning of local directories, reclaiming, protection.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/storage/persistent-volumes/>. Start at [`decide`].

mod binder;
mod decide;
mod local_directories;
mod matching;
mod protection;
mod provision;
mod reclaim;

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube_core::params::{ListParams, Patch, PatchParams};
use orchestrator_core::{
    client::Api,
    controller::{Action, Cache, Change, Context, Controller, Kind, Reconciler},
    object::ObjectKey,
    status::{ApiError, ApiResult},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use self::{
    binder::Claims,
    protection::{CLAIM_PROTECTION, Protection},
    provision::VOLUME_PROTECTION,
    reclaim::Volumes,
};
use crate::{context::ControllerContext, writes::settled};

pub(crate) use provision::{PROVISIONED_BY, PROVISIONER};

pub use local_directories::LocalDirectories;
pub use provision::{DirectoryProvisioner, PlannedDirectories};

/// Binds, provisions and reclaims until the shutdown.
pub(crate) async fn run(context: ControllerContext, shutdown: CancellationToken) {
    let claims = Controller::new("persistentvolume-binder", &context.caches);
    let volumes = Controller::new("persistentvolume-reclaimer", &context.caches);
    let binding = Claims::run(claims, context.clone(), shutdown.clone());
    let reclaiming = Volumes::run(volumes, context, shutdown);
    futures::future::join(binding, reclaiming).await;
}

/// Protects claims until the shutdown.
pub(crate) async fn run_claim_protection(context: ControllerContext, shutdown: CancellationToken) {
    let (claims, pods) = (context.caches.cache::<PersistentVolumeClaim>(), context.caches.cache::<Pod>());
    index_by_claim(&pods);
    Controller::new("persistentvolumeclaim-protection", &context.caches)
        .reconciles::<PersistentVolumeClaim>()
        .watches::<Pod>(|change| change.old.iter().flat_map(|pod| claims_of(pod)).collect())
        .run(ClaimProtection { claims, pods }, shutdown)
        .await;
}

/// Protects volumes until the shutdown.
pub(crate) async fn run_volume_protection(context: ControllerContext, shutdown: CancellationToken) {
    let volumes = context.caches.cache::<PersistentVolume>();
    Controller::new("persistentvolume-protection", &context.caches)
        .reconciles::<PersistentVolume>()
        .run(VolumeProtection { volumes }, shutdown)
        .await;
}

const BY_CLAIM: &str = "claims";

/// Makes [`pods_of_claim`] quick.
pub(crate) fn index_by_claim(pods: &Cache<Pod>) {
    pods.add_index(BY_CLAIM, |pod| claims_of(pod).iter().map(ToString::to_string).collect());
}

/// The pods that use a claim.
pub(crate) fn pods_of_claim(pods: &Cache<Pod>, claim: &ObjectKey) -> Vec<Arc<Pod>> {
    pods.by_index(BY_CLAIM, &claim.to_string())
}

/// The claims that a pod uses.
pub(crate) fn claims_of(pod: &Pod) -> Vec<ObjectKey> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    protection::claims_of(pod).into_iter().map(|claim| ObjectKey::new(namespace, claim)).collect()
}

struct ClaimProtection {
    claims: Cache<PersistentVolumeClaim>,
    pods: Cache<Pod>,
}

#[async_trait]
impl Reconciler for ClaimProtection {
    type Object = PersistentVolumeClaim;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> ApiResult<Action> {
        let Some(claim) = self.claims.get(key) else { return Ok(Action::Done) };
        let pods = pods_of_claim(&self.pods, key);
        let in_use = protection::is_used(&claim.metadata, &pods);
        let mut decision = protection::decide(&claim.metadata, CLAIM_PROTECTION, in_use);
        if decision == Protection::Remove {
            // A cache may not know the newest pod yet, and what is removed does not come back.
            let live = Api::<Pod>::namespaced(context.client(), &key.namespace).list(&ListParams::default()).await?;
            if protection::is_used(&claim.metadata, &live.items) {
                decision = Protection::Keep;
            }
        }
        let api = Api::namespaced(context.client(), &key.namespace);
        protect(&api, &*claim, CLAIM_PROTECTION, decision).await?;
        Ok(Action::Done)
    }
}

struct VolumeProtection {
    volumes: Cache<PersistentVolume>,
}

#[async_trait]
impl Reconciler for VolumeProtection {
    type Object = PersistentVolume;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> ApiResult<Action> {
        let Some(volume) = self.volumes.get(key) else { return Ok(Action::Done) };
        let decision = protection::decide(&volume.metadata, VOLUME_PROTECTION, protection::is_bound(&volume));
        protect(&Api::all(context.client()), &*volume, VOLUME_PROTECTION, decision).await?;
        Ok(Action::Done)
    }
}

async fn protect<K: Kind>(api: &Api<K>, object: &K, finalizer: &str, decision: Protection) -> ApiResult<()> {
    let metadata = object.meta();
    let mut finalizers = metadata.finalizers.clone().unwrap_or_default();
    match decision {
        Protection::Keep => return Ok(()),
        Protection::Add => finalizers.push(finalizer.to_owned()),
        Protection::Remove => finalizers.retain(|one| one != finalizer),
    }
    let body = json!({"metadata": {
        "uid": metadata.uid,
        "resourceVersion": metadata.resource_version,
        "finalizers": finalizers,
    }});
    let name = metadata.name.as_deref().unwrap_or_default();
    settled(api.patch(name, &PatchParams::default(), &Patch::Merge(body)).await)
}

/// The keys of the claims that a volume is, or was, reserved for.
fn reserved_for(change: &Change<PersistentVolume>) -> Vec<ObjectKey> {
    let references = change.objects().filter_map(|volume| matching::claim_reference(volume));
    let key = |reference: &k8s_openapi::api::core::v1::ObjectReference| {
        ObjectKey::new(reference.namespace.clone().unwrap_or_default(), reference.name.clone().unwrap_or_default())
    };
    let mut keys: Vec<ObjectKey> = references.map(key).collect();
    keys.dedup();
    keys
}

/// The directories of provisioned volumes.
#[derive(Clone, Debug)]
struct Directories {
    base: Option<std::path::PathBuf>,
    provisioner: Arc<dyn DirectoryProvisioner>,
}

impl Directories {
    fn of(context: &ControllerContext) -> Self {
        let given = context.options.local_volume_directories.clone();
        Self {
            base: context.options.local_volumes.clone(),
            provisioner: given.unwrap_or_else(|| Arc::new(LocalDirectories::new(context.env()))),
        }
    }
}
