//! The cloud node lifecycle controller: removes nodes whose machines are gone, and taints those whose machines are switched off.

mod decide;

use k8s_openapi::api::core::v1::Node;
use kube_core::params::{Patch, PatchParams};
use orchestrator_core::{client::Api, controller::Cache, events::Event, meta, status::ApiResult};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use self::decide::First;
use super::{Instances, reference};
use crate::{context::ControllerContext, limits::NODE_MONITOR_PERIOD, pods::only};

/// Runs the controller until the shutdown, where the cloud knows machines.
pub(crate) async fn run(context: ControllerContext, shutdown: CancellationToken) {
    let cloud = context.options.cloud.clone();
    let Some(instances) = cloud.as_ref().and_then(|cloud| cloud.instances()) else {
        return shutdown.cancelled().await;
    };
    let nodes = context.caches.cache::<Node>();
    shutdown.run_until_cancelled(Box::pin(monitor(&context, &nodes, instances))).await;
}

async fn monitor(context: &ControllerContext, nodes: &Cache<Node>, instances: &dyn Instances) {
    nodes.synced().await;
    loop {
        for node in nodes.list() {
            if let Err(error) = look_after(context, &node, instances).await {
                tracing::warn!(node = meta::name(&node.metadata), error, "cannot look after a node");
            }
        }
        context.env().sleep(NODE_MONITOR_PERIOD).await;
    }
}

async fn look_after(context: &ControllerContext, node: &Node, instances: &dyn Instances) -> Result<(), String> {
    let name = meta::name(&node.metadata);
    let is_shut_down = match decide::first(node, context.env().now()) {
        First::Wait => return Ok(()),
        First::Untaint => false,
        First::Ask => {
            let unknown = |error| format!("error checking if node {name} exists: {error}");
            if !instances.exists(node).await.map_err(unknown)? {
                delete(context, node).await;
                return Ok(());
            }
            let unknown = |error| format!("error checking if node {name} is shutdown: {error}");
            // That its machine runs does not mean that the node does: only a ready node loses the taint.
            if !instances.is_shut_down(node).await.map_err(unknown)? {
                return Ok(());
            }
            true
        }
    };
    taint(context, node, is_shut_down).await.map_err(|error| error.message().to_owned())
}

async fn delete(context: &ControllerContext, node: &Node) {
    let (name, reference) = (meta::name(&node.metadata), reference(node));
    let message = format!("Deleting node {name} because it does not exist in the cloud provider");
    context.recorder.record(&reference, Event::normal("DeletingNode", message));
    match Api::<Node>::all(context.client()).delete(name, &only(&node.metadata)).await {
        Err(error) if !error.is_not_found() => {
            let message = format!("Failed deleting node {name}: {}", error.message());
            context.recorder.record(&reference, Event::warning("DeletingNodeFailed", message));
        }
        _ => {}
    }
}

async fn taint(context: &ControllerContext, node: &Node, is_shut_down: bool) -> ApiResult<()> {
    let Some(taints) = decide::taints(node, is_shut_down) else { return Ok(()) };
    let metadata = &node.metadata;
    let version = json!({"uid": metadata.uid, "resourceVersion": metadata.resource_version});
    let body = Patch::Merge(json!({"metadata": version, "spec": {"taints": taints}}));
    let api = Api::<Node>::all(context.client());
    match api.patch(meta::name(metadata), &PatchParams::default(), &body).await {
        // Whatever changed meanwhile, the next look sees it.
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
        _ => Ok(()),
    }
}
