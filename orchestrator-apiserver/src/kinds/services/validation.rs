//! What services may say, in upstream's order.
//!
//! Upstream: `ValidateService`, and the checks of address families in `pkg/registry/core/service/storage/alloc.go`.

use std::{collections::BTreeSet, net::IpAddr};

use orchestrator_core::status::FieldErrorKind;
use serde_json::{Value, json};

use super::{NODE_PORTS, externally_accessible, needs_health_check, on_nodes};
use crate::{
    field::{Errors, Field},
    kinds::{check, go},
    names,
};

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const STAYS: &str = "may not change once set";
const BALANCERS_ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";
const TOPOLOGY_HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const RANGES_ANNOTATION: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

pub(super) fn validate(service: &Field<'_>, errors: &mut Errors) {
    let annotations = service.at("metadata.annotations");
    let (mode, hints) = (annotations.key(TOPOLOGY_MODE), annotations.key(TOPOLOGY_HINTS));
    if mode.exists() && hints.exists() && mode.text() != hints.text() {
        mode.invalid(errors, &format!("must match annotations[{TOPOLOGY_HINTS}] when both are specified"));
    }
    let spec = service.get("spec");
    let (of, ports) = (spec.get("type").text(), spec.get("ports"));
    let headless = spec.get("clusterIP").text() == "None";
    if ports.len() == 0 && !headless && of != "ExternalName" {
        ports.required(errors, "");
    }
    type_rules(&spec, of, headless, errors);
    let mut port_names = BTreeSet::new();
    for port in ports.items() {
        validate_port(&port, ports.len() > 1, &mut port_names, errors);
    }
    check::labels(&spec.get("selector"), errors);
    affinity(&spec, errors);
    if of != "ExternalName" {
        addresses(&spec, errors);
    }
    for address in spec.get("externalIPs").items() {
        check::ip(&address, errors);
        if check::address_problem(address.text()).is_none() {
            check::endpoint_address(&address, errors);
        }
    }
    if of.is_empty() {
        spec.get("type").required(errors, "");
    } else {
        spec.get("type").one_of(errors, &TYPES);
    }
    node_ports(&ports, of, errors);
    same_ports(&ports, errors);
    source_ranges(service, of, errors);
    balancers(&spec, of, errors);
    traffic_policies(&spec, errors);
    // Upstream looks at the families only when all else is well.
    if errors.is_empty() && of != "ExternalName" {
        families(&spec, headless, errors);
    }
}

fn type_rules(spec: &Field<'_>, of: &str, headless: bool, errors: &mut Errors) {
    match of {
        "LoadBalancer" | "NodePort" if headless => {
            let place = spec.path() + ".clusterIPs[0]";
            let detail = format!("\"None\": may not be set to 'None' for {of} services");
            errors.add(place, FieldErrorKind::Invalid, detail);
        }
        "ExternalName" => {
            for name in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if spec.get(name).len() > 0 {
                    spec.get(name).forbidden(errors, "may not be set for ExternalName services");
                }
            }
            let name = spec.get("externalName");
            let text = name.text().strip_suffix('.').unwrap_or(name.text());
            if text.is_empty() {
                name.required(errors, "");
            } else {
                for problem in names::subdomain(text) {
                    name.wrong(errors, Value::from(text), &problem);
                }
            }
        }
        _ => {}
    }
}

fn validate_port<'a>(port: &Field<'a>, named: bool, port_names: &mut BTreeSet<&'a str>, errors: &mut Errors) {
    let name = port.get("name");
    if named && name.text().is_empty() {
        name.required(errors, "");
    } else if !name.text().is_empty() {
        check::problems(&name, &names::label(name.text()), errors);
        if !port_names.insert(name.text()) {
            name.duplicate(errors);
        }
    }
    check::port_number(&port.get("port"), errors);
    let protocol = port.get("protocol");
    if protocol.text().is_empty() {
        protocol.required(errors, "");
    } else {
        protocol.one_of(errors, &["SCTP", "TCP", "UDP"]);
    }
    check::port_or_name(&port.get("targetPort"), errors);
    let application = port.get("appProtocol");
    if application.exists() {
        check::problems(&application, &names::qualified_name(application.text()), errors);
    }
}

