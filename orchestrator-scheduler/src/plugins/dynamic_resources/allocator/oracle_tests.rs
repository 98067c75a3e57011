//! Small cases, held against trying everything.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::plugins::dynamic_resources::claims::results;

const DRIVER: &str = "d";
/// How much of its counter a pool has, and of its memory a device that can be had in parts.
const TOTAL: u8 = 4;

#[derive(Clone, Debug)]
struct Thing {
    pool: u8,
    model: u8,
    rack: Option<u8>,
    tainted: bool,
    /// What it takes of its pool's counter.
    counter: u8,
    in_parts: bool,
    /// How much another claim has of it: nothing, the whole, or a part of this size.
    taken: Option<u8>,
}

#[derive(Clone, Debug)]
struct Ask {
    model: Option<u8>,
    /// `None` for all.
    count: Option<u8>,
    tolerates: bool,
    memory: u8,
}

#[derive(Clone, Debug)]
struct Case {
    things: Vec<Thing>,
    /// Claims, their requests, and their alternatives; whether racks must be alike or distinct.
    claims: Vec<(Vec<Vec<Ask>>, Option<bool>)>,
}

fn thing() -> impl Strategy<Value = Thing> {
    let parts = (0..2_u8, 0..2_u8, prop::option::weighted(0.8, 0..3_u8), prop::bool::weighted(0.2), 0..3_u8);
    let more = (prop::bool::weighted(0.3), prop::option::weighted(0.3, 0..3_u8));
    (parts, more).prop_map(|((pool, model, rack, tainted, counter), (in_parts, taken))| {
        let taken = taken.map(|taken| if in_parts { taken } else { 0 });
        Thing { pool, model, rack, tainted, counter, in_parts, taken }
    })
}

fn ask() -> impl Strategy<Value = Ask> {
    let count = prop::option::weighted(0.85, 1..3_u8);
    (prop::option::of(0..2_u8), count, any::<bool>(), 1..4_u8).prop_map(|(model, count, tolerates, memory)| Ask {
        model,
        count,
        tolerates,
        memory,
    })
}

fn case() -> impl Strategy<Value = Case> {
    let requests = prop::collection::vec(prop::collection::vec(ask(), 1..3), 1..3);
    let claim = (requests, prop::option::weighted(0.5, any::<bool>())).prop_map(|(mut requests, constraint)| {
        if constraint.is_some() {
            // What is wanted as a whole and breaks a constraint is an error, whatever else there is.
            requests.iter_mut().flatten().for_each(|ask| ask.count = ask.count.or(Some(1)));
        }
        (requests, constraint)
    });
    (prop::collection::vec(thing(), 0..6), prop::collection::vec(claim, 1..3))
        .prop_map(|(things, claims)| Case { things, claims })
}

fn devices(case: &Case) -> Devices {
    let mut devices = Devices::default();
    let class = json!({"metadata": {"name": "c"}, "spec": {}});
    devices.classes.insert("c".to_owned(), Arc::new(serde_json::from_value(class).unwrap()));
    for pool in 0..2_u8 {
        let of_pool = case.things.iter().enumerate().filter(|(_, thing)| thing.pool == pool);
        let written: Vec<Value> = of_pool.map(|(at, thing)| written(at, thing)).collect();
        let counters = json!([{"name": "s", "counters": {"c": {"value": TOTAL.to_string()}}}]);
        for (name, field, value) in [("counters", "sharedCounters", counters), ("devices", "devices", json!(written))] {
            let name = format!("{name}-{pool}");
            let pool = json!({"name": pool.to_string(), "generation": 1, "resourceSliceCount": 2});
            let mut spec = json!({"driver": DRIVER, "pool": pool, "allNodes": true});
            spec[field] = value;
            let slice = json!({"metadata": {"name": name}, "spec": spec});
            devices.slices.insert(name, Arc::new(serde_json::from_value(slice).unwrap()));
        }
    }
    for (at, thing) in case.things.iter().enumerate().filter(|(_, thing)| thing.taken.is_some()) {
        let mut result =
            json!({"request": "r", "driver": DRIVER, "pool": thing.pool.to_string(), "device": at.to_string()});
        if let Some(part) = thing.taken.filter(|part| *part > 0) {
            result["shareID"] = "s".into();
            result["consumedCapacity"] = json!({"m": part.to_string()});
        }
        let claim = json!({
            "metadata": {"name": at.to_string(), "uid": at.to_string()}, "spec": {"devices": {}},
            "status": {"allocation": {"devices": {"results": [result]}}},
        });
        let key = orchestrator_core::object::ObjectKey::new("", at.to_string());
        devices.set_claim(key, Some(Arc::new(serde_json::from_value(claim).unwrap())));
    }
    devices
}

