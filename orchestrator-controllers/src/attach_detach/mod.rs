//! The attach-detach controller: VolumeAttachments for the volumes of CSI drivers that attach to nodes.
//!
//! Volumes that were built into Kubernetes before there were CSI drivers attach through those drivers there, and not here.

mod decide;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use k8s_openapi::api::{
    core::v1::{AttachedVolume, Node, PersistentVolume, PersistentVolumeClaim, Pod},
    storage::v1::{CSIDriver, VolumeAttachment},
};
use kube_core::params::{Patch, PatchParams, PostParams};
use orchestrator_core::{
    client::Api,
    controller::{Action, Cache, Change, Context, Controller, Reconciler},
    events::EventRecorder,
    meta::{self, object_reference},
    object::ObjectKey,
    status::{ApiError, ApiResult},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use self::decide::{Decision, Observed, Wanted};
use crate::{
    context::ControllerContext,
    limits::DETACH_RETRY,
    pods::{is_finished, only},
    volumes::{claims_of, index_by_claim, pods_of_claim},
    writes::settled,
};

const BY_NODE: &str = "attach-detach/node";
const BY_VOLUME: &str = "attach-detach/volume";

/// Runs the controller until the shutdown.
pub(crate) async fn run(context: ControllerContext, shutdown: CancellationToken) {
    let caches = &context.caches;
    let attaching = Attaching {
        nodes: caches.cache(),
        pods: caches.cache(),
        claims: caches.cache(),
        volumes: caches.cache(),
        drivers: caches.cache(),
        attachments: caches.cache(),
        recorder: context.recorder.clone(),
        unwanted: Mutex::default(),
    };
    attaching.pods.add_index(BY_NODE, |pod| node_of(pod).map(str::to_owned).into_iter().collect());
    attaching.attachments.add_index(BY_NODE, |attachment| vec![attachment.spec.node_name.clone()]);
    attaching.attachments.add_index(BY_VOLUME, |it| it.spec.source.persistent_volume_name.iter().cloned().collect());
    index_by_claim(&attaching.pods);
    let pods = attaching.pods.clone();
    let controller = Controller::new("attachdetach", caches)
        .reconciles::<Node>()
        .filter(|change| facts(&change.old) != facts(&change.new))
        .watches::<Pod>(|change| {
            // Only where a pod is and whether it runs matters.
            let facts = |pod: &Option<Arc<Pod>>| {
                let pod = pod.as_ref()?;
                Some((node_of(pod)?.to_owned(), is_finished(pod)))
            };
            let nodes = [facts(&change.old), facts(&change.new)];
            if nodes[0] == nodes[1] {
                Vec::new()
            } else {
                nodes.into_iter().flatten().map(|it| node_key(&it.0)).collect()
            }
        })
        .watches::<PersistentVolumeClaim>(move |change| nodes_of_claim(change, &pods))
        .watches::<VolumeAttachment>(|change| change.objects().map(|it| node_key(&it.spec.node_name)).collect())
        .reads::<PersistentVolume>()
        .reads::<CSIDriver>();
    let (pods, claims, recorder) = (attaching.pods.clone(), attaching.claims.clone(), context.recorder.clone());
    let _news = attaching.attachments.on_change(move |change| tell(change, &pods, &claims, &recorder));
    controller.run(attaching, shutdown).await;
}

/// What of a node matters here.
fn facts(node: &Option<Arc<Node>>) -> impl PartialEq + use<> {
    let node = node.as_ref()?;
    let status = node.status.clone().unwrap_or_default();
    let is_ready = meta::is_condition_true(status.conditions.as_deref().unwrap_or_default(), "Ready");
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.clone());
    Some((decide::is_managed(Some(node)), is_ready, taints, status.volumes_in_use, status.volumes_attached))
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

fn node_key(name: &str) -> ObjectKey {
    ObjectKey::new("", name)
}

/// The nodes of the pods that use a claim whose volume has changed.
fn nodes_of_claim(change: &Change<PersistentVolumeClaim>, pods: &Cache<Pod>) -> Vec<ObjectKey> {
    let volume = |claim: &Option<Arc<PersistentVolumeClaim>>| {
        claim.as_ref().and_then(|claim| claim.spec.as_ref()?.volume_name.clone())
    };
    if volume(&change.old) == volume(&change.new) {
        return Vec::new();
    }
    pods_of_claim(pods, &change.key).iter().filter_map(|pod| node_of(pod)).map(node_key).collect()
}

/// Tells the pods of an attachment what its attacher says.
fn tell(
    change: &Change<VolumeAttachment>,
    pods: &Cache<Pod>,
    claims: &Cache<PersistentVolumeClaim>,
    recorder: &EventRecorder,
) {
    let Some(new) = &change.new else { return };
    let Some(event) = decide::news(change.old.as_deref(), new) else { return };
    let volume = new.spec.source.persistent_volume_name.as_deref();
    for pod in pods.by_index(BY_NODE, &new.spec.node_name) {
        let uses = claims_of(&pod).iter().any(|claim| {
            let claim = claims.get(claim);
            claim.is_some_and(|claim| claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()) == volume)
        });
        if uses {
            recorder.record(&object_reference(&*pod), event.clone());
        }
    }
}