fn affinity(spec: &Field<'_>, errors: &mut Errors) {
    let (affinity, config) = (spec.get("sessionAffinity"), spec.get("sessionAffinityConfig"));
    affinity.one_of(errors, &["ClientIP", "None"]);
    match affinity.text() {
        "ClientIP" => {
            let seconds = config.at("clientIP.timeoutSeconds");
            if seconds.int().is_some_and(|seconds| !(1..=86_400).contains(&seconds)) {
                seconds.invalid(errors, "must be greater than 0 and less than 86400");
            }
        }
        "None" if config.exists() => config.forbidden(errors, "must not be set when session affinity is None"),
        _ => {}
    }
}

/// Addresses, their families and the policy of these, each by itself and then together.
fn addresses(spec: &Field<'_>, errors: &mut Errors) {
    let (one, many) = (spec.get("clusterIP"), spec.get("clusterIPs"));
    let (items, shown) = (many.items(), many.value().unwrap_or(&Value::Null));
    match items.first() {
        None if !one.text().is_empty() => many.required(errors, ""),
        Some(_) if one.text().is_empty() => {
            many.wrong(errors, shown, "must be empty when `clusterIP` is not specified");
        }
        Some(first) if first.text() != one.text() => many.wrong(errors, shown, "first value must match `clusterIP`"),
        _ => {}
    }
    let families = spec.get("ipFamilies");
    let mut seen = BTreeSet::new();
    for family in families.items() {
        family.one_of(errors, &["IPv4", "IPv6"]);
        if !seen.insert(family.text()) {
            family.duplicate(errors);
        }
    }
    spec.get("ipFamilyPolicy").one_of(errors, &["PreferDualStack", "RequireDualStack", "SingleStack"]);
    let mut own = Errors::default();
    for (index, address) in items.iter().enumerate() {
        match (index, address.text()) {
            (0, "None") if items.len() > 1 => many.wrong(&mut own, shown, "'None' must be the first and only value"),
            (0, "None") => {}
            _ => check::ip(address, &mut own),
        }
    }
    let parsed = own.is_empty();
    errors.extend(own);
    if items.len() > 2 {
        many.wrong(errors, shown, "may only hold up to 2 values");
    }
    if !parsed || one.text() == "None" {
        return;
    }
    let addresses: Vec<IpAddr> = items.iter().filter_map(|address| check::parse_ip(address.text())).collect();
    if addresses.len() > 1 && addresses.iter().all(IpAddr::is_ipv4) | addresses.iter().all(IpAddr::is_ipv6) {
        many.wrong(errors, shown, "may specify no more than one IP for each IP family");
    }
    for (index, (address, family)) in addresses.iter().zip(families.items()).enumerate() {
        let right = if family.text() == "IPv6" { address.is_ipv6() } else { address.is_ipv4() };
        if let Some(place) = items.get(index).filter(|_| !right && matches!(family.text(), "IPv4" | "IPv6")) {
            place
                .invalid(errors, &format!("expected an {} value as indicated by `ipFamilies[{index}]`", family.text()));
        }
    }
}

/// One family is served here. A headless service that selects nothing may name both.
fn families(spec: &Field<'_>, headless: bool, errors: &mut Errors) {
    let (policy, families, addresses) = (spec.get("ipFamilyPolicy"), spec.get("ipFamilies"), spec.get("clusterIPs"));
    if policy.text() == "SingleStack" {
        for (list, of) in [(&addresses, "cluster IPs"), (&families, "IP families")] {
            if list.len() == 2 {
                let detail =
                    format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {of} are specified");
                policy.invalid(errors, &detail);
            }
        }
    }
    for address in addresses.items().iter().skip(families.len()).filter(|_| !headless) {
        if check::parse_ip(address.text()).is_some_and(|address| address.is_ipv6()) {
            address.wrong(errors, addresses.shown(), "IPv6 is not configured on this cluster");
        }
    }
    if !errors.is_empty() || (headless && spec.get("selector").len() == 0) {
        return;
    }
    if policy.text() == "RequireDualStack" {
        policy.invalid(errors, "this cluster is not configured for dual-stack services");
    }
    for family in families.items().iter().filter(|family| family.text() != "IPv4") {
        family.invalid(errors, "not configured on this cluster");
    }
}

