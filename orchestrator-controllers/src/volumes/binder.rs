//! Brings claims and volumes together, and makes the volumes that are missing.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::{
    core::v1::{Node, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimStatus, Pod},
    storage::v1::StorageClass,
};
use kube_core::params::{Patch, PatchParams, PostParams};
use orchestrator_core::{
    client::Api,
    controller::{Action, Cache, Context, Controller, Reconciler},
    events::{Event, EventRecorder},
    meta::{annotation, name, object_reference},
    object::ObjectKey,
    status::{ApiError, ApiResult},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    Directories, claims_of,
    decide::{self, ClaimDecision, ClaimView, Note, SELECTED_NODE},
    index_by_claim,
    matching::{BIND_COMPLETED, bound_claim, bound_status, bound_volume, is_marked},
    pods_of_claim,
    provision::{directory_name, make_volume},
    reclaim::set_phase,
    reserved_for,
};
use crate::context::ControllerContext;

/// On a claim: who is to make its volume. The second is its older name, which provisioners still read.
const STORAGE_PROVISIONER: [&str; 2] =
    ["volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner"];
const PENDING: &str = "pending";

/// Reconciles claims.
pub(super) struct Claims {
    claims: Cache<PersistentVolumeClaim>,
    volumes: Cache<PersistentVolume>,
    classes: Cache<StorageClass>,
    nodes: Cache<Node>,
    pods: Cache<Pod>,
    directories: Directories,
    recorder: EventRecorder,
}

impl Claims {
    pub(super) async fn run(controller: Controller, context: ControllerContext, shutdown: CancellationToken) {
        let claims = context.caches.cache::<PersistentVolumeClaim>();
        claims.add_index(PENDING, |claim| match is_marked(claim, BIND_COMPLETED) {
            true => Vec::new(),
            false => vec![PENDING.to_owned()],
        });
        let reconciler = Self {
            volumes: context.caches.cache(),
            classes: context.caches.cache(),
            nodes: context.caches.cache(),
            pods: context.caches.cache(),
            directories: Directories::of(&context),
            recorder: context.recorder.clone(),
            claims: claims.clone(),
        };
        index_by_claim(&reconciler.pods);
        let (waiting, unclassed) = (claims.clone(), claims);
        controller
            .reconciles::<PersistentVolumeClaim>()
            .watches::<PersistentVolume>(move |change| {
                let mut keys = reserved_for(change);
                if keys.is_empty() && change.new.is_some() {
                    keys = pending(&waiting);
                }
                let named = change.object().map(|volume| name(&volume.metadata).to_owned());
                let users = waiting.list();
                let uses =
                    |claim: &&Arc<PersistentVolumeClaim>| super::matching::volume_name(claim) == named.as_deref();
                keys.extend(users.iter().filter(uses).map(|claim| ObjectKey::of(&claim.metadata)));
                keys
            })
            .watches::<StorageClass>(move |_| pending(&unclassed))
            // A claim tells which pods wait for it.
            .watches::<Pod>(|change| {
                let new = change.new.iter().filter(|pod| change.old.is_none() && !has_node(pod));
                new.flat_map(|pod| claims_of(pod)).collect()
            })
            .reads::<Node>()
            .run(reconciler, shutdown)
            .await;
    }
}

fn has_node(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()).is_some_and(|node| !node.is_empty())
}

fn pending(claims: &Cache<PersistentVolumeClaim>) -> Vec<ObjectKey> {
    claims.by_index(PENDING, PENDING).iter().map(|claim| ObjectKey::of(&claim.metadata)).collect()
}

#[async_trait]
impl Reconciler for Claims {
    type Object = PersistentVolumeClaim;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> ApiResult<Action> {
        let Some(claim) = self.claims.get(key) else { return Ok(Action::Done) };
        self.nodes.synced().await;
        let (volumes, classes) = (self.volumes.list(), self.classes.list());
        let node = annotation(&claim.metadata, SELECTED_NODE);
        let node = node.and_then(|node| self.nodes.get(&ObjectKey::new("", node)));
        let waiting = pods_of_claim(&self.pods, key);
        let waiting: Vec<String> =
            waiting.iter().filter(|pod| !has_node(pod)).map(|pod| name(&pod.metadata).to_owned()).collect();
        let view =
            ClaimView { claim: &claim, volumes: &volumes, classes: &classes, node: node.as_deref(), waiting: &waiting };
        let decision = decide::claim(view);
        let run = Run { claims: self, claim: &claim, node: node.as_deref(), context };
        run.carry_out(decision).await?;
        Ok(Action::Done)
    }
}

struct Run<'a> {
    claims: &'a Claims,
    claim: &'a Arc<PersistentVolumeClaim>,
    node: Option<&'a Node>,
    context: &'a Context,
}

