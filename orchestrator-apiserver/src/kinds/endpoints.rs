//! Where the pods of a service are: Endpoints and EndpointSlices.

use std::{collections::BTreeSet, net::IpAddr};

use orchestrator_core::status::FieldErrorKind;
use serde_json::{Value, json};

use super::{check, rules::Rules};
use crate::{
    field::{Errors, Field, items_mut, set_default},
    names,
    strategy::Generation,
};

const ADDRESSES_MAX: usize = 100;
const ENDPOINTS_MAX: usize = 1000;
const PORTS_MAX: usize = 100;
const HINTS_MAX: usize = 8;

/// Endpoints.
pub(super) const ENDPOINTS: Rules = Rules {
    default: default_endpoints,
    validate_create: validate_endpoints,
    // What was right once may stay.
    validate_update: |new, old, errors| {
        if new.get("subsets").value() != old.get("subsets").value() {
            validate_endpoints(new, errors);
        }
    },
    ..Rules::NONE
};

/// Endpoint slices.
pub(super) const ENDPOINT_SLICES: Rules = Rules {
    generation: Generation::Intent,
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
            let node = address.get("nodeName");
            if node.exists() {
                check::problems(&node, &names::subdomain(node.text()), errors);
            }
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
            let application = port.get("appProtocol");
            if application.exists() {
                check::problems(&application, &names::qualified_name(application.text()), errors);
            }
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
    if !too_many(&endpoints, ENDPOINTS_MAX, errors) {
        for endpoint in endpoints.items() {
            slice_addresses(&endpoint, of.text(), errors);
            let (node, host) = (endpoint.get("nodeName"), endpoint.get("hostname"));
            if node.exists() {
                check::problems(&node, &names::subdomain(node.text()), errors);
            }
            check::labels(&endpoint.get("deprecatedTopology"), errors);
            if host.exists() {
                check::problems(&host, &names::label(host.text()), errors);
            }
            hints(&endpoint.at("hints.forZones"), names::label_value, errors);
            hints(&endpoint.at("hints.forNodes"), names::subdomain, errors);
        }
    }
    slice_ports(&slice.get("ports"), errors);
}

/// Refuses a list that is too long. Tells whether it is.
fn too_many(list: &Field<'_>, most: usize, errors: &mut Errors) -> bool {
    if list.len() > most {
        list.error(errors, FieldErrorKind::TooMany, format!("{}: must have at most {most} items", list.len()));
    }
    list.len() > most
}

fn slice_ports(ports: &Field<'_>, errors: &mut Errors) {
    if too_many(ports, PORTS_MAX, errors) {
        return;
    }
    let mut seen = BTreeSet::new();
    for port in ports.items() {
        let name = port.get("name");
        check::given(&name, names::label, errors);
        if !seen.insert(name.text()) {
            name.duplicate(errors);
        }
        port.get("protocol").one_of(errors, &["SCTP", "TCP", "UDP"]);
        let application = port.get("appProtocol");
        if application.exists() {
            check::problems(&application, &names::qualified_name(application.text()), errors);
        }
    }
}

/// Where an endpoint is to be used from: each place once.
fn hints(places: &Field<'_>, rule: fn(&str) -> Vec<String>, errors: &mut Errors) {
    if too_many(places, HINTS_MAX, errors) {
        return;
    }
    let mut seen = BTreeSet::new();
    for name in places.items().iter().map(|place| place.get("name")) {
        if !seen.insert(name.text()) {
            name.duplicate(errors);
        }
        check::problems(&name, &rule(name.text()), errors);
    }
}

fn slice_addresses(endpoint: &Field<'_>, of: &str, errors: &mut Errors) {
    let addresses = endpoint.get("addresses");
    if addresses.len() == 0 {
        return addresses.required(errors, "must contain at least 1 address");
    }
    too_many(&addresses, ADDRESSES_MAX, errors);
    for address in addresses.items() {
        let of_family = match of {
            "IPv4" => IpAddr::is_ipv4,
            "IPv6" => IpAddr::is_ipv6,
            "FQDN" => {
                domain(&address, errors);
                continue;
            }
            _ => continue,
        };
        check::ip(&address, errors);
        if check::address_problem(address.text()).is_some() {
            continue;
        }
        if !check::parse_ip(address.text()).is_some_and(|parsed| of_family(&parsed)) {
            addresses.wrong(errors, address.shown(), &format!("must be an {of} address"));
        }
        check::endpoint_address(&address, errors);
    }
}

/// A name that is found from anywhere: at least two labels.
fn domain(field: &Field<'_>, errors: &mut Errors) {
    let text = field.text().strip_suffix('.').unwrap_or(field.text());
    let problems = names::subdomain(text);
    if field.text().is_empty() {
        return field.required(errors, "");
    }
    if !problems.is_empty() {
        return field.wrong(errors, format!("{text:?}"), &problems.join(","));
    }
    if !text.contains('.') {
        let detail = "should be a domain with at least two segments separated by dots";
        return field.wrong(errors, format!("{text:?}"), detail);
    }
    let labels = text.split('.').map(|label| (label, names::label(label)));
    if let Some((label, problems)) = labels.into_iter().find(|(_, problems)| !problems.is_empty()) {
        field.wrong(errors, format!("{label:?}"), &problems.join(","));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{broken, broken_by_change};

    #[test]
    fn addresses_of_slices_are_of_their_family() {
        let slice = |address: &str| json!({"metadata": {"name": "s"}, "addressType": "IPv4", "endpoints": [{"addresses": [address]}]});
        assert_eq!(broken(&ENDPOINT_SLICES, slice("10.0.0.1")), [""; 0]);
        let place = "endpoints[0].addresses";
        assert_eq!(
            broken(&ENDPOINT_SLICES, slice("10.0.0.01")),
            [format!("{place}[0]: \"10.0.0.01\": must not have leading 0s")]
        );
        assert_eq!(
            broken(&ENDPOINT_SLICES, slice("2001:db8::1")),
            [format!("{place}: \"2001:db8::1\": must be an IPv4 address")]
        );
    }

    #[test]
    fn subsets_that_do_not_change_may_stay() {
        let endpoints = |address: &str, label: &str| {
            json!({
                "metadata": {"name": "e", "labels": {"a": label}}, "subsets": [{"addresses": [{"ip": address}]}],
            })
        };
        assert_eq!(broken_by_change(&ENDPOINTS, endpoints("x", "a"), endpoints("x", "b")), [""; 0]);
        assert_eq!(broken_by_change(&ENDPOINTS, endpoints("10.0.0.1", "a"), endpoints("x", "a")).len(), 2);
    }
}
