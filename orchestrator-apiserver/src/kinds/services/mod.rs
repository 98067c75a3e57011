//! Services: addresses, ports, and how their types differ.
//!
//! Upstream: `pkg/registry/core/service`.

mod validation;

use std::{collections::BTreeSet, net::IpAddr};

use orchestrator_core::store::Key;
use serde_json::{Value, json};

use super::{check, load_balancers, reserved, rules::Rules};
use crate::{
    field::{Field, items_mut, member, remove, set_default},
    names::NameRule,
    strategy::{Allocation, Reservation},
};

const NODE_PORTS: std::ops::RangeInclusive<i64> = 30_000..=32_767;
const AFFINITY_SECONDS: i64 = 10_800;

/// Services.
pub(super) const SERVICES: Rules = Rules {
    names: NameRule::Label,
    status: true,
    returns_deleted: true,
    default,
    create,
    update,
    validate_create: validation::validate,
    validate_update: validation::validate_update,
    validate_status: load_balancers::validate_service,
    reservations,
    allocations: Some(allocations),
    ..Rules::NONE
};

fn type_of(service: &Value) -> &str {
    service["spec"]["type"].as_str().unwrap_or_default()
}

/// Whether services of a type are reached at ports of nodes.
fn on_nodes(of: &str) -> bool {
    matches!(of, "NodePort" | "LoadBalancer")
}

/// Whether a service, of which this is the spec, is reached from outside of the cluster.
fn externally_accessible(spec: &Value) -> bool {
    let of = spec["type"].as_str().unwrap_or_default();
    let addresses = spec["externalIPs"].as_array().is_some_and(|addresses| !addresses.is_empty());
    on_nodes(of) || (of == "ClusterIP" && addresses)
}

/// Whether a load balancer, of which this is the spec, has to find out which nodes have pods.
fn needs_health_check(spec: &Value) -> bool {
    spec["type"] == "LoadBalancer" && spec["externalTrafficPolicy"] == "Local"
}

fn default(service: &mut Value) {
    let spec = member(service, "spec");
    set_default(spec, "sessionAffinity", "None");
    if spec["sessionAffinity"] == "ClientIP" {
        let client = member(member(spec, "sessionAffinityConfig"), "clientIP");
        set_default(client, "timeoutSeconds", AFFINITY_SECONDS);
    } else if spec["sessionAffinity"] == "None" {
        remove(spec, "sessionAffinityConfig");
    }
    set_default(spec, "type", "ClusterIP");
    for port in items_mut(spec, "ports") {
        set_default(port, "protocol", "TCP");
        let target = port["targetPort"].clone();
        if target.is_null() || target == 0 || target == "" {
            let number = port["port"].as_i64().unwrap_or(0);
            *member(port, "port") = number.into();
            *member(port, "targetPort") = number.into();
        }
        if port["nodePort"] == 0 {
            remove(port, "nodePort");
        }
    }
    let of = spec["type"].as_str().unwrap_or_default().to_owned();
    if externally_accessible(spec) {
        set_default(spec, "externalTrafficPolicy", "Cluster");
    }
    if on_nodes(&of) || of == "ClusterIP" {
        set_default(spec, "internalTrafficPolicy", "Cluster");
    }
    if of == "LoadBalancer" {
        set_default(spec, "allocateLoadBalancerNodePorts", true);
    }
    for name in ["clusterIP", "externalName"] {
        if spec[name] == "" {
            remove(spec, name);
        }
    }
    if of == "LoadBalancer" {
        default_address_modes(service);
    }
}

/// Addresses of load balancers are virtual unless it is said otherwise.
fn default_address_modes(service: &mut Value) {
    let Some(balancer) = service.get_mut("status").and_then(|status| status.get_mut("loadBalancer")) else { return };
    for entry in items_mut(balancer, "ingress").filter(|entry| entry["ip"].as_str().is_some_and(|ip| !ip.is_empty())) {
        set_default(entry, "ipMode", "VIP");
    }
}

/// Whether the server draws ports of nodes for a service, of which this is the spec.
fn draws_ports(spec: &Value) -> bool {
    spec["type"] == "NodePort" || (spec["type"] == "LoadBalancer" && spec["allocateLoadBalancerNodePorts"] != false)
}

