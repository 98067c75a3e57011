//! The cloud node controller: initializes nodes by what the cloud knows of their machines, and keeps their addresses.

mod decide;

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::join;
use k8s_openapi::api::core::v1::{Node, NodeAddress};
use kube_core::params::{Patch, PatchParams, PostParams};
use orchestrator_core::{
    client::Api,
    controller::{Action, Cache, Context, Controller, Reconciler},
    events::{Event, EventRecorder},
    meta::{self, object_reference},
    object::ObjectKey,
    status::{ApiError, ApiResult, Reason},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{CloudError, CloudProvider, UNINITIALIZED, has_taint};
use crate::{context::ControllerContext, limits::NODE_ADDRESS_PERIOD, writes::settled};

/// Runs the controller until the shutdown, where the cloud knows machines.
pub(crate) async fn run(context: ControllerContext, shutdown: CancellationToken) {
    let cloud = context.options.cloud.clone().filter(|cloud| cloud.instances().is_some());
    let Some(cloud) = cloud else { return shutdown.cancelled().await };
    let nodes = context.caches.cache::<Node>();
    let reconciler = Initialization { nodes: nodes.clone(), cloud: cloud.clone(), recorder: context.recorder.clone() };
    let controller = Controller::new("cloud-node", &context.caches).reconciles::<Node>();
    let addresses = Box::pin(follow_addresses(&context, &nodes, &*cloud));
    join(controller.run(reconciler, shutdown.clone()), shutdown.run_until_cancelled(addresses)).await;
}

/// Keeps the addresses of nodes those of their machines.
async fn follow_addresses(context: &ControllerContext, nodes: &Cache<Node>, cloud: &dyn CloudProvider) {
    nodes.synced().await;
    loop {
        for node in nodes.list().iter().filter(|node| !has_taint(node, UNINITIALIZED)) {
            if let Err(error) = refresh(node, cloud, &Context::detached(&context.caches)).await {
                tracing::warn!(node = meta::name(&node.metadata), error, "cannot refresh the addresses of a node");
            }
        }
        context.env().sleep(NODE_ADDRESS_PERIOD).await;
    }
}

async fn refresh(node: &Node, cloud: &dyn CloudProvider, context: &Context) -> Result<(), String> {
    let Some(instances) = cloud.instances() else { return Ok(()) };
    let machine = instances.metadata(node).await.map_err(|error: CloudError| error.to_string())?;
    match machine.filter(|machine| !machine.addresses.is_empty()) {
        None => Ok(()),
        Some(machine) => {
            let addresses = decide::addresses(node, &machine.addresses)?;
            write_addresses(node, addresses, context).await.map_err(|error| error.message().to_owned())
        }
    }
}

async fn write_addresses(node: &Node, addresses: Vec<NodeAddress>, context: &Context) -> ApiResult<()> {
    let known = node.status.as_ref().and_then(|status| status.addresses.as_ref());
    if known == Some(&addresses) || known.is_none() && addresses.is_empty() {
        return Ok(());
    }
    let body = Patch::Merge(json!({"metadata": {"uid": node.metadata.uid}, "status": {"addresses": addresses}}));
    let api = Api::<Node>::all(context.client());
    settled(api.patch_status(meta::name(&node.metadata), &PatchParams::default(), &body).await)
}

struct Initialization {
    nodes: Cache<Node>,
    cloud: Arc<dyn CloudProvider>,
    recorder: EventRecorder,
}

#[async_trait]
impl Reconciler for Initialization {
    type Object = Node;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> ApiResult<Action> {
        let Some(node) = self.nodes.get(key) else { return Ok(Action::Done) };
        if has_taint(&node, UNINITIALIZED) {
            self.initialize(&node, context).await?;
        } else {
            align_labels(&node, context).await?;
        }
        Ok(Action::Done)
    }
}

impl Initialization {
    async fn initialize(&self, node: &Node, context: &Context) -> ApiResult<()> {
        let Some(instances) = self.cloud.instances() else { return Ok(()) };
        let name = meta::name(&node.metadata);
        let failed = |error: String| ApiError::new(Reason::Unknown, error);
        let machine = instances.metadata(node).await;
        let unknown = |error: CloudError| failed(format!("failed to get instance metadata for node {name}: {error}"));
        let Some(machine) = machine.map_err(unknown)? else { return Ok(()) };
        let invalid = |error| failed(format!("failed to get node modifiers from cloud provider: {error}"));
        let new = decide::initialized(node, &machine).map_err(invalid)?;
        let api = Api::<Node>::all(context.client());
        let new = match api.replace(name, &PostParams::default(), &new).await {
            Err(error) if error.is_not_found() => return Ok(()),
            result => result?,
        };
        let addresses = decide::addresses(&new, &machine.addresses).map_err(failed)?;
        write_addresses(&new, addresses, context).await?;
        self.recorder.record(&object_reference(node), Event::normal("Synced", "Node synced successfully"));
        Ok(())
    }
}

/// Lets labels by their former names say what those by the present ones say.
async fn align_labels(node: &Node, context: &Context) -> ApiResult<()> {
    let outdated = decide::outdated_labels(node);
    if outdated.is_empty() {
        return Ok(());
    }
    let labels: serde_json::Map<_, _> =
        outdated.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    let body = Patch::Merge(json!({"metadata": {"uid": node.metadata.uid, "labels": labels}}));
    let api = Api::<Node>::all(context.client());
    settled(api.patch(meta::name(&node.metadata), &PatchParams::default(), &body).await)
}
