//! The pod garbage collector: deletes pods whose node is gone, and the oldest of those that have ended.

mod decide;

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::{Node, Pod};
use kube_core::params::{DeleteParams, PostParams};
use orchestrator_core::{client::Api, meta, status::ApiResult};
use tokio_util::sync::CancellationToken;

use self::decide::{Garbage, Missing, decide};
use crate::{context::ControllerContext, limits, pods::only, writes::settled};

pub(crate) async fn run(context: ControllerContext, shutdown: CancellationToken) {
    shutdown.run_until_cancelled(collect(&context)).await;
}

async fn collect(context: &ControllerContext) {
    let (pods, nodes) = (context.caches.cache::<Pod>(), context.caches.cache::<Node>());
    pods.synced().await;
    nodes.synced().await;
    let env = context.env();
    let mut missing = Missing::default();
    loop {
        env.sleep(limits::POD_COLLECTION_PERIOD).await;
        let pods = pods.list();
        let nodes: BTreeMap<String, Arc<Node>> =
            nodes.list().into_iter().map(|node| (meta::name(&node.metadata).to_owned(), node)).collect();
        let mut gone = missing.observe(&pods, &nodes, limits::NODE_QUARANTINE_TIME, env.monotonic());
        for name in gone.clone() {
            // The cache may be wrong about a node; the server is not.
            if !is_gone(context, name).await {
                gone.remove(name);
            }
        }
        for (pod, garbage) in decide(&pods, &nodes, &gone, context.options.terminated_pods_kept) {
            let name = meta::name(&pod.metadata).to_owned();
            if let Err(error) = delete(context, &pod, garbage).await {
                tracing::warn!(pod = name, %error, "cannot collect a pod");
            }
        }
    }
}

async fn is_gone(context: &ControllerContext, node: &str) -> bool {
    matches!(Api::<Node>::all(context.client()).get_opt(node).await, Ok(None))
}

/// Deletes the very pod that was seen at once, after it was told to have failed.
async fn delete(context: &ControllerContext, pod: &Pod, garbage: Garbage) -> ApiResult<()> {
    let api = Api::<Pod>::namespaced(context.client(), meta::namespace(&pod.metadata));
    let name = meta::name(&pod.metadata);
    let result = async {
        if let Some(failed) = decide::failed(pod, garbage, context.env().now()) {
            api.replace_status(name, &PostParams::default(), &failed).await?;
        }
        let params = DeleteParams { grace_period_seconds: Some(0), ..only(&pod.metadata) };
        api.delete(name, &params).await
    };
    settled(result.await)
}