fn node_ports(ports: &Field<'_>, of: &str, errors: &mut Errors) {
    let numbers: Vec<_> = ports
        .items()
        .iter()
        .map(|port| (port.get("protocol").text(), port.get("nodePort")))
        .filter(|(_, number)| number.int().is_some_and(|number| number != 0))
        .collect();
    for (_, number) in numbers.iter().filter(|_| of == "ClusterIP") {
        number.forbidden(errors, "may not be used when `type` is 'ClusterIP'");
    }
    let mut seen = BTreeSet::new();
    for (protocol, number) in &numbers {
        if !seen.insert((protocol, number.int())) {
            number.duplicate(errors);
        }
    }
    for (_, number) in numbers.iter().filter(|_| on_nodes(of)) {
        if number.int().is_some_and(|number| !NODE_PORTS.contains(&number)) {
            let (first, last) = (NODE_PORTS.start(), NODE_PORTS.end());
            let detail = format!("provided port is not in the valid range. The range of valid ports is {first}-{last}");
            number.invalid(errors, &detail);
        }
    }
}

fn same_ports(ports: &Field<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for port in ports.items() {
        let key = (port.get("protocol").text(), port.get("port").int());
        if !seen.insert(key) {
            let shown = go::show("ServicePort", &json!({"protocol": key.0, "port": key.1}));
            port.error(errors, FieldErrorKind::Duplicate, shown);
        }
    }
}

/// Whom load balancers let through: a list of the spec or, of old, an annotation. Errors spell the list as upstream's
/// structure does.
fn source_ranges(service: &Field<'_>, of: &str, errors: &mut Errors) {
    let listed = service.at("spec.loadBalancerSourceRanges").shown_at("spec.LoadBalancerSourceRanges");
    let annotation = service.at("metadata.annotations").key(RANGES_ANNOTATION);
    let place = match (listed.len() > 0, annotation.exists()) {
        (true, _) => &listed,
        (false, true) => &annotation,
        (false, false) => return,
    };
    if of != "LoadBalancer" {
        place.forbidden(errors, BALANCERS_ONLY);
    }
    let items = listed.items();
    let written = annotation.text().split(',').filter(|_| items.is_empty() && !annotation.text().trim().is_empty());
    let ranges = items.iter().map(|item| (item.path(), item.text())).chain(written.map(|text| (place.path(), text)));
    for (path, text) in ranges {
        let text = Value::from(text.trim());
        check::cidr(&Field::root(&text).shown_at(path), errors);
    }
}

fn balancers(spec: &Field<'_>, of: &str, errors: &mut Errors) {
    let ports = spec.get("allocateLoadBalancerNodePorts");
    if ports.exists() && of != "LoadBalancer" {
        ports.forbidden(errors, BALANCERS_ONLY);
    }
    balancer_class(&spec.get("loadBalancerClass"), of, errors);
}

fn balancer_class(class: &Field<'_>, of: &str, errors: &mut Errors) {
    if class.exists() && of == "LoadBalancer" {
        check::problems(class, &names::qualified_name(class.text()), errors);
    } else if class.exists() {
        class.forbidden(errors, BALANCERS_ONLY);
    }
}

fn traffic_policies(spec: &Field<'_>, errors: &mut Errors) {
    let value = spec.value().unwrap_or(&Value::Null);
    let external = spec.get("externalTrafficPolicy");
    if externally_accessible(value) {
        external.one_of(errors, &["Cluster", "Local"]);
    } else if external.exists() {
        external.invalid(errors, "may only be set for externally-accessible services");
    }
    let health = spec.get("healthCheckNodePort");
    let number = health.int().unwrap_or(0);
    if needs_health_check(value) {
        check::port_number(&health, errors);
    } else if number != 0 {
        let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        health.invalid(errors, detail);
    }
    spec.get("internalTrafficPolicy").one_of(errors, &["Cluster", "Local"]);
    spec.get("trafficDistribution").one_of(errors, &["PreferClose", "PreferSameZone", "PreferSameNode"]);
}

