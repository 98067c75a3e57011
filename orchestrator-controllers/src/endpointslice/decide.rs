//! Which slices a service should have.
//!
//! Endpoints that share their ports share slices. Slices that exist are changed as little as possible: each change is
//! sent to every node. Upstream: `k8s.io/endpointslice` (`reconciler.go`).

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        core::v1::{Pod, Service},
        discovery::v1::{Endpoint, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use orchestrator_core::meta;

use super::endpoints::{Family, Zones, endpoint, has_address, ports};
use crate::{limits, pods::is_finished};

/// The label with the name of a slice's service.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label with who looks after a slice.
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub(super) const MANAGER: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";
/// The annotation with the time of what changed last.
pub(crate) const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// What to write.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Decision {
    pub(super) create: Vec<EndpointSlice>,
    pub(super) replace: Vec<EndpointSlice>,
    /// Names.
    pub(super) delete: Vec<String>,
}

/// What there is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Observed<'a> {
    pub(super) service: &'a Service,
    /// Those that the service selects, in order of their names.
    pub(super) pods: &'a [Arc<Pod>],
    /// Those of the service that this controller manages and nobody deletes.
    pub(super) slices: &'a [Arc<EndpointSlice>],
    pub(super) zones: &'a Zones,
    /// The first of what has changed since the last decision.
    pub(super) trigger: Option<Timestamp>,
}

/// Whether this controller makes slices for a service.
pub(crate) fn is_selected(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    let selects = spec.and_then(|spec| spec.selector.as_ref()).is_some_and(|selector| !selector.is_empty());
    selects && spec.and_then(|spec| spec.type_.as_deref()) != Some("ExternalName")
}

/// Compares the slices of a service with those it should have.
pub(super) fn decide(observed: Observed<'_>) -> Decision {
    let families = Family::of(observed.service);
    let has_family = |slice: &Arc<EndpointSlice>| families.iter().any(|family| family.as_str() == slice.address_type);
    let mut decision = Decision::default();
    for family in &families {
        let own = decide_family(observed, *family);
        decision.create.extend(own.create);
        decision.replace.extend(own.replace);
        decision.delete.extend(own.delete);
    }
    let foreign = observed.slices.iter().filter(|slice| !has_family(slice));
    decision.delete.extend(foreign.map(|slice| meta::name(&slice.metadata).to_owned()));
    // While a service goes the garbage collector is after its slices: it would not come to an end with new ones.
    if meta::is_deleting(&observed.service.metadata) {
        decision.create.clear();
    }
    decision
}

fn decide_family(observed: Observed<'_>, family: Family) -> Decision {
    let service = observed.service;
    let slices: Vec<_> = observed.slices.iter().filter(|slice| slice.address_type == family.as_str()).collect();
    let (own, foreign): (Vec<_>, Vec<_>) = slices.iter().copied().partition(|slice| is_of(&slice.metadata, service));
    let wanted = wanted(observed, family);
    let mut present: Vec<Vec<&Arc<EndpointSlice>>> = wanted.iter().map(|_| Vec::new()).collect();
    let mut changes = Changes { service, family, create: Vec::new(), replace: Vec::new(), delete: foreign };
    for slice in own {
        let ports = slice.ports.as_deref().unwrap_or_default();
        match wanted.iter().position(|group| same_ports(&group.ports, ports)) {
            Some(group) => present[group].push(slice),
            None => changes.delete.push(slice),
        }
    }
    for (group, slices) in wanted.iter().zip(present) {
        fill(group, &slices, &mut changes);
    }
    if slices.len() == changes.delete.len() && changes.create.is_empty() {
        changes.show_emptiness();
    }
    changes.into_decision(observed.trigger)
}

/// Endpoints with the same ports.
struct Wanted {
    ports: Vec<EndpointPort>,
    endpoints: Vec<Endpoint>,
}

/// The endpoints of the pods, by their ports. Pods that are no endpoints have ports all the same: slices with those may stay.
fn wanted(observed: Observed<'_>, family: Family) -> Vec<Wanted> {
    let mut wanted: Vec<Wanted> = Vec::new();
    for pod in observed.pods.iter().filter(|pod| !is_finished(pod) && has_address(pod)) {
        let ports = ports(observed.service, pod);
        let endpoint = endpoint(observed.service, pod, family, observed.zones);
        match wanted.iter_mut().find(|group| same_ports(&group.ports, &ports)) {
            Some(group) => group.endpoints.extend(endpoint),
            None => wanted.push(Wanted { ports, endpoints: endpoint.into_iter().collect() }),
        }
    }
    wanted
}

