//! The route controller: routes of a cloud to the pods of each node.

mod decide;

use std::sync::Arc;

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use kube_core::params::PostParams;
use orchestrator_core::{client::Api, controller::Cache, events::Event, meta, status::ApiResult};
use tokio_util::sync::CancellationToken;

use super::{Route, Routes, reference};
use crate::{
    addresses::Prefix,
    context::ControllerContext,
    limits::{ROUTE_PERIOD, ROUTES_AT_ONCE},
};

/// Runs the controller until the shutdown, where the cloud has routes and the cluster has addresses for pods.
pub(crate) async fn run(context: ControllerContext, shutdown: CancellationToken) {
    let cloud = context.options.cloud.clone();
    let cluster: Vec<Prefix> = context.options.cluster_cidrs.iter().filter_map(|range| range.parse().ok()).collect();
    let routes = cloud.as_ref().and_then(|cloud| cloud.routes()).filter(|_| !cluster.is_empty());
    let Some(routes) = routes else { return shutdown.cancelled().await };
    let nodes = context.caches.cache::<Node>();
    shutdown.run_until_cancelled(Box::pin(follow(&context, &nodes, routes, &cluster))).await;
}

async fn follow(context: &ControllerContext, nodes: &Cache<Node>, routes: &dyn Routes, cluster: &[Prefix]) {
    nodes.synced().await;
    loop {
        match routes.list().await {
            Ok(known) => settle(context, &nodes.list(), &known, routes, cluster).await,
            Err(error) => tracing::warn!(%error, "cannot list the routes of the cloud"),
        }
        context.env().sleep(ROUTE_PERIOD).await;
    }
}

async fn settle(
    context: &ControllerContext,
    nodes: &[Arc<Node>],
    known: &[Route],
    routes: &dyn Routes,
    cluster: &[Prefix],
) {
    let decision = decide::decide(nodes, known, cluster);
    let delete = |route: Route| async move {
        if let Err(error) = routes.delete(&route).await {
            tracing::warn!(route = route.name, to = route.destination, %error, "cannot remove a route");
        }
    };
    stream::iter(decision.delete).for_each_concurrent(ROUTES_AT_ONCE, delete).await;
    let create = |(hint, route): (String, Route)| async move {
        let error = routes.create(&hint, &route).await.err()?;
        Some((hint, route, error))
    };
    let failures = stream::iter(decision.create).map(create).buffer_unordered(ROUTES_AT_ONCE);
    let mut failures: Vec<_> = failures.filter_map(|failure| async { failure }).collect().await;
    failures.sort_by(|a, b| a.1.cmp(&b.1));
    for (hint, route, error) in &failures {
        let name = route.node.as_deref().unwrap_or_default();
        let node = nodes.iter().find(|node| meta::name(&node.metadata) == name);
        let message = format!("Could not create route {hint} {} for node {name}: {error}", route.destination);
        if let Some(node) = node {
            context.recorder.record(&reference(node), Event::warning("FailedToCreateRoute", message));
        }
    }
    let failed: Vec<Route> = failures.into_iter().map(|(_, route, _)| route).collect();
    for node in nodes {
        if let Some(condition) = decide::condition(node, &failed, context.env().now())
            && let Err(error) = tell(context, node, condition).await
        {
            tracing::warn!(node = meta::name(&node.metadata), %error, "cannot tell of a node's routes");
        }
    }
}

async fn tell(context: &ControllerContext, node: &Node, condition: NodeCondition) -> ApiResult<()> {
    let mut new = node.clone();
    let conditions = new.status.get_or_insert_default().conditions.get_or_insert_default();
    meta::set_condition(conditions, condition);
    let api = Api::<Node>::all(context.client());
    match api.replace_status(meta::name(&node.metadata), &PostParams::default(), &new).await {
        // Whatever changed meanwhile, the next round sees it.
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
        _ => Ok(()),
    }
}
