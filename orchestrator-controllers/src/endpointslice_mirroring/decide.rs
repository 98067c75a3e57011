//! The slices that mirror Endpoints which somebody else writes.
//!
//! Upstream: `pkg/controller/endpointslicemirroring`.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::IpAddr,
    sync::Arc,
};

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
    limits::ADDRESSES_PER_ENDPOINTS,
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
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    meta::label(metadata, SKIP) != Some("true")
        && meta::annotation(metadata, LEADER).is_none()
        && selector.is_none_or(|selector| selector.is_empty())
}

/// Compares the mirrored slices with the endpoints; without those, no slice stays.
pub(crate) fn decide(endpoints: Option<&Endpoints>, slices: &[Arc<EndpointSlice>]) -> Decision {
    let mut decision = Decision::default();
    let Some(endpoints) = endpoints else {
        return Decision { delete: slices.to_vec(), ..decision };
    };
    let mut wanted = wanted(endpoints, &mut decision);
    for slice in slices {
        let ports = slice.ports.as_deref().unwrap_or_default();
        let family = if slice.address_type == "IPv6" { "IPv6" } else { "IPv4" };
        let Some(own) = wanted.remove(&(family, key(ports))) else {
            decision.delete.push(slice.clone());
            continue;
        };
        let mut new = make(endpoints, family, own);
        let is_same = (&new.endpoints, &new.metadata.labels, &new.metadata.annotations)
            == (&slice.endpoints, &slice.metadata.labels, &slice.metadata.annotations);
        if !is_same {
            // It has a name already.
            new.metadata.generate_name = None;
            decision.replace.push(in_place_of(slice, new));
        }
    }
    let new = wanted.into_iter().map(|((family, _), own)| make(endpoints, family, own));
    decision.create.extend(new);
    recycle(&mut decision);
    if meta::is_deleting(&endpoints.metadata) {
        decision.create.clear();
    }
    decision
}

/// What is made takes the place of what goes, as far as possible.
fn recycle(decision: &mut Decision) {
    for new in std::mem::take(&mut decision.create) {
        match decision.delete.iter().position(|old| old.address_type == new.address_type) {
            Some(old) => decision.replace.push(in_place_of(&decision.delete.remove(old), new)),
            None => decision.create.push(new),
        }
    }
}

fn in_place_of(old: &EndpointSlice, mut new: EndpointSlice) -> EndpointSlice {
    new.metadata.name = old.metadata.name.clone();
    new.metadata.resource_version = old.metadata.resource_version.clone();
    new
}

/// Endpoints with the same ports.
#[derive(Default)]
struct Group {
    ports: Vec<EndpointPort>,
    endpoints: Vec<Endpoint>,
    /// Where each of them stands.
    known: BTreeMap<Identity, usize>,
}

/// What makes two endpoints the same one: their addresses, their names, and the namespaces and names of their pods.
type Identity = (Vec<String>, Option<String>, Option<(Option<String>, Option<String>)>);

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
            if room == 0 {
                decision.skipped += 1;
                continue;
            }
            let Some(ip) = parse(&address.ip) else {
                decision.invalid += 1;
                continue;
            };
            room -= 1;
            let family = if ip.is_ipv6() { "IPv6" } else { "IPv4" };
            let group = groups.entry((family, key(&ports))).or_default();
            group.ports.clone_from(&ports);
            group.add(endpoint(address, ip, ready));
        }
    }
    groups
}

impl Group {
    /// The same address of the same pod is one endpoint, as it was named last. Those beyond what fits into a slice are left out.
    fn add(&mut self, new: Endpoint) {
        let identity = |endpoint: &Endpoint| {
            let target = endpoint.target_ref.as_ref();
            let target = target.map(|target| (target.namespace.clone(), target.name.clone()));
            (endpoint.addresses.clone(), endpoint.hostname.clone(), target)
        };
        match self.known.entry(identity(&new)) {
            Entry::Occupied(known) => self.endpoints[*known.get()] = new,
            Entry::Vacant(place) if self.endpoints.len() < ADDRESSES_PER_ENDPOINTS => {
                place.insert(self.endpoints.len());
                self.endpoints.push(new);
            }
            Entry::Vacant(_) => {}
        }
    }
}

/// An address, also with leading zeros, which Endpoints may have from earlier days.
fn parse(text: &str) -> Option<IpAddr> {
    let part = |part: &str| part.parse::<u8>().ok().filter(|_| part.bytes().all(|digit| digit.is_ascii_digit()));
    let parts: Option<Vec<u8>> = text.split('.').map(part).collect();
    let sloppy = parts.and_then(|parts| <[u8; 4]>::try_from(parts).ok());
    let address = sloppy.map(IpAddr::from).or_else(|| text.parse().ok());
    address.map(|address| address.to_canonical())
}

fn port(port: &OldPort) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
        app_protocol: port.app_protocol.clone(),
    }
}

fn endpoint(address: &EndpointAddress, ip: IpAddr, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![ip.to_string()],
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
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
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
    fn what_is_made_takes_the_place_of_what_goes() {
        let of = |port: i32, ip: &str| endpoints(json!([{"addresses": [{"ip": ip}], "ports": [{"port": port}]}]));
        let slices = applied(decide(Some(&of(80, "192.0.2.1")), &[]), &[], &mut 0);
        let name = slices[0].metadata.name.as_deref();
        let generated = |decision: &Decision| {
            let [new] = decision.replace.as_slice() else { panic!("{decision:?}") };
            assert_eq!(new.metadata.name.as_deref(), name);
            new.metadata.generate_name.clone()
        };
        assert_eq!(generated(&decide(Some(&of(80, "192.0.2.2")), &slices)), None);
        assert_eq!(generated(&decide(Some(&of(81, "192.0.2.1")), &slices)).as_deref(), Some("svc-"));
        let other_family = decide(Some(&of(80, "2001:db8::1")), &slices);
        assert_eq!((other_family.create.len(), other_family.delete.len()), (1, 1));
    }

    #[test]
    fn an_address_is_one_endpoint_and_written_in_one_way() {
        let subsets = json!([{
            "addresses": [{"ip": "192.000.02.1"}, {"ip": "192.0.2.1"}, {"ip": "::ffff:192.0.2.1"}],
            "notReadyAddresses": [{"ip": "192.0.2.1"}],
        }]);
        let decision = decide(Some(&endpoints(subsets)), &[]);
        let [endpoint] = decision.create[0].endpoints.as_deref().unwrap() else { panic!("{decision:?}") };
        assert_eq!(endpoint.addresses, ["192.0.2.1"]);
        assert_eq!(endpoint.conditions.as_ref().and_then(|conditions| conditions.ready), Some(false));
    }

    #[test]
    fn subsets_with_the_same_ports_share_a_slice_that_does_not_overflow() {
        let addresses = |net: usize, number: usize| -> Vec<_> {
            (0..number).map(|n| json!({"ip": format!("10.{net}.{}.{}", n / 250, n % 250)})).collect()
        };
        let subsets = json!([{"addresses": addresses(0, 700)}, {"addresses": addresses(1, 700)}]);
        let decision = decide(Some(&endpoints(subsets)), &[]);
        assert_eq!(decision.create[0].endpoints.as_ref().map(Vec::len), Some(ADDRESSES_PER_ENDPOINTS));
        assert_eq!(decision.skipped, 0);
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
