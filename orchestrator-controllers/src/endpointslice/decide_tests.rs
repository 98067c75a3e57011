//! The slices of services, whatever came before.

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
    pod.spec = Some(PodSpec { containers: vec![container], node_name: Some("n1".to_owned()), ..Default::default() });
    Arc::new(pod)
}

fn decided(pods: &[Arc<Pod>], slices: &[Arc<EndpointSlice>]) -> Decision {
    decided_for(&service(), pods, slices)
}

fn decided_for(service: &Service, pods: &[Arc<Pod>], slices: &[Arc<EndpointSlice>]) -> Decision {
    let zones = [("n1".to_owned(), Some("z".to_owned()))].into();
    decide(Observed { service, pods, slices, zones: &zones, ratios: None, trigger: None })
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
    assert_eq!((port.name.as_deref(), port.port, port.protocol.as_deref()), (Some("http"), Some(8080), Some("TCP")));
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
fn hints_by_the_sizes_of_zones_settle() {
    let mut service = service();
    let mode = ("service.kubernetes.io/topology-mode".to_owned(), "Auto".to_owned());
    service.metadata.annotations = Some([mode].into());
    let zones = [("n1".to_owned(), Some("a".to_owned()))].into();
    let ratios = [("a".to_owned(), 0.5), ("b".to_owned(), 0.5)].into();
    let pods: Vec<_> = (0..4).map(|number| pod(number, true, 1)).collect();
    let decided = |slices: &[Arc<EndpointSlice>], ratios| {
        decide(Observed { service: &service, pods: &pods, slices, zones: &zones, ratios, trigger: None })
    };
    let first = decided(&[], Some(&ratios));
    assert_eq!(first.hints, [(Family::V4, Ok(()))]);
    let slices = applied(&[], first, &mut 0);
    let hints = |slice: &EndpointSlice| {
        let endpoints = slice.endpoints.iter().flatten();
        let hint = |endpoint: &Endpoint| Some(endpoint.hints.as_ref()?.for_zones.as_ref()?[0].name.clone());
        endpoints.filter_map(hint).collect::<String>()
    };
    assert_eq!(hints(&slices[0]), "bbaa");
    let again = decided(&slices, Some(&ratios));
    assert_eq!((again.create.len(), again.replace.len(), again.delete.len()), (0, 0, 0));
    let unknown = decided(&slices, None);
    assert!(unknown.hints[0].1.is_err());
    assert_eq!(hints(&unknown.replace[0]), "");
}

#[test]
fn the_time_of_the_change_is_noted_on_what_is_written() {
    let zones = [("n1".to_owned(), None)].into();
    let (service, pods) = (service(), [pod(0, true, 1)]);
    let decided = |slices: &[Arc<EndpointSlice>], pods: &[Arc<Pod>], trigger| {
        decide(Observed { service: &service, pods, slices, zones: &zones, ratios: None, trigger })
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
