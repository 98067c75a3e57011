//! Services: addresses, ports, and how their types differ.
//!
//! Upstream: `pkg/registry/core/service` and `ValidateService`.

use orchestrator_core::{status::FieldErrorKind, store::Key};
use serde_json::{Value, json};

use super::{check, go, rules::Rules};
use crate::{
    field::{Errors, Field, items_mut, member, remove, set_default},
    names::{self, NameRule},
    strategy::{Allocation, Reservation},
};

const NODE_PORTS: std::ops::RangeInclusive<i64> = 30_000..=32_767;
const KUBELET_PORT: i64 = 10_250;
const AFFINITY_SECONDS: i64 = 10_800;
const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];

/// Services.
pub(super) const SERVICES: Rules = Rules {
    names: NameRule::Label,
    status: true,
    returns_deleted: true,
    default,
    create,
    update,
    validate,
    validate_update,
    reservations,
    allocations,
    ..Rules::NONE
};

fn type_of(service: &Value) -> &str {
    service["spec"]["type"].as_str().unwrap_or_default()
}

/// Whether services of a type are reached at ports of nodes.
fn on_nodes(of: &str) -> bool {
    matches!(of, "NodePort" | "LoadBalancer")
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
    if on_nodes(&of) {
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

fn create(service: &mut Value) {
    *member(service, "status") = json!({"loadBalancer": {}});
    families(service);
}

/// The families of addresses, and both ways of writing the addresses. One family is served: IPv4.
fn families(service: &mut Value) {
    if type_of(service) == "ExternalName" {
        return;
    }
    let selects = Field::root(service).at("spec.selector").len() > 0;
    let spec = member(service, "spec");
    if let Some(address) = spec["clusterIP"].as_str().map(str::to_owned) {
        set_default(spec, "clusterIPs", json!([address]));
    } else if let Some(address) = spec["clusterIPs"].get(0).cloned() {
        *member(spec, "clusterIP") = address;
    }
    // A headless service that selects nothing leaves the choice to whoever fills its endpoints.
    if spec["clusterIP"] == "None" && !selects {
        set_default(spec, "ipFamilyPolicy", "RequireDualStack");
        let both = spec["ipFamilyPolicy"] != "SingleStack";
        set_default(spec, "ipFamilies", if both { json!(["IPv4", "IPv6"]) } else { json!(["IPv4"]) });
    }
    set_default(spec, "ipFamilies", json!(["IPv4"]));
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

fn needs_health_check(spec: &Value) -> bool {
    spec["type"] == "LoadBalancer" && spec["externalTrafficPolicy"] == "Local"
}

/// What belongs to the old type goes with it, unless the caller changed it.
fn drop_of_old_type(new: &mut Value, old: &Value) {
    let (new_type, old_type) = (type_of(new).to_owned(), type_of(old).to_owned());
    if new_type == old_type {
        return;
    }
    let old = &old["spec"];
    let spec = member(new, "spec");
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
        if spec.get("externalTrafficPolicy") == old.get("externalTrafficPolicy") {
            remove(spec, "externalTrafficPolicy");
        }
    }
    if new_type != "LoadBalancer" {
        for name in ["allocateLoadBalancerNodePorts", "loadBalancerClass", "healthCheckNodePort"] {
            if spec.get(name) == old.get(name) {
                remove(spec, name);
            }
        }
    }
}

fn validate(service: &Field<'_>, errors: &mut Errors) {
    let spec = service.get("spec");
    let (of, ports) = (spec.get("type").text(), spec.get("ports"));
    let headless = spec.get("clusterIP").text() == "None";
    if ports.len() == 0 && !headless && of != "ExternalName" {
        ports.required(errors, "");
    }
    type_rules(&spec, of, headless, errors);
    let mut port_names = Vec::new();
    for port in ports.items() {
        validate_port(&port, ports.len() > 1, &mut port_names, errors);
    }
    check::labels(&spec.get("selector"), errors);
    affinity(&spec, errors);
    addresses(&spec, of, errors);
    for address in spec.get("externalIPs").items() {
        check::ip(&address, errors);
        check::endpoint_address(&address, errors);
    }
    if of.is_empty() {
        spec.get("type").required(errors, "");
    } else {
        spec.get("type").one_of(errors, &TYPES);
    }
    node_ports(&ports, of, errors);
    same_ports(&ports, errors);
    traffic_policies(&spec, of, errors);
}

fn type_rules(spec: &Field<'_>, of: &str, headless: bool, errors: &mut Errors) {
    match of {
        "LoadBalancer" | "NodePort" => {
            for port in spec.get("ports").items().iter().filter(|_| of == "LoadBalancer") {
                if port.get("port").int() == Some(KUBELET_PORT) {
                    let detail = format!("may not expose port {KUBELET_PORT} externally since it is used by kubelet");
                    port.invalid(errors, &detail);
                }
            }
            if headless {
                let place = spec.path().to_owned() + ".clusterIPs[0]";
                let detail = format!("\"None\": may not be set to 'None' for {of} services");
                errors.add(place, FieldErrorKind::Invalid, detail);
            }
        }
        "ExternalName" => {
            if spec.get("clusterIPs").len() > 0 {
                spec.get("clusterIPs").forbidden(errors, "may not be set for ExternalName services");
            }
            let name = spec.get("externalName");
            let text = name.text().strip_suffix('.').unwrap_or(name.text());
            if text.is_empty() {
                name.required(errors, "");
            } else {
                check::problems(&name, &names::subdomain(text), errors);
            }
        }
        _ => {}
    }
}

fn validate_port<'a>(port: &Field<'a>, named: bool, port_names: &mut Vec<&'a str>, errors: &mut Errors) {
    let name = port.get("name");
    if named && name.text().is_empty() {
        name.required(errors, "");
    } else if !name.text().is_empty() {
        check::problems(&name, &names::label(name.text()), errors);
        if port_names.contains(&name.text()) {
            name.duplicate(errors);
        }
        port_names.push(name.text());
    }
    check::port_number(&port.get("port"), errors);
    let protocol = port.get("protocol");
    if protocol.text().is_empty() {
        protocol.required(errors, "");
    } else {
        protocol.one_of(errors, &["SCTP", "TCP", "UDP"]);
    }
    check::port_or_name(&port.get("targetPort"), errors);
    check::given(&port.get("appProtocol"), names::qualified_name, errors);
}

fn affinity(spec: &Field<'_>, errors: &mut Errors) {
    let affinity = spec.get("sessionAffinity");
    affinity.one_of(errors, &["ClientIP", "None"]);
    let seconds = spec.at("sessionAffinityConfig.clientIP.timeoutSeconds");
    if affinity.text() == "ClientIP" && seconds.int().is_some_and(|seconds| !(1..=86_400).contains(&seconds)) {
        seconds.invalid(errors, "must be greater than 0 and less than 86400");
    }
}

fn addresses(spec: &Field<'_>, of: &str, errors: &mut Errors) {
    let many = spec.get("clusterIPs");
    if of == "ExternalName" {
        for name in ["ipFamilies", "ipFamilyPolicy"] {
            if spec.get(name).exists() {
                spec.get(name).forbidden(errors, "may not be set for ExternalName services");
            }
        }
        return;
    }
    for family in spec.get("ipFamilies").items() {
        family.one_of(errors, &["IPv4", "IPv6"]);
    }
    spec.get("ipFamilyPolicy").one_of(errors, &["PreferDualStack", "RequireDualStack", "SingleStack"]);
    let items = many.items();
    if let Some(first) = items.first()
        && first.text() != spec.get("clusterIP").text()
    {
        spec.get("clusterIP").invalid(errors, "must match first element of clusterIPs");
    }
    if many.len() > 2 {
        many.wrong(errors, many.shown(), "may only hold up to 2 values");
    }
    let headless = items.iter().any(|address| address.text() == "None");
    for address in &items {
        if headless && items.len() > 1 {
            address.invalid(errors, "must not be set when any other value is 'None'");
        } else if !headless {
            check::ip(address, errors);
        }
    }
}

fn node_ports(ports: &Field<'_>, of: &str, errors: &mut Errors) {
    let mut seen = Vec::new();
    for port in ports.items() {
        let number = port.get("nodePort");
        let Some(value) = number.int().filter(|value| *value != 0) else { continue };
        if of == "ClusterIP" {
            number.forbidden(errors, "may not be used when `type` is 'ClusterIP'");
            continue;
        }
        let key = (port.get("protocol").text(), value);
        if seen.contains(&key) {
            number.duplicate(errors);
        }
        seen.push(key);
        if on_nodes(of) && !NODE_PORTS.contains(&value) {
            let detail = format!(
                "provided port is not in the valid range. The range of valid ports is {}-{}",
                NODE_PORTS.start(),
                NODE_PORTS.end()
            );
            number.invalid(errors, &detail);
        }
    }
}

fn same_ports(ports: &Field<'_>, errors: &mut Errors) {
    let mut seen = Vec::new();
    for port in ports.items() {
        let key = (port.get("protocol").text(), port.get("port").int());
        if seen.contains(&key) {
            let shown = go::show("ServicePort", &json!({"protocol": key.0, "port": key.1}));
            port.error(errors, FieldErrorKind::Duplicate, shown);
        }
        seen.push(key);
    }
}

fn traffic_policies(spec: &Field<'_>, of: &str, errors: &mut Errors) {
    let external = spec.get("externalTrafficPolicy");
    if external.exists() && !on_nodes(of) && spec.get("externalIPs").len() == 0 {
        external.invalid(errors, "may only be set for externally-accessible services");
    }
    external.one_of(errors, &["Cluster", "Local"]);
    spec.get("internalTrafficPolicy").one_of(errors, &["Cluster", "Local"]);
    let nodes = spec.get("allocateLoadBalancerNodePorts");
    if nodes.exists() && of != "LoadBalancer" {
        nodes.forbidden(errors, "may only be used when `type` is 'LoadBalancer'");
    }
    let class = spec.get("loadBalancerClass");
    if class.exists() && of != "LoadBalancer" {
        class.forbidden(errors, "may only be used when `type` is 'LoadBalancer'");
    }
    check::given(&class, names::qualified_name, errors);
    for range in spec.get("loadBalancerSourceRanges").items() {
        check::cidr(&range, errors);
    }
}

fn validate_update(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    let (new, old) = (new.get("spec"), old.get("spec"));
    let external = |spec: &Field<'_>| spec.get("type").text() == "ExternalName";
    let (new_addresses, old_addresses) = (new.get("clusterIPs"), old.get("clusterIPs"));
    let first = |addresses: &Field<'_>| addresses.items().first().map(|address| address.text().to_owned());
    if !external(&new)
        && !external(&old)
        && first(&old_addresses).is_some()
        && first(&new_addresses) != first(&old_addresses)
    {
        let place = format!("{}[0]", new_addresses.path());
        let detail = format!("{}: may not change once set", new_addresses.shown());
        errors.add(place, FieldErrorKind::Invalid, detail);
    }
}

fn reservations(service: &Value) -> Vec<Reservation> {
    let root = Field::root(service);
    let spec = root.get("spec");
    let mut reservations = Vec::new();
    for address in spec.get("clusterIPs").items().iter().filter(|address| check::parse_ip(address.text()).is_some()) {
        let text = address.text();
        reservations.push(Reservation {
            key: Key::new(format!("/reservations/clusterip/{text}")),
            field: "spec.clusterIPs".to_owned(),
            shown: format!("[{text:?}]: failed to allocate IP {text}: provided IP is already allocated"),
        });
    }
    for port in spec.get("ports").items() {
        let number = port.get("nodePort");
        let Some(value) = number.int().filter(|value| *value != 0) else { continue };
        let key = Key::new(format!("/reservations/nodeport/{}/{value}", port.get("protocol").text().to_lowercase()));
        if reservations.iter().all(|reservation| reservation.key != key) {
            let shown = format!("{value}: provided port is already allocated");
            reservations.push(Reservation { key, field: number.path().to_owned(), shown });
        }
    }
    reservations
}

fn allocations(service: &Value) -> Vec<Allocation> {
    let root = Field::root(service);
    let spec = root.get("spec");
    let of = spec.get("type").text();
    let mut allocations = Vec::new();
    if matches!(of, "ClusterIP" | "NodePort" | "LoadBalancer") && spec.get("clusterIP").text().is_empty() {
        allocations.push(Allocation::ClusterIp);
    }
    let wanted = on_nodes(of) && (of == "NodePort" || spec.get("allocateLoadBalancerNodePorts").bool() != Some(false));
    for (index, port) in spec.get("ports").items().iter().enumerate() {
        if wanted && port.get("nodePort").int().unwrap_or(0) == 0 {
            allocations.push(Allocation::NodePort { index });
        }
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
        assert_eq!(allocations(&old), [Allocation::ClusterIp, Allocation::NodePort { index: 0 }]);
        old["spec"]["clusterIP"] = "10.0.0.1".into();
        old["spec"]["clusterIPs"] = json!(["10.0.0.1"]);
        old["spec"]["ports"][0]["nodePort"] = 30_001.into();
        assert_eq!(reservations(&old).len(), 2);

        let mut new = old.clone();
        new["spec"]["type"] = "ClusterIP".into();
        default(&mut new);
        update(&mut new, &old);
        assert_eq!(new["spec"]["ports"], json!([{"port": 80, "protocol": "TCP", "targetPort": 80}]));
        assert_eq!(new["spec"].get("externalTrafficPolicy"), None);
        assert_eq!(allocations(&new), []);
    }
}
