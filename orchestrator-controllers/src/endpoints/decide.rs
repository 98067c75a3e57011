//! The Endpoints that a service should have.
//!
//! Upstream: `pkg/controller/endpoint` and `pkg/api/endpoints` (`RepackSubsets`).

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service, ServicePort},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use orchestrator_core::meta;

use crate::{
    endpointslice::{
        TRIGGER_TIME,
        endpoints::{Family, address, hostname, port_number, protocol, target},
    },
    limits::ADDRESSES_PER_ENDPOINTS,
    pods::{is_deleting, is_finished, is_ready},
};

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const HEADLESS: &str = "service.kubernetes.io/headless";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const TRUNCATED: &str = "truncated";

/// Where an election is held on Endpoints, they are nobody else's.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

/// Whether this controller made the endpoints.
pub(crate) fn is_managed(endpoints: &Endpoints) -> bool {
    meta::label(&endpoints.metadata, MANAGED_BY) == Some(MANAGER)
}

/// Whether an election is held on endpoints.
pub(crate) fn is_election(endpoints: &Endpoints) -> bool {
    meta::annotation(&endpoints.metadata, LEADER).is_some()
}

/// The endpoints to write, if those that there are differ. `pods` are those that the service selects, and `trigger` is the first
/// of what has changed since the last decision.
pub(crate) fn decide(
    service: &Service,
    pods: &[Arc<Pod>],
    present: Option<&Endpoints>,
    trigger: Option<Timestamp>,
) -> Option<Endpoints> {
    let (subsets, is_truncated) = truncated(subsets(service, pods));
    let labels = labels(service);
    let is_same = |present: &Endpoints| {
        *without_versions(present.subsets.as_deref().unwrap_or_default()) == subsets
            && present.metadata.labels.as_ref() == Some(&labels)
            && meta::annotation(&present.metadata, OVER_CAPACITY) == is_truncated.then_some(TRUNCATED)
    };
    if present.is_some_and(is_same) {
        return None;
    }
    let known = present.map(|present| present.metadata.clone()).unwrap_or_default();
    let mut annotations = known.annotations.clone().unwrap_or_default();
    match trigger {
        Some(time) => drop(annotations.insert(TRIGGER_TIME.to_owned(), time.to_string())),
        None => drop(annotations.remove(TRIGGER_TIME)),
    }
    if is_truncated {
        annotations.insert(OVER_CAPACITY.to_owned(), TRUNCATED.to_owned());
    } else {
        annotations.remove(OVER_CAPACITY);
    }
    let metadata = ObjectMeta {
        name: service.metadata.name.clone(),
        namespace: service.metadata.namespace.clone(),
        labels: Some(labels),
        annotations: Some(annotations).filter(|annotations| !annotations.is_empty()),
        ..known
    };
    Some(Endpoints { metadata, subsets: Some(subsets).filter(|subsets| !subsets.is_empty()) })
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

fn is_headless(service: &Service) -> bool {
    let address = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()).unwrap_or_default();
    matches!(address, "" | "None")
}

/// Subsets without the versions of pods, which others may have written.
fn without_versions(subsets: &[EndpointSubset]) -> Cow<'_, [EndpointSubset]> {
    let all = subsets.iter().flat_map(|subset| subset.addresses.iter().chain(&subset.not_ready_addresses)).flatten();
    if all.filter_map(|address| address.target_ref.as_ref()).all(|target| target.resource_version.is_none()) {
        return Cow::Borrowed(subsets);
    }
    let mut subsets = subsets.to_vec();
    for subset in &mut subsets {
        let all = subset.addresses.iter_mut().chain(&mut subset.not_ready_addresses).flatten();
        all.filter_map(|address| address.target_ref.as_mut()).for_each(|target| target.resource_version = None);
    }
    Cow::Owned(subsets)
}

/// By their ports, the addresses that have them: ready ones and others.
type ByPorts = BTreeMap<Vec<(String, i32, String, Option<String>)>, [Vec<EndpointAddress>; 2]>;