/// What is to become of the slices of a family.
struct Changes<'a> {
    service: &'a Service,
    family: Family,
    create: Vec<EndpointSlice>,
    replace: Vec<EndpointSlice>,
    delete: Vec<&'a Arc<EndpointSlice>>,
}

impl Changes<'_> {
    fn make(&self, ports: &[EndpointPort], endpoints: Vec<Endpoint>) -> EndpointSlice {
        slice(metadata(self.service), self.family, ports, endpoints)
    }

    /// A service without endpoints has one slice that says so.
    fn show_emptiness(&mut self) {
        let placeholder = self.make(&[], Vec::new());
        let fits = |present: &EndpointSlice| {
            present.endpoints.iter().flatten().count() == 0
                && present.ports.iter().flatten().count() == 0
                && present.metadata.labels == placeholder.metadata.labels
        };
        match self.delete.as_slice() {
            [present] if fits(present) => self.delete.clear(),
            _ => self.create.push(placeholder),
        }
    }

    /// What is made takes the place of what goes, as far as possible.
    fn into_decision(mut self, trigger: Option<Timestamp>) -> Decision {
        let mut decision = Decision::default();
        for old in self.delete {
            match self.create.pop_if(|_| is_of(&old.metadata, self.service)) {
                Some(mut new) => {
                    new.metadata.name = old.metadata.name.clone();
                    new.metadata.resource_version = old.metadata.resource_version.clone();
                    self.replace.push(new);
                }
                None => decision.delete.push(meta::name(&old.metadata).to_owned()),
            }
        }
        self.create.iter_mut().chain(&mut self.replace).for_each(|slice| note_trigger(&mut slice.metadata, trigger));
        Decision { create: self.create, replace: self.replace, ..decision }
    }
}

/// Whether a slice belongs to a service, and not to one that had its name before.
fn is_of(slice: &ObjectMeta, service: &Service) -> bool {
    let uid = meta::uid(&service.metadata);
    meta::owners(slice).iter().any(|owner| owner.uid == uid && owner.kind == "Service" && owner.api_version == "v1")
}

/// Puts the endpoints into the slices there are, and the rest into new ones.
fn fill<'a>(wanted: &Wanted, slices: &[&'a Arc<EndpointSlice>], changes: &mut Changes<'a>) {
    let all = &wanted.endpoints;
    let mut rest: BTreeMap<Identity<'_>, usize> =
        all.iter().enumerate().map(|(index, endpoint)| (identity(endpoint), index)).collect();
    // First everything stays where it is.
    let mut kept: Vec<(&Arc<EndpointSlice>, Vec<usize>)> = Vec::new();
    for present in slices {
        let present_endpoints = present.endpoints.as_deref().unwrap_or_default();
        let endpoints: Vec<usize> =
            present_endpoints.iter().filter_map(|endpoint| rest.remove(&identity(endpoint))).collect();
        if endpoints.is_empty() && !present_endpoints.is_empty() {
            changes.delete.push(present);
        } else {
            kept.push((present, endpoints));
        }
    }
    let mut rest: Vec<usize> = rest.into_values().collect();
    let is_same = |present: &EndpointSlice, endpoints: &[usize]| {
        let present = present.endpoints.as_deref().unwrap_or_default();
        present.len() == endpoints.len()
            && present.iter().zip(endpoints).all(|(one, index)| same_endpoint(one, &all[*index]))
    };
    let labels = metadata(changes.service).labels.unwrap_or_default();
    let is_settled = |present: &EndpointSlice, endpoints: &[usize]| {
        is_same(present, endpoints) && same_labels(&present.metadata, &labels)
    };
    // New ones go where something changes anyway, then into the fullest slice that has room for them all.
    for touched in [true, false] {
        let mut candidates: Vec<_> =
            kept.iter_mut().filter(|(present, endpoints)| is_settled(present, endpoints) != touched).collect();
        candidates.sort_by_key(|(_, endpoints)| std::cmp::Reverse(endpoints.len()));
        for (_, endpoints) in candidates {
            let room = limits::ENDPOINTS_PER_SLICE.saturating_sub(endpoints.len());
            if touched || rest.len() % limits::ENDPOINTS_PER_SLICE <= room {
                let taken = if touched { room } else { rest.len() % limits::ENDPOINTS_PER_SLICE };
                endpoints.extend(rest.split_off(rest.len().saturating_sub(taken.min(rest.len()))));
            }
        }
    }
    let clones = |endpoints: &[usize]| endpoints.iter().map(|index| all[*index].clone()).collect();
    for (present, endpoints) in kept.iter().filter(|(present, endpoints)| !is_settled(present, endpoints)) {
        let metadata = ObjectMeta { labels: Some(labels.clone()), ..present.metadata.clone() };
        changes.replace.push(slice(metadata, changes.family, &wanted.ports, clones(endpoints)));
    }
    for endpoints in rest.chunks(limits::ENDPOINTS_PER_SLICE) {
        changes.create.push(changes.make(&wanted.ports, clones(endpoints)));
    }
}