fn written(at: usize, thing: &Thing) -> Value {
    let mut device = json!({
        "name": at.to_string(), "attributes": {"model": {"int": thing.model}},
        "consumesCounters": [{"counterSet": "s", "counters": {"c": {"value": thing.counter.to_string()}}}],
        "capacity": {"m": {"value": TOTAL.to_string()}}, "allowMultipleAllocations": thing.in_parts,
    });
    if let Some(rack) = thing.rack {
        device["attributes"]["rack"] = json!({"int": rack});
    }
    if thing.tainted {
        device["taints"] = json!([{"key": "k", "effect": "NoSchedule"}]);
    }
    device
}

fn claims(case: &Case) -> Vec<ResourceClaim> {
    let alternative = |(at, ask): (usize, &Ask)| {
        let mut alternative = json!({"name": at.to_string(), "deviceClassName": "c", "capacity": {"requests": {"m": ask.memory.to_string()}}});
        match ask.count {
            Some(count) => alternative["count"] = count.into(),
            None => alternative["allocationMode"] = "All".into(),
        }
        if let Some(model) = ask.model {
            let expression = format!("device.attributes['{DRIVER}'].model == {model}");
            alternative["selectors"] = json!([{"cel": {"expression": expression}}]);
        }
        if ask.tolerates {
            alternative["tolerations"] = json!([{"operator": "Exists"}]);
        }
        alternative
    };
    let request = |(at, asks): (usize, &Vec<Ask>)| json!({"name": at.to_string(), "firstAvailable": asks.iter().enumerate().map(alternative).collect::<Vec<_>>()});
    let claim = |(requests, constraint): &(Vec<Vec<Ask>>, Option<bool>)| {
        let constraints: Vec<_> = constraint
            .iter()
            .map(|alike| json!({(if *alike { "matchAttribute" } else { "distinctAttribute" }): format!("{DRIVER}/rack")}))
            .collect();
        let requests: Vec<_> = requests.iter().enumerate().map(request).collect();
        let claim =
            json!({"metadata": {"name": "c"}, "spec": {"devices": {"requests": requests, "constraints": constraints}}});
        serde_json::from_value(claim).unwrap()
    };
    case.claims.iter().map(claim).collect()
}

/// Of each claim and request: the alternative and its devices.
type Solution = Vec<Vec<(usize, Vec<usize>)>>;

fn selects(ask: &Ask, thing: &Thing) -> bool {
    ask.model.is_none_or(|model| model == thing.model)
}

/// The devices that a request for all of them means.
fn all_of(case: &Case, ask: &Ask) -> Vec<usize> {
    let is_meant = |thing: &Thing| {
        let left = TOTAL - thing.taken.filter(|_| thing.in_parts).unwrap_or(0);
        selects(ask, thing) && (!thing.in_parts || ask.memory <= left)
    };
    (0..case.things.len()).filter(|at| is_meant(&case.things[*at])).collect()
}