/// The pods, those with the same ports together.
fn subsets(service: &Service, pods: &[Arc<Pod>]) -> Vec<EndpointSubset> {
    let spec = service.spec.as_ref();
    let publishes = spec.and_then(|spec| spec.publish_not_ready_addresses) == Some(true);
    let ports = spec.and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let family = Family::of(service).first().copied().unwrap_or(Family::V4);
    let mut by_ports = ByPorts::new();
    for pod in pods.iter().filter(|pod| !is_finished(pod) && (publishes || !is_deleting(pod))) {
        let Some(ip) = address(pod, family) else { continue };
        let resolved: Vec<_> = ports.iter().filter_map(|port| resolve(port, pod)).collect();
        if resolved.is_empty() && !(ports.is_empty() && is_headless(service)) {
            continue;
        }
        let node_name = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).filter(|node| !node.is_empty());
        let address =
            EndpointAddress { ip, node_name, hostname: hostname(service, pod), target_ref: Some(target(pod)) };
        by_ports.entry(resolved).or_default()[usize::from(!(publishes || is_ready(pod)))].push(address);
    }
    let subset = |(ports, addresses): (Vec<_>, [Vec<EndpointAddress>; 2])| {
        let [ready, unready] = addresses.map(|mut addresses| {
            addresses.sort_by(|a, b| uid(a).cmp(&uid(b)));
            Some(addresses).filter(|addresses| !addresses.is_empty())
        });
        let ports: Vec<_> = ports.into_iter().map(port).collect();
        EndpointSubset {
            addresses: ready,
            not_ready_addresses: unready,
            ports: Some(ports).filter(|ports| !ports.is_empty()),
        }
    };
    by_ports.into_iter().map(subset).collect()
}

fn uid(address: &EndpointAddress) -> (&str, Option<&str>) {
    (&address.ip, address.target_ref.as_ref().and_then(|target| target.uid.as_deref()))
}

fn resolve(port: &ServicePort, pod: &Pod) -> Option<(String, i32, String, Option<String>)> {
    let number = port_number(port, pod)?;
    let name = port.name.clone().unwrap_or_default();
    Some((name, number, protocol(port.protocol.as_ref()).to_owned(), port.app_protocol.clone()))
}

fn port((name, port, protocol, app_protocol): (String, i32, String, Option<String>)) -> EndpointPort {
    EndpointPort { name: Some(name).filter(|name| !name.is_empty()), port, protocol: Some(protocol), app_protocol }
}

/// At most so many addresses, the ready ones first, shared among the subsets by their sizes.
fn truncated(mut subsets: Vec<EndpointSubset>) -> (Vec<EndpointSubset>, bool) {
    let of = |addresses: &Option<Vec<EndpointAddress>>| addresses.as_ref().map_or(0, Vec::len);
    let ready: usize = subsets.iter().map(|subset| of(&subset.addresses)).sum();
    let unready: usize = subsets.iter().map(|subset| of(&subset.not_ready_addresses)).sum();
    if ready + unready <= ADDRESSES_PER_ENDPOINTS {
        return (subsets, false);
    }
    let most_ready = ready.min(ADDRESSES_PER_ENDPOINTS);
    let (mut ready_left, mut unready_left) = (most_ready, ADDRESSES_PER_ENDPOINTS - most_ready);
    for subset in &mut subsets {
        cut(&mut subset.addresses, most_ready, ready, &mut ready_left);
        cut(&mut subset.not_ready_addresses, ADDRESSES_PER_ENDPOINTS - most_ready, unready, &mut unready_left);
    }
    subsets.retain(|subset| of(&subset.addresses) + of(&subset.not_ready_addresses) > 0);
    (subsets, true)
}

