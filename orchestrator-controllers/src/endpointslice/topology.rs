//! Hints that follow the sizes of zones, where a service asks for them by annotation.
//!
//! Upstream: `k8s.io/endpointslice/topologycache`.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::{
    core::v1::{Node, Service},
    discovery::v1::{Endpoint, EndpointHints, EndpointSlice, ForZone},
};
use orchestrator_core::{meta, quantity::Quantity};

use super::zone_of;

/// How much more than its part a zone may have to bear.
const OVERLOAD: f64 = 0.2;

/// What part of the CPU of all nodes each zone has.
pub(super) type Ratios = BTreeMap<String, f64>;

/// Whether a service asks by annotation for hints that follow the sizes of zones.
pub(super) fn is_topology_aware(service: &Service) -> bool {
    let annotation = |name| meta::annotation(&service.metadata, name);
    let mode = annotation("service.kubernetes.io/topology-aware-hints");
    matches!(mode.or_else(|| annotation("service.kubernetes.io/topology-mode")), Some("Auto" | "auto"))
}

/// The parts of the zones; nothing where they are not known of all nodes, or where there is only one zone.
pub(super) fn ratios(nodes: &[Arc<Node>]) -> Option<Ratios> {
    let mut sizes: BTreeMap<String, f64> = BTreeMap::new();
    for node in nodes.iter().filter(|node| counts(node)) {
        let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref()?.get("cpu"));
        let cpu = allocatable.and_then(|cpu| Quantity::try_from(cpu).ok()).filter(|cpu| !cpu.is_zero())?;
        *sizes.entry(zone_of(node)?).or_default() += cpu.milli_value() as f64;
    }
    let total: f64 = sizes.values().sum();
    (sizes.len() > 1).then(|| sizes.into_iter().map(|(zone, size)| (zone, size / total)).collect())
}

fn counts(node: &Node) -> bool {
    let is_special = |role: &str| meta::label(&node.metadata, role).is_some();
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    !is_special("node-role.kubernetes.io/control-plane")
        && !is_special("node-role.kubernetes.io/master")
        && meta::is_condition_true(conditions, "Ready")
}

/// Gives hints to the endpoints of slices that are written anyway, and of those whose hints cannot stay. `Err`: why no
/// endpoint has any.
pub(super) fn give_hints(
    create: &mut Vec<EndpointSlice>,
    replace: &mut Vec<EndpointSlice>,
    unchanged: &[Arc<EndpointSlice>],
    ratios: Option<&Ratios>,
) -> Result<(), String> {
    let (mut created, mut replaced) = (create.clone(), replace.clone());
    match distribute(&mut created, &mut replaced, unchanged, ratios) {
        Ok(()) => {
            (*create, *replace) = (created, replaced);
            Ok(())
        }
        Err(why) => {
            let hinted = |slice: &&Arc<EndpointSlice>| slice.endpoints.iter().flatten().any(|it| it.hints.is_some());
            replace.extend(unchanged.iter().filter(hinted).map(without_hints));
            Err(why)
        }
    }
}

/// A slice whose endpoints are for all alike.
pub(super) fn without_hints(slice: &Arc<EndpointSlice>) -> EndpointSlice {
    let mut slice = EndpointSlice::clone(slice);
    slice.endpoints.iter_mut().flatten().for_each(|endpoint| endpoint.hints = None);
    slice
}

fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) == Some(true)
}

fn ready(slice: &EndpointSlice) -> impl Iterator<Item = &Endpoint> {
    slice.endpoints.iter().flatten().filter(|endpoint| is_ready(endpoint))
}

/// How many endpoints a zone gets.
#[derive(Clone, Copy, Debug)]
struct Allocation {
    most: usize,
    desired: f64,
}

