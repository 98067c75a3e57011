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

use super::{
    endpoints::{Family, Zones, endpoint, has_address, ports},
    topology::{Ratios, give_hints, is_topology_aware, without_hints},
};
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
    /// Of each family, whether endpoints have hints by the sizes of zones, or why not; nothing where they are not asked for.
    pub(super) hints: Vec<(Family, Result<(), String>)>,
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
    /// The sizes of zones, where they are known and asked for.
    pub(super) ratios: Option<&'a Ratios>,
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
        decision.hints.extend(own.hints);
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
    let is_topology_aware = is_topology_aware(service);
    let all = || observed.slices.iter().filter(|slice| slice.address_type == family.as_str());
    // Hints by the sizes of zones depend on all endpoints, and are seen to in the end.
    let slices: Vec<_> =
        all().map(|slice| if is_topology_aware { Arc::new(without_hints(slice)) } else { slice.clone() }).collect();
    let (own, foreign): (Vec<_>, Vec<_>) = slices.iter().partition(|slice| is_of(&slice.metadata, service));
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
    let hints = is_topology_aware.then(|| {
        let unchanged: Vec<_> = all().filter(|slice| changes.leaves(slice)).cloned().collect();
        let hints = give_hints(&mut changes.create, &mut changes.replace, &unchanged, observed.ratios);
        (family, hints)
    });
    Decision { hints: hints.into_iter().collect(), ..changes.into_decision(observed.trigger) }
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

    /// Whether a slice stays as it is.
    fn leaves(&self, slice: &EndpointSlice) -> bool {
        let name = &slice.metadata.name;
        self.replace.iter().all(|it| it.metadata.name != *name)
            && self.delete.iter().all(|it| it.metadata.name != *name)
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
#[path = "decide_tests.rs"]
mod tests;
