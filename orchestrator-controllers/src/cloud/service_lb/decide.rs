//! What a service wants of a load balancer.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/services-networking/service/#loadbalancer>.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Node, Service, ServiceSpec};
use orchestrator_core::{events::Event, meta};

use crate::cloud::has_taint;

pub(super) const FINALIZER: &str = "service.kubernetes.io/load-balancer-cleanup";
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

/// What to do for a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// It has nothing to do with load balancers.
    Nothing,
    /// Remove its load balancer.
    Remove,
    /// Make its load balancer as it says.
    Ensure,
    /// Tell its load balancer of other nodes.
    Update,
}

/// What was done for a service last.
#[derive(Clone, Debug)]
pub(super) struct Done {
    pub service: std::sync::Arc<Service>,
    pub nodes: BTreeSet<String>,
}

/// What to do for a service, after what was done for it.
pub(super) fn decide(service: &Service, done: Option<&Done>, nodes: &BTreeSet<String>) -> Decision {
    let has_finalizer = meta::has_finalizer(&service.metadata, FINALIZER);
    if !wants(service) || meta::is_deleting(&service.metadata) {
        return if has_finalizer || done.is_some() { Decision::Remove } else { Decision::Nothing };
    }
    match done {
        Some(done) if has_finalizer && !differs(&done.service, service) => match done.nodes == *nodes {
            true => Decision::Nothing,
            false => Decision::Update,
        },
        _ => Decision::Ensure,
    }
}

fn spec(service: &Service) -> ServiceSpec {
    service.spec.clone().unwrap_or_default()
}

/// Whether the cloud's load balancers are meant: a class of its own says otherwise.
fn wants(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.is_some_and(|spec| spec.type_.as_deref() == Some("LoadBalancer") && spec.load_balancer_class.is_none())
}

/// Whether a load balancer would differ.
fn differs(old: &Service, new: &Service) -> bool {
    let facts = |service: &Service| {
        let spec = spec(service);
        let ports = spec.ports.unwrap_or_default();
        let ports = ports.into_iter().map(|it| (it.name, it.protocol, it.port, it.node_port, it.target_port));
        (
            (wants(service), ports.collect::<Vec<_>>(), spec.session_affinity, spec.session_affinity_config),
            (spec.load_balancer_source_ranges, spec.load_balancer_ip, spec.external_ips),
            (spec.external_traffic_policy, spec.health_check_node_port, spec.ip_family_policy, spec.ip_families),
            (service.metadata.annotations.clone(), service.metadata.uid.clone()),
        )
    };
    facts(old) != facts(new)
}

/// What there is to tell of a change.
pub(super) fn events(old: &Service, new: &Service) -> Vec<Event> {
    let (before, after) = (spec(old), spec(new));
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let list = |list: &Option<Vec<String>>| format!("[{}]", list.clone().unwrap_or_default().join(" "));
    let number = |number: &Option<i32>| number.unwrap_or(0).to_string();
    let mut events = Vec::new();
    let mut tell = |reason: &str, from: String, to: String| {
        if from != to {
            events.push(Event::normal(reason, format!("{from} -> {to}")));
        }
    };
    if !wants(old) && !wants(new) {
        return events;
    }
    if wants(old) != wants(new) {
        tell("Type", text(&before.type_), text(&after.type_));
        return events;
    }
    let ranges = |spec: &ServiceSpec| list(&spec.load_balancer_source_ranges);
    tell("LoadBalancerSourceRanges", ranges(&before), ranges(&after));
    tell("LoadbalancerIP", text(&before.load_balancer_ip), text(&after.load_balancer_ip));
    tell("ExternalTrafficPolicy", text(&before.external_traffic_policy), text(&after.external_traffic_policy));
    tell("HealthCheckNodePort", number(&before.health_check_node_port), number(&after.health_check_node_port));
    events
}

/// Whether a load balancer may lead to a node.
pub(super) fn serves(node: &Node) -> bool {
    !meta::is_deleting(&node.metadata)
        && meta::label(&node.metadata, EXCLUDED).is_none()
        && !has_taint(node, TO_BE_DELETED)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn service(extra: Value) -> Service {
        let mut spec = json!({"type": "LoadBalancer", "ports": [{"port": 80}]});
        spec.as_object_mut().unwrap().extend(extra.as_object().cloned().unwrap());
        let metadata = json!({"name": "s", "uid": "u", "finalizers": [FINALIZER]});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_load_balancer_follows_its_service_and_the_nodes() {
        let first = service(json!({}));
        let done = Done { service: Arc::new(first.clone()), nodes: names(&["a"]) };
        let decide = |service: &Service, nodes: &[&str]| super::decide(service, Some(&done), &names(nodes));
        assert_eq!(super::decide(&first, None, &names(&["a"])), Decision::Ensure);
        assert_eq!(decide(&first, &["a"]), Decision::Nothing);
        assert_eq!(decide(&first, &["a", "b"]), Decision::Update);
        assert_eq!(decide(&service(json!({"ports": [{"port": 81}]})), &["a"]), Decision::Ensure);
        assert_eq!(decide(&service(json!({"type": "ClusterIP"})), &["a"]), Decision::Remove);
        assert_eq!(decide(&service(json!({"loadBalancerClass": "example.com/own"})), &["a"]), Decision::Remove);
        let mut other = service(json!({"type": "NodePort"}));
        other.metadata.finalizers = None;
        assert_eq!(super::decide(&other, None, &names(&[])), Decision::Nothing);
        let mut going = first;
        going.metadata.deletion_timestamp = Some(orchestrator_core::object::time(jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(super::decide(&going, None, &names(&[])), Decision::Remove);
    }

    #[test]
    fn changes_are_told() {
        let told = |old: &Service, new: &Service| {
            events(old, new).into_iter().map(|event| format!("{} {}", event.reason, event.message)).collect::<Vec<_>>()
        };
        let (plain, balanced) = (service(json!({"type": "ClusterIP"})), service(json!({})));
        assert_eq!(told(&plain, &balanced), ["Type ClusterIP -> LoadBalancer"]);
        let ranges = service(json!({"loadBalancerSourceRanges": ["10.0.0.0/8", "11.0.0.0/8"]}));
        assert_eq!(told(&balanced, &ranges), ["LoadBalancerSourceRanges [] -> [10.0.0.0/8 11.0.0.0/8]"]);
        assert_eq!(told(&plain, &plain), [""; 0]);
    }

    proptest! {
        #[test]
        fn what_was_done_is_not_done_again(ports in prop::collection::vec(1..9_i32, 1..4), nodes in prop::collection::btree_set("[a-c]", 0..3)) {
            let ports: Vec<_> = ports.iter().map(|port| json!({"port": port})).collect();
            let service = service(json!({"ports": ports}));
            let done = Done { service: Arc::new(service.clone()), nodes: nodes.clone() };
            prop_assert_eq!(super::decide(&service, Some(&done), &nodes), Decision::Nothing);
        }
    }
}
