//! The slices that mirror Endpoints which somebody else writes.
//!
//! Upstream: `pkg/controller/endpointslicemirroring`.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use k8s_openapi::{
    api::{
        core::v1::{EndpointAddress, EndpointPort as OldPort, Endpoints, Service},
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use orchestrator_core::meta::{self, owner_reference};

use crate::{
    endpointslice::{MANAGED_BY, SERVICE_NAME, TRIGGER_TIME},
    limits::{ADDRESSES_PER_ENDPOINTS, POD_PREFIX_CHARACTERS},
};

/// Who manages mirrored slices.
pub(crate) const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What to write.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Decision {
    pub create: Vec<EndpointSlice>,
    pub replace: Vec<EndpointSlice>,
    pub delete: Vec<Arc<EndpointSlice>>,
    /// Addresses that are none.
    pub invalid: usize,
    /// Addresses beyond what is mirrored.
    pub skipped: usize,
}

/// Whether endpoints are mirrored: those that people write, for a service without a selector.
pub(crate) fn is_mirrored(endpoints: &Endpoints, service: &Service) -> bool {
    let metadata = &endpoints.metadata;
    let selects = service.spec.as_ref().is_some_and(|spec| spec.selector.is_some());
    meta::label(metadata, SKIP) != Some("true")
        && meta::annotation(metadata, LEADER).is_none()
        && !meta::is_deleting(metadata)
        && !selects
}

/// Compares the mirrored slices with the endpoints; without those, no slice stays.
pub(crate) fn decide(endpoints: Option<&Endpoints>, slices: &[Arc<EndpointSlice>]) -> Decision {
    let mut decision = Decision::default();
    let mut wanted = endpoints.map(|endpoints| wanted(endpoints, &mut decision)).unwrap_or_default();
    for slice in slices {
        let ports = slice.ports.as_deref().unwrap_or_default();
        let family = if slice.address_type == "IPv6" { "IPv6" } else { "IPv4" };
        let own = wanted.remove(&(family, key(ports)));
        let (Some(own), Some(endpoints)) = (own, endpoints) else {
            decision.delete.push(slice.clone());
            continue;
        };
        let mut new = make(endpoints, family, own);
        let is_same = (&new.endpoints, &new.metadata.labels, &new.metadata.annotations)
            == (&slice.endpoints, &slice.metadata.labels, &slice.metadata.annotations);
        if !is_same {
            new.metadata = ObjectMeta {
                labels: new.metadata.labels,
                annotations: new.metadata.annotations,
                ..slice.metadata.clone()
            };
            decision.replace.push(new);
        }
    }
    if let Some(endpoints) = endpoints {
        let rest = wanted.into_iter().map(|((family, _), own)| make(endpoints, family, own));
        decision.create.extend(rest);
    }
    decision
}

/// Endpoints with the same ports.
#[derive(Default)]
struct Group {
    ports: Vec<EndpointPort>,
    endpoints: Vec<Endpoint>,
}

type Key = (&'static str, String);

fn key(ports: &[EndpointPort]) -> String {
    let mut ports: Vec<_> = ports
        .iter()
        .map(|port| format!("{:?} {:?} {:?} {:?}", port.name, port.port, port.protocol, port.app_protocol))
        .collect();
    ports.sort();
    ports.join(",")
}

fn wanted(endpoints: &Endpoints, decision: &mut Decision) -> BTreeMap<Key, Group> {
    let mut groups: BTreeMap<Key, Group> = BTreeMap::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ports: Vec<_> = subset.ports.iter().flatten().map(port).collect();
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let unready = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
        let mut room = ADDRESSES_PER_ENDPOINTS;
        for (address, ready) in ready.chain(unready) {
            let Ok(ip) = address.ip.parse::<IpAddr>() else {
                decision.invalid += 1;
                continue;
            };
            if room == 0 {
                decision.skipped += 1;
                continue;
            }
            room -= 1;
            let family = if ip.is_ipv6() { "IPv6" } else { "IPv4" };
            let group = groups.entry((family, key(&ports))).or_default();
            group.ports.clone_from(&ports);
            group.endpoints.push(endpoint(address, ready));
        }
    }
    groups
}

fn port(port: &OldPort) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
        app_protocol: port.app_protocol.clone(),
    }
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), serving: None, terminating: None }),
        hostname: address.hostname.clone().filter(|name| !name.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Default::default()
    }
}