fn create(service: &mut Value) {
    *member(service, "status") = json!({"loadBalancer": {}});
    families(service);
    share_ports(member(service, "spec"));
}

/// One port, with several protocols, gets the port of the nodes that is given for any of them.
fn share_ports(spec: &mut Value) {
    if !draws_ports(spec) {
        return;
    }
    let is_given = |port: &Value| port["nodePort"].as_i64().is_some_and(|number| number != 0);
    let given: Vec<Value> = items_mut(spec, "ports").filter(|port| is_given(port)).map(|port| port.clone()).collect();
    for port in items_mut(spec, "ports").filter(|port| !is_given(port)) {
        if let Some(same) = given.iter().find(|given| given["port"] == port["port"]) {
            *member(port, "nodePort") = same["nodePort"].clone();
        }
    }
}

/// The families of addresses, and both ways of writing the addresses. One family is served: IPv4.
fn families(service: &mut Value) {
    let external = type_of(service) == "ExternalName";
    let selects = Field::root(service).at("spec.selector").len() > 0;
    let spec = member(service, "spec");
    if let Some(address) = spec["clusterIP"].as_str().map(str::to_owned) {
        set_default(spec, "clusterIPs", json!([address]));
    } else if let Some(address) = spec["clusterIPs"].get(0).cloned() {
        *member(spec, "clusterIP") = address;
    }
    if external {
        return;
    }
    // A headless service that selects nothing leaves the choice to whoever fills its endpoints.
    if spec["clusterIP"] == "None" && !selects {
        set_default(spec, "ipFamilyPolicy", "RequireDualStack");
        let both = spec["ipFamilyPolicy"] != "SingleStack";
        set_default(spec, "ipFamilies", if both { json!(["IPv4", "IPv6"]) } else { json!(["IPv4"]) });
    }
    // The family of a given address is not made up, but refused when it is not served.
    let foreign = spec["clusterIPs"].get(0).and_then(Value::as_str).is_some_and(|address| address.contains(':'));
    if !foreign {
        set_default(spec, "ipFamilies", json!(["IPv4"]));
    }
    set_default(spec, "ipFamilyPolicy", "SingleStack");
}

fn update(new: &mut Value, old: &Value) {
    keep_allocated(new, old);
    drop_of_old_type(new, old);
    families(new);
}

/// What the server drew stays although the caller does not repeat it.
fn keep_allocated(new: &mut Value, old: &Value) {
    let (new_type, old_type) = (type_of(new).to_owned(), type_of(old));
    let spec = member(new, "spec");
    if new_type != "ExternalName" && old_type != "ExternalName" && spec["clusterIP"].is_null() {
        let given = spec["clusterIPs"].get(0).is_some();
        for name in ["clusterIP", "clusterIPs"] {
            if let Some(value) = old["spec"].get(name).filter(|_| !given) {
                *member(spec, name) = value.clone();
            }
        }
    }
    if new_type != "ExternalName" && old_type != "ExternalName" {
        for name in ["ipFamilies", "ipFamilyPolicy"] {
            if let Some(value) = old["spec"].get(name) {
                set_default(spec, name, value.clone());
            }
        }
    }
    if on_nodes(&new_type) && on_nodes(old_type) {
        let old_ports = old["spec"]["ports"].as_array().cloned().unwrap_or_default();
        let used: Vec<Value> = items_mut(spec, "ports").map(|port| port["nodePort"].clone()).collect();
        for port in items_mut(spec, "ports").filter(|port| port["nodePort"].is_null()) {
            let same = old_ports.iter().find(|old| old["protocol"] == port["protocol"] && old["port"] == port["port"]);
            if let Some(number) = same.and_then(|same| same.get("nodePort")).filter(|number| !used.contains(number)) {
                *member(port, "nodePort") = number.clone();
            }
        }
    }
    if let Some(number) = old["spec"].get("healthCheckNodePort").filter(|_| needs_health_check(&spec.clone())) {
        set_default(spec, "healthCheckNodePort", number.clone());
    }
}

