//! The search for devices: one after another is tried for each request, with a way back.
//!
//! The first solution in the order of the devices is taken. Devices of one request are tried in their order only, so that
//! each set of them is tried once.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
};

use orchestrator_core::{
    quantity::Quantity,
    scheduler::{Taken, matching::TaintParts},
};

use super::{
    Allocator, Consumed, NoAllocation, capacity,
    constraints::Constraint,
    pools::{Pool, PoolDevice, PoolState},
    requests::{Alternative, Request, Wanted, devices_of},
    results::Given,
};
use crate::limits::CLAIM_DEVICES;

/// What is to be allocated on one node, on the way there.
pub(super) struct Search<'s, 'a> {
    allocator: &'s Allocator<'a>,
    pools: &'s [Pool<'a>],
    /// The devices that may be tried, and their pools.
    devices: Vec<(&'s PoolDevice<'a>, usize)>,
    /// What claims have of them, once somebody asks.
    taken: Vec<OnceCell<Option<&'a Taken>>>,
    /// By claim, request and alternative: the devices of requests for all of them.
    whole: BTreeMap<(usize, usize, usize), Vec<usize>>,
    constraints: Vec<Vec<Constraint<'a>>>,
    /// What is left of each pool's counters, once somebody asks.
    counters: BTreeMap<usize, Counters<'a>>,
    /// By device: the claims that it was chosen for as a whole.
    used: BTreeMap<usize, BTreeSet<usize>>,
    /// By device: how many parts were chosen, and what they take.
    parts: BTreeMap<usize, (usize, BTreeMap<String, Quantity>)>,
    given: Vec<Vec<Placed>>,
    /// The alternatives of the requests before the current one.
    chosen: Vec<Vec<usize>>,
}

/// What is left of counters, by set and name.
type Counters<'a> = BTreeMap<(&'a str, &'a str), Quantity>;

/// A device that was chosen.
#[derive(Clone, Debug)]
struct Placed {
    request: usize,
    alternative: usize,
    device: usize,
    part: Option<Consumed>,
    counted: bool,
}

/// Where the search is: the device of this number is wanted for this request.
#[derive(Clone, Copy, Debug)]
struct Place {
    claim: usize,
    request: usize,
    /// `None` before one is chosen.
    alternative: Option<usize>,
    number: usize,
    /// The first device to be tried.
    from: usize,
}

/// A decision that can be taken back.
enum Step {
    /// An alternative of a request.
    Alternative(Place),
    /// A device.
    Device(Place),
}

