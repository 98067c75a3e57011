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

use super::endpoints::{Family, endpoint, ports};
use crate::{limits, pods::readiness_changed};

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
    /// Those of the service that this controller manages.
    pub(super) slices: &'a [Arc<EndpointSlice>],
    /// Zones by node.
    pub(super) zones: &'a BTreeMap<String, String>,
}

/// Whether this controller makes slices for a service.
pub(crate) fn is_selected(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    let selects = spec.and_then(|spec| spec.selector.as_ref()).is_some_and(|selector| !selector.is_empty());
    selects && spec.and_then(|spec| spec.type_.as_deref()) != Some("ExternalName")
}

/// Compares the slices of a service with those it should have.
pub(super) fn decide(observed: Observed<'_>) -> Decision {
    let mut decision = Decision::default();
    let families = Family::of(observed.service);
    for slice in observed.slices {
        if !families.iter().any(|family| family.as_str() == slice.address_type) {
            decision.delete.push(meta::name(&slice.metadata).to_owned());
        }
    }
    for family in families {
        decide_family(observed, family, &mut decision);
    }
    decision
}

fn decide_family(observed: Observed<'_>, family: Family, decision: &mut Decision) {
    let mut wanted: Vec<Wanted> = Vec::new();
    for pod in observed.pods {
        if let Some(endpoint) = endpoint(observed.service, pod, family, observed.zones) {
            let ports = ports(observed.service, pod);
            let endpoint = (endpoint, readiness_changed(pod));
            match wanted.iter_mut().find(|group| same_ports(&group.ports, &ports)) {
                Some(group) => group.endpoints.push(endpoint),
                None => wanted.push(Wanted { ports, endpoints: vec![endpoint] }),
            }
        }
    }
    let slices = observed.slices.iter().filter(|slice| slice.address_type == family.as_str());
    if wanted.is_empty() {
        return decide_empty(observed.service, family, slices, decision);
    }
    let mut present: Vec<Vec<&Arc<EndpointSlice>>> = wanted.iter().map(|_| Vec::new()).collect();
    for slice in slices {
        let ports = slice.ports.as_deref().unwrap_or_default();
        match wanted.iter().position(|group| same_ports(&group.ports, ports)) {
            Some(group) => present[group].push(slice),
            None => decision.delete.push(meta::name(&slice.metadata).to_owned()),
        }
    }
    for (group, slices) in wanted.iter().zip(present) {
        fill(observed.service, family, group, &slices, decision);
    }
}

/// A service without endpoints has one slice that says so.
fn decide_empty<'a>(
    service: &Service,
    family: Family,
    slices: impl Iterator<Item = &'a Arc<EndpointSlice>>,
    decision: &mut Decision,
) {
    let placeholder = slice(metadata(service, None), family, &[], Vec::new());
    let mut kept = false;
    for present in slices {
        let fits = present.endpoints.iter().flatten().count() == 0
            && present.ports.iter().flatten().count() == 0
            && same_metadata(&present.metadata, &placeholder.metadata);
        if fits && !kept {
            kept = true;
        } else {
            decision.delete.push(meta::name(&present.metadata).to_owned());
        }
    }
    if !kept {
        decision.create.push(placeholder);
    }
}

/// Endpoints with the same ports.
struct Wanted {
    ports: Vec<EndpointPort>,
    /// Each with the time at which its pod became ready, or ceased to be.
    endpoints: Vec<(Endpoint, Option<Timestamp>)>,
}