/// What belongs to the old type goes with it, unless the caller changed it.
fn drop_of_old_type(new: &mut Value, old: &Value) {
    let (new_type, old_type) = (type_of(new).to_owned(), type_of(old).to_owned());
    let old = &old["spec"];
    let spec = member(new, "spec");
    let unneeded = needs_health_check(old) && !needs_health_check(spec);
    if unneeded && spec.get("healthCheckNodePort") == old.get("healthCheckNodePort") {
        remove(spec, "healthCheckNodePort");
    }
    if new_type == old_type {
        return;
    }
    if new_type == "ExternalName" {
        for name in ["clusterIP", "clusterIPs"] {
            if spec.get(name) == old.get(name) {
                remove(spec, name);
            }
        }
        for name in ["ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
            remove(spec, name);
        }
    }
    if old_type == "ExternalName" && spec.get("externalName") == old.get("externalName") {
        remove(spec, "externalName");
    }
    if !on_nodes(&new_type) {
        let same = items_mut(spec, "ports").map(|port| port["nodePort"].clone()).eq(old["ports"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|port| port["nodePort"].clone()));
        if same {
            items_mut(spec, "ports").for_each(|port| drop(remove(port, "nodePort")));
        }
        let accessible = externally_accessible(spec);
        if !accessible && spec.get("externalTrafficPolicy") == old.get("externalTrafficPolicy") {
            remove(spec, "externalTrafficPolicy");
        }
    }
    if new_type != "LoadBalancer" {
        for name in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if spec.get(name) == old.get(name) {
                remove(spec, name);
            }
        }
    }
}

fn reservations(service: &Value) -> Vec<Reservation> {
    let root = Field::root(service);
    let spec = root.get("spec");
    let mut reservations = Vec::new();
    for (address, text) in spec.get("clusterIPs").items().iter().filter_map(|address| {
        let text = address.text();
        Some((check::parse_ip(text)?, text))
    }) {
        let shown = format!("[{text:?}]: failed to allocate IP {text}: provided IP is already allocated");
        let reservation = |key: String, object: Option<Value>| Reservation {
            key: Key::new(key),
            field: "spec.clusterIPs".to_owned(),
            shown: shown.clone(),
            object,
        };
        // Who deletes the object that shows it does not free the address.
        reservations.push(reservation(format!("{}/{address}", reserved::ADDRESSES), None));
        let object = address_object(address, &root);
        reservations.push(reservation(format!("{}/{address}", reserved::ADDRESS_OBJECTS), Some(object)));
    }
    // A port of the nodes belongs to one service, which may use it by several protocols.
    let ports = spec.get("ports").items();
    let numbers = ports.iter().map(|port| port.get("nodePort")).chain([spec.get("healthCheckNodePort")]);
    let mut seen = BTreeSet::new();
    for number in numbers {
        let Some(value) = number.int().filter(|value| *value != 0 && seen.insert(*value)) else { continue };
        let key = Key::new(format!("{}/{value}", reserved::NODE_PORTS));
        let shown = format!("{value}: provided port is already allocated");
        reservations.push(Reservation { key, field: number.path().to_owned(), shown, object: None });
    }
    reservations
}

/// The `IPAddress` of a service's address.
fn address_object(address: IpAddr, service: &Field<'_>) -> Value {
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    let metadata = service.get("metadata");
    let (namespace, name) = (metadata.get("namespace"), metadata.get("name"));
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
        "metadata": {
            "name": address,
            "labels": {
                "ipaddress.kubernetes.io/ip-family": family,
                "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
            },
        },
        "spec": {"parentRef": {"resource": "services", "namespace": namespace.text(), "name": name.text()}},
    })
}

