//! Where a load balancer is reached, in the status of services and ingresses.
//!
//! Upstream: `ValidateLoadBalancerStatus` and `ValidateIngressLoadBalancerStatus`.

use super::check;
use crate::{
    field::{Errors, Field},
    names,
};

/// That of a service. Only one with a load balancer has any.
pub(super) fn validate_service(service: &Field<'_>, _: &Field<'_>, errors: &mut Errors) {
    let entries = service.at("status.loadBalancer.ingress");
    if service.at("spec.type").text() != "LoadBalancer" && entries.len() > 0 {
        return entries.forbidden(errors, "may only be used when `spec.type` is 'LoadBalancer'");
    }
    for entry in entries.items() {
        let (address, mode) = (entry.get("ip"), entry.get("ipMode"));
        if !address.text().is_empty() {
            check::ip(&address, errors);
        }
        match (address.text().is_empty(), mode.exists()) {
            (false, false) => mode.required(errors, "must be specified when `ip` is set"),
            (true, true) => mode.forbidden(errors, "may not be specified when `ip` is not set"),
            _ => mode.one_of(errors, &["Proxy", "VIP"]),
        }
        host_name(&entry.get("hostname"), errors);
    }
}

/// That of an ingress.
pub(super) fn validate_ingress(ingress: &Field<'_>, _: &Field<'_>, errors: &mut Errors) {
    for entry in ingress.at("status.loadBalancer.ingress").items() {
        if !entry.get("ip").text().is_empty() {
            check::ip(&entry.get("ip"), errors);
        }
        host_name(&entry.get("hostname"), errors);
    }
}

fn host_name(name: &Field<'_>, errors: &mut Errors) {
    check::given(name, names::subdomain, errors);
    if check::parse_ip(name.text()).is_some() {
        name.invalid(errors, "must be a DNS name, not an IP address");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn broken(of: &str, entries: Value) -> Vec<String> {
        let service = json!({"spec": {"type": of}, "status": {"loadBalancer": {"ingress": entries}}});
        let mut errors = Errors::default();
        let service = Field::root(&service);
        validate_service(&service, &service, &mut errors);
        let place = |error: &str| error.replace("status.loadBalancer.", "");
        errors.into_vec().into_iter().map(|error| format!("{}: {}", place(&error.field), error.detail)).collect()
    }

    #[test]
    fn addresses_have_modes_and_names_are_no_addresses() {
        let good = json!([{"ip": "192.0.2.1", "ipMode": "VIP"}, {"hostname": "a.example"}]);
        assert_eq!(broken("LoadBalancer", good.clone()), [""; 0]);
        assert_eq!(broken("ClusterIP", good), ["ingress: may only be used when `spec.type` is 'LoadBalancer'"]);
        let wrong = json!([{"ip": "192.0.2.1"}, {"ipMode": "VIP"}, {"ip": "192.0.2.1", "ipMode": "x"}, {"hostname": "1.2.3.4"}]);
        assert_eq!(
            broken("LoadBalancer", wrong),
            [
                "ingress[0].ipMode: must be specified when `ip` is set",
                "ingress[1].ipMode: may not be specified when `ip` is not set",
                "ingress[2].ipMode: \"x\": supported values: \"Proxy\", \"VIP\"",
                "ingress[3].hostname: \"1.2.3.4\": must be a DNS name, not an IP address",
            ]
        );
    }
}
