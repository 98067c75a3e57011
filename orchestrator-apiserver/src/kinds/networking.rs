//! Ingress, IngressClass, NetworkPolicy, ServiceCIDR, IPAddress.

use orchestrator_core::status::FieldErrorKind;
use serde_json::{Value, json};

use super::{check, load_balancers, rules::Rules};
use crate::{
    field::{Errors, Field, items_mut, member, set_default},
    names::{self, NameRule},
    strategy::Generation,
};

/// How an ingress named its class of old.
const CLASS: &str = "kubernetes.io/ingress.class";
const CONTROLLER_BYTES: usize = 250;

/// Ingresses.
pub(super) const INGRESSES: Rules = Rules {
    generation: Generation::Intent,
    status: true,
    default: |ingress| {
        if ingress.get("spec").is_none() {
            *member(ingress, "spec") = json!({});
        }
    },
    create: |ingress| *member(ingress, "status") = json!({"loadBalancer": {}}),
    validate: validate_ingress,
    validate_create: |ingress, errors| {
        let (annotation, class) = (ingress.at("metadata.annotations").key(CLASS), ingress.at("spec.ingressClassName"));
        if annotation.exists() && class.exists() && annotation.text() != class.text() {
            let place = annotation.shown_at(format!("annotations.{CLASS}"));
            place.invalid(errors, "must match `ingressClassName` when both are specified");
        }
    },
    validate_status: load_balancers::validate_ingress,
    ..Rules::NONE
};

/// Ingress classes.
pub(super) const INGRESS_CLASSES: Rules = Rules {
    generation: Generation::Intent,
    default: |class| {
        if class.get("spec").is_none() {
            *member(class, "spec") = json!({});
        }
        if let Some(parameters) = member(class, "spec").get_mut("parameters") {
            set_default(parameters, "scope", "Cluster");
        }
    },
    validate: validate_class,
    validate_update: |new, old, errors| check::immutable(&new.get("spec"), &old.get("spec"), "controller", errors),
    ..Rules::NONE
};

/// Network policies.
pub(super) const NETWORK_POLICIES: Rules =
    Rules { generation: Generation::Intent, default: default_policy, validate: validate_policy, ..Rules::NONE };

/// Ranges of service addresses.
pub(super) const SERVICE_RANGES: Rules = Rules {
    status: true,
    default: |range| {
        if range.get("spec").is_none() {
            *member(range, "spec") = json!({});
        }
    },
    create: |range| *member(range, "status") = json!({}),
    validate: |range, errors| service_ranges(&range.at("spec.cidrs"), errors),
    validate_update: ranges_stay,
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
        check::path_part(&parent.get("resource"), errors);
        check::path_part(&parent.get("name"), errors);
        check::given(&parent.get("namespace"), names::path_segment, errors);
    },
    validate_update: |new, old, errors| check::immutable(&new.get("spec"), &old.get("spec"), "parentRef", errors),
    ..Rules::NONE
};

fn validate_class(class: &Field<'_>, errors: &mut Errors) {
    let (controller, parameters) = (class.at("spec.controller"), class.at("spec.parameters"));
    if controller.text().is_empty() {
        controller.required(errors, "");
    } else {
        if controller.text().len() > CONTROLLER_BYTES {
            let detail = format!("may not be more than {CONTROLLER_BYTES} bytes");
            controller.error(errors, FieldErrorKind::TooLong, detail);
        }
        check::domain_prefixed_path(&controller, errors);
    }
    if !parameters.exists() {
        return;
    }
    typed_reference(&parameters, errors);
    let (scope, namespace) = (parameters.get("scope"), parameters.get("namespace"));
    match scope.text() {
        "Namespace" if namespace.exists() => {
            check::problems(&namespace, &names::label(namespace.text()), errors);
        }
        "Namespace" => namespace.required(errors, "`parameters.scope` is set to 'Namespace'"),
        "Cluster" if namespace.exists() => namespace.forbidden(errors, "`parameters.scope` is set to 'Cluster'"),
        "Cluster" => {}
        _ => scope.not_supported(errors, &["Cluster", "Namespace"]),
    }
}

/// An object of some kind.
fn typed_reference(reference: &Field<'_>, errors: &mut Errors) {
    let group = reference.get("apiGroup");
    if group.exists() {
        check::problems(&group, &names::subdomain(group.text()), errors);
    }
    check::path_part(&reference.get("kind"), errors);
    check::path_part(&reference.get("name"), errors);
}

fn service_ranges(ranges: &Field<'_>, errors: &mut Errors) {
    if ranges.len() == 0 {
        return ranges.required(errors, "at least one CIDR required");
    }
    if ranges.len() > 2 {
        let shown = json!({"CIDRs": ranges.value()});
        return ranges.wrong(errors, shown, "may only hold up to 2 values");
    }
    let items = ranges.items();
    items.iter().for_each(|range| check::canonical_cidr(range, errors));
    let families = items.iter().map(|range| check::parse_cidr(range.text()).map(|(address, _)| address.is_ipv4()));
    if let [Some(one), Some(two)] = families.collect::<Vec<_>>()[..]
        && one == two
    {
        let detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        ranges.invalid(errors, detail);
    }
}