/// What may change is looked at before what may be.
pub(super) fn validate_update(service: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    let (new, old) = (service.get("spec"), old.get("spec"));
    let is = |spec: &Field<'_>, of: &str| spec.get("type").text() == of;
    if !is(&new, "ExternalName") && !is(&old, "ExternalName") {
        addresses_stay(&new, &old, errors);
    }
    let class = new.get("loadBalancerClass");
    if is(&new, "LoadBalancer") && is(&old, "LoadBalancer") && class.value() != old.get("loadBalancerClass").value() {
        let shown = class.value().unwrap_or(&Value::Null);
        class.wrong(errors, shown, STAYS);
    }
    // Upstream looks at the class twice.
    balancer_class(&class, new.get("type").text(), errors);
    let needs = |spec: &Field<'_>| needs_health_check(spec.value().unwrap_or(&Value::Null));
    let health = new.get("healthCheckNodePort");
    if needs(&new) && needs(&old) && health.value() != old.get("healthCheckNodePort").value() {
        health.forbidden(errors, check::IMMUTABLE);
    }
    validate(service, errors);
}

/// Addresses and families stay as they are set, but that a second one comes or goes. Between headless services any may change.
fn addresses_stay(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    let headless = |spec: &Field<'_>| spec.get("clusterIP").text() == "None";
    let (was_headless, is_headless) = (headless(old), headless(new));
    if !(was_headless && is_headless) {
        cluster_addresses_stay(new, old, errors);
    }
    if !was_headless && !is_headless {
        families_stay(new, old, errors);
    }
}

fn cluster_addresses_stay(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    let (now, before) = (new.get("clusterIPs"), old.get("clusterIPs"));
    let (items, old_items) = (now.items(), before.items());
    let refuse = |index: usize, detail: &str, errors: &mut Errors| {
        let shown = now.value().unwrap_or(&Value::Null);
        errors.add(format!("{}[{index}]", now.path()), FieldErrorKind::Invalid, format!("{shown}: {detail}"));
    };
    let changed = |index: usize| {
        let text = |items: &[Field<'_>]| items.get(index).map(|item| item.text().to_owned());
        text(&items) != text(&old_items)
    };
    match (items.len(), old_items.len()) {
        (count, old_count) if count == old_count => {
            (0..count).filter(|index| changed(*index)).for_each(|index| refuse(index, STAYS, errors));
        }
        (0, _) => refuse(0, "primary clusterIP can not be unset", errors),
        (_, 0) => {}
        (count, old_count) => {
            if changed(0) {
                refuse(0, STAYS, errors);
            }
            if count == 1 && old_count > count {
                single_stack(&new.get("ipFamilyPolicy"), "clusterIP", errors);
            }
        }
    }
}

fn families_stay(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    let (now, before) = (new.get("ipFamilies"), old.get("ipFamilies"));
    let (items, old_items) = (now.items(), before.items());
    let refuse = |shown: &Field<'_>, detail: &str, errors: &mut Errors| {
        let shown = shown.value().unwrap_or(&Value::Null);
        errors.add(format!("{}[0]", now.path()), FieldErrorKind::Invalid, format!("{shown}: {detail}"));
    };
    let differ = items.iter().zip(&old_items).map(|(item, old)| item.text() != old.text());
    if items.len() == old_items.len() {
        return differ.filter(|differs| *differs).for_each(|_| refuse(&now, STAYS, errors));
    }
    if items.len() < old_items.len() && new.get("clusterIPs").len() == 0 {
        refuse(&now, "primary ipFamily can not be unset", errors);
    }
    // Here upstream shows the addresses.
    if differ.take(1).any(|differs| differs) {
        refuse(&new.get("clusterIPs"), STAYS, errors);
    }
    if items.len() == 1 && old_items.len() > 1 {
        single_stack(&new.get("ipFamilyPolicy"), "ipFamily", errors);
    }
}

fn single_stack(policy: &Field<'_>, what: &str, errors: &mut Errors) {
    if policy.text() != "SingleStack" {
        let shown = policy.value().unwrap_or(&Value::Null);
        policy.wrong(errors, shown, &format!("must be set to 'SingleStack' when releasing the secondary {what}"));
    }
}
