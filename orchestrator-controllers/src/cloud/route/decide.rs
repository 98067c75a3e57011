//! Which routes to nodes' pods are missing, and which lead nowhere.
//!
//! Upstream: `k8s.io/cloud-provider/controllers/route`.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::core::v1::{Node, NodeCondition};
use orchestrator_core::{meta, object::time};

use crate::{addresses::Prefix, cloud::Route};

/// Routes to make, with what makes their names unique, and routes to remove.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Decision {
    pub create: Vec<(String, Route)>,
    pub delete: Vec<Route>,
}

fn destinations(node: &Node) -> &[String] {
    node.spec.as_ref().and_then(|spec| spec.pod_cidrs.as_deref()).unwrap_or_default()
}

/// Compares the routes that there are with those that nodes need. Routes outside of the cluster's ranges are others'.
pub(super) fn decide(nodes: &[Arc<Node>], routes: &[Route], cluster: &[Prefix]) -> Decision {
    let wanted: BTreeSet<(&str, &str)> = nodes
        .iter()
        .flat_map(|node| destinations(node).iter().map(|to| (meta::name(&node.metadata), to.as_str())))
        .collect();
    let is_wanted =
        |route: &Route| route.node.as_deref().is_some_and(|node| wanted.contains(&(node, &*route.destination)));
    let is_ours = |route: &&Route| {
        let destination = route.destination.parse::<Prefix>();
        destination.is_ok_and(|destination| {
            cluster.iter().any(|range| range.contains(destination) || destination.contains(*range))
        })
    };
    let delete = routes.iter().filter(is_ours).filter(|route| !is_wanted(route)).cloned().collect();
    let mut decision = Decision { create: Vec::new(), delete };
    let exists = |node: &str, to: &str| {
        routes.iter().any(|route| route.node.as_deref() == Some(node) && route.destination == to)
    };
    for node in nodes {
        let name = meta::name(&node.metadata);
        for to in destinations(node).iter().filter(|to| !exists(name, to)) {
            let route = Route { name: String::new(), node: Some(name.to_owned()), destination: to.clone() };
            decision.create.push((meta::uid(&node.metadata).to_owned(), route));
        }
    }
    decision
}

/// What a node says of its network after its routes were made, or not; nothing where it says so already.
pub(super) fn condition(node: &Node, failed: &[Route], now: jiff::Timestamp) -> Option<NodeCondition> {
    let name = meta::name(&node.metadata);
    let lacks_one = failed.iter().any(|route| route.node.as_deref() == Some(name));
    let has_routes = !destinations(node).is_empty() && !lacks_one;
    let (status, reason, message) = match has_routes {
        true => ("False", "RouteCreated", "RouteController created a route"),
        false => ("True", "NoRouteCreated", "RouteController failed to create a route"),
    };
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    if meta::condition(conditions, "NetworkUnavailable").is_some_and(|known| known.status == status) {
        return None;
    }
    Some(NodeCondition {
        type_: "NetworkUnavailable".to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_heartbeat_time: Some(time(now)),
        last_transition_time: Some(time(now)),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::pods::fixtures::at;

    fn node(name: &str, ranges: &[&str]) -> Arc<Node> {
        let metadata = json!({"name": name, "uid": format!("uid-{name}")});
        Arc::new(serde_json::from_value(json!({"metadata": metadata, "spec": {"podCIDRs": ranges}})).unwrap())
    }

    fn route(node: Option<&str>, destination: &str) -> Route {
        Route { name: "r".to_owned(), node: node.map(str::to_owned), destination: destination.to_owned() }
    }

    #[test]
    fn routes_follow_nodes_within_the_cluster() {
        let cluster = ["10.244.0.0/16".parse().unwrap()];
        let nodes = [node("a", &["10.244.0.0/24", "fd00::/64"]), node("b", &[])];
        let routes = [
            route(Some("a"), "10.244.0.0/24"),
            route(Some("gone"), "10.244.1.0/24"),
            route(None, "10.244.2.0/24"),
            route(Some("gone"), "192.0.2.0/24"),
        ];
        let decision = decide(&nodes, &routes, &cluster);
        assert_eq!(decision.delete, routes[1..3]);
        let missing = Route { name: String::new(), ..route(Some("a"), "fd00::/64") };
        assert_eq!(decision.create, [("uid-a".to_owned(), missing.clone())]);
        let reason = |node: &Node, failed: &[Route]| condition(node, failed, at(0)).and_then(|it| it.reason);
        assert_eq!(reason(&nodes[0], &[]).as_deref(), Some("RouteCreated"));
        assert_eq!(reason(&nodes[0], &[missing]).as_deref(), Some("NoRouteCreated"));
        assert_eq!(reason(&nodes[1], &[]).as_deref(), Some("NoRouteCreated"));
    }

    proptest! {
        #[test]
        fn one_round_settles(nodes in prop::collection::btree_set(0..9_u8, 0..6), stale in prop::collection::btree_set(0..9_u8, 0..6)) {
            let range = |index: &u8| format!("10.244.{index}.0/24");
            let cluster = ["10.244.0.0/16".parse().unwrap()];
            let nodes: Vec<_> = nodes.iter().map(|index| node(&format!("n{index}"), &[&range(index)])).collect();
            let mut routes: Vec<_> = stale.iter().map(|index| route(Some(&format!("n{index}")), &range(index))).collect();
            let decision = decide(&nodes, &routes, &cluster);
            routes.retain(|route| !decision.delete.contains(route));
            routes.extend(decision.create.into_iter().map(|(_, route)| route));
            prop_assert_eq!(routes.len(), nodes.len());
            prop_assert_eq!(decide(&nodes, &routes, &cluster), Decision::default());
        }
    }
}