/// A range stays; one of the other family may come to it.
fn ranges_stay(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    let (new, old) = (new.at("spec.cidrs"), old.at("spec.cidrs"));
    if new.len() != old.len() && (old.len(), new.len()) != (1, 2) {
        return new.invalid(errors, check::IMMUTABLE);
    }
    for (range, before) in new.items().iter().zip(old.items()) {
        range.immutable(&before, errors);
    }
}

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
        let (name, http) = (rule.get("host"), rule.get("http"));
        if !name.text().is_empty() {
            if check::parse_ip(name.text()).is_some() {
                name.invalid(errors, "must be a DNS name, not an IP address");
            }
            host(&name, errors);
        }
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
        check::given(&tls.get("secretName"), names::subdomain, errors);
    }
    let class = spec.get("ingressClassName");
    if class.exists() {
        check::problems(&class, &names::subdomain(class.text()), errors);
    }
}

/// A name that may stand for all names one level below another one.
fn host(host: &Field<'_>, errors: &mut Errors) {
    let text = host.text();
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
    const NOT_ABSOLUTE: &str = "must be an absolute path";
    let (of, text) = (path.get("pathType"), path.get("path"));
    match of.text() {
        "" => return of.required(errors, "pathType must be specified"),
        "Exact" | "Prefix" => {
            if !text.text().starts_with('/') {
                text.invalid(errors, NOT_ABSOLUTE);
            }
            for part in ["//", "/./", "/../", "%2f", "%2F"].iter().filter(|part| text.text().contains(**part)) {
                text.invalid(errors, &format!("must not contain '{part}'"));
            }
            for end in ["/..", "/."].iter().filter(|end| text.text().ends_with(**end)) {
                text.invalid(errors, &format!("cannot end with '{end}'"));
            }
        }
        "ImplementationSpecific" => {
            if !text.text().is_empty() && !text.text().starts_with('/') {
                text.invalid(errors, NOT_ABSOLUTE);
            }
        }
        _ => of.not_supported(errors, &["Exact", "ImplementationSpecific", "Prefix"]),
    }
    validate_backend(&path.get("backend"), errors);
}

fn validate_backend(backend: &Field<'_>, errors: &mut Errors) {
    let (resource, service) = (backend.get("resource"), backend.get("service"));
    match (resource.exists(), service.exists()) {
        (true, true) => backend.wrong(errors, "\"\"", "cannot set both resource and service backends"),
        (false, false) => backend.wrong(errors, "\"\"", "resource or service backend is required"),
        (true, false) => typed_reference(&resource, errors),
        (false, true) => service_backend(backend, &service, errors),
    }
}

fn service_backend(backend: &Field<'_>, service: &Field<'_>, errors: &mut Errors) {
    check::needed(&service.get("name"), names::label, errors);
    let (number, port) = (service.at("port.number"), service.at("port.name"));
    match (number.int().unwrap_or(0), port.text()) {
        (0, "") => backend.required(errors, "port name or number is required"),
        (0, text) => {
            for problem in check::port_name_problems(text) {
                port.invalid(errors, problem);
            }
        }
        (_, "") => check::port_number(&number, errors),
        _ => backend.wrong(errors, "\"\"", "cannot set both port name & port number"),
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
    if types.len() > 2 {
        return types.invalid(errors, "may not specify more than two policyTypes");
    }
    for of in types.items() {
        of.one_of(errors, &["Ingress", "Egress"]);
    }
}

fn policy_port(port: &Field<'_>, errors: &mut Errors) {
    port.get("protocol").one_of(errors, &["TCP", "UDP", "SCTP"]);
    let (number, end) = (port.get("port"), port.get("endPort"));
    let refuse = |detail: &str, errors: &mut Errors| {
        if end.exists() {
            end.invalid(errors, detail);
        }
    };
    match number.value() {
        None | Some(Value::Null) => refuse("may not be specified when `port` is not specified", errors),
        Some(Value::String(_)) => {
            refuse("may not be specified when `port` is non-numeric", errors);
            check::port_or_name(&number, errors);
        }
        Some(_) => {
            check::port_number(&number, errors);
            if end.exists() && end.int() < number.int() {
                refuse("must be greater than or equal to `port`", errors);
            }
            if end.exists() {
                check::port_number(&end, errors);
            }
        }
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
            except(&block, errors);
        }
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
        check::cidr(&part, errors);
        if check::parse_cidr(part.text())
            .is_some_and(|(address, bits)| !check::contains(range, address) || bits <= range.1)
        {
            part.invalid(errors, "must be a strict subset of `cidr`");
        }
    }
}