fn make(endpoints: &Endpoints, family: &str, group: Group) -> EndpointSlice {
    let name = meta::name(&endpoints.metadata);
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), name.to_owned());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|name, _| name != TRIGGER_TIME && name != LAST_APPLIED);
    let prefix: String = name.chars().take(POD_PREFIX_CHARACTERS - 1).collect();
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{prefix}-")),
            namespace: endpoints.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(annotations).filter(|annotations| !annotations.is_empty()),
            owner_references: Some(vec![owner_reference(endpoints, true)]),
            ..Default::default()
        },
        address_type: family.to_owned(),
        endpoints: Some(group.endpoints),
        ports: Some(group.ports).filter(|ports| !ports.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn endpoints(subsets: Value) -> Endpoints {
        serde_json::from_value(json!({"metadata": {"name": "svc", "namespace": "n"}, "subsets": subsets})).unwrap()
    }

    fn applied(decision: Decision, slices: &[Arc<EndpointSlice>], names: &mut usize) -> Vec<Arc<EndpointSlice>> {
        let mut after = slices.to_vec();
        after.retain(|slice| decision.delete.iter().all(|gone| gone.metadata.name != slice.metadata.name));
        for new in decision.replace {
            after.retain(|slice| slice.metadata.name != new.metadata.name);
            after.push(Arc::new(new));
        }
        for mut new in decision.create {
            *names += 1;
            new.metadata.name = Some(format!("svc-{names}"));
            after.push(Arc::new(new));
        }
        after
    }

    #[test]
    fn each_family_and_each_set_of_ports_has_a_slice() {
        let addresses = json!([{"ip": "192.0.2.1"}, {"ip": "2001:db8::1"}, {"ip": "nonsense"}]);
        let subsets = json!([
            {"addresses": addresses, "ports": [{"port": 80}]},
            {"notReadyAddresses": [{"ip": "192.0.2.2", "hostname": "h"}], "ports": [{"name": "x", "port": 81}]},
        ]);
        let endpoints = endpoints(subsets);
        let decision = decide(Some(&endpoints), &[]);
        let shown: Vec<_> =
            decision.create.iter().map(|slice| (&*slice.address_type, slice.ports.as_ref().unwrap()[0].port)).collect();
        assert_eq!(shown, [("IPv4", Some(80)), ("IPv4", Some(81)), ("IPv6", Some(80))]);
        assert_eq!((decision.invalid, decision.skipped), (1, 0));
        let slices = applied(decision, &[], &mut 0);
        assert_eq!(decide(Some(&endpoints), &slices), Decision { invalid: 1, ..Decision::default() });
        assert_eq!(decide(None, &slices).delete.len(), 3);
    }

    #[test]
    fn only_what_people_write_for_a_service_without_selector_is_mirrored() {
        let service = |spec: Value| serde_json::from_value::<Service>(json!({"spec": spec})).unwrap();
        let mut plain = endpoints(json!([]));
        assert!(is_mirrored(&plain, &service(json!({}))));
        assert!(!is_mirrored(&plain, &service(json!({"selector": {"a": "b"}}))));
        plain.metadata.labels = Some([(SKIP.to_owned(), "true".to_owned())].into());
        assert!(!is_mirrored(&plain, &service(json!({}))));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn slices_follow_and_then_rest(steps in prop::collection::vec((0..1200_usize, 0..3_i32), 1..5)) {
            let (mut slices, mut names) = (Vec::new(), 0);
            for (number, port) in steps {
                let addresses: Vec<_> = (0..number).map(|n| json!({"ip": format!("10.0.{}.{}", n / 250, n % 250)})).collect();
                let endpoints = endpoints(json!([{"addresses": addresses, "ports": [{"port": 80 + port}]}]));
                let decision = decide(Some(&endpoints), &slices);
                prop_assert_eq!(decision.skipped, number.saturating_sub(ADDRESSES_PER_ENDPOINTS));
                slices = applied(decision, &slices, &mut names);
                let held: usize = slices.iter().map(|slice| slice.endpoints.as_ref().map_or(0, Vec::len)).sum();
                prop_assert_eq!(held, number.min(ADDRESSES_PER_ENDPOINTS));
                let again = decide(Some(&endpoints), &slices);
                prop_assert!(again.create.is_empty() && again.replace.is_empty() && again.delete.is_empty());
            }
        }
    }
}