impl Run<'_> {
    async fn carry_out(&self, decision: ClaimDecision) -> ApiResult<()> {
        match decision {
            ClaimDecision::Wait(note) => {
                self.record(note);
                self.set_phase("Pending").await
            }
            ClaimDecision::WaitForVolume => self.set_phase("Pending").await,
            ClaimDecision::Lost(note) => {
                if self.phase() != Some("Lost") {
                    self.record(note);
                }
                self.set_phase("Lost").await
            }
            ClaimDecision::Bind(volume) => self.bind(&volume).await,
            ClaimDecision::AssignClass(class) => self.patch(json!({"spec": {"storageClassName": class}})).await,
            ClaimDecision::SelectAgain => self.patch(json!({"metadata": {"annotations": {SELECTED_NODE: null}}})).await,
            ClaimDecision::Provision(class) => self.provision(&class).await,
            ClaimDecision::ProvisionElsewhere(class) => self.provision_elsewhere(&class).await,
        }
    }

    fn api(&self) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.context.client(), self.claim.metadata.namespace.as_deref().unwrap_or_default())
    }

    fn phase(&self) -> Option<&str> {
        self.claim.status.as_ref()?.phase.as_deref()
    }

    /// Reserves the volume first: whoever sees only half of a binding finds in the volume how it goes on.
    async fn bind(&self, volume: &Arc<PersistentVolume>) -> ApiResult<()> {
        let volumes = Api::<PersistentVolume>::all(self.context.client());
        let mut volume = volume.clone();
        if let Some(bound) = bound_volume(&volume, self.claim) {
            volume = volumes.replace(name(&bound.metadata), &PostParams::default(), &bound).await?;
        }
        let mut claim = self.claim.clone();
        if let Some(bound) = bound_claim(&claim, &volume) {
            claim = self.api().replace(name(&bound.metadata), &PostParams::default(), &bound).await?;
        }
        set_phase(&volumes, &volume, "Bound", None, self.context.env().now()).await?;
        let status = bound_status(&claim, &volume);
        self.write_status(&claim, status).await
    }

    /// The phase of a claim without a volume: it has nothing.
    async fn set_phase(&self, phase: &str) -> ApiResult<()> {
        let status = PersistentVolumeClaimStatus {
            phase: Some(phase.to_owned()),
            access_modes: None,
            capacity: None,
            current_volume_attributes_class_name: None,
            ..self.claim.status.clone().unwrap_or_default()
        };
        self.write_status(self.claim, status).await
    }

    async fn write_status(&self, claim: &PersistentVolumeClaim, status: PersistentVolumeClaimStatus) -> ApiResult<()> {
        if claim.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let claim = PersistentVolumeClaim { status: Some(status), ..claim.clone() };
        self.api().replace_status(name(&claim.metadata), &PostParams::default(), &claim).await.map(drop)
    }

    async fn patch(&self, mut body: Value) -> ApiResult<()> {
        body["metadata"]["resourceVersion"] = json!(self.claim.metadata.resource_version);
        let name = name(&self.claim.metadata);
        self.api().patch(name, &PatchParams::default(), &Patch::Merge(body)).await.map(drop)
    }

    async fn provision(&self, class: &StorageClass) -> ApiResult<()> {
        let Directories { base, provisioner } = &self.claims.directories;
        let Some(base) = base else {
            self.failed("no directory for local volumes is configured", class);
            return self.set_phase("Pending").await;
        };
        if self.claim.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let volume = make_volume(self.claim, class, base, self.node);
        if let Err(error) = provisioner.provision(base, &directory_name(self.claim)).await {
            self.failed(&error.to_string(), class);
            return Err(ApiError::internal(error));
        }
        let volumes = Api::<PersistentVolume>::all(self.context.client());
        match volumes.create(&PostParams::default(), &volume).await {
            Ok(made) => {
                let message = format!("Successfully provisioned volume {}", name(&made.metadata));
                self.publish(Event::normal("ProvisioningSucceeded", message));
                Ok(())
            }
            Err(error) if error.is_already_exists() => Ok(()),
            Err(error) => {
                self.failed(error.message(), class);
                Err(error)
            }
        }
    }

    fn failed(&self, why: &str, class: &StorageClass) {
        let class = name(&class.metadata);
        let message = format!("Failed to provision volume with StorageClass \"{class}\": {why}");
        self.publish(Event::warning("ProvisioningFailed", message));
    }

    /// Says who is to make the volume, and waits.
    async fn provision_elsewhere(&self, class: &StorageClass) -> ApiResult<()> {
        let provisioner = &class.provisioner;
        if STORAGE_PROVISIONER.iter().any(|key| annotation(&self.claim.metadata, key) != Some(provisioner)) {
            let annotations: serde_json::Map<String, Value> =
                STORAGE_PROVISIONER.iter().map(|key| ((*key).to_owned(), json!(provisioner))).collect();
            return self.patch(json!({"metadata": {"annotations": annotations}})).await;
        }
        let message = format!(
            "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the \
             system administrator. If volume creation is delayed, please verify that the provisioner is running and \
             correctly registered."
        );
        self.publish(Event::normal("ExternalProvisioning", message));
        self.set_phase("Pending").await
    }

    fn record(&self, Note { warning, reason, message }: Note) {
        self.publish(if warning { Event::warning(reason, message) } else { Event::normal(reason, message) });
    }

    fn publish(&self, event: Event) {
        self.claims.recorder.record(&object_reference(&**self.claim), event);
    }
}
