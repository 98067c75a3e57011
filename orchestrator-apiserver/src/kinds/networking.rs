//! Ingress, IngressClass, NetworkPolicy, ServiceCIDR, IPAddress.

use serde_json::{Value, json};

use super::{check, load_balancers, rules::Rules};
use crate::{
    field::{Errors, Field, items_mut, member, set_default},
    names::{self, NameRule},
};

/// Ingresses.
pub(super) const INGRESSES: Rules = Rules {
    generation: true,
    status: true,
    default: |ingress| {
        if ingress.get("spec").is_none() {
            *member(ingress, "spec") = json!({});
        }
    },
    create: |ingress| *member(ingress, "status") = json!({"loadBalancer": {}}),
    validate: validate_ingress,
    validate_status: load_balancers::validate_ingress,
    ..Rules::NONE
};

/// Ingress classes.
pub(super) const INGRESS_CLASSES: Rules = Rules {
    generation: true,
    default: |class| {
        if class.get("spec").is_none() {
            *member(class, "spec") = json!({});
        }
        if let Some(parameters) = member(class, "spec").get_mut("parameters") {
            set_default(parameters, "scope", "Cluster");
        }
    },
    validate: |class, errors| {
        let controller = class.at("spec.controller");
        if controller.text().is_empty() {
            controller.required(errors, "");
        } else if !controller.text().contains('/') {
            controller.invalid(errors, "must be a domain-prefixed path (such as \"acme.io/foo\")");
        }
    },
    validate_update: |new, old, errors| check::immutable(&new.get("spec"), &old.get("spec"), "controller", errors),
    ..Rules::NONE
};

/// Network policies.
pub(super) const NETWORK_POLICIES: Rules =
    Rules { generation: true, default: default_policy, validate: validate_policy, ..Rules::NONE };

/// Ranges of service addresses.
pub(super) const SERVICE_RANGES: Rules = Rules {
    status: true,
    default: |range| {
        if range.get("spec").is_none() {
            *member(range, "spec") = json!({});
        }
    },
    create: |range| *member(range, "status") = json!({}),
    validate: |range, errors| {
        let ranges = range.at("spec.cidrs");
        if ranges.len() == 0 {
            ranges.required(errors, "at least one CIDR required");
        }
        if ranges.len() > 2 {
            return ranges.invalid(errors, "may only hold up to 2 values");
        }
        let networks: Vec<_> = ranges.items().iter().map(|range| check::parse_cidr(range.text())).collect();
        if let [one, two] = networks.as_slice()
            && one.zip(*two).is_none_or(|(one, two)| one.0.is_ipv4() == two.0.is_ipv4())
        {
            let detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
            return ranges.invalid(errors, detail);
        }
        for range in ranges.items() {
            check::cidr(&range, errors);
        }
    },
    validate_update: |new, old, errors| check::immutable(&new.get("spec"), &old.get("spec"), "cidrs", errors),
    ..Rules::NONE
};

/// Addresses that somebody holds.
pub(super) const ADDRESSES: Rules = Rules {
    names: NameRule::Address,
    validate: |address, errors| {
        let parent = address.at("spec.parentRef");
        if !parent.exists() {
            return parent.required(errors, "");
        }
        check::given(&parent.get("group"), names::subdomain, errors);
        check::needed(&parent.get("resource"), names::path_segment, errors);
        check::needed(&parent.get("name"), names::path_segment, errors);
        check::given(&parent.get("namespace"), names::path_segment, errors);
    },
    validate_update: |new, old, errors| check::immutable(&new.get("spec"), &old.get("spec"), "parentRef", errors),
    ..Rules::NONE
};

fn validate_ingress(ingress: &Field<'_>, errors: &mut Errors) {
    let spec = ingress.get("spec");
    let backend = spec.get("defaultBackend");
    if spec.get("rules").len() == 0 && !backend.exists() {
        spec.wrong(errors, "null", "either `defaultBackend` or `rules` must be specified");
    }
    if backend.exists() {
        validate_backend(&backend, errors);
    }
    for rule in spec.get("rules").items() {
        host(&rule.get("host"), errors);
        let http = rule.get("http");
        if http.exists() && http.get("paths").len() == 0 {
            http.get("paths").required(errors, "");
        }
        for path in http.get("paths").items() {
            validate_path(&path, errors);
        }
    }
    for tls in spec.get("tls").items() {
        for name in tls.get("hosts").items() {
            host(&name, errors);
        }
    }
    check::given(&spec.get("ingressClassName"), names::subdomain, errors);
}

