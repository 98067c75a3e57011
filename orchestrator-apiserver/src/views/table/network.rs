//! The cells of services, their endpoints, and what leads to them.

use std::collections::BTreeSet;

use serde_json::Value;

use super::row::{Row, Tree, cells, first_of};

/// Endpoints, ports and hosts that are shown.
const SHOWN: usize = 3;

pub(super) fn service(row: &Row<'_>) -> Vec<Value> {
    let spec = row.at("spec");
    let address = spec.get("clusterIPs").items().next().map_or("<none>", Tree::text);
    let ports = spec.get("ports").items().map(service_port).collect::<Vec<_>>().join(",");
    cells![
        row.name(),
        spec.get("type").text(),
        address,
        external_address(row),
        if ports.is_empty() { "<none>".to_owned() } else { ports },
        row.age(),
        spec.get("selector").labels(),
    ]
}

fn service_port(port: Tree<'_>) -> String {
    let (number, protocol) = (port.get("port").int(), port.get("protocol").text());
    match port.get("nodePort").int() {
        0 => format!("{number}/{protocol}"),
        node => format!("{number}:{node}/{protocol}"),
    }
}

fn external_address(row: &Row<'_>) -> String {
    let spec = row.at("spec");
    let mut given: Vec<&str> = spec.get("externalIPs").items().map(Tree::text).collect();
    match spec.get("type").text() {
        "ClusterIP" | "NodePort" if given.is_empty() => "<none>".to_owned(),
        "ClusterIP" | "NodePort" => given.join(","),
        "LoadBalancer" => {
            let mut addresses = load_balancer_addresses(row);
            addresses.append(&mut given);
            if addresses.is_empty() { "<pending>".to_owned() } else { addresses.join(",") }
        }
        "ExternalName" => spec.get("externalName").text().to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

/// The addresses that a load balancer gave, in order and once each.
fn load_balancer_addresses<'a>(row: &Row<'a>) -> Vec<&'a str> {
    let points = row.at("status.loadBalancer.ingress").items();
    let addresses = points.map(|point| point.get("ip").text_or(point.get("hostname").text()));
    addresses.filter(|address| !address.is_empty()).collect::<BTreeSet<_>>().into_iter().collect()
}

pub(super) fn ingress(row: &Row<'_>) -> Vec<Value> {
    let spec = row.at("spec");
    cells![
        row.name(),
        spec.get("ingressClassName").text_or("<none>"),
        hosts(spec.get("rules")),
        load_balancer_addresses(row).join(","),
        if spec.get("tls").len() == 0 { "80" } else { "80, 443" },
        row.age(),
    ]
}

/// The first hosts. Rules without one do not take a place, but count among those left out.
fn hosts(rules: Tree<'_>) -> String {
    let (mut shown, mut more) = (Vec::new(), false);
    for rule in rules.items() {
        let host = rule.get("host").text();
        more |= shown.len() == SHOWN;
        if !more && !host.is_empty() {
            shown.push(host);
        }
    }
    match (shown.join(","), more) {
        (_, _) if shown.is_empty() => "*".to_owned(),
        (list, true) => format!("{list} + {} more...", rules.len() - SHOWN),
        (list, false) => list,
    }
}

pub(super) fn ingress_class(row: &Row<'_>) -> Vec<Value> {
    let given = row.at("spec.parameters");
    let (kind, name) = (given.get("kind").text(), given.get("name").text());
    let parameters = match given.get("apiGroup").text() {
        _ if !given.exists() => "<none>".to_owned(),
        "" => format!("{kind}/{name}"),
        group => format!("{kind}.{group}/{name}"),
    };
    cells![row.name(), row.at("spec.controller").text(), parameters, row.age()]
}

pub(super) fn network_policy(row: &Row<'_>) -> Vec<Value> {
    cells![row.name(), row.at("spec.podSelector").selector_or_none(), row.age()]
}

pub(super) fn endpoints(row: &Row<'_>) -> Vec<Value> {
    let subsets = row.at("subsets");
    let mut addresses = Vec::new();
    for subset in subsets.items() {
        let of_subset = || subset.get("addresses").items().map(|address| address.get("ip").text());
        if subset.get("ports").len() == 0 {
            addresses.extend(of_subset().map(str::to_owned));
        }
        for port in subset.get("ports").items() {
            let port = port.get("port").int();
            addresses.extend(of_subset().map(|address| host_and_port(address, port)));
        }
    }
    let shown = if subsets.len() == 0 { "<none>".to_owned() } else { first_of(&addresses, SHOWN, ",") };
    cells![row.name(), shown, row.age()]
}

fn host_and_port(address: &str, port: i64) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

pub(super) fn endpoint_slice(row: &Row<'_>) -> Vec<Value> {
    let port = |port: Tree<'_>| port.get("port").shown().or_else(|| port.get("name").shown());
    let ports = row.at("ports").items().map(|item| port(item).unwrap_or_else(|| "*".to_owned())).collect::<Vec<_>>();
    let addresses = row.at("endpoints").items().flat_map(|endpoint| endpoint.get("addresses").items());
    let addresses: Vec<String> = addresses.map(|address| address.text().to_owned()).collect();
    let shown = |items: &[String]| Some(first_of(items, SHOWN, ",")).filter(|shown| !shown.is_empty());
    cells![
        row.name(),
        row.at("addressType").text(),
        shown(&ports).unwrap_or_else(|| "<unset>".to_owned()),
        shown(&addresses).unwrap_or_else(|| "<unset>".to_owned()),
        row.age(),
    ]
}

pub(super) fn service_cidr(row: &Row<'_>) -> Vec<Value> {
    cells![row.name(), row.at("spec.cidrs").joined(","), row.age()]
}

/// One cell more than there are columns, as upstream has it.
pub(super) fn ip_address(row: &Row<'_>) -> Vec<Value> {
    let parent = row.at("spec.parentRef");
    let mut shown = parent.get("resource").text().to_lowercase();
    if !parent.get("group").text().is_empty() {
        shown = format!("{shown}.{}", parent.get("group").text().to_lowercase());
    }
    if !parent.get("namespace").text().is_empty() {
        shown = format!("{shown}/{}", parent.get("namespace").text());
    }
    shown = format!("{shown}/{}", parent.get("name").text());
    cells![row.name(), if parent.exists() { shown } else { "<none>".to_owned() }, row.age()]
}