fn slice(metadata: ObjectMeta, family: Family, ports: &[EndpointPort], endpoints: Vec<Endpoint>) -> EndpointSlice {
    EndpointSlice {
        metadata,
        address_type: family.as_str().to_owned(),
        endpoints: Some(endpoints).filter(|endpoints| !endpoints.is_empty()),
        ports: Some(ports.to_vec()).filter(|ports| !ports.is_empty()),
    }
}

/// The labels that tell whose a slice is. They are none of its service's own.
const RESERVED: [&str; 3] = [SERVICE_NAME, MANAGED_BY, HEADLESS];

/// The metadata of a new slice.
fn metadata(service: &Service) -> ObjectMeta {
    let name = meta::name(&service.metadata);
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.retain(|label, _| !RESERVED.contains(&label.as_str()));
    labels.insert(SERVICE_NAME.to_owned(), name.to_owned());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    if service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None") {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    ObjectMeta {
        generate_name: Some(format!("{name}-")),
        namespace: service.metadata.namespace.clone(),
        labels: Some(labels),
        owner_references: Some(vec![meta::owner_reference(service, true)]),
        ..Default::default()
    }
}

/// Whether a slice has the labels of its service. The reserved ones alone are no reason to write.
fn same_labels(present: &ObjectMeta, wanted: &BTreeMap<String, String>) -> bool {
    let given = |(label, _): &(&String, &String)| !RESERVED.contains(&label.as_str());
    present.labels.iter().flatten().filter(given).eq(wanted.iter().filter(given))
}

fn note_trigger(slice: &mut ObjectMeta, trigger: Option<Timestamp>) {
    let mut annotations = slice.annotations.take().unwrap_or_default();
    match trigger {
        Some(time) => drop(annotations.insert(TRIGGER_TIME.to_owned(), time.to_string())),
        None => drop(annotations.remove(TRIGGER_TIME)),
    }
    slice.annotations = Some(annotations).filter(|annotations| !annotations.is_empty());
}

/// Whether an endpoint is as it should be, but for the version of its pod, which others may have written.
fn same_endpoint(present: &Endpoint, wanted: &Endpoint) -> bool {
    let without_version = || {
        let mut present = present.clone();
        present.target_ref.as_mut()?.resource_version.take()?;
        Some(present)
    };
    present == wanted || without_version().as_ref() == Some(wanted)
}

/// Whether ports are the same; their order does not matter.
fn same_ports(one: &[EndpointPort], other: &[EndpointPort]) -> bool {
    fn sorted(ports: &[EndpointPort]) -> Vec<impl Ord + '_> {
        let mut keys: Vec<_> =
            ports.iter().map(|port| (&port.name, port.port, &port.protocol, &port.app_protocol)).collect();
        keys.sort();
        keys
    }
    one.len() == other.len() && (one == other || sorted(one) == sorted(other))
}

/// What makes two endpoints the same one: the names and identities of their pods, and their addresses.
type Identity<'a> = (Option<&'a str>, Option<&'a str>, &'a [String]);