fn host(host: &Field<'_>, errors: &mut Errors) {
    let text = host.text();
    if text.is_empty() {
        return;
    }
    if check::parse_ip(text).is_some() {
        return host.invalid(errors, "must be a DNS name, not an IP address");
    }
    if !text.contains('*') {
        return check::problems(host, &names::subdomain(text), errors);
    }
    let rest = text.strip_prefix("*.").unwrap_or_default();
    if rest.is_empty() || !names::subdomain(rest).is_empty() {
        host.invalid(
            errors,
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist \
             of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. \
             '*.example.com', regex used for validation is \
             '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        );
    }
}

fn validate_path(path: &Field<'_>, errors: &mut Errors) {
    let (of, text) = (path.get("pathType"), path.get("path"));
    match of.text() {
        "" => of.required(errors, "pathType must be specified"),
        "Exact" | "Prefix" => {
            if text.text().starts_with('/') {
                for part in ["//", "/./", "/../", "%2f", "%2F"] {
                    if text.text().contains(part) {
                        text.invalid(errors, &format!("must not contain '{part}'"));
                    }
                }
                for end in ["/..", "/."] {
                    if text.text().ends_with(end) {
                        text.invalid(errors, &format!("cannot end with '{end}'"));
                    }
                }
            } else {
                text.wrong(errors, text.shown(), "must be an absolute path");
            }
        }
        "ImplementationSpecific" if !text.text().is_empty() && !text.text().starts_with('/') => {
            text.invalid(errors, "must be an absolute path");
        }
        "ImplementationSpecific" => {}
        _ => of.not_supported(errors, &["Exact", "ImplementationSpecific", "Prefix"]),
    }
    validate_backend(&path.get("backend"), errors);
}

fn validate_backend(backend: &Field<'_>, errors: &mut Errors) {
    let (resource, service) = (backend.get("resource"), backend.get("service"));
    match (resource.exists(), service.exists()) {
        (true, true) => backend.wrong(errors, "\"\"", "cannot set both resource and service backends"),
        (false, false) => backend.required(errors, "must specify either a resource or service backend"),
        (true, false) => {
            for name in ["kind", "name"] {
                check::required(&resource.get(name), errors);
            }
        }
        (false, true) => service_backend(&service, errors),
    }
}

fn service_backend(service: &Field<'_>, errors: &mut Errors) {
    let name = service.get("name");
    if name.text().is_empty() {
        name.required(errors, "");
    } else {
        check::problems(&name, &names::label(name.text()), errors);
    }
    let (number, port) = (service.at("port.number"), service.at("port.name"));
    match (number.int().unwrap_or(0), port.text()) {
        (0, "") => service.required(errors, "port name or number is required"),
        (0, text) => {
            for problem in check::port_name_problems(text) {
                port.invalid(errors, problem);
            }
        }
        (_, "") => check::port_number(&number, errors),
        _ => service.wrong(errors, "\"\"", "cannot set both port name & port number"),
    }
}

fn default_policy(policy: &mut Value) {
    let spec = member(policy, "spec");
    set_default(spec, "podSelector", json!({}));
    let egress = spec["egress"].as_array().is_some_and(|rules| !rules.is_empty());
    set_default(spec, "policyTypes", if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) });
    for list in ["ingress", "egress"] {
        for rule in items_mut(spec, list) {
            for port in items_mut(rule, "ports") {
                set_default(port, "protocol", "TCP");
            }
        }
    }
}

fn validate_policy(policy: &Field<'_>, errors: &mut Errors) {
    let spec = policy.get("spec");
    check::label_selector(&spec.get("podSelector"), errors);
    for (list, peers) in [("ingress", "from"), ("egress", "to")] {
        for rule in spec.get(list).items() {
            for port in rule.get("ports").items() {
                policy_port(&port, errors);
            }
            for peer in rule.get(peers).items() {
                policy_peer(&peer, errors);
            }
        }
    }
    let types = spec.get("policyTypes");
    for of in types.items() {
        of.one_of(errors, &["Egress", "Ingress"]);
    }
}

fn policy_port(port: &Field<'_>, errors: &mut Errors) {
    port.get("protocol").one_of(errors, &["SCTP", "TCP", "UDP"]);
    let (number, end) = (port.get("port"), port.get("endPort"));
    if number.exists() {
        check::port_or_name(&number, errors);
    }
    if !end.exists() {
        return;
    }
    match (number.int(), end.int()) {
        (Some(first), Some(last)) if last < first => end.invalid(errors, "must be greater than or equal to `port`"),
        (None, _) if !number.exists() => end.invalid(errors, "may not be specified when `port` is not specified"),
        (None, _) => end.invalid(errors, "may not be specified when `port` is non-numeric"),
        _ => check::port_number(&end, errors),
    }
}

fn policy_peer(peer: &Field<'_>, errors: &mut Errors) {
    let (pods, namespaces, block) = (peer.get("podSelector"), peer.get("namespaceSelector"), peer.get("ipBlock"));
    check::label_selector(&pods, errors);
    check::label_selector(&namespaces, errors);
    let others = pods.exists() || namespaces.exists();
    if block.exists() {
        let range = block.get("cidr");
        if range.text().is_empty() {
            range.required(errors, "");
        } else {
            check::cidr(&range, errors);
        }
        except(&block, errors);
        if others {
            peer.forbidden(errors, "may not specify both ipBlock and another peer");
        }
    } else if !others {
        peer.required(errors, "must specify a peer");
    }
}

fn except(block: &Field<'_>, errors: &mut Errors) {
    let Some(range) = check::parse_cidr(block.get("cidr").text()) else { return };
    for part in block.get("except").items() {
        match check::parse_cidr(part.text()) {
            Some((address, bits)) if check::contains(range, address) && bits > range.1 => {}
            Some(_) => {
                let detail = format!("must be a strict subset of `cidr`: {:?}", block.get("cidr").text());
                part.invalid(errors, &detail);
            }
            None => check::cidr(&part, errors),
        }
    }
}
