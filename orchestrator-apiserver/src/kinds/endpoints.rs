//! Where the pods of a service are: Endpoints and EndpointSlices.

use std::collections::BTreeSet;

use orchestrator_core::status::FieldErrorKind;
use serde_json::{Value, json};

use super::{check, rules::Rules};
use crate::{
    field::{Errors, Field, items_mut, set_default},
    names,
};

const ADDRESSES_MAX: usize = 100;
const ENDPOINTS_MAX: usize = 1000;
const PORTS_MAX: usize = 100;

/// Endpoints.
pub(super) const ENDPOINTS: Rules = Rules { default: default_endpoints, validate: validate_endpoints, ..Rules::NONE };

/// Endpoint slices.
pub(super) const ENDPOINT_SLICES: Rules = Rules {
    generation: true,
    default: default_slice,
    validate: validate_slice,
    validate_update: |new, old, errors| check::immutable(new, old, "addressType", errors),
    ..Rules::NONE
};

fn default_endpoints(endpoints: &mut Value) {
    for subset in items_mut(endpoints, "subsets") {
        for port in items_mut(subset, "ports") {
            set_default(port, "protocol", "TCP");
        }
    }
}

fn default_slice(slice: &mut Value) {
    set_default(slice, "endpoints", Value::Null);
    set_default(slice, "addressType", "");
    for endpoint in items_mut(slice, "endpoints") {
        set_default(endpoint, "conditions", json!({}));
    }
    if slice.get("ports").is_none() {
        set_default(slice, "ports", Value::Null);
    }
    for port in items_mut(slice, "ports") {
        set_default(port, "name", "");
        set_default(port, "protocol", "TCP");
    }
}

fn validate_endpoints(endpoints: &Field<'_>, errors: &mut Errors) {
    for subset in endpoints.get("subsets").items() {
        let (ready, unready) = (subset.get("addresses"), subset.get("notReadyAddresses"));
        if ready.len() + unready.len() == 0 {
            subset.required(errors, "must specify `addresses` or `notReadyAddresses`");
        }
        for address in ready.items().into_iter().chain(unready.items()) {
            let ip = address.get("ip");
            check::ip(&ip, errors);
            check::given(&address.get("hostname"), names::label, errors);
            check::given(&address.get("nodeName"), names::subdomain, errors);
            if check::parse_ip(ip.text()).is_none() {
                ip.invalid(errors, "must be a valid IP address");
            }
            check::endpoint_address(&ip, errors);
        }
        let ports = subset.get("ports");
        for port in ports.items() {
            let name = port.get("name");
            if ports.len() > 1 && name.text().is_empty() {
                name.required(errors, "");
            }
            check::given(&name, names::label, errors);
            check::port_number(&port.get("port"), errors);
            port.get("protocol").one_of(errors, &["SCTP", "TCP", "UDP"]);
            check::given(&port.get("appProtocol"), names::qualified_name, errors);
        }
    }
}

fn validate_slice(slice: &Field<'_>, errors: &mut Errors) {
    let of = slice.get("addressType");
    if of.text().is_empty() {
        of.required(errors, "");
    } else {
        of.one_of(errors, &["FQDN", "IPv4", "IPv6"]);
    }
    let endpoints = slice.get("endpoints");
    if endpoints.len() > ENDPOINTS_MAX {
        endpoints.error(
            errors,
            FieldErrorKind::TooMany,
            format!("{}: must have at most {ENDPOINTS_MAX} items", endpoints.len()),
        );
    }
    for endpoint in endpoints.items() {
        slice_addresses(&endpoint, of.text(), errors);
        check::given(&endpoint.get("hostname"), names::label, errors);
    }
    let ports = slice.get("ports");
    if ports.len() > PORTS_MAX {
        ports.error(errors, FieldErrorKind::TooMany, format!("{}: must have at most {PORTS_MAX} items", ports.len()));
    }
    let mut seen = BTreeSet::new();
    for port in ports.items() {
        let name = port.get("name");
        check::given(&name, names::label, errors);
        if seen.contains(&name.text()) {
            name.duplicate(errors);
        }
        seen.insert(name.text());
        port.get("protocol").one_of(errors, &["SCTP", "TCP", "UDP"]);
        check::given(&port.get("appProtocol"), names::qualified_name, errors);
    }
}

fn slice_addresses(endpoint: &Field<'_>, of: &str, errors: &mut Errors) {
    let addresses = endpoint.get("addresses");
    if addresses.len() == 0 {
        return addresses.required(errors, "must contain at least 1 address");
    }
    if addresses.len() > ADDRESSES_MAX {
        let detail = format!("{}: must have at most {ADDRESSES_MAX} items", addresses.len());
        return addresses.error(errors, FieldErrorKind::TooMany, detail);
    }
    for address in addresses.items() {
        let parsed = check::parse_ip(address.text());
        match of {
            "FQDN" => check::problems(&address, &names::subdomain(address.text()), errors),
            "IPv4" if !parsed.is_some_and(|ip| ip.is_ipv4()) => {
                addresses.wrong(errors, address.shown(), "must be an IPv4 address");
            }
            "IPv6" if !parsed.is_some_and(|ip| ip.is_ipv6()) => {
                addresses.wrong(errors, address.shown(), "must be an IPv6 address");
            }
            _ => {}
        }
        if of != "FQDN" {
            check::endpoint_address(&address, errors);
        }
    }
}