fn identity(endpoint: &Endpoint) -> Identity<'_> {
    let target = endpoint.target_ref.as_ref();
    let name = target.and_then(|target| target.name.as_deref());
    (name, target.and_then(|target| target.uid.as_deref()), &endpoint.addresses)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{
        api::core::v1::{Container, ContainerPort, PodIP, PodSpec, ServicePort, ServiceSpec},
        apimachinery::pkg::util::intstr::IntOrString,
    };
    use proptest::prelude::*;

    use super::*;
    use crate::pods::fixtures::{at, running};

    fn service() -> Service {
        let port = ServicePort {
            name: Some("http".to_owned()),
            port: 80,
            target_port: Some(IntOrString::String("web".to_owned())),
            ..Default::default()
        };
        let spec = ServiceSpec {
            selector: Some([("app".to_owned(), "a".to_owned())].into()),
            ports: Some(vec![port]),
            ..Default::default()
        };
        let mut service = Service { spec: Some(spec), ..Default::default() };
        service.metadata.name = Some("svc".to_owned());
        service.metadata.uid = Some("svc-uid".to_owned());
        service
    }

    fn pod(number: usize, ready: bool, web: i32) -> Arc<Pod> {
        let mut pod = running(&format!("p{number:04}"), ready.then_some(1));
        let address = format!("10.0.{}.{}", number / 250, number % 250 + 1);
        pod.status.get_or_insert_default().pod_ips = Some(vec![PodIP { ip: address }]);
        let port = ContainerPort { name: Some("web".to_owned()), container_port: web, ..Default::default() };
        let container = Container { ports: Some(vec![port]), ..Default::default() };
        pod.spec =
            Some(PodSpec { containers: vec![container], node_name: Some("n1".to_owned()), ..Default::default() });
        Arc::new(pod)
    }

    fn decided(pods: &[Arc<Pod>], slices: &[Arc<EndpointSlice>]) -> Decision {
        decided_for(&service(), pods, slices)
    }

    fn decided_for(service: &Service, pods: &[Arc<Pod>], slices: &[Arc<EndpointSlice>]) -> Decision {
        let zones = [("n1".to_owned(), Some("z".to_owned()))].into();
        decide(Observed { service, pods, slices, zones: &zones, trigger: None })
    }

    /// What the server holds after a decision.
    fn applied(slices: &[Arc<EndpointSlice>], decision: Decision, names: &mut u32) -> Vec<Arc<EndpointSlice>> {
        let name = |slice: &EndpointSlice| slice.metadata.name.clone();
        let replaced = |slice: &EndpointSlice| decision.replace.iter().any(|new| name(new) == name(slice));
        let deleted = |slice: &EndpointSlice| decision.delete.contains(&name(slice).unwrap());
        let mut after: Vec<_> = slices.iter().filter(|slice| !replaced(slice) && !deleted(slice)).cloned().collect();
        after.extend(decision.replace.iter().cloned().map(Arc::new));
        for mut new in decision.create {
            *names += 1;
            new.metadata.name = Some(format!("svc-{names}"));
            after.push(Arc::new(new));
        }
        after
    }

    #[test]
    fn an_endpoint_is_as_upstream_writes_it() {
        let decision = decided(&[pod(0, true, 8080), pod(1, false, 8080)], &[]);
        let [slice] = decision.create.as_slice() else { panic!("{decision:?}") };
        assert_eq!(slice.metadata.generate_name.as_deref(), Some("svc-"));
        assert_eq!(meta::label(&slice.metadata, MANAGED_BY), Some("endpointslice-controller.k8s.io"));
        assert_eq!(meta::label(&slice.metadata, HEADLESS), None);
        let port = &slice.ports.as_ref().unwrap()[0];
        assert_eq!(
            (port.name.as_deref(), port.port, port.protocol.as_deref()),
            (Some("http"), Some(8080), Some("TCP"))
        );
        let [ready, unready] = slice.endpoints.as_deref().unwrap() else { panic!("{slice:?}") };
        let conditions = |endpoint: &Endpoint| {
            let conditions = endpoint.conditions.clone().unwrap();
            (conditions.ready, conditions.serving, conditions.terminating)
        };
        assert_eq!(conditions(ready), (Some(true), Some(true), Some(false)));
        assert_eq!(conditions(unready), (Some(false), Some(false), Some(false)));
        assert_eq!((ready.node_name.as_deref(), ready.zone.as_deref()), (Some("n1"), Some("z")));
    }

    #[test]
    fn no_endpoints_leave_one_empty_slice() {
        let mut names = 0;
        let first = applied(&[], decided(&[pod(0, true, 1)], &[]), &mut names);
        let empty = applied(&first, decided(&[], &first), &mut names);
        assert_eq!(empty.len(), 1);
        assert_eq!((&empty[0].endpoints, &empty[0].ports, &empty[0].metadata.annotations), (&None, &None, &None));
        assert_eq!(decided(&[], &empty), Decision::default());
    }

    #[test]
    fn what_is_made_takes_the_place_of_what_goes() {
        let mut names = 0;
        let first = applied(&[], decided(&[pod(0, true, 1)], &[]), &mut names);
        for pods in [vec![pod(0, true, 2)], vec![pod(1, true, 1)], Vec::new()] {
            let decision = decided(&pods, &first);
            assert_eq!((decision.create.len(), decision.replace.len(), decision.delete.len()), (0, 1, 0));
            assert_eq!(decision.replace[0].metadata.name, first[0].metadata.name);
        }
    }

    #[test]
    fn slices_of_an_earlier_service_go() {
        let first = applied(&[], decided(&[pod(0, true, 1)], &[]), &mut 0);
        let mut later = service();
        later.metadata.uid = Some("later".to_owned());
        let decision = decided_for(&later, &[pod(0, true, 1)], &first);
        assert_eq!((decision.create.len(), decision.delete), (1, vec!["svc-1".to_owned()]));
    }

    #[test]
    fn a_service_that_goes_gets_no_new_slices() {
        let first = applied(&[], decided(&[pod(0, true, 1)], &[]), &mut 0);
        let mut going = service();
        going.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(0)));
        assert_eq!(decided_for(&going, &[pod(0, true, 1)], &[]), Decision::default());
        assert_eq!(decided_for(&going, &[pod(0, false, 1)], &first).replace.len(), 1);
    }

    #[test]
    fn a_pod_on_a_node_that_is_gone_is_no_endpoint() {
        let mut gone = Pod::clone(&pod(0, true, 1));
        gone.spec.as_mut().unwrap().node_name = Some("gone".to_owned());
        let pods = [Arc::new(gone)];
        assert_eq!(decided(&pods, &[]).create[0].endpoints, None);
        let mut service = service();
        service.spec.as_mut().unwrap().publish_not_ready_addresses = Some(true);
        assert_eq!(decided_for(&service, &pods, &[]).create[0].endpoints.as_ref().map(Vec::len), Some(1));
    }

    #[test]
    fn traffic_is_distributed_by_hints() {
        let mut names = 0;
        let pods = [pod(0, true, 1), pod(1, false, 1)];
        let mut slices = applied(&[], decided(&pods, &[]), &mut names);
        let mut service = service();
        for (distribution, zones, nodes) in
            [("PreferClose", Some("z"), None), ("PreferSameNode", Some("z"), Some("n1")), ("Other", None, None)]
        {
            service.spec.as_mut().unwrap().traffic_distribution = Some(distribution.to_owned());
            slices = applied(&slices, decided_for(&service, &pods, &slices), &mut names);
            let [ready, unready] = slices[0].endpoints.as_deref().unwrap() else { panic!("{slices:?}") };
            let hints = ready.hints.clone().unwrap_or_default();
            let zone = hints.for_zones.as_ref().map(|zones| zones[0].name.as_str());
            let node = hints.for_nodes.as_ref().map(|nodes| nodes[0].name.as_str());
            assert_eq!((zone, node, &unready.hints), (zones, nodes, &None), "{distribution}");
        }
    }

    #[test]
    fn the_time_of_the_change_is_noted_on_what_is_written() {
        let zones = [("n1".to_owned(), None)].into();
        let (service, pods) = (service(), [pod(0, true, 1)]);
        let decided = |slices: &[Arc<EndpointSlice>], pods: &[Arc<Pod>], trigger| {
            decide(Observed { service: &service, pods, slices, zones: &zones, trigger })
        };
        let first = applied(&[], decided(&[], &pods, Some(at(7))), &mut 0);
        assert_eq!(meta::annotation(&first[0].metadata, TRIGGER_TIME), Some("2026-01-01T00:00:07Z"));
        assert_eq!(decided(&first, &pods, Some(at(8))), Decision::default());
        let changed = decided(&first, &[pods[0].clone(), pod(1, true, 1)], None);
        assert_eq!(changed.replace[0].metadata.annotations, None);
    }

    #[test]
    fn different_numbers_of_a_named_port_are_different_slices() {
        assert_eq!(decided(&[pod(0, true, 1), pod(1, true, 2)], &[]).create.len(), 2);
    }

    proptest! {
        #[test]
        fn slices_hold_exactly_the_pods_whatever_came_before(
            steps in prop::collection::vec((0..320_usize, 0..320_usize, any::<bool>()), 1..6),
        ) {
            let (mut slices, mut names) = (Vec::new(), 0);
            for (from, to, ready) in steps {
                let pods: Vec<_> = (from.min(to)..from.max(to)).map(|number| pod(number, ready, 80)).collect();
                slices = applied(&slices, decided(&pods, &slices), &mut names);
                prop_assert_eq!(decided(&pods, &slices), Decision::default(), "settled after one step");
                let mut held: Vec<String> = slices
                    .iter()
                    .flat_map(|slice| slice.endpoints.iter().flatten())
                    .map(|endpoint| endpoint.target_ref.clone().unwrap().name.unwrap())
                    .collect();
                held.sort();
                let wanted: Vec<String> = pods.iter().map(|pod| pod.metadata.name.clone().unwrap()).collect();
                prop_assert_eq!(held, wanted);
                prop_assert!(!slices.is_empty());
                for slice in &slices {
                    prop_assert!(slice.endpoints.iter().flatten().count() <= limits::ENDPOINTS_PER_SLICE);
                }
            }
        }
    }
}