struct Attaching {
    nodes: Cache<Node>,
    pods: Cache<Pod>,
    claims: Cache<PersistentVolumeClaim>,
    volumes: Cache<PersistentVolume>,
    drivers: Cache<CSIDriver>,
    attachments: Cache<VolumeAttachment>,
    recorder: EventRecorder,
    /// By node and attachment, since when (monotonic) a volume is wanted no longer.
    unwanted: Mutex<BTreeMap<ObjectKey, BTreeMap<String, Duration>>>,
}

#[async_trait]
impl Reconciler for Attaching {
    type Object = Node;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> ApiResult<Action> {
        let node = self.nodes.get(key);
        let wanted = self.wanted(&key.name);
        let attachments = self.attachments.by_index(BY_NODE, &key.name);
        let now = context.env().monotonic();
        let unwanted = self.waited(key, now);
        let decision = decide::decide(Observed {
            name: &key.name,
            node: node.as_deref(),
            wanted: &wanted,
            attachments: &attachments,
            elsewhere: &self.elsewhere(&wanted, &key.name),
            unwanted: &unwanted,
        });
        self.remember(key, &decision.waiting, now);
        let again = !decision.waiting.is_empty() || !decision.events.is_empty();
        for (pod, event) in &decision.events {
            self.recorder.record(&object_reference(&**pod), event.clone());
        }
        carry_out(&decision, context).await?;
        if let (Some(node), Some(attached)) = (node, decision.attached) {
            write_attached(&node, attached, context).await?;
        }
        Ok(if again { Action::RequeueAfter(DETACH_RETRY) } else { Action::Done })
    }
}

impl Attaching {
    /// The volumes that the pods of a node use and that drivers attach.
    fn wanted(&self, node: &str) -> Vec<Wanted> {
        let mut wanted: BTreeMap<String, Wanted> = BTreeMap::new();
        let pods = self.pods.by_index(BY_NODE, node);
        for pod in pods.iter().filter(|pod| !is_finished(pod)) {
            for claim in claims_of(pod) {
                let Some((volume, driver, handle)) = self.attachable(&claim) else { continue };
                let name = meta::name(&volume.metadata).to_owned();
                let entry = wanted.entry(name);
                let entry = entry.or_insert_with(|| Wanted { volume, driver, handle, pods: Vec::new() });
                entry.pods.push(pod.clone());
            }
        }
        wanted.into_values().collect()
    }

    /// The volume of a claim, where a driver attaches it, with the driver and its name for the volume.
    fn attachable(&self, claim: &ObjectKey) -> Option<(Arc<PersistentVolume>, String, String)> {
        let claim = self.claims.get(claim)?;
        let name = claim.spec.as_ref()?.volume_name.as_deref().filter(|name| !name.is_empty())?;
        let volume = self.volumes.get(&ObjectKey::new("", name))?;
        let source = volume.spec.as_ref()?.csi.as_ref()?;
        let (driver, handle) = (source.driver.clone(), source.volume_handle.clone());
        let known = self.drivers.get(&ObjectKey::new("", &*driver));
        let attaches = known.is_none_or(|known| known.spec.attach_required != Some(false));
        attaches.then_some((volume, driver, handle))
    }

    fn elsewhere(&self, wanted: &[Wanted], node: &str) -> BTreeMap<String, BTreeSet<String>> {
        let others = |wanted: &Wanted| {
            let volume = meta::name(&wanted.volume.metadata);
            let attachments = self.attachments.by_index(BY_VOLUME, volume);
            let nodes = attachments.iter().map(|it| it.spec.node_name.clone()).filter(|other| other != node);
            (volume.to_owned(), nodes.collect())
        };
        wanted.iter().map(others).collect()
    }

    fn waited(&self, node: &ObjectKey, now: Duration) -> BTreeMap<String, Duration> {
        let unwanted = self.unwanted.lock().unwrap_or_else(PoisonError::into_inner);
        let since = unwanted.get(node).into_iter().flatten();
        since.map(|(name, since)| (name.clone(), now.saturating_sub(*since))).collect()
    }

    fn remember(&self, node: &ObjectKey, waiting: &[String], now: Duration) {
        let mut unwanted = self.unwanted.lock().unwrap_or_else(PoisonError::into_inner);
        let before = unwanted.remove(node).unwrap_or_default();
        if !waiting.is_empty() {
            let since = |name: &String| (name.clone(), before.get(name).copied().unwrap_or(now));
            unwanted.insert(node.clone(), waiting.iter().map(since).collect());
        }
    }
}

async fn carry_out(decision: &Decision, context: &Context) -> ApiResult<()> {
    let api = Api::<VolumeAttachment>::all(context.client());
    for attachment in &decision.detach {
        settled(api.delete(meta::name(&attachment.metadata), &only(&attachment.metadata)).await)?;
    }
    for attachment in &decision.attach {
        match api.create(&PostParams::default(), attachment).await {
            Err(error) if !error.is_already_exists() => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Tells the node's kubelet what is attached.
async fn write_attached(node: &Node, attached: Vec<AttachedVolume>, context: &Context) -> ApiResult<()> {
    let metadata = json!({"uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version});
    let body = Patch::Merge(json!({"metadata": metadata, "status": {"volumesAttached": attached}}));
    let api = Api::<Node>::all(context.client());
    settled(api.patch_status(meta::name(&node.metadata), &PatchParams::default(), &body).await)
}