/// Puts the endpoints into the slices there are, and the rest into new ones.
fn fill(service: &Service, family: Family, wanted: &Wanted, slices: &[&Arc<EndpointSlice>], decision: &mut Decision) {
    let all = &wanted.endpoints;
    let mut rest: BTreeMap<Identity<'_>, usize> =
        all.iter().enumerate().map(|(index, (endpoint, _))| (identity(endpoint), index)).collect();
    // First everything stays where it is.
    let mut kept: Vec<(&Arc<EndpointSlice>, Vec<usize>)> = Vec::new();
    for present in slices {
        let mut endpoints = Vec::new();
        for endpoint in present.endpoints.iter().flatten() {
            if endpoints.len() < limits::ENDPOINTS_PER_SLICE
                && let Some(index) = rest.remove(&identity(endpoint))
            {
                endpoints.push(index);
            }
        }
        kept.push((present, endpoints));
    }
    let mut rest: Vec<usize> = rest.into_values().collect();
    let is_same = |present: &EndpointSlice, endpoints: &[usize]| {
        present.endpoints.iter().flatten().eq(endpoints.iter().map(|index| &all[*index].0))
    };
    // New ones go where something changes anyway, then into the fullest slices that have room for them all.
    for touched in [true, false] {
        let mut candidates: Vec<_> =
            kept.iter_mut().filter(|(present, endpoints)| is_same(present, endpoints) != touched).collect();
        candidates.sort_by_key(|(_, endpoints)| std::cmp::Reverse(endpoints.len()));
        for (_, endpoints) in candidates {
            let room = limits::ENDPOINTS_PER_SLICE - endpoints.len();
            if touched || rest.len() % limits::ENDPOINTS_PER_SLICE <= room {
                let taken = if touched { room } else { rest.len() % limits::ENDPOINTS_PER_SLICE };
                endpoints.extend(rest.split_off(rest.len().saturating_sub(taken.min(rest.len()))));
            }
        }
    }
    let newest = |endpoints: &[usize]| endpoints.iter().filter_map(|index| all[*index].1).max();
    let clones = |endpoints: &[usize]| endpoints.iter().map(|index| all[*index].0.clone()).collect();
    for (present, endpoints) in kept {
        if endpoints.is_empty() {
            decision.delete.push(meta::name(&present.metadata).to_owned());
            continue;
        }
        let metadata = metadata(service, newest(&endpoints));
        if !is_same(present, &endpoints) || !same_metadata(&present.metadata, &metadata) {
            let metadata = merged(&present.metadata, metadata);
            decision.replace.push(slice(metadata, family, &wanted.ports, clones(&endpoints)));
        }
    }
    for endpoints in rest.chunks(limits::ENDPOINTS_PER_SLICE) {
        let metadata = metadata(service, newest(endpoints));
        decision.create.push(slice(metadata, family, &wanted.ports, clones(endpoints)));
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

/// The metadata of a new slice.
fn metadata(service: &Service, trigger: Option<Timestamp>) -> ObjectMeta {
    let name = meta::name(&service.metadata);
    let reserved = [SERVICE_NAME, MANAGED_BY, HEADLESS];
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.retain(|label, _| !reserved.contains(&label.as_str()));
    labels.insert(SERVICE_NAME.to_owned(), name.to_owned());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    if service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None") {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    ObjectMeta {
        generate_name: Some(format!("{name}-")),
        namespace: service.metadata.namespace.clone(),
        labels: Some(labels),
        annotations: trigger.map(|time| [(TRIGGER_TIME.to_owned(), time.to_string())].into()),
        owner_references: Some(vec![meta::owner_reference(service, true)]),
        ..Default::default()
    }
}

/// Whether a slice belongs to its service as it should. The trigger time alone is no reason to write.
fn same_metadata(present: &ObjectMeta, wanted: &ObjectMeta) -> bool {
    present.labels == wanted.labels && present.owner_references == wanted.owner_references
}

/// What is there, with what this controller decides about.
fn merged(present: &ObjectMeta, wanted: ObjectMeta) -> ObjectMeta {
    let mut annotations = present.annotations.clone().unwrap_or_default();
    annotations.remove(TRIGGER_TIME);
    annotations.extend(wanted.annotations.unwrap_or_default());
    ObjectMeta {
        labels: wanted.labels,
        owner_references: wanted.owner_references,
        annotations: Some(annotations).filter(|annotations| !annotations.is_empty()),
        ..present.clone()
    }
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
    use crate::pods::fixtures::running;

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
        let zones = [("n1".to_owned(), "z".to_owned())].into();
        decide(Observed { service: &service(), pods, slices, zones: &zones })
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