fn allocations(ratios: Option<&Ratios>, endpoints: usize) -> Result<BTreeMap<String, Allocation>, String> {
    let Some(ratios) = ratios else {
        let message =
            "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes".to_owned();
        return Err(message);
    };
    let counted = |what: &str| format!("{what} ({endpoints} endpoints, {} zones)", ratios.len());
    if ratios.len() > endpoints {
        return Err(counted("Insufficient number of endpoints"));
    }
    let desired = |ratio: f64| ratio * endpoints as f64;
    let least = |ratio: f64| (desired(ratio) * (1.0 / (1.0 + OVERLOAD))).ceil() as usize;
    let total: usize = ratios.values().map(|ratio| least(*ratio)).sum();
    let spare = endpoints.checked_sub(total).ok_or_else(|| {
        counted("Unable to allocate minimum required endpoints to each zone without exceeding overload threshold")
    })?;
    let allocation =
        |ratio: f64| Allocation { most: least(ratio) + spare, desired: desired(ratio).max(least(ratio) as f64) };
    Ok(ratios.iter().map(|(zone, ratio)| (zone.clone(), allocation(*ratio))).collect())
}

fn distribute(
    create: &mut [EndpointSlice],
    replace: &mut Vec<EndpointSlice>,
    unchanged: &[Arc<EndpointSlice>],
    ratios: Option<&Ratios>,
) -> Result<(), String> {
    let all = create.iter().chain(&*replace).chain(unchanged.iter().map(|slice| &**slice));
    let allocations = allocations(ratios, all.flat_map(ready).count())?;
    let mut allocated: BTreeMap<String, usize> = BTreeMap::new();
    for slice in unchanged {
        match hints_by_zone(slice, &allocated, &allocations) {
            Some(hints) => hints.into_iter().for_each(|(zone, more)| *allocated.entry(zone).or_default() += more),
            None => replace.push(EndpointSlice::clone(slice)),
        }
    }
    let endpoints = create.iter_mut().chain(replace).flat_map(|slice| slice.endpoints.iter_mut().flatten());
    let mut endpoints: Vec<&mut Endpoint> = endpoints.filter(|endpoint| is_ready(endpoint)).collect();
    for endpoint in &mut endpoints {
        let zone = endpoint.zone.clone().filter(|zone| !zone.is_empty());
        let zone = zone.ok_or("One or more endpoints do not have a zone specified")?;
        *allocated.entry(zone.clone()).or_default() += 1;
        endpoint.hints = Some(for_zone(zone));
    }
    exchange(&mut endpoints, trades(&allocations, &allocated));
    if allocated.is_empty() { Err("No hints allocated for zones".to_owned()) } else { Ok(()) }
}

fn for_zone(name: String) -> EndpointHints {
    EndpointHints { for_zones: Some(vec![ForZone { name }]), ..Default::default() }
}

/// The hints of a slice by zone, if they can stay beside those that others have.
fn hints_by_zone(
    slice: &EndpointSlice,
    allocated: &BTreeMap<String, usize>,
    allocations: &BTreeMap<String, Allocation>,
) -> Option<BTreeMap<String, usize>> {
    let mut hints: BTreeMap<String, usize> = BTreeMap::new();
    for endpoint in ready(slice) {
        let zones = endpoint.hints.as_ref()?.for_zones.as_ref().filter(|zones| !zones.is_empty())?;
        zones.iter().for_each(|zone| *hints.entry(zone.name.clone()).or_default() += 1);
    }
    let fits = |(zone, more): (&String, &usize)| {
        let most = allocations.get(zone).map(|allocation| allocation.most);
        most.is_some_and(|most| more + allocated.get(zone).copied().unwrap_or(0) <= most)
    };
    hints.iter().all(fits).then_some(hints)
}

/// How many endpoints zones give to others, and get from them.
type Trades = [BTreeMap<String, usize>; 2];

fn trades(allocations: &BTreeMap<String, Allocation>, allocated: &BTreeMap<String, usize>) -> Trades {
    let (mut too_many, mut too_few): (BTreeMap<&str, f64>, BTreeMap<&str, f64>) = Default::default();
    for (zone, allocation) in allocations {
        let more = allocated.get(zone).copied().unwrap_or(0) as f64 - allocation.desired;
        if more > 0.0 {
            too_many.insert(zone, more);
        } else if more < 0.0 {
            too_few.insert(zone, -more);
        }
    }
    let most = |zones: &BTreeMap<&str, f64>| {
        let zones = zones.iter().filter(|(_, number)| **number > 0.0);
        zones.max_by(|a, b| a.1.total_cmp(b.1)).map(|(zone, number)| ((*zone).to_owned(), *number))
    };
    let mut trades = Trades::default();
    while let (Some((giver, give)), Some((taker, take))) = (most(&too_many), most(&too_few)) {
        if (give < 1.0 && take < 1.0) || give < 0.5 || take < 0.5 {
            break;
        }
        too_many.get_mut(&*giver).into_iter().for_each(|left| *left -= 1.0);
        too_few.get_mut(&*taker).into_iter().for_each(|left| *left -= 1.0);
        *trades[0].entry(giver).or_default() += 1;
        *trades[1].entry(taker).or_default() += 1;
    }
    trades
}

