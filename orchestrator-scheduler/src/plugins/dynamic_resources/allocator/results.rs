//! What claims get, as it is written into their status.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Consumed,
    pools::PoolDevice,
    requests::{Request, Wanted, devices_of, requests_of},
};
use k8s_openapi::api::{
    core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm},
    resource::v1::{
        AllocationResult, DeviceAllocationConfiguration, DeviceAllocationResult, DeviceRequestAllocationResult,
    },
};

/// A device that was chosen for a request.
pub(super) struct Given<'p, 'a> {
    pub(super) request: usize,
    pub(super) alternative: usize,
    pub(super) device: &'p PoolDevice<'a>,
    /// What it takes of the device, where that can be had in parts.
    pub(super) part: Option<Consumed>,
}

/// What a claim gets on a node. `chosen` are the alternatives of its requests. Parts of devices have no IDs yet.
pub(super) fn allocation(
    wanted: &Wanted<'_>,
    chosen: &[usize],
    given: &[Given<'_, '_>],
    node: &str,
) -> Result<AllocationResult, String> {
    let results: Vec<_> = given.iter().map(|given| result(wanted, given)).collect();
    let config = configuration(wanted, chosen);
    let devices = DeviceAllocationResult {
        config: (!config.is_empty()).then_some(config),
        results: (!results.is_empty()).then_some(results),
    };
    let node_selector = node_selector(given, node).map_err(|error| {
        let name = wanted.claim.metadata.name.as_deref().unwrap_or_default();
        format!("create NodeSelector for claim {name}: {error}")
    })?;
    Ok(AllocationResult { allocation_timestamp: None, devices: Some(devices), node_selector })
}

fn result(wanted: &Wanted<'_>, given: &Given<'_, '_>) -> DeviceRequestAllocationResult {
    let request = &wanted.requests[given.request];
    let alternative = &request.alternatives[given.alternative];
    let (id, device) = (given.device.id(), given.device.device);
    let consumed = given.part.as_ref().filter(|part| !part.is_empty());
    DeviceRequestAllocationResult {
        admin_access: alternative.admin_access.then_some(true),
        binding_conditions: device.binding_conditions.clone().filter(|conditions| !conditions.is_empty()),
        binding_failure_conditions: device.binding_failure_conditions.clone().filter(|them| !them.is_empty()),
        consumed_capacity: consumed
            .map(|part| part.iter().map(|(name, amount)| (name.clone(), amount.into())).collect()),
        device: id.device,
        driver: id.driver,
        pool: id.pool,
        request: alternative.full_name(request),
        share_id: given.part.is_some().then(String::new),
        tolerations: (!alternative.tolerations.is_empty()).then(|| alternative.tolerations.to_vec()),
    }
}

/// First what the classes say, each once, then what the claim says. What is about all requests names none.
fn configuration(wanted: &Wanted<'_>, chosen: &[usize]) -> Vec<DeviceAllocationConfiguration> {
    let mut all: Vec<DeviceAllocationConfiguration> = Vec::new();
    let mut of_classes: BTreeMap<&str, std::ops::Range<usize>> = BTreeMap::new();
    for (request, chosen) in wanted.requests.iter().zip(chosen) {
        let alternative = &request.alternatives[*chosen];
        let (class, name) = (alternative.class, alternative.full_name(request));
        let class_name = class.metadata.name.as_deref().unwrap_or_default();
        if let Some(range) = of_classes.get(class_name) {
            all[range.clone()].iter_mut().for_each(|config| config.requests.get_or_insert_default().push(name.clone()));
            continue;
        }
        let start = all.len();
        all.extend(class.spec.config.iter().flatten().map(|config| DeviceAllocationConfiguration {
            opaque: config.opaque.clone(),
            requests: Some(vec![name.clone()]),
            source: "FromClass".to_owned(),
        }));
        of_classes.insert(class_name, start..all.len());
    }
    let of_claim = devices_of(wanted.claim).and_then(|devices| devices.config.as_deref()).unwrap_or_default();
    for config in of_claim {
        let requests = config.requests.as_deref().unwrap_or_default();
        let is_meant = |request: &Request<'_>, chosen: usize| {
            requests.iter().any(|name| name == request.name)
                || request.prioritized && requests.contains(&request.alternatives[chosen].full_name(request))
        };
        let meant = wanted.requests.iter().zip(chosen).filter(|(request, chosen)| is_meant(request, **chosen)).count();
        // Upstream writes it once for each request that it is about.
        let times = if requests.is_empty() { 1 } else { meant };
        all.extend(std::iter::repeat_n(
            DeviceAllocationConfiguration {
                opaque: config.opaque.clone(),
                requests: config.requests.clone().filter(|requests| !requests.is_empty()),
                source: "FromClaim".to_owned(),
            },
            times,
        ));
    }
    let number = requests_of(wanted.claim).len();
    for config in &mut all {
        config.requests.take_if(|requests| requests.len() == number);
    }
    all
}

/// Where the devices can be used; `None` for everywhere.
fn node_selector(given: &[Given<'_, '_>], node: &str) -> Result<Option<NodeSelector>, String> {
    let mut term = NodeSelectorTerm::default();
    for PoolDevice { device, slice, .. } in given.iter().map(|given| given.device) {
        let (name, selector) = if slice.spec.per_device_node_selection == Some(true) {
            (&device.node_name, &device.node_selector)
        } else {
            (&slice.spec.node_name, &slice.spec.node_selector)
        };
        if name.is_some() || device.binds_to_node == Some(true) {
            let only = NodeSelectorRequirement {
                key: "metadata.name".to_owned(),
                operator: "In".to_owned(),
                values: Some(vec![node.to_owned()]),
            };
            let term = NodeSelectorTerm { match_fields: Some(vec![only]), match_expressions: None };
            return Ok(Some(NodeSelector { node_selector_terms: vec![term] }));
        }
        match selector.iter().flat_map(|selector| &selector.node_selector_terms).collect::<Vec<_>>().as_slice() {
            [] => {}
            [one] => {
                add(&mut term.match_fields, &one.match_fields);
                add(&mut term.match_expressions, &one.match_expressions);
            }
            many => return Err(format!("unsupported ResourceSlice.NodeSelector with {} terms", many.len())),
        }
    }
    let is_empty = term == NodeSelectorTerm::default();
    Ok((!is_empty).then(|| NodeSelector { node_selector_terms: vec![term] }))
}

/// Adds requirements that are not there yet.
fn add(to: &mut Option<Vec<NodeSelectorRequirement>>, from: &Option<Vec<NodeSelectorRequirement>>) {
    let values = |requirement: &NodeSelectorRequirement| -> BTreeSet<String> {
        requirement.values.iter().flatten().cloned().collect()
    };
    for new in from.iter().flatten() {
        let same = |known: &NodeSelectorRequirement| {
            known.key == new.key && known.operator == new.operator && values(known) == values(new)
        };
        let known = to.get_or_insert_default();
        if !known.iter().any(same) {
            known.push(new.clone());
        }
    }
}
