//! Finds devices for a pod's claims on a node. Pure, and bounded in its steps.
//!
//! Upstream: `k8s.io/dynamic-resource-allocation/structured`.

mod capacity;
mod constraints;
mod pools;
mod requests;
mod results;
mod search;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
};

use k8s_openapi::api::{
    core::v1::Node,
    resource::v1::{AllocationResult, ResourceClaim},
};
use orchestrator_core::{quantity::Quantity, scheduler::Devices};

pub(super) use self::requests::requests_of;
use self::{
    pools::{PoolDevice, PoolState, Slices},
    requests::{Alternative, Wanted},
    search::Search,
};
use super::cel::{SelectorError, View};
use crate::limits::ALLOCATION_STEPS;

/// Finds devices for claims, on one node after another.
pub(super) struct Allocator<'a> {
    devices: &'a Devices,
    slices: Slices<'a>,
    claims: Result<Vec<Wanted<'a>>, NoAllocation>,
    /// How many steps are left for all nodes together.
    steps: Cell<u64>,
    /// Of these, how many may be taken for one node, and how many must not be touched for the present one.
    per_node: u64,
    reserve: Cell<u64>,
    known: RefCell<Known>,
}

/// What was found out about devices; they are known by their addresses, which do not change meanwhile.
#[derive(Default)]
struct Known {
    views: BTreeMap<usize, View>,
    /// By device and alternative.
    selected: BTreeMap<(usize, usize), bool>,
    consumed: BTreeMap<(usize, usize), Option<Consumed>>,
}

/// What a request takes of each capacity of a device.
type Consumed = Rc<BTreeMap<String, Quantity>>;

/// Why there are no devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoAllocation {
    /// Not all claims can have what they want.
    TooFew,
    /// As before, and pools are invalid.
    InvalidPools,
    /// No steps are left.
    Spent,
    /// Something is wrong with a claim or a class, in upstream's words.
    Failed(String),
}

impl NoAllocation {
    /// In upstream's words.
    pub(super) fn message(&self) -> String {
        match self {
            Self::TooFew => "cannot allocate all claims".to_owned(),
            Self::InvalidPools => "invalid resource pools were encountered".to_owned(),
            Self::Spent => "timed out trying to allocate devices".to_owned(),
            Self::Failed(message) => message.clone(),
        }
    }
}

impl<'a> Allocator<'a> {
    /// For claims that have no devices yet.
    pub(super) fn new(devices: &'a Devices, claims: &[&'a ResourceClaim], per_node: u64) -> Self {
        let mut steps = ALLOCATION_STEPS;
        let claims = requests::read(claims, devices, &mut steps);
        Self {
            devices,
            slices: Slices::new(devices),
            claims,
            steps: Cell::new(steps),
            per_node,
            reserve: Cell::new(0),
            known: RefCell::default(),
        }
    }

    /// What each claim gets on a node, in their order. Parts of devices have no IDs yet.
    pub(super) fn allocate(&self, node: &Node) -> Result<Vec<AllocationResult>, NoAllocation> {
        self.reserve.set(self.steps.get().saturating_sub(self.per_node));
        let pools = self.slices.pools(node, |steps| self.spend(steps))?;
        let mut search = Search::new(self, &pools)?;
        if !search.run()? {
            let invalid = pools.iter().any(|pool| pool.state == PoolState::Invalid);
            return Err(if invalid { NoAllocation::InvalidPools } else { NoAllocation::TooFew });
        }
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let results = self.wanted().iter().enumerate().map(|(at, wanted)| {
            let (chosen, given) = search.solution(at);
            results::allocation(wanted, chosen, &given, name).map_err(NoAllocation::Failed)
        });
        results.collect()
    }

    fn claims(&self) -> Result<&[Wanted<'a>], NoAllocation> {
        self.claims.as_deref().map_err(NoAllocation::clone)
    }

    /// The claims; none if they cannot be read.
    fn wanted(&self) -> &[Wanted<'a>] {
        self.claims.as_deref().unwrap_or_default()
    }

    /// Takes steps away.
    fn spend(&self, steps: u64) -> Result<(), NoAllocation> {
        let left = self.left().checked_sub(steps);
        self.steps.set(self.reserve.get() + left.unwrap_or(0));
        left.map(drop).ok_or(NoAllocation::Spent)
    }

    /// How many steps are left for the present node.
    fn left(&self) -> u64 {
        self.steps.get().saturating_sub(self.reserve.get())
    }

    /// Whether the selectors of a request and its class select a device. Asked once for both.
    fn is_selected(&self, wanted: &Alternative<'a>, device: &PoolDevice<'a>) -> Result<bool, NoAllocation> {
        let pair = addresses(wanted, device);
        if let Some(selected) = self.known.borrow().selected.get(&pair) {
            return Ok(*selected);
        }
        let selected = wanted.selectors.is_empty() || self.select(wanted, device, pair.0)?;
        self.known.borrow_mut().selected.insert(pair, selected);
        Ok(selected)
    }

    /// What a request takes of a device; `None` if the device cannot meet it even when it is free. Worked out once for both.
    fn consumed(&self, wanted: &Alternative<'a>, device: &PoolDevice<'a>) -> Option<Consumed> {
        let work_out = || capacity::consumed(device, wanted).map(Rc::new);
        self.known.borrow_mut().consumed.entry(addresses(wanted, device)).or_insert_with(work_out).clone()
    }

    fn select(&self, wanted: &Alternative<'a>, device: &PoolDevice<'a>, address: usize) -> Result<bool, NoAllocation> {
        let make = || View::of(device.device, device.driver());
        let view = self.known.borrow_mut().views.entry(address).or_insert_with(make).clone();
        for selecting in &wanted.selectors {
            let place = &selecting.place;
            let selector = match &*selecting.selector {
                Ok(selector) => selector,
                Err(error) => return Err(NoAllocation::Failed(format!("{place}: CEL compile error: {error}"))),
            };
            let mut left = self.left();
            let selected = selector.selects(&view, &mut left);
            self.steps.set(self.reserve.get() + left);
            match selected {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(SelectorError::Spent) => return Err(NoAllocation::Spent),
                Err(SelectorError::Failed(error)) => {
                    let device = device.id();
                    let message = format!("{place} on device {device}: CEL runtime error: {error}");
                    return Err(NoAllocation::Failed(message));
                }
            }
        }
        Ok(true)
    }
}

/// What a device and a request are known by.
fn addresses(wanted: &Alternative<'_>, device: &PoolDevice<'_>) -> (usize, usize) {
    (std::ptr::from_ref(device.device) as usize, std::ptr::from_ref(wanted) as usize)
}

#[cfg(test)]
mod oracle_tests;
#[cfg(test)]
mod tests;