impl<'s, 'a> Search<'s, 'a> {
    /// Prepares a search. Fails where no search can help.
    pub(super) fn new(allocator: &'s Allocator<'a>, pools: &'s [Pool<'a>]) -> Result<Self, NoAllocation> {
        let usable = pools.iter().enumerate().filter(|(_, pool)| pool.state == PoolState::Usable);
        let devices = usable.flat_map(|(at, pool)| pool.devices.iter().map(move |device| (device, at)));
        let devices: Vec<_> = devices.collect();
        let claims = allocator.claims()?;
        let mut search = Self {
            allocator,
            pools,
            taken: vec![OnceCell::new(); devices.len()],
            devices,
            whole: BTreeMap::new(),
            constraints: Vec::new(),
            counters: BTreeMap::new(),
            used: BTreeMap::new(),
            parts: BTreeMap::new(),
            given: claims.iter().map(|_| Vec::new()).collect(),
            chosen: claims.iter().map(|_| Vec::new()).collect(),
        };
        for (at, wanted) in claims.iter().enumerate() {
            search.prepare(at, wanted)?;
        }
        Ok(search)
    }

    fn prepare(&mut self, claim: usize, wanted: &'s Wanted<'a>) -> Result<(), NoAllocation> {
        let mut fewest = 0;
        for (at, request) in wanted.requests.iter().enumerate() {
            let mut fewest_of_request = usize::MAX;
            for (number, alternative) in request.alternatives.iter().enumerate() {
                let count = match alternative.count {
                    Some(count) => count,
                    None => {
                        let all = self.all_devices(wanted, alternative)?;
                        let count = all.len();
                        self.whole.insert((claim, at, number), all);
                        count
                    }
                };
                fewest_of_request = fewest_of_request.min(count);
            }
            fewest = usize::saturating_add(fewest, if request.alternatives.is_empty() { 0 } else { fewest_of_request });
        }
        if fewest > CLAIM_DEVICES {
            let key = &wanted.key;
            return Err(NoAllocation::Failed(format!(
                "claim {key}: number of requested devices {fewest} exceeds the claim limit of {CLAIM_DEVICES}"
            )));
        }
        let written = devices_of(wanted.claim).and_then(|devices| devices.constraints.as_deref()).unwrap_or_default();
        let constraints = written.iter().enumerate().map(|(at, written)| {
            Constraint::new(written).ok_or_else(|| {
                let empty = "empty constraint (unsupported constraint type?)";
                NoAllocation::Failed(format!("claim {}, constraint #{at}: {empty}", wanted.key))
            })
        });
        self.constraints.push(constraints.collect::<Result<_, _>>()?);
        Ok(())
    }

    /// The devices of a request for all of them.
    fn all_devices(&self, wanted: &Wanted<'a>, alternative: &Alternative<'a>) -> Result<Vec<usize>, NoAllocation> {
        for pool in self.pools {
            let state = match pool.state {
                PoolState::Usable => continue,
                PoolState::Incomplete => "being updated",
                PoolState::Invalid => "invalid",
            };
            let (key, name) = (&wanted.key, alternative.name);
            return Err(NoAllocation::Failed(format!(
                "claim {key}, request {name}: asks for all devices, but resource pool {pool} is currently {state}"
            )));
        }
        let mut all = Vec::new();
        for (at, (device, _)) in self.devices.iter().enumerate() {
            self.allocator.spend(1)?;
            if self.allocator.is_selected(alternative, device)? && self.part_of(alternative, at).is_some() {
                all.push(at);
            }
        }
        Ok(all)
    }

    fn claim(&self, at: usize) -> &'s Wanted<'a> {
        &self.allocator.wanted()[at]
    }

    fn asked(&self, claim: usize, request: usize, alternative: usize) -> (&'s Request<'a>, &'s Alternative<'a>) {
        let request = &self.claim(claim).requests[request];
        (request, &request.alternatives[alternative])
    }

    /// Whether there is a solution; it is what was given then.
    pub(super) fn run(&mut self) -> Result<bool, NoAllocation> {
        let mut steps: Vec<Step> = Vec::new();
        let mut place = Place { claim: 0, request: 0, alternative: None, number: 0, from: 0 };
        loop {
            let went_on = match self.go_on(&mut place, &mut steps)? {
                Progress::Solved => return Ok(true),
                Progress::On => true,
                Progress::Stuck => false,
            };
            if !went_on && !self.go_back(&mut place, &mut steps)? {
                return Ok(false);
            }
        }
    }

    fn go_on(&mut self, place: &mut Place, steps: &mut Vec<Step>) -> Result<Progress, NoAllocation> {
        self.allocator.spend(1)?;
        if place.claim >= self.allocator.wanted().len() {
            return Ok(Progress::Solved);
        }
        let wanted = self.claim(place.claim);
        if place.request >= wanted.requests.len() {
            *place = Place { claim: place.claim + 1, request: 0, alternative: None, number: 0, from: 0 };
            return Ok(Progress::On);
        }
        let Some(alternative) = place.alternative else {
            if wanted.requests[place.request].alternatives.is_empty() {
                return Ok(Progress::Stuck);
            }
            steps.push(Step::Alternative(*place));
            self.chosen[place.claim].push(0);
            place.alternative = Some(0);
            return Ok(Progress::On);
        };
        let whole = self.whole.get(&(place.claim, place.request, alternative));
        let (_, asked) = self.asked(place.claim, place.request, alternative);
        let count = asked.count.or(whole.map(Vec::len)).unwrap_or(0);
        let all_of_nothing = count == 0 && whole.is_some();
        if place.number >= count && !all_of_nothing {
            *place = Place { request: place.request + 1, alternative: None, number: 0, from: 0, ..*place };
            return Ok(Progress::On);
        }
        if all_of_nothing || self.given[place.claim].len() + (count - place.number) > CLAIM_DEVICES {
            return Ok(Progress::Stuck);
        }
        self.try_devices(place, steps)
    }

    /// Takes the first device from `from` on that is right.
    fn try_devices(&mut self, place: &mut Place, steps: &mut Vec<Step>) -> Result<Progress, NoAllocation> {
        let alternative = place.alternative.unwrap_or(0);
        if let Some(whole) = self.whole.get(&(place.claim, place.request, alternative)) {
            // Their order does not matter, so there is one way only.
            let device = whole[place.number];
            let taken = place.from <= place.number && self.take(place, alternative, device, true)?;
            if taken {
                steps.push(Step::Device(Place { from: place.number + 1, ..*place }));
                *place = Place { number: place.number + 1, from: 0, ..*place };
            }
            return Ok(if taken { Progress::On } else { Progress::Stuck });
        }
        for device in place.from..self.devices.len() {
            self.allocator.spend(1)?;
            if self.take(place, alternative, device, false)? {
                steps.push(Step::Device(Place { from: device + 1, ..*place }));
                *place = Place { number: place.number + 1, from: device + 1, ..*place };
                return Ok(Progress::On);
            }
        }
        Ok(Progress::Stuck)
    }

    /// Takes back decisions until one can be made otherwise. `false` if there is none.
    fn go_back(&mut self, place: &mut Place, steps: &mut Vec<Step>) -> Result<bool, NoAllocation> {
        while let Some(step) = steps.pop() {
            self.allocator.spend(1)?;
            match step {
                Step::Device(before) => {
                    self.give_back(before.claim);
                    *place = before;
                    if self.try_devices(place, steps)? == Progress::On {
                        return Ok(true);
                    }
                }
                Step::Alternative(before) => {
                    let next = self.chosen[before.claim].pop().unwrap_or(0) + 1;
                    if next < self.claim(before.claim).requests[before.request].alternatives.len() {
                        steps.push(Step::Alternative(before));
                        self.chosen[before.claim].push(next);
                        *place = Place { alternative: Some(next), number: 0, from: 0, ..before };
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }

    /// Chooses a device if it is right. `must`: it is the only one that would do.
    fn take(&mut self, place: &Place, alternative: usize, at: usize, must: bool) -> Result<bool, NoAllocation> {
        let asked = self.asked(place.claim, place.request, alternative);
        let (device, pool) = self.devices[at];
        if !self.is_free(at, asked.1, place.claim) || !self.allocator.is_selected(asked.1, device)? {
            return Ok(false);
        }
        let Some(part) = self.part_of(asked.1, at) else { return Ok(false) };
        if asked.1.keeps_off(device) || !self.count(at, pool) {
            return Ok(false);
        }
        let counted = self.consumes(at);
        if !self.constrain(place.claim, asked, device) {
            self.uncount(at, pool, counted);
            if must {
                let (key, name) = (&self.claim(place.claim).key, asked.1.name);
                return Err(NoAllocation::Failed(format!(
                    "claim {key}, request {name}: cannot add device {} because a claim constraint would not be satisfied",
                    device.id()
                )));
            }
            return Ok(false);
        }
        if let Some(part) = &part {
            let (count, amounts) = self.parts.entry(at).or_default();
            *count += 1;
            for (name, amount) in part.iter() {
                *amounts.entry(name.clone()).or_default() += amount;
            }
        } else {
            self.used.entry(at).or_default().insert(place.claim);
        }
        let placed = Placed { request: place.request, alternative, device: at, part, counted };
        self.given[place.claim].push(placed);
        Ok(true)
    }

    /// Takes back the last device of a claim.
    fn give_back(&mut self, claim: usize) {
        let Some(placed) = self.given[claim].pop() else { return };
        let at = placed.device;
        if let Some(part) = &placed.part {
            let (count, amounts) = self.parts.entry(at).or_default();
            *count -= 1;
            for (name, amount) in part.iter() {
                *amounts.entry(name.clone()).or_default() -= amount;
            }
        } else if let Some(claims) = self.used.get_mut(&at) {
            claims.remove(&claim);
        }
        let pool = self.devices[at].1;
        self.uncount(at, pool, placed.counted);
        let asked = self.asked(claim, placed.request, placed.alternative);
        self.constraints[claim].iter_mut().for_each(|constraint| constraint.remove(asked));
    }

    fn taken(&self, at: usize) -> Option<&'a Taken> {
        *self.taken[at].get_or_init(|| self.allocator.devices.taken(&self.devices[at].0.id()))
    }

    /// Whether nobody else has the device, as far as that matters to this request.
    fn is_free(&self, at: usize, asked: &Alternative<'_>, claim: usize) -> bool {
        let used = self.used.get(&at);
        if asked.admin_access {
            return used.is_none_or(|claims| !claims.contains(&claim));
        }
        used.is_none_or(BTreeSet::is_empty) && self.taken(at).is_none_or(|taken| taken.whole == 0)
    }

    /// What the request takes of the device: `Some(None)` for all of it, `None` if that is not there.
    fn part_of(&self, asked: &Alternative<'a>, at: usize) -> Option<Option<Consumed>> {
        let device = self.devices[at].0;
        let consumed = self.allocator.consumed(asked, device)?;
        if device.device.allow_multiple_allocations != Some(true) {
            return Some(None);
        }
        let none = BTreeMap::new();
        let chosen = self.parts.get(&at).map_or(&none, |(_, amounts)| amounts);
        capacity::is_left(device, &consumed, self.taken(at), chosen).then_some(Some(consumed))
    }

    /// Whether the device takes of counters now: one that is had in parts does so once.
    fn consumes(&self, at: usize) -> bool {
        let in_parts = self.devices[at].0.device.allow_multiple_allocations == Some(true);
        let has_parts = self.parts.get(&at).is_some_and(|(count, _)| *count > 0)
            || self.taken(at).is_some_and(|taken| taken.parts > 0);
        !(in_parts && has_parts)
    }

    /// Takes from the pool's counters what the device takes of them, if enough is left.
    fn count(&mut self, at: usize, pool: usize) -> bool {
        if !self.consumes(at) {
            return true;
        }
        let consumptions = self.devices[at].0.device.consumes_counters.as_deref().unwrap_or_default();
        if consumptions.is_empty() {
            return true;
        }
        let counters = self.counters.entry(pool).or_insert_with(|| left(&self.pools[pool], self.allocator));
        let amounts = consumptions.iter().flat_map(|consumption| {
            let counters = consumption.counters.iter();
            counters.map(move |(name, counter)| ((consumption.counter_set.as_str(), name.as_str()), counter))
        });
        let mut after = BTreeMap::new();
        for (key, counter) in amounts {
            let amount = Quantity::try_from(&counter.value).unwrap_or_default();
            let left = after.entry(key).or_insert_with(|| counters.get(&key).cloned().unwrap_or_default());
            *left -= &amount;
            if left.sign() < 0 && amount.sign() > 0 {
                return false;
            }
        }
        counters.extend(after);
        true
    }

    fn uncount(&mut self, at: usize, pool: usize, counted: bool) {
        let Some(counters) = self.counters.get_mut(&pool).filter(|_| counted) else { return };
        for consumption in self.devices[at].0.device.consumes_counters.iter().flatten() {
            for (name, counter) in &consumption.counters {
                let key = (consumption.counter_set.as_str(), name.as_str());
                *counters.entry(key).or_default() += &Quantity::try_from(&counter.value).unwrap_or_default();
            }
        }
    }

    /// Adds the device under all constraints of the claim, or under none.
    fn constrain(&mut self, claim: usize, asked: (&Request<'a>, &Alternative<'a>), device: &PoolDevice<'a>) -> bool {
        let constraints = &mut self.constraints[claim];
        let refused = constraints.iter_mut().position(|constraint| !constraint.add(asked, device));
        let Some(refused) = refused else { return true };
        constraints[..refused].iter_mut().for_each(|constraint| constraint.remove(asked));
        false
    }

    /// What a claim was given, and by which alternatives.
    pub(super) fn solution(&self, claim: usize) -> (&[usize], Vec<Given<'s, 'a>>) {
        let given = self.given[claim].iter().map(|placed| Given {
            request: placed.request,
            alternative: placed.alternative,
            device: self.devices[placed.device].0,
            part: placed.part.clone(),
        });
        (&self.chosen[claim], given.collect())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Solved,
    On,
    Stuck,
}

impl Alternative<'_> {
    /// Whether a taint of the device keeps the request off it.
    fn keeps_off(&self, device: &PoolDevice<'_>) -> bool {
        let mut taints = device.device.taints.iter().flatten();
        taints.any(|taint| {
            let value = taint.value.as_deref().unwrap_or_default();
            let parts = TaintParts { key: &taint.key, value, effect: &taint.effect };
            let tolerated = self.tolerations.iter().any(|toleration| {
                let asked = TaintParts::new(&toleration.key, &toleration.value, &toleration.effect);
                asked.tolerates(toleration.operator.as_deref(), parts)
            });
            matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute") && !tolerated
        })
    }
}

/// What claims have left of a pool's counters.
fn left<'a>(pool: &Pool<'a>, allocator: &Allocator<'a>) -> Counters<'a> {
    let sets = pool.counters.values().flat_map(|set| {
        let counters = set.counters.iter();
        counters.map(move |(name, counter)| {
            ((set.name.as_str(), name.as_str()), Quantity::try_from(&counter.value).unwrap_or_default())
        })
    });
    let mut left: Counters<'a> = sets.collect();
    for device in pool.consumers(allocator.devices) {
        for consumption in device.consumes_counters.iter().flatten() {
            for (name, counter) in &consumption.counters {
                if let Some(amount) = left.get_mut(&(consumption.counter_set.as_str(), name.as_str())) {
                    *amount -= &Quantity::try_from(&counter.value).unwrap_or_default();
                }
            }
        }
    }
    left
}