/// Endpoints of zones that have too many are meant for those that have too few.
fn exchange(endpoints: &mut [&mut Endpoint], [mut giving, mut receiving]: Trades) {
    for endpoint in endpoints {
        let giver = endpoint.zone.as_ref().and_then(|zone| giving.get_mut(zone)).filter(|left| **left > 0);
        let taker = receiving.iter_mut().find(|(_, left)| **left > 0);
        if let (Some(give), Some((zone, take))) = (giver, taker) {
            endpoint.hints = Some(for_zone(zone.clone()));
            *give -= 1;
            *take -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(zone: Option<&str>, cpu: &str) -> Arc<Node> {
        let labels = zone.map(|zone| json!({"topology.kubernetes.io/zone": zone}));
        let tree = json!({
            "metadata": {"labels": labels},
            "status": {"allocatable": {"cpu": cpu}, "conditions": [{"type": "Ready", "status": "True"}]},
        });
        Arc::new(serde_json::from_value(tree).unwrap())
    }

    fn slice(zones: &[&str]) -> EndpointSlice {
        let endpoint = |zone: &&str| json!({"addresses": ["10.0.0.1"], "conditions": {"ready": true}, "zone": zone});
        let endpoints: Vec<_> = zones.iter().map(endpoint).collect();
        serde_json::from_value(json!({"metadata": {}, "addressType": "IPv4", "endpoints": endpoints})).unwrap()
    }

    fn hints(slice: &EndpointSlice) -> String {
        let hint = |endpoint: &Endpoint| endpoint.hints.as_ref().unwrap().for_zones.as_ref().unwrap()[0].name.clone();
        slice.endpoints.iter().flatten().map(hint).collect()
    }

    #[test]
    fn zones_are_as_large_as_their_nodes() {
        let nodes = [node(Some("a"), "1"), node(Some("a"), "2"), node(Some("b"), "1")];
        assert_eq!(ratios(&nodes).unwrap(), [("a".to_owned(), 0.75), ("b".to_owned(), 0.25)].into());
        assert_eq!(ratios(&nodes[..2]), None, "there is one zone");
        assert_eq!(ratios(&[node(Some("a"), "1"), node(Some("b"), "1"), node(None, "1")]), None);
    }

    #[test]
    fn endpoints_are_meant_for_zones_by_their_sizes() {
        let ratios: Ratios = [("a".to_owned(), 0.5), ("b".to_owned(), 0.5)].into();
        let give = |create: &mut Vec<EndpointSlice>, unchanged: &[Arc<EndpointSlice>], ratios| {
            let mut replace = Vec::new();
            (give_hints(create, &mut replace, unchanged, ratios), replace)
        };
        let mut create = vec![slice(&["a", "a", "a", "b"])];
        assert_eq!(give(&mut create, &[], Some(&ratios)), (Ok(()), Vec::new()));
        assert_eq!(hints(&create[0]), "baab");
        let settled = Arc::new(create[0].clone());
        assert_eq!(give(&mut Vec::new(), std::slice::from_ref(&settled), Some(&ratios)), (Ok(()), Vec::new()));
        let unhinted = Arc::new(slice(&["a", "b"]));
        let (result, replace) = give(&mut Vec::new(), &[unhinted], Some(&ratios));
        assert_eq!((result, hints(&replace[0]).as_str()), (Ok(()), "ab"));
        let why = "Insufficient number of endpoints (1 endpoints, 2 zones)";
        assert_eq!(give(&mut vec![slice(&["a"])], &[], Some(&ratios)).0.unwrap_err(), why);
        let (result, replace) = give(&mut Vec::new(), std::slice::from_ref(&settled), None);
        assert!(result.unwrap_err().starts_with("Insufficient Node information"));
        assert_eq!(replace, [without_hints(&settled)]);
    }
}