/// Leaves a subset its share of `most` out of `total`, as far as there is something left.
fn cut(addresses: &mut Option<Vec<EndpointAddress>>, most: usize, total: usize, left: &mut usize) {
    if let Some(addresses) = addresses {
        let share = (addresses.len() * most).div_ceil(total.max(1)).min(*left);
        addresses.truncate(share);
        *left -= addresses.len();
    }
    addresses.take_if(|addresses| addresses.is_empty());
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::pods::fixtures::{at, running};

    fn service(headless: bool) -> Service {
        let ports = json!([{"name": "http", "port": 80, "targetPort": "web"}, {"port": 53, "protocol": "UDP"}]);
        let address = if headless { "None" } else { "10.0.0.1" };
        serde_json::from_value(json!({
            "metadata": {"name": "svc", "namespace": "default", "labels": {"l": "v"}},
            "spec": {"selector": {"app": "a"}, "clusterIP": address, "ports": ports},
        }))
        .unwrap()
    }

    fn pod(number: usize, ready: bool, port: i32) -> Arc<Pod> {
        let mut pod = running(&format!("p{number}"), ready.then_some(0));
        let status = pod.status.as_mut().unwrap();
        status.pod_ip = Some(format!("10.1.{}.{}", number / 250, number % 250));
        let tree = json!({"containers": [{"name": "c", "ports": [{"name": "web", "containerPort": port}]}]});
        pod.spec = serde_json::from_value(tree).unwrap();
        Arc::new(pod)
    }

    fn addresses(endpoints: &Endpoints) -> (usize, usize) {
        let subsets = endpoints.subsets.as_deref().unwrap_or_default();
        let of = |addresses: &Option<Vec<EndpointAddress>>| addresses.as_ref().map_or(0, Vec::len);
        subsets.iter().fold((0, 0), |(ready, unready), subset| {
            (ready + of(&subset.addresses), unready + of(&subset.not_ready_addresses))
        })
    }

    #[test]
    fn pods_with_the_same_ports_stand_together() {
        let pods = [pod(1, true, 8080), pod(2, false, 8080), pod(3, true, 9090)];
        let made = decide(&service(false), &pods, None, Some(at(0))).unwrap();
        let subsets = made.subsets.as_ref().unwrap();
        let ports: Vec<Vec<i32>> =
            subsets.iter().map(|subset| subset.ports.iter().flatten().map(|port| port.port).collect()).collect();
        assert_eq!(ports, [vec![8080, 53], vec![9090, 53]]);
        assert_eq!(addresses(&made), (2, 1));
        assert!(is_managed(&made) && meta::label(&made.metadata, "l") == Some("v"));
        assert_eq!(meta::annotation(&made.metadata, TRIGGER_TIME), Some("2026-01-01T00:00:00Z"));
        assert_eq!(decide(&service(false), &pods, Some(&made), None), None);
        let gone = decide(&service(false), &[], Some(&made), None).unwrap();
        assert_eq!((gone.subsets, gone.metadata.annotations), (None, None));
    }

    #[test]
    fn a_service_without_ports_needs_to_be_headless() {
        for (headless, expected) in [(true, (1, 0)), (false, (0, 0))] {
            let mut service = service(headless);
            service.spec.as_mut().unwrap().ports = None;
            let made = decide(&service, &[pod(1, true, 1)], None, None).unwrap();
            assert_eq!(addresses(&made), expected);
            assert_eq!(meta::label(&made.metadata, HEADLESS), headless.then_some(""));
        }
    }

    #[test]
    fn unready_and_leaving_pods_are_published_on_demand() {
        let mut service = service(false);
        let mut leaving = Pod::clone(&pod(2, false, 1));
        leaving.metadata.deletion_timestamp = leaving.metadata.creation_timestamp.clone();
        let pods = [pod(1, false, 1), Arc::new(leaving)];
        assert_eq!(addresses(&decide(&service, &pods, None, None).unwrap()), (0, 1));
        service.spec.as_mut().unwrap().publish_not_ready_addresses = Some(true);
        assert_eq!(addresses(&decide(&service, &pods, None, None).unwrap()), (2, 0));
    }

    #[test]
    fn a_port_without_its_container_port_is_left_out() {
        let mut service = service(false);
        service.spec.as_mut().unwrap().ports.as_mut().unwrap()[0].target_port =
            Some(IntOrString::String("other".to_owned()));
        let made = decide(&service, &[pod(1, true, 1)], None, None).unwrap();
        assert_eq!(made.subsets.unwrap()[0].ports.as_ref().unwrap().len(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn no_more_addresses_than_fit_and_ready_ones_first(ready in 0..1100_usize, unready in 0..200_usize) {
            let pods: Vec<_> = (0..ready + unready).map(|number| pod(number, number < ready, 1 + (number % 2) as i32)).collect();
            let made = decide(&service(false), &pods, None, Some(at(0))).unwrap();
            let most = ADDRESSES_PER_ENDPOINTS;
            let (found_ready, found_unready) = addresses(&made);
            prop_assert_eq!(found_ready, ready.min(most));
            prop_assert_eq!(found_unready, unready.min(most - ready.min(most)));
            let is_truncated = meta::annotation(&made.metadata, OVER_CAPACITY).is_some();
            prop_assert_eq!(is_truncated, ready + unready > most);
            prop_assert_eq!(decide(&service(false), &pods, Some(&made), None), None);
        }
    }
}