/// Whether all rules hold, each looked at by itself.
fn is_right(case: &Case, solution: &Solution) -> bool {
    let uses: Vec<_> = solution
        .iter()
        .enumerate()
        .flat_map(|(claim, requests)| {
            requests.iter().enumerate().flat_map(move |(request, (alternative, devices))| {
                devices.iter().map(move |device| (claim, request, *alternative, *device))
            })
        })
        .collect();
    let ask = |use_: &(usize, usize, usize, usize)| &case.claims[use_.0].0[use_.1][use_.2];
    let each_is_right = uses.iter().all(|use_| {
        let thing = &case.things[use_.3];
        selects(ask(use_), thing) && (!thing.tainted || ask(use_).tolerates) && thing.taken != Some(0)
    });
    let none_is_overdrawn = case.things.iter().enumerate().all(|(at, thing)| {
        let of_thing: Vec<_> = uses.iter().filter(|use_| use_.3 == at).collect();
        if !thing.in_parts {
            return of_thing.len() <= 1;
        }
        of_thing.iter().map(|use_| ask(use_).memory).sum::<u8>() + thing.taken.unwrap_or(0) <= TOTAL
    });
    let counters = (0..2_u8).all(|pool| {
        let new = |at: usize| uses.iter().any(|use_| use_.3 == at);
        let had = |thing: &Thing| thing.taken.is_some();
        let of_pool = || case.things.iter().enumerate().filter(|(_, thing)| thing.pool == pool);
        let taken: u8 = of_pool().filter(|(at, thing)| had(thing) || new(*at)).map(|(_, thing)| thing.counter).sum();
        // Somebody may have too much already; nobody new takes of it then.
        taken <= TOTAL || of_pool().all(|(at, thing)| !new(at) || had(thing) || thing.counter == 0)
    });
    let constraints = case.claims.iter().enumerate().all(|(claim, (_, constraint))| {
        let racks: Vec<_> = uses.iter().filter(|use_| use_.0 == claim).map(|use_| case.things[use_.3].rack).collect();
        match constraint {
            None => true,
            Some(_) if racks.iter().any(Option::is_none) => false,
            Some(true) => racks.windows(2).all(|pair| pair[0] == pair[1]),
            Some(false) => (0..racks.len()).all(|at| !racks[..at].contains(&racks[at])),
        }
    });
    let counts = solution.iter().zip(&case.claims).all(|(requests, (asked, _))| {
        requests.iter().zip(asked).all(|((alternative, devices), asks)| match asks[*alternative].count {
            Some(count) => devices.len() == usize::from(count),
            None => !devices.is_empty() && *devices == all_of(case, &asks[*alternative]),
        })
    });
    each_is_right && none_is_overdrawn && counters && constraints && counts
}

/// Whether there is any solution, by trying all.
fn solvable(case: &Case, so_far: &mut Solution) -> bool {
    let (claim, request) = match so_far.last() {
        Some(requests) if requests.len() < case.claims[so_far.len() - 1].0.len() => (so_far.len() - 1, requests.len()),
        _ if so_far.len() == case.claims.len() => return is_right(case, so_far),
        _ => {
            so_far.push(Vec::new());
            let solvable = solvable(case, so_far);
            so_far.pop();
            return solvable;
        }
    };
    let asks = &case.claims[claim].0[request];
    (0..asks.len()).any(|alternative| {
        let sets = 0..1_u32 << case.things.len();
        let right = |set: &u32| match asks[alternative].count {
            Some(count) => set.count_ones() == u32::from(count),
            None => all_of(case, &asks[alternative]).iter().fold(0, |all, at| all | 1 << at) == *set && *set != 0,
        };
        sets.filter(right).any(|set| {
            let devices = (0..case.things.len()).filter(|at| set & (1 << at) != 0).collect();
            so_far[claim].push((alternative, devices));
            // What is wrong already does not become right by more.
            let solvable = is_right(case, so_far) && solvable(case, so_far);
            so_far[claim].pop();
            solvable
        })
    })
}

/// What the allocator found, as a solution.
fn read(case: &Case, allocations: &[AllocationResult]) -> Solution {
    let of_claim = |(allocation, (requests, _)): (&AllocationResult, &(Vec<Vec<Ask>>, Option<bool>))| {
        let of_request = |request: usize| {
            let prefix = format!("{request}/");
            let mine = results(allocation).iter().filter(|result| result.request.starts_with(&prefix));
            let mine: Vec<(usize, usize)> = mine
                .map(|result| (result.request[prefix.len()..].parse().unwrap(), result.device.parse().unwrap()))
                .collect();
            assert!(mine.iter().all(|(alternative, _)| *alternative == mine[0].0), "one alternative only");
            let mut devices: Vec<_> = mine.iter().map(|(_, device)| *device).collect();
            devices.sort_unstable();
            (mine[0].0, devices)
        };
        (0..requests.len()).map(of_request).collect()
    };
    allocations.iter().zip(&case.claims).map(of_claim).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn an_allocation_is_found_if_and_only_if_there_is_one(case in case()) {
        let (devices, claims) = (devices(&case), claims(&case));
        let wanted: Vec<_> = claims.iter().collect();
        match Allocator::new(&devices, &wanted, ALLOCATION_STEPS).allocate(&Node::default()) {
            Ok(allocations) => prop_assert!(is_right(&case, &read(&case, &allocations))),
            Err(none) => {
                prop_assert_eq!(none, NoAllocation::TooFew);
                prop_assert!(!solvable(&case, &mut Vec::new()));
            }
        }
    }
}