fn allocations(service: &Value, is_new: bool) -> Vec<Allocation> {
    let root = Field::root(service);
    let spec = root.get("spec");
    let of = spec.get("type").text();
    let mut allocations = Vec::new();
    let served = spec.get("ipFamilies").items().first().is_none_or(|family| family.text() == "IPv4");
    if served && matches!(of, "ClusterIP" | "NodePort" | "LoadBalancer") && spec.get("clusterIP").text().is_empty() {
        allocations.push(Allocation::ClusterIp);
    }
    let ports = if draws_ports(spec.value().unwrap_or(&Value::Null)) { spec.get("ports").items() } else { Vec::new() };
    let mut of_numbers: Vec<(Option<i64>, Vec<usize>)> = Vec::new();
    for (index, port) in ports.iter().enumerate().filter(|(_, port)| port.get("nodePort").int().unwrap_or(0) == 0) {
        let number = port.get("port").int();
        // The protocols of one port of a new service are reached at one port of the nodes.
        match of_numbers.iter_mut().find(|(other, _)| is_new && *other == number) {
            Some((_, indexes)) => indexes.push(index),
            None => of_numbers.push((number, vec![index])),
        }
    }
    allocations.extend(of_numbers.into_iter().map(|(_, indexes)| Allocation::NodePort { indexes }));
    let health = spec.get("healthCheckNodePort").int().unwrap_or(0);
    if needs_health_check(spec.value().unwrap_or(&Value::Null)) && health == 0 {
        allocations.push(Allocation::HealthCheckPort);
    }
    allocations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_come_and_go_with_their_fields() {
        let mut old = json!({"spec": {"type": "NodePort", "ports": [{"port": 80}]}});
        default(&mut old);
        create(&mut old);
        assert_eq!(allocations(&old, true), [Allocation::ClusterIp, Allocation::NodePort { indexes: vec![0] }]);
        old["spec"]["clusterIP"] = "10.0.0.1".into();
        old["spec"]["clusterIPs"] = json!(["10.0.0.1"]);
        old["spec"]["ports"][0]["nodePort"] = 30_001.into();
        assert_eq!(reservations(&old).len(), 3);

        let mut new = old.clone();
        new["spec"]["type"] = "ClusterIP".into();
        default(&mut new);
        update(&mut new, &old);
        assert_eq!(new["spec"]["ports"], json!([{"port": 80, "protocol": "TCP", "targetPort": 80}]));
        assert_eq!(new["spec"].get("externalTrafficPolicy"), None);
        assert_eq!(allocations(&new, false), []);
    }

    #[test]
    fn the_protocols_of_a_new_port_share_a_port_of_the_nodes() {
        let port = |number: u16, protocol: &str| json!({"port": number, "protocol": protocol, "targetPort": number});
        let ports = json!([port(53, "TCP"), port(80, "TCP"), port(53, "UDP")]);
        let mut service = json!({"spec": {"type": "NodePort", "clusterIP": "10.0.0.1", "ports": ports}});
        let drawn = |groups: &[&[usize]]| -> Vec<Allocation> {
            groups.iter().map(|indexes| Allocation::NodePort { indexes: indexes.to_vec() }).collect()
        };
        create(&mut service);
        assert_eq!(allocations(&service, true), drawn(&[&[0, 2], &[1]]));
        assert_eq!(allocations(&service, false), drawn(&[&[0], &[1], &[2]]), "of a changed one each gets its own");
        service["spec"]["ports"][2]["nodePort"] = 30_053.into();
        create(&mut service);
        assert_eq!(service["spec"]["ports"][0]["nodePort"], 30_053);
        assert_eq!(allocations(&service, true), drawn(&[&[1]]));
        service["spec"]["type"] = "LoadBalancer".into();
        service["spec"]["allocateLoadBalancerNodePorts"] = false.into();
        assert_eq!(allocations(&service, true), []);
    }

    #[test]
    fn health_checks_have_a_port_while_they_are_needed() {
        let ports = json!([{"port": 80, "nodePort": 30_001}]);
        let spec =
            json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "clusterIP": "10.0.0.1", "ports": ports});
        let mut old = json!({"spec": spec});
        default(&mut old);
        create(&mut old);
        assert_eq!(allocations(&old, true), [Allocation::HealthCheckPort]);
        old["spec"]["healthCheckNodePort"] = 30_002.into();
        assert_eq!(reservations(&old).len(), 4);

        let mut new = old.clone();
        new["spec"]["externalTrafficPolicy"] = "Cluster".into();
        update(&mut new, &old);
        assert_eq!(new["spec"].get("healthCheckNodePort"), None);
    }
}
