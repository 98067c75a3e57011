//! From a service and a pod to an endpoint and its ports.
//!
//! Upstream: `k8s.io/endpointslice` (`utils.go`) and `k8s.io/kubernetes/pkg/controller/util/endpoint`.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        core::v1::{Container, ObjectReference, Pod, Service, ServicePort},
        discovery::v1::{Endpoint, EndpointConditions, EndpointHints, EndpointPort, ForNode, ForZone},
    },
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::topology::is_topology_aware;
use crate::pods::{is_deleting, is_finished, is_ready};

/// Which kind of addresses a slice has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    /// The families of a service.
    pub(crate) fn of(service: &Service) -> Vec<Self> {
        let families = service.spec.as_ref().and_then(|spec| spec.ip_families.clone()).unwrap_or_default();
        if families.is_empty() {
            return vec![Self::V4];
        }
        families.iter().map(|family| if family == "IPv6" { Self::V6 } else { Self::V4 }).collect()
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    pub(crate) fn contains(self, address: &str) -> bool {
        address.contains(':') == (self == Self::V6)
    }
}

/// The zone of each node that there is, if it has one.
pub(super) type Zones = BTreeMap<String, Option<String>>;

/// The endpoint that a pod is, if it has an address and has not ended. One on a node that is not there is none, unless the
/// service asks for what is not ready as well.
pub(super) fn endpoint(service: &Service, pod: &Pod, family: Family, zones: &Zones) -> Option<Endpoint> {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()).filter(|node| !node.is_empty());
    let publish = service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true);
    let is_there = node.is_some_and(|node| zones.contains_key(node));
    if is_finished(pod) || !is_there && !publish {
        return None;
    }
    let address = address(pod, family)?;
    let (serving, terminating) = (is_ready(pod), is_deleting(pod));
    let endpoint = Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(publish || serving && !terminating),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(service, pod),
        target_ref: Some(target(pod)),
        zone: node.and_then(|node| zones.get(node)).cloned().flatten(),
        node_name: node.cloned(),
        ..Default::default()
    };
    Some(Endpoint { hints: hints(service, &endpoint), ..endpoint })
}

/// For whom an endpoint is meant first, where the service says how its traffic is distributed. Upstream:
/// `k8s.io/endpointslice/trafficdist`.
fn hints(service: &Service, endpoint: &Endpoint) -> Option<EndpointHints> {
    let distribution = service.spec.as_ref().and_then(|spec| spec.traffic_distribution.as_deref())?;
    let by_zone = matches!(distribution, "PreferClose" | "PreferSameZone" | "PreferSameNode");
    let is_ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) == Some(true);
    if !by_zone || !is_ready || is_topology_aware(service) {
        return None;
    }
    let by_node = distribution == "PreferSameNode";
    let node = endpoint.node_name.as_ref().filter(|_| by_node);
    let hints = EndpointHints {
        for_zones: endpoint.zone.as_ref().map(|zone| vec![ForZone { name: zone.clone() }]),
        for_nodes: node.map(|node| vec![ForNode { name: node.clone() }]),
    };
    (hints.for_zones.is_some() || hints.for_nodes.is_some()).then_some(hints)
}

/// The name that a pod has within a service.
pub(crate) fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let named = spec.subdomain.is_some() && spec.subdomain == service.metadata.name;
    spec.hostname.clone().filter(|hostname| named && !hostname.is_empty())
}

/// A pod, as an endpoint names it.
pub(crate) fn target(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..Default::default()
    }
}

/// A pod's address of a family.
pub(crate) fn address(pod: &Pod, family: Family) -> Option<String> {
    let status = pod.status.as_ref()?;
    let all = status.pod_ips.iter().flatten().map(|address| &address.ip).chain(&status.pod_ip);
    all.filter(|address| !address.is_empty()).find(|address| family.contains(address)).cloned()
}

/// Whether a pod has an address of any family.
pub(super) fn has_address(pod: &Pod) -> bool {
    address(pod, Family::V4).or_else(|| address(pod, Family::V6)).is_some()
}

/// The ports of a service on a pod. One that the pod has no container port for is left out.
pub(super) fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let resolve = |port: &ServicePort| {
        Some(EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(port_number(port, pod)?),
            protocol: Some(protocol(port.protocol.as_ref()).to_owned()),
            app_protocol: port.app_protocol.clone(),
        })
    };
    ports.iter().filter_map(resolve).collect()
}

/// A port's protocol.
pub(crate) fn protocol(protocol: Option<&String>) -> &str {
    protocol.map_or("TCP", String::as_str)
}

/// The number that a service's port has on a pod; `None` when the pod has no port of that name.
pub(crate) fn port_number(port: &ServicePort, pod: &Pod) -> Option<i32> {
    let name = match &port.target_port {
        None | Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let spec = pod.spec.as_ref()?;
    let sidecar = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten().filter(sidecar));
    containers
        .flat_map(|container| container.ports.iter().flatten())
        .find(|known| {
            known.name.as_ref() == Some(name) && protocol(known.protocol.as_ref()) == protocol(port.protocol.as_ref())
        })
        .map(|known| known.container_port)
}
